//! Ports that come and go under traffic, rights that are missing, and a guest whose checksums the kernel computes.

use super::NEEDS;
use super::wire::{BROADCAST, SOURCE, Wire, add, has_program, options};
use af_xdp::{Filter, Program};
use serde_json::json;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use tests::daemon::Daemon;
use tests::guest::{Guest, HEADER};
use tests::lab::Lab;
use tests::nics::{SPLIT, Split, socket};
use tests::packet::frame;
use tests::skip::{Need, ready};
use tests::wait;

#[test]
fn ports_come_and_go_and_no_frame_memory_is_lost() {
    if !ready("ports_come_and_go_and_no_frame_memory_is_lost", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let [one, two, other] = ["one", "two", "other"].map(|name| Wire::new(&lab.home, name));
    add(&mut lab, &one, &json!({}));
    lab.hub(0, &["one"]);
    let mut sent = 0;
    // Each holds a quarter of the worker's UMEM: a leak would show after four rounds.
    for round in 0..24u32 {
        add(&mut lab, &two, &json!({}));
        add(&mut lab, &other, &json!({}));
        lab.hub(0, &["two", "other"]);
        for number in 0..50 {
            one.socket.send(&frame(BROADCAST, SOURCE, &(round * 50 + number).to_be_bytes().repeat(16)));
        }
        sent += 50;
        wait::until(wait::PATIENCE, || (lab.port("one").0 >= sent).then_some(())).expect("all frames come");
        for name in ["two-port", "two", "other-port", "other"] {
            lab.qmp.ok("netdev_del", json!({"id": name}));
        }
        assert!(!has_program(&lab.home, "two"), "round {round}");
    }
    add(&mut lab, &two, &json!({}));
    lab.hub(0, &["two"]);
    let _ = two.payloads();
    one.socket.send(&frame(BROADCAST, SOURCE, b"the last one, longer than the sixty bytes of a frame"));
    assert_eq!(two.payloads(), [b"the last one, longer than the sixty bytes of a frame"]);
    let (rx, _, drops) = lab.port("one");
    assert_eq!((rx, drops), (sent + 1, 0));
    let kernel = super::wire::state(&mut lab, "one")["kernel"].clone();
    assert_eq!((&kernel["rx-dropped"], &kernel["rx-ring-full"]), (&json!(0), &json!(0)), "{kernel}");
}

#[test]
fn without_rights_the_error_names_them_and_given_sockets_work() {
    if !ready(
        "without_rights_the_error_names_them_and_given_sockets_work",
        &[Need::Root, Need::Tool("setpriv")],
    ) {
        return;
    }
    let lab = Lab::new(&[]);
    let wire = Wire::new(&lab.home, "one");
    let rights = "-net_raw,-net_admin,-sys_admin,-bpf";
    let daemon = Daemon::of(tests::daemon::Program::Netdevd)
        .within(&lab.home)
        .args(["-idle", "poll"])
        .under(["setpriv", "--bounding-set", rights, "--inh-caps", rights])
        .start();
    let mut qmp = daemon.client();
    let error = qmp.refused("netdev_add", options("a", &wire.near, &json!({})));
    let want =
        "failed to create AF_XDP socket for one queue_id: 0: Operation not permitted (CAP_NET_RAW is needed";
    assert!(error.starts_with(want), "{error}");
    let (program, socket) = lab.home.inside(|| {
        let index = nix::net::if_::if_nametoindex("one").expect("the link is there");
        let program = Program::attach(index, None, &Filter::default(), 4).expect("attaches");
        (program, af_xdp::socket::create().expect("a socket"))
    });
    program.map().insert(0, socket.as_fd()).expect("enters");
    qmp.execute_with("getfd", json!({"fdname": "xsk"}), &[socket.as_fd()]).expect("getfd");
    qmp.ok("netdev_add", options("a", "one", &json!({"inhibit": true, "sock-fds": "xsk"})));
    wire.socket.send(&frame(BROADCAST, SOURCE, &[5; 80]));
    let came = wait::until(wait::PATIENCE, || {
        let stats = qmp.ok("query-net-stats", json!({}));
        (stats["ports"][0]["rx-frames"].as_u64() >= Some(1)).then_some(())
    });
    came.expect("a frame comes by the given socket");
}

/// A guest's datagram whose checksum is still to be computed from byte 34 on.
fn datagram(payload: &[u8]) -> ([u8; HEADER], Vec<u8>) {
    let udp_len = 8 + payload.len() as u16;
    let mut frame = vec![0xff; 6];
    frame.extend(SOURCE);
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((20 + udp_len).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 7, 0, 1, 10, 7, 0, 2]);
    let sum = |bytes: &[u8]| {
        let total: u32 =
            bytes.chunks(2).map(|b| u32::from(u16::from_be_bytes([b[0], *b.get(1).unwrap_or(&0)]))).sum();
        (total & 0xffff) as u16 + (total >> 16) as u16
    };
    let ip = !sum(&frame[14..34]);
    frame[24..26].copy_from_slice(&ip.to_be_bytes());
    let pseudo = sum(&[&frame[26..34], &[0, 17], &udp_len.to_be_bytes()].concat());
    frame.extend(5000u16.to_be_bytes());
    frame.extend(5001u16.to_be_bytes());
    frame.extend(udp_len.to_be_bytes());
    frame.extend(pseudo.to_be_bytes());
    frame.extend(payload);
    let mut header = [0; HEADER];
    header[0] = 1;
    header[6..8].copy_from_slice(&34u16.to_le_bytes());
    header[8..10].copy_from_slice(&6u16.to_le_bytes());
    (header, frame)
}

