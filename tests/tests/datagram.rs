//! Frames in datagrams between netdevd and a real QEMU 10.0: `dgram`, and `socket` without connections.
//!
//! ```text
//!  near -- edge [netdevd, hub 1] wire ==== wire [QEMU, hub 1] edge -- far
//! ```
//!
//! All on the loopback of a namespace; `near` and `far` are sockets of the test.

use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde_json::{Map, Value, json};
use tests::daemon::{Daemon, Program};
use tests::netns::NetNs;
use tests::qmp::Qmp;
use tests::skip::{Need, ready};
use tests::wait;

const NEEDS: &[Need] = &[Need::Root, Need::Namespaces, Need::Oracle];
const SIZES: &[usize] = &[1, 14, 60, 64, 1514, 9000, 65_506, 65_507];

/// Ports of the test's sockets; the edge beside each has the next one.
const NEAR: u16 = 2000;
const FAR: u16 = 2100;

/// One of the two programs.
struct Side {
    daemon: Daemon,
    qmp: Qmp,
}

impl Side {
    fn start(program: Program, place: &NetNs, outside: u16, wire: &Value, file: Option<&OwnedFd>) -> Self {
        let daemon = Daemon::of(program).within(place).start();
        let mut side = Self { qmp: daemon.client(), daemon };
        side.add("edge", &json!({"type": "dgram", "local": at(outside + 1), "remote": at(outside)}), None);
        side.add("wire", wire, file);
        side
    }

    fn add(&mut self, id: &str, options: &Value, file: Option<&OwnedFd>) {
        if let Some(file) = file {
            let files = [file.as_fd()];
            self.qmp.execute_with("getfd", json!({"fdname": id}), &files).expect("getfd");
        }
        let mut all = Map::from_iter([("id".to_owned(), json!(id))]);
        all.extend(options.as_object().cloned().expect("options"));
        self.qmp.ok("netdev_add", Value::Object(all));
        let port = json!({"type": "hubport", "id": format!("{id}-port"), "hubid": 1, "netdev": id});
        self.qmp.ok("netdev_add", port);
    }

    fn remove(&mut self, id: &str) {
        self.qmp.ok("netdev_del", json!({"id": format!("{id}-port")}));
        self.qmp.ok("netdev_del", json!({"id": id}));
    }
}

/// Both of them, and the sockets at their edges.
struct Rig {
    place: NetNs,
    ours: Side,
    theirs: Side,
    near: UdpSocket,
    far: UdpSocket,
}

fn at(port: u16) -> Value {
    json!({"type": "inet", "host": "127.0.0.1", "port": port.to_string()})
}

fn frame(size: usize, mark: u8) -> Vec<u8> {
    (0..size).map(|i| (i as u8).wrapping_mul(31).wrapping_add(mark)).collect()
}

impl Rig {
    fn new(ours: &Value, theirs: &Value, files: Option<(OwnedFd, OwnedFd)>) -> Self {
        let place = NetNs::new();
        place.ip("route add 239.0.0.0/8 dev lo");
        let socket = |port: u16| {
            let socket = place.inside(|| UdpSocket::bind(("127.0.0.1", port)).expect("a port of our own"));
            socket.connect(("127.0.0.1", port + 1)).expect("an address");
            socket.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
            socket
        };
        let (near, far) = (socket(NEAR), socket(FAR));
        let (one, other) = files.unzip();
        let theirs = Side::start(Program::Oracle, &place, FAR, theirs, other.as_ref());
        let ours = Side::start(Program::Netdevd, &place, NEAR, ours, one.as_ref());
        Self { place, ours, theirs, near, far }
    }

    /// Frames of each size go both ways and come out as they went in. Returns how often a sender got its own.
    fn pass(&self, sizes: &[usize]) {
        for (size, mark) in sizes.iter().zip(1..) {
            for (from, to, way) in [(&self.near, &self.far, "to QEMU"), (&self.far, &self.near, "from QEMU")]
            {
                let frame = frame(*size, mark);
                from.send(&frame).expect("a datagram");
                assert!(receive(to) == frame, "{size} bytes {way}");
            }
        }
    }

    /// A socket of a stranger in the namespace.
    fn stranger(&self) -> UdpSocket {
        self.place.inside(|| UdpSocket::bind("127.0.0.1:0").expect("a port"))
    }
}

