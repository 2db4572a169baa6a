//! Wires that break: peers that vanish, addresses that cannot be, frames that do not fit. Bare sockets at both ends.
//!
//! ```text
//!  near (UDP) -- edge [netdevd, hub 1] wire ==== under test
//! ```

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use serde_json::{Value, json};
use tests::daemon::Daemon;
use tests::lab::Lab;
use tests::netns::NetNs;
use tests::skip::{Need, ready};
use tests::wait::{self, PATIENCE};

const NEEDS: &[Need] = &[Need::Namespaces];

fn inet(port: u16) -> Value {
    json!({"type": "inet", "host": "127.0.0.1", "port": port.to_string()})
}

fn lab() -> Lab {
    let home = NetNs::new();
    let (daemon, qmp) = Daemon::netdevd_within(&home, &[]);
    Lab { qmp, daemon, home }
}

fn udp(lab: &Lab, port: u16) -> UdpSocket {
    let socket = lab.home.inside(|| UdpSocket::bind(("127.0.0.1", port)).expect("a port"));
    socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    socket
}

/// A `dgram` netdev on a hub; the test's end of it.
fn edge(lab: &mut Lab, hub: i32, id: &str, port: u16) -> UdpSocket {
    let near = udp(lab, port);
    near.connect(("127.0.0.1", port + 1)).expect("an address");
    lab.qmp
        .ok("netdev_add", json!({"type": "dgram", "id": id, "local": inet(port + 1), "remote": inet(port)}));
    lab.hub(hub, &[id]);
    near
}

fn frame(len: usize, mark: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31) ^ mark).collect()
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut bytes = vec![0; 70_000];
    let n = socket.recv(&mut bytes).expect("a datagram in time");
    bytes.truncate(n);
    bytes
}

fn dropped(lab: &mut Lab, name: &str, reason: &str) -> u64 {
    let stats = lab.qmp.ok("query-net-stats", json!({}));
    let ports = stats["ports"].as_array().expect("ports");
    let port = ports.iter().find(|port| port["name"] == name).expect("the netdev");
    port["drops"][reason].as_u64().unwrap_or(0)
}

/// Waits until all frames of the wire are sent or dropped.
#[track_caller]
fn settled(lab: &mut Lab, frames: u64) {
    let gone = wait::until(PATIENCE, || {
        let (_, tx, drops) = lab.port("wire");
        (tx + drops == frames).then_some(())
    });
    assert!(gone.is_some(), "{:?} instead of {frames} frames", lab.port("wire"));
}

/// ICMP tells a connected socket that nobody is at the port.
#[test]
fn a_connected_socket_survives_a_port_that_closes_and_opens() {
    if !ready("a_connected_socket_survives_a_port_that_closes_and_opens", NEEDS) {
        return;
    }
    let mut lab = lab();
    let near = edge(&mut lab, 1, "edge", 2000);
    let given = udp(&lab, 4000);
    given.connect("127.0.0.1:4001").expect("an address");
    lab.qmp.execute_with("getfd", json!({"fdname": "f"}), &[given.as_fd()]).expect("taken");
    drop(given);
    lab.qmp.ok("netdev_add", json!({"type": "dgram", "id": "wire", "local": {"type": "fd", "str": "f"}}));
    lab.hub(1, &["wire"]);
    let mut frames = 0;
    for round in 0..3 {
        for mark in 0..20 {
            near.send(&frame(100, mark)).expect("a datagram");
            frames += 1;
            settled(&mut lab, frames);
        }
        let peer = udp(&lab, 4001);
        peer.connect("127.0.0.1:4000").expect("an address");
        for mark in 0..20 {
            near.send(&frame(200, mark ^ round)).expect("a datagram");
            assert!(receive(&peer) == frame(200, mark ^ round), "round {round}, frame {mark}");
            peer.send(&frame(300, mark ^ round)).expect("a datagram");
            assert!(receive(&near) == frame(300, mark ^ round), "round {round}, frame {mark} back");
        }
        frames += 20;
        settled(&mut lab, frames);
        // What the kernel says of one datagram costs no later one.
        assert_eq!(lab.port("wire").2, 0, "round {round}");
        let state = lab.qmp.ok("query-netdev", json!({"name": "wire"}));
        assert_eq!(state[0]["transport"]["state"], "ready", "{state}");
    }
}

