//! `passt` netdevs: the real passt between a tap and the world, and programs of a few lines in its place.

mod bad;
mod life;
mod world;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use serde_json::json;
use tests::program;
use tests::skip::{Need, ready, record_beyond};
use tests::wait;
use world::{FAR, GUEST, World};

const NEEDS: &[Need] = &[Need::Root, Need::Tap, Need::Tool("passt")];

/// Bytes of a transfer: with megabytes, passt of 2023 stalls, on a stream of QEMU as much as on ours.
pub(crate) const AMOUNT: usize = 1 << 17;

/// Sends so many bytes by a new connection, and waits until all of them have come to the other end, which says so. Only then is it closed:
/// passt of 2023 passes a FIN on before all data that came with it.
pub(crate) fn transfer(listener: &TcpListener, connect: impl FnOnce() -> TcpStream, amount: usize) {
    let sent: Vec<u8> = (0..amount).map(|at| (at % 251) as u8).collect();
    let mut got = vec![0; amount];
    let patient = |stream: TcpStream| {
        stream.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(wait::PATIENCE)).expect("a timeout");
        stream
    };
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut stream = patient(listener.accept().expect("a connection").0);
            let mut count = 0;
            while count < amount {
                match stream.read(&mut got[count..]) {
                    Ok(more @ 1..) => count += more,
                    other => panic!("{count} of {amount} bytes came: {other:?}"),
                }
            }
            stream.write_all(b"!").expect("the word that all came");
        });
        let mut stream = patient(connect());
        stream.write_all(&sent).expect("sent");
        stream.read_exact(&mut [0]).expect("the word that all came");
        receiver.join().expect("the receiver");
    });
    assert!(got == sent, "what came is not what was sent");
}

#[test]
fn ping_tcp_and_udp_pass_both_ways() {
    if !ready("ping_tcp_and_udp_pass_both_ways", NEEDS) {
        return;
    }
    both_ways(&mut World::new(&json!({"tcp-ports": [{"str": "7000"}], "udp-ports": [{"str": "7001"}]})));
}

/// Whether the passt at hand can do with rings.
pub(crate) fn knows_rings() -> bool {
    let help = std::process::Command::new("passt").arg("--help").output().expect("passt runs");
    String::from_utf8_lossy(&[help.stdout, help.stderr].concat()).contains("--vhost-user")
}

#[test]
fn ping_tcp_and_udp_pass_both_ways_on_rings() {
    const TEST: &str = "ping_tcp_and_udp_pass_both_ways_on_rings";
    if !ready(TEST, NEEDS) {
        return;
    }
    if !knows_rings() {
        return record_beyond(
            TEST,
            "needs a passt that knows --vhost-user (2024_11 and later); Debian 12's does not",
        );
    }
    let ports = json!({"vhost-user": true, "tcp-ports": [{"str": "7000"}], "udp-ports": [{"str": "7001"}]});
    let mut world = World::new(&ports);
    let transport = world.becomes("ready", "");
    assert_eq!(transport["io"], "ring", "{transport}");
    both_ways(&mut world);
    // Again, after its death.
    let pid = |transport: &serde_json::Value| {
        let pid = transport["info"].as_str().and_then(|info| info.rsplit(' ').next()).map(str::parse);
        pid.and_then(Result::ok).unwrap_or_else(|| panic!("{transport}"))
    };
    let first: i32 = pid(&transport);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL)
        .expect("it was there");
    let next =
        wait::until(wait::PATIENCE, || Some(pid(&world.becomes("ready", ""))).filter(|pid| *pid != first));
    assert!(next.is_some(), "it is not started again");
    both_ways(&mut world);
}

/// Sends by ping, TCP and UDP through passt, which forwards TCP port 7000 and UDP port 7001.
fn both_ways(world: &mut World) {
    world.guest.run("ping", &["-c", "3", "-i", "0.2", "-W", "5", &FAR.to_string()]);
    // Out by TCP.
    let listener = world.outside.inside(|| TcpListener::bind((FAR, 7100)).expect("a listener"));
    let connect = || world.guest.inside(|| TcpStream::connect((FAR, 7100)).expect("a connection out"));
    transfer(&listener, connect, AMOUNT);
    // In by TCP, through the port that was asked for.
    let listener = world.guest.inside(|| TcpListener::bind((GUEST, 7000)).expect("a listener"));
    let connect = || world.outside.inside(|| TcpStream::connect((GUEST, 7000)).expect("a connection in"));
    transfer(&listener, connect, AMOUNT);
    // UDP, out and in.
    let bound = |place: &tests::netns::NetNs, address: Ipv4Addr, port: u16| {
        let socket = place.inside(|| UdpSocket::bind((address, port)).expect("a socket"));
        socket.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
        socket
    };
    let (far, near) = (bound(&world.outside, FAR, 7101), bound(&world.guest, GUEST, 7001));
    let mut bytes = [0; 2000];
    near.send_to(&[7; 1400], (FAR, 7101)).expect("sent");
    let (length, from) = far.recv_from(&mut bytes).expect("it comes out");
    assert_eq!(&bytes[..length], &[7; 1400]);
    far.send_to(b"answer", from).expect("sent");
    let (length, from) = near.recv_from(&mut bytes).expect("the answer comes in");
    assert_eq!((&bytes[..length], from), (&b"answer"[..], SocketAddr::from((FAR, 7101))));
    far.send_to(b"in", (GUEST, 7001)).expect("sent");
    let (length, _) = near.recv_from(&mut bytes).expect("it comes in");
    assert_eq!(&bytes[..length], b"in");
}

#[test]
fn a_guest_gets_its_address_by_dhcp() {
    if !ready("a_guest_gets_its_address_by_dhcp", &[NEEDS, &[Need::Tool("busybox")]].concat()) {
        return;
    }
    let world = World::bare(
        &json!({"mtu": 1400, "dns": "192.0.2.53", "search": [{"str": "a.example"}, {"str": "b.example"}]}),
    );
    let directory = tests::daemon::directory();
    let (script, said) = (directory.path().join("script"), directory.path().join("said"));
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = bound ] && echo \"$ip $mask $router $mtu $dns $search\" >{}\nexit 0\n",
        said.display()
    );
    program::write(&script, &text);
    let script = script.to_string_lossy();
    world.guest.run(
        "busybox",
        &[
            "udhcpc", "-i", "t0", "-f", "-q", "-n", "-t", "10", "-T", "1", "-O", "mtu", "-O", "search", "-s",
            &script,
        ],
    );
    let lease = std::fs::read_to_string(said).expect("a lease");
    assert_eq!(lease.trim(), "192.0.2.2 24 192.0.2.1 1400 192.0.2.53 a.example b.example");
}