/// The next datagram.
fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    let n = socket.recv(&mut buffer).expect("a datagram in time");
    buffer.truncate(n);
    buffer
}

/// That nothing more comes.
fn silent(socket: &UdpSocket) {
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    assert!(socket.recv(&mut [0; 8]).is_err(), "nobody sent this");
    socket.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
}

/// Both ends of a wire, in `dgram`'s words and in those of `socket`.
fn dgram(local: u16, remote: u16) -> Value {
    json!({"type": "dgram", "local": at(local), "remote": at(remote)})
}

fn udp(local: u16, remote: u16) -> Value {
    json!({"type": "socket", "udp": format!("127.0.0.1:{remote}"), "localaddr": format!("127.0.0.1:{local}")})
}

#[test]
fn frames_of_every_size_reach_qemu_and_come_back_unchanged() {
    if !ready("frames_of_every_size_reach_qemu_and_come_back_unchanged", NEEDS) {
        return;
    }
    for (ours, theirs) in [
        (dgram(3000, 3001), dgram(3001, 3000)),
        (udp(3000, 3001), udp(3001, 3000)),
        (dgram(3000, 3001), udp(3001, 3000)),
    ] {
        let rig = Rig::new(&ours, &theirs, None);
        rig.pass(SIZES);
        // Bursts: those that come together go to QEMU in one message of the kernel's.
        for (from, to) in [(&rig.near, &rig.far), (&rig.far, &rig.near)] {
            for round in 0..10 {
                let frames: Vec<_> =
                    (0..40).map(|n| frame(if n % 10 == 9 { 50 } else { 60 }, n ^ round)).collect();
                for frame in &frames {
                    from.send(frame).expect("a datagram");
                }
                frames.iter().for_each(|frame| assert!(receive(to) == *frame));
            }
        }
        silent(&rig.near);
        silent(&rig.far);
    }
}

/// Bytes that are under way at once: QEMU's socket holds no more large datagrams than this.
const WINDOW: usize = 60_000;

#[test]
fn every_size_reaches_qemu_and_comes_back_unchanged() {
    if !ready("every_size_reaches_qemu_and_comes_back_unchanged", NEEDS) {
        return;
    }
    let rig = Rig::new(&dgram(3000, 3001), &dgram(3001, 3000), None);
    // Of the long ones one in seven, so that all remainders of powers of two come.
    let sizes: Vec<usize> = (14..2100).chain((2100..65_400).step_by(7)).chain(65_400..=65_507).collect();
    for (from, to, way) in [(&rig.near, &rig.far, "to QEMU"), (&rig.far, &rig.near, "from QEMU")] {
        let mut left = &sizes[..];
        while !left.is_empty() {
            let mut bytes = 0;
            let fit = left
                .iter()
                .take_while(|size| {
                    bytes += *size;
                    bytes <= WINDOW
                })
                .count()
                .clamp(1, 32);
            let (now, rest) = left.split_at(fit.min(left.len()));
            now.iter().for_each(|size| assert_eq!(from.send(&frame(*size, 7)).expect("a datagram"), *size));
            now.iter().for_each(|size| assert!(receive(to) == frame(*size, 7), "{size} bytes {way}"));
            left = rest;
        }
    }
}

#[test]
fn a_pair_of_unix_sockets_joins_the_two() {
    if !ready("a_pair_of_unix_sockets_joins_the_two", NEEDS) {
        return;
    }
    let directory = tests::daemon::directory();
    let path =
        |name: &str| json!({"type": "unix", "path": directory.path().join(name).to_str().expect("text")});
    let wire = |local, remote| json!({"type": "dgram", "local": path(local), "remote": path(remote)});
    let mut rig = Rig::new(&wire("ours", "theirs"), &wire("theirs", "ours"), None);
    rig.pass(SIZES);
    // Once more at the same path, where the socket of before still is.
    rig.ours.remove("wire");
    rig.ours.add("wire", &wire("ours", "theirs"), None);
    rig.pass(SIZES);
}