#[test]
fn what_fits_in_no_datagram_is_dropped_by_name() {
    if !ready("what_fits_in_no_datagram_is_dropped_by_name", NEEDS) {
        return;
    }
    let mut lab = lab();
    // Only a stream carries longer frames.
    let path = lab.daemon.directory().join("near");
    let addr = json!({"type": "unix", "path": path});
    lab.qmp.ok("netdev_add", json!({"type": "stream", "id": "near", "server": true, "addr": addr}));
    let mut near = wait::until(PATIENCE, || UnixStream::connect(&path).ok()).expect("it listens");
    lab.hub(1, &["near"]);
    let far = udp(&lab, 3000);
    for wire in [
        json!({"type": "dgram", "id": "wire", "local": inet(3001), "remote": inet(3000)}),
        json!({"type": "socket", "id": "wire", "udp": "127.0.0.1:3000", "localaddr": "127.0.0.1:3001"}),
    ] {
        lab.qmp.ok("netdev_add", wire);
        lab.hub(1, &["wire"]);
        for (count, length) in [65_507, 65_508, 69_632].into_iter().enumerate() {
            use std::io::Write;
            for bytes in [frame(length, 1), frame(60, 2)] {
                let bytes = [&(bytes.len() as u32).to_be_bytes()[..], &bytes].concat();
                near.write_all(&bytes).expect("it is taken");
            }
            if length == 65_507 {
                assert!(receive(&far) == frame(length, 1));
            }
            assert!(receive(&far) == frame(60, 2), "it goes on behind {length} bytes");
            assert_eq!(dropped(&mut lab, "wire", "too-long"), count as u64);
        }
        for id in ["wire-port", "wire"] {
            lab.qmp.ok("netdev_del", json!({"id": id}));
        }
    }
}

#[test]
fn a_unix_socket_that_is_taken_away_is_missed_by_name_until_it_is_back() {
    if !ready("a_unix_socket_that_is_taken_away_is_missed_by_name_until_it_is_back", NEEDS) {
        return;
    }
    let mut lab = lab();
    let near = edge(&mut lab, 1, "edge", 2000);
    let path = |name: &str| lab.daemon.directory().join(name);
    let (ours, theirs) = (path("ours"), path("theirs"));
    let at = |path: &std::path::Path| json!({"type": "unix", "path": path});
    let wire = json!({"type": "dgram", "id": "wire", "local": at(&ours), "remote": at(&theirs)});
    lab.qmp.ok("netdev_add", wire);
    lab.hub(1, &["wire"]);
    let (mut frames, mut lost) = (0, 0);
    for round in 0..3 {
        // Round 0: no file; then a file that nobody has open any more; then none again.
        for mark in 0..10 {
            near.send(&frame(100, mark)).expect("a datagram");
            (frames, lost) = (frames + 1, lost + 1);
            settled(&mut lab, frames);
        }
        assert_eq!(dropped(&mut lab, "wire", "not-connected"), lost, "round {round}");
        if round > 0 {
            std::fs::remove_file(&theirs).ok();
        }
        let peer = UnixDatagram::bind(&theirs).expect("a path");
        peer.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let mut bytes = [0; 1000];
        for mark in 0..10 {
            near.send(&frame(100, mark)).expect("a datagram");
            let n = peer.recv(&mut bytes).expect("a datagram");
            assert!(bytes[..n] == frame(100, mark), "round {round}, frame {mark}");
            frames += 1;
        }
        settled(&mut lab, frames);
        if round == 1 {
            std::fs::remove_file(&theirs).expect("it is there");
        }
    }
}