#[test]
fn a_checksum_that_a_guest_left_is_right_when_it_arrives() {
    if !ready("a_checksum_that_a_guest_left_is_right_when_it_arrives", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let wire = Wire::new(&lab.home, "one");
    wire.place.up(&wire.far, Ipv4Addr::new(10, 7, 0, 2));
    add(&mut lab, &wire, &json!({}));
    lab.qmp.ok("netdev_add", json!({"type": "nic", "id": "n0", "netdev": "one", "addr": "n0.sock"}));
    // VIRTIO_NET_F_CSUM: it may leave checksums to others.
    let mut guest: Split = Guest::connect_with(&socket(&lab.daemon, "n0"), SPLIT, 1, 1).expect("a guest");
    let receiver = wire.place.inside(|| UdpSocket::bind("10.7.0.2:5001").expect("binds"));
    receiver.set_read_timeout(Some(wait::PATIENCE)).expect("a limit");
    // A checksum beyond the frame, at its very end, and beyond what a number holds: dropped by name, and nobody behind it waits.
    for (start, offset) in [(2000u16, 6u16), (34, 60), (u16::MAX, u16::MAX)] {
        let (mut header, frame) = datagram(b"a lie");
        header[6..8].copy_from_slice(&start.to_le_bytes());
        header[8..10].copy_from_slice(&offset.to_le_bytes());
        assert!(guest.send_with(header, &frame));
    }
    for payload in [&b"short"[..], &[0xa5; 1400]] {
        let (header, frame) = datagram(payload);
        assert!(guest.send_with(header, &frame));
        let mut got = [0; 2000];
        let len = receiver.recv(&mut got).expect("the kernel takes the datagram: its checksum is right");
        assert_eq!(&got[..len], payload);
    }
    let stats = lab.qmp.ok("query-net-stats", json!({})).to_string();
    assert!(stats.contains("\"bad-offload\":3"), "{stats}");
    let snmp = wire.place.run("cat", &["/proc/net/snmp"]);
    let udp: Vec<&str> = snmp.lines().filter(|line| line.starts_with("Udp:")).collect();
    let at = udp[0].split(' ').position(|name| name == "InCsumErrors").expect("the counter");
    assert_eq!(udp[1].split(' ').nth(at), Some("0"));
}