#[test]
fn both_ends_of_a_socket_pair_can_be_given() {
    if !ready("both_ends_of_a_socket_pair_can_be_given", NEEDS) {
        return;
    }
    let pair = || {
        let flags = SockFlag::SOCK_CLOEXEC;
        socketpair(AddressFamily::Unix, SockType::Datagram, None, flags).expect("a pair")
    };
    let dgram = json!({"type": "dgram", "local": {"type": "fd", "str": "wire"}});
    let socket = json!({"type": "socket", "fd": "wire"});
    for (ours, theirs) in [(&dgram, &socket), (&socket, &dgram)] {
        Rig::new(ours, theirs, Some(pair())).pass(SIZES);
    }
}

#[test]
fn members_of_a_multicast_group_hear_each_other_and_themselves() {
    if !ready("members_of_a_multicast_group_hear_each_other_and_themselves", NEEDS) {
        return;
    }
    let remote = json!({"type": "inet", "host": "239.7.7.7", "port": "3000"});
    let dgram = json!({"type": "dgram", "remote": remote, "local": at(0)});
    let socket = json!({"type": "socket", "mcast": "239.7.7.7:3000", "localaddr": "127.0.0.1"});
    let anywhere = json!({"type": "socket", "mcast": "239.7.7.7:3000"});
    for (ours, theirs) in [(&dgram, &socket), (&socket, &dgram), (&anywhere, &anywhere)] {
        let rig = Rig::new(ours, theirs, None);
        for (size, mark) in SIZES.iter().zip(1..) {
            for (from, to) in [(&rig.near, &rig.far), (&rig.far, &rig.near)] {
                let frame = frame(*size, mark);
                from.send(&frame).expect("a datagram");
                assert!(receive(to) == frame, "{size} bytes");
                assert!(receive(from) == frame, "{size} bytes, its own");
            }
        }
        silent(&rig.near);
        silent(&rig.far);
    }
}

#[test]
fn strangers_are_heard_and_empty_datagrams_harm_nothing() {
    if !ready("strangers_are_heard_and_empty_datagrams_harm_nothing", NEEDS) {
        return;
    }
    for (ours, theirs) in [(dgram(3000, 3001), dgram(3001, 3000)), (udp(3000, 3001), udp(3001, 3000))] {
        let mut rig = Rig::new(&ours, &theirs, None);
        let stranger = rig.stranger();
        for mark in 0..5 {
            stranger.send_to(&[], "127.0.0.1:3000").expect("an empty datagram");
            stranger.send_to(&frame(60, mark), "127.0.0.1:3000").expect("a datagram");
            assert!(receive(&rig.near) == frame(60, mark));
        }
        rig.pass(SIZES);
        // A frame is counted after it was sent on.
        let counted = wait::until(Duration::from_secs(5), || {
            let stats = rig.ours.qmp.ok("query-net-stats", json!({}));
            let ports = stats["ports"].as_array().expect("ports");
            let wire = ports.iter().find(|port| port["name"] == "wire").expect("the wire");
            let all = 5 + SIZES.len();
            (wire["drops"] == json!({"malformed": 5}) && wire["rx-frames"] == all).then_some(())
        });
        assert!(counted.is_some(), "{}", rig.ours.qmp.ok("query-net-stats", json!({})));
    }
}

#[test]
fn a_peer_may_go_and_come_back_and_a_port_be_used_again() {
    if !ready("a_peer_may_go_and_come_back_and_a_port_be_used_again", NEEDS) {
        return;
    }
    let (ours, theirs) = (dgram(3000, 3001), udp(3001, 3000));
    let mut rig = Rig::new(&ours, &theirs, None);
    rig.pass(&[60]);
    drop(rig.theirs.daemon.kill());
    for mark in 0..20 {
        rig.near.send(&frame(60, mark)).expect("a datagram");
    }
    // All of them are gone before there is somebody again.
    let gone = wait::until(wait::PATIENCE, || {
        let stats = rig.ours.qmp.ok("query-net-stats", json!({}));
        let ports = stats["ports"].as_array().expect("ports").iter();
        ports.filter(|port| port["name"] == "wire").any(|port| port["tx-frames"] == 21).then_some(())
    });
    assert!(gone.is_some(), "{}", rig.ours.qmp.ok("query-net-stats", json!({})));
    rig.theirs = Side::start(Program::Oracle, &rig.place, FAR, &theirs, None);
    rig.pass(SIZES);
    for _ in 0..3 {
        rig.ours.remove("wire");
        rig.ours.add("wire", &ours, None);
        rig.pass(SIZES);
    }
}