/// As QEMU means it: the descriptor's place is taken by a socket of the group.
#[test]
fn a_group_may_be_joined_in_the_place_of_a_descriptor() {
    if !ready("a_group_may_be_joined_in_the_place_of_a_descriptor", NEEDS) {
        return;
    }
    let mut lab = lab();
    lab.home.ip("route add 239.0.0.0/8 dev lo");
    let ends = [edge(&mut lab, 1, "edge1", 2000), edge(&mut lab, 2, "edge2", 2100)];
    let group = json!({"type": "inet", "host": "239.7.7.7", "port": "3000"});
    for (hub, id) in [(1, "m1"), (2, "m2")] {
        let given = udp(&lab, 0);
        lab.qmp.execute_with("getfd", json!({"fdname": "f"}), &[given.as_fd()]).expect("taken");
        let local = json!({"type": "fd", "str": "f"});
        lab.qmp.ok("netdev_add", json!({"type": "dgram", "id": id, "local": local, "remote": group}));
        lab.hub(hub, &[id]);
    }
    let info = lab.qmp.ok("human-monitor-command", json!({"command-line": "info network"}));
    assert!(info.as_str().is_some_and(|info| info.contains(" (cloned mcast=239.7.7.7:3000)")), "{info}");
    for (mark, (from, to)) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])].into_iter().enumerate() {
        for len in [14, 60, 1514, 9000] {
            from.send(&frame(len, mark as u8)).expect("a datagram");
            assert!(receive(to) == frame(len, mark as u8), "{len} bytes");
            assert!(receive(from) == frame(len, mark as u8), "{len} bytes, its own");
        }
    }
}

#[test]
fn addresses_that_are_taken_or_of_another_kind_are_named_at_once() {
    if !ready("addresses_that_are_taken_or_of_another_kind_are_named_at_once", NEEDS) {
        return;
    }
    let mut lab = lab();
    let _busy = udp(&lab, 3000);
    let l2tpv3 = |src: &str, port: &str| json!({"type": "l2tpv3", "src": src, "dst": "127.0.0.1", "udp": true, "srcport": port, "dstport": "1", "txsession": 1});
    for (mut options, said) in [
        (
            json!({"type": "socket", "mcast": "10.0.0.1:3001"}),
            "specified mcastaddr 10.0.0.1 (0x0a000001) does not contain a multicast address",
        ),
        (json!({"type": "socket", "mcast": "x.invalid:3001"}), "can't resolve host address 'x.invalid'"),
        (
            json!({"type": "dgram", "local": {"type": "inet", "host": "198.51.100.1", "port": "1"}, "remote": inet(1)}),
            "can't bind ip=198.51.100.1 to socket: Cannot assign requested address",
        ),
        (
            json!({"type": "dgram", "local": {"type": "unix", "path": "/nonexistent/s"}, "remote": {"type": "unix", "path": "/s"}}),
            "can't bind unix=/nonexistent/s to socket: No such file or directory",
        ),
        (l2tpv3("127.0.0.1", "3000"), "could not bind socket err=98"),
        (l2tpv3("x.invalid", "1"), "could not resolve src, errno = "),
        (l2tpv3("127.0.0.1", "nosuchservice"), "could not resolve src, errno = "),
        (json!({"type": "vde", "sock": "/nonexistent/sw"}), "Could not open vde: No such file or directory"),
    ] {
        options["id"] = json!("wire");
        let refused = lab.qmp.refused("netdev_add", options.clone());
        assert!(refused.starts_with(said), "{options}: {refused}");
    }
    // Two that share an address, as QEMU lets them: SO_REUSEADDR.
    lab.qmp
        .ok("netdev_add", json!({"type": "dgram", "id": "wire", "local": inet(3001), "remote": inet(3002)}));
}
