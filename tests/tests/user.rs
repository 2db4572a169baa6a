//! A guest's namespace on a `user` netdev: DHCP, ping, TCP both ways, services, and a process that is killed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tests::daemon::netdevd;
use tests::lab::Lab;
use tests::netns::NetNs;
use tests::skip::{Need, ready};
use tests::wait::{PATIENCE, output, until};

const NEEDS: &[Need] = &[Need::Root, Need::Tap];
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// Whether the process is built; a build without libslirp has none.
fn has_process(test: &str) -> bool {
    let there = netdevd().with_file_name("netdevd-user").is_file();
    if !there {
        println!("SKIP {test}: needs netdevd-user");
    }
    there && ready(test, NEEDS)
}

/// A guest's tap and a user netdev on a hub.
fn guest(options: &Value) -> (Lab, NetNs) {
    let mut lab = Lab::new(&[]);
    let place = lab.home.sibling();
    lab.tap_at("guest", &place, GUEST);
    place.ip("route add default via 10.0.2.2");
    let mut all = json!({"type": "user", "id": "u"});
    all.as_object_mut().expect("an object").extend(options.as_object().cloned().unwrap_or_default());
    lab.qmp.ok("netdev_add", all);
    lab.hub(1, &["guest", "u"]);
    (lab, place)
}

/// Listens, takes one connection, and gives back what comes until its end.
fn echo_once(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().expect("a connection");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("all bytes");
    stream.write_all(&bytes).expect("all bytes go back");
}

/// Sends text and gives what comes back.
fn exchange(to: (&str, u16), bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let to = SocketAddr::new(to.0.parse().expect("an address"), to.1);
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    Ok(back)
}

/// The guest listens on a port, and the host reaches it by a forward.
fn reaches_guest(lab: &Lab, place: &NetNs, host: u16, guest: u16, bytes: &[u8]) {
    let listener = place.inside(|| TcpListener::bind(("0.0.0.0", guest)).expect("a port of the guest"));
    std::thread::scope(|scope| {
        scope.spawn(|| echo_once(&listener));
        let back = until(PATIENCE, || lab.home.inside(|| exchange(("127.0.0.1", host), bytes)).ok());
        assert!(back.as_deref() == Some(bytes), "what came back is something else");
    });
}

/// The host listens on its loopback, and the guest reaches it at the gateway.
fn reaches_host(lab: &Lab, place: &NetNs, port: u16, bytes: &[u8]) {
    let listener = lab.home.inside(|| TcpListener::bind(("127.0.0.1", port)).expect("a port of the host"));
    std::thread::scope(|scope| {
        scope.spawn(|| echo_once(&listener));
        let back = place.inside(|| exchange(("10.0.2.2", port), bytes)).expect("the host answers");
        assert!(back == bytes, "what came back is something else");
    });
}

#[test]
fn a_guest_has_its_network_and_forwards_lead_to_it() {
    if !has_process("a_guest_has_its_network_and_forwards_lead_to_it") {
        return;
    }
    let (mut lab, place) = guest(&json!({
        "hostfwd": [{"str": "tcp:127.0.0.1:2201-:81"}],
        "guestfwd": [{"str": "tcp:10.0.2.100:80-cmd:sed s/^/told-/"}],
    }));
    place.run("ping", &["-c", "1", "-W", "5", "10.0.2.2"]);
    let bulk: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 7) as u8).collect();
    reaches_host(&lab, &place, 8081, &bulk);
    reaches_guest(&lab, &place, 2201, 81, &bulk);
    lab.qmp.ok(
        "netdev-user-forward-add",
        json!({"id": "u", "host-addr": "127.0.0.1", "host-port": 2202, "guest-addr": "10.0.2.15", "guest-port": 82}),
    );
    reaches_guest(&lab, &place, 2202, 82, b"by another way");
    let told = place.inside(|| exchange(("10.0.2.100", 80), b"one\ntwo\n")).expect("the command answers");
    assert_eq!(String::from_utf8_lossy(&told), "told-one\ntold-two\n");
    let all = lab.qmp.ok("query-netdev-user", json!({"id": "u"}));
    assert_eq!(all[0]["forwards"].as_array().map(Vec::len), Some(2), "{all}");
    let table = lab.qmp.ok("human-monitor-command", json!({"command-line": "info usernet"}));
    let table = table.as_str().expect("text");
    assert!(table.starts_with("Hub 1 (u):\r\n  Protocol[State]    FD"), "{table}");
    assert!(table.contains("  TCP[HOST_FORWARD]"), "{table}");
    lab.qmp.ok("netdev-user-forward-remove", json!({"id": "u", "host-addr": "127.0.0.1", "host-port": 2202}));
    assert!(lab.home.inside(|| exchange(("127.0.0.1", 2202), b"x")).is_err(), "it listens still");
    lab.qmp.ok("netdev_del", json!({"id": "u"}));
    assert!(lab.home.inside(|| exchange(("127.0.0.1", 2201), b"x")).is_err(), "it listens still");
}

#[test]
fn a_dhcp_client_is_told_the_network() {
    if !has_process("a_dhcp_client_is_told_the_network") || !ready("dhcp", &[Need::Tool("busybox")]) {
        return;
    }
    let (lab, place) = guest(&json!({"hostname": "guest", "domainname": "inside"}));
    let script = lab.daemon.directory().join("told");
    std::fs::write(
        &script,
        "#!/bin/sh\n[ \"$1\" = bound ] && echo $ip $router $dns $hostname $domain\nexit 0\n",
    )
    .expect("a script");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("executable");
    let mut client = place.command("busybox");
    client.args(["udhcpc", "-i", "guest", "-n", "-q", "-f", "-s"]).arg(&script);
    let output = output(&client, 30);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("10.0.2.15 10.0.2.2 10.0.2.3 guest inside"), "{text}{output:?}");
}

#[test]
fn a_process_that_is_killed_in_mid_transfer_is_replaced_and_nothing_else_is_disturbed() {
    if !has_process("a_process_that_is_killed_in_mid_transfer_is_replaced_and_nothing_else_is_disturbed") {
        return;
    }
    let (mut lab, place) = guest(&json!({"hostfwd": [{"str": "tcp:127.0.0.1:2203-:83"}]}));
    let listener = lab.home.inside(|| TcpListener::bind("127.0.0.1:8083").expect("a port of the host"));
    let mut sending = place.inside(|| TcpStream::connect("10.0.2.2:8083").expect("the host answers"));
    let (mut receiving, _) = listener.accept().expect("a connection");
    sending.write_all(&[1; 100_000]).expect("bytes go");
    receiving.read_exact(&mut [0; 1000]).expect("bytes come");
    let all = lab.qmp.ok("query-netdev-user", json!({}));
    let pid = all[0]["pid"].as_i64().expect("a process");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it is there");
    let event = lab.qmp.event("NETDEV_USER_RESTARTED", PATIENCE).expect("an event");
    assert_eq!(event["data"], json!({"netdev-id": "u", "reason": "killed by signal 9"}));
    reaches_guest(&lab, &place, 2203, 83, b"again");
    reaches_host(&lab, &place, 8084, b"again");
    let state = lab.qmp.ok("query-netdev", json!({"name": "u"}));
    assert_eq!((&state[0]["transport"]["state"], &state[0]["link"]), (&json!("ready"), &json!(true)));
}
