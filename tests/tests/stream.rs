//! `stream` netdevs, and `socket` netdevs that are streams, against QEMU and against bare sockets.
//!
//! ```text
//!  test -- unix --> [near] netdevd hub [link] == under test == [link] hub QEMU [near] <-- unix -- test
//! ```

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::daemon::{Daemon, Program};
use tests::netns::NetNs;
use tests::qmp::Qmp;
use tests::skip::{Need, ready};
use tests::wait;

const NEEDS: &[Need] = &[Need::Oracle, Need::Namespaces];
const NAMESPACE: &[Need] = &[Need::Namespaces];
/// The longest frame (QEMU's `NET_BUFSIZE`).
const LONGEST: usize = 69_632;

/// One of the two programs, its near netdev on hub 0, and our connection to that.
struct Side {
    daemon: Daemon,
    qmp: Qmp,
    wire: UnixStream,
}

impl Side {
    fn new(program: Program, place: &NetNs) -> Self {
        let daemon = Daemon::of(program).within(place).start();
        let mut qmp = daemon.client();
        let path = daemon.directory().join("near");
        let addr = json!({"type": "unix", "path": path});
        qmp.ok("netdev_add", json!({"type": "stream", "id": "near", "server": true, "addr": addr}));
        on_hub(&mut qmp, "near");
        shows(&mut qmp, "near", "listening");
        let wire = connect(&path);
        qmp.event("NETDEV_STREAM_CONNECTED", wait::PATIENCE).expect("our own connection");
        Self { daemon, qmp, wire }
    }

    /// Adds the netdev under test.
    fn link(&mut self, options: Value) {
        self.qmp.ok("netdev_add", options);
        on_hub(&mut self.qmp, "link");
    }

    /// Waits until that netdev is described so; `true` in place of text means anything but what a netdev without a peer says.
    fn shows(&mut self, text: &str) {
        shows(&mut self.qmp, "link", text);
    }

    fn unlink(&mut self) {
        self.qmp.ok("netdev_del", json!({"id": "link"}));
        self.qmp.ok("netdev_del", json!({"id": "link-port"}));
        self.qmp.take_events();
    }
}

fn connect(path: &std::path::Path) -> UnixStream {
    let stream = wait::until(wait::PATIENCE, || UnixStream::connect(path).ok()).expect("it listens");
    stream.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(wait::PATIENCE)).expect("a timeout");
    stream
}

fn on_hub(qmp: &mut Qmp, netdev: &str) {
    let port = format!("{netdev}-port");
    qmp.ok("netdev_add", json!({"type": "hubport", "id": port, "hubid": 0, "netdev": netdev}));
}

/// What `info network` says of a netdev, behind its type.
fn info(qmp: &mut Qmp, netdev: &str) -> String {
    let all = qmp.ok("human-monitor-command", json!({"command-line": "info network"}));
    let all = all.as_str().expect("a text").to_owned();
    let mark = format!("{netdev}: index=0,type=");
    let line = all
        .lines()
        .find_map(|line| Some(line.split_once(&mark)?.1))
        .unwrap_or_else(|| panic!("no {netdev}: {all}"));
    line.split_once(',').map_or("", |(_, info)| info).trim_end().to_owned()
}

fn shows(qmp: &mut Qmp, netdev: &str, text: &str) {
    let mut last = String::new();
    let found = wait::until(wait::PATIENCE, || {
        last = info(qmp, netdev);
        last.starts_with(text).then_some(())
    });
    assert!(found.is_some(), "{netdev} is described as {last:?}, not as {text:?}");
}

/// Bytes of a frame, told from others by its length and number.
fn frame(length: usize, number: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(31) ^ number.wrapping_mul(7) ^ (at >> 8)) as u8).collect()
}

fn send(wire: &mut impl Write, frame: &[u8]) {
    let bytes = [&(frame.len() as u32).to_be_bytes()[..], frame].concat();
    wire.write_all(&bytes).expect("the peer takes a frame");
}

fn receive(wire: &mut impl Read) -> Vec<u8> {
    let mut length = [0; 4];
    wire.read_exact(&mut length).expect("a frame comes");
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    wire.read_exact(&mut frame).expect("all of it comes");
    frame
}

/// Frames of these lengths go from one end to the other, some at a time: QEMU drops what a hub's slow leg has too much of.
fn carries(from: &UnixStream, to: &UnixStream, lengths: &[usize], what: &str) {
    let (mut from, mut to) = (from.try_clone().expect("a copy"), to.try_clone().expect("a copy"));
    let (under_way, arrived) = sync_channel(128);
    let all = lengths.to_vec();
    let sender = std::thread::spawn(move || {
        for (number, length) in all.into_iter().enumerate() {
            under_way.send(()).expect("somebody reads");
            send(&mut from, &frame(length, number));
        }
    });
    for (number, length) in lengths.iter().enumerate() {
        assert!(receive(&mut to) == frame(*length, number), "{what}: frame {number} of {length} bytes");
        arrived.recv().expect("it was sent");
    }
    sender.join().expect("all are sent");
}

fn both_ways(ours: &Side, theirs: &Side, lengths: &[usize], what: &str) {
    carries(&ours.wire, &theirs.wire, lengths, &format!("{what}, to QEMU"));
    carries(&theirs.wire, &ours.wire, lengths, &format!("{what}, from QEMU"));
}

fn pair() -> (NetNs, Side, Side) {
    let place = NetNs::new();
    let ours = Side::new(Program::Netdevd, &place);
    let theirs = Side::new(Program::Oracle, &place);
    (place, ours, theirs)
}

#[test]
fn every_size_passes_to_qemu_and_back() {
    if !ready("every_size_passes_to_qemu_and_back", NEEDS) {
        return;
    }
    let (_place, mut ours, mut theirs) = pair();
    let addr = json!({"type": "inet", "host": "127.0.0.1", "port": "7001"});
    theirs.link(json!({"type": "stream", "id": "link", "server": true, "addr": addr}));
    theirs.shows("listening");
    ours.link(json!({"type": "stream", "id": "link", "addr": addr}));
    ours.shows("tcp:127.0.0.1:7001");
    let lengths: Vec<usize> = (14..=65_535).chain([LONGEST]).collect();
    both_ways(&ours, &theirs, &lengths, "all");
}

#[test]
fn all_kinds_of_addresses_lead_to_qemu_either_way() {
    if !ready("all_kinds_of_addresses_lead_to_qemu_either_way", NEEDS) {
        return;
    }
    let (_place, mut ours, mut theirs) = pair();
    let directory = ours.daemon.directory().to_owned();
    let inet = |host: &str, port: &str| json!({"type": "inet", "host": host, "port": port});
    let places = [
        ("IPv4", inet("127.0.0.1", "7010"), "tcp:127.0.0.1:"),
        ("IPv6", inet("::1", "7011"), "tcp:::1:"),
        (
            "a name",
            json!({"type": "inet", "host": "localhost", "port": "7012", "ipv4": true, "keep-alive": false}),
            "tcp:127.0.0.1:",
        ),
        ("unix", json!({"type": "unix", "path": directory.join("u")}), "unix:"),
        ("abstract", json!({"type": "unix", "path": "nd-stream", "abstract": true}), "unix:nd-stream"),
        (
            "abstract, not tight",
            json!({"type": "unix", "path": "nd-wide", "abstract": true, "tight": false}),
            "unix:nd-wide",
        ),
    ];
    for (what, addr, shown) in places {
        // QEMU finds no address for a name where only the loopback has one (AI_ADDRCONFIG).
        let roles = if what == "a name" { &[false][..] } else { &[true, false] };
        for &server in roles {
            let what = format!("{what}, {} listen", if server { "we" } else { "they" });
            let (first, second) = if server { (&mut ours, &mut theirs) } else { (&mut theirs, &mut ours) };
            first.link(json!({"type": "stream", "id": "link", "server": true, "addr": addr}));
            first.shows("listening");
            second.link(json!({"type": "stream", "id": "link", "addr": addr}));
            // Of which address the event and the description are is QEMU's choice: ours is the same.
            for side in [first, second] {
                side.shows(shown);
                let event = side.qmp.event("NETDEV_STREAM_CONNECTED", wait::PATIENCE).expect("an event");
                let addr = &event["data"]["addr"];
                let uri = match addr["type"].as_str() {
                    Some("inet") => format!("tcp:{}:{}", text(&addr["host"]), text(&addr["port"])),
                    _ => format!("unix:{}", text(&addr["path"])),
                };
                assert_eq!(event["data"]["netdev-id"], "link", "{what}");
                assert_eq!(info(&mut side.qmp, "link"), uri, "{what}: {event}");
            }
            both_ways(&ours, &theirs, &[14, 60, 1514, 9000, 65_535, LONGEST], &what);
            ours.unlink();
            theirs.unlink();
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What one side says of each step: the events, and `info network`.
fn life(side: &mut Side, addr: &Value, peer: &dyn Fn() -> (OwnedFd, String)) -> Vec<Value> {
    let mut told = Vec::new();
    let mut tell = |side: &mut Side, mask: &str| {
        let name = if mask.is_empty() { "NETDEV_STREAM_DISCONNECTED" } else { "NETDEV_STREAM_CONNECTED" };
        let event = side.qmp.event(name, wait::PATIENCE).expect("an event");
        let shown = json!([event["data"], info(&mut side.qmp, "link")]).to_string();
        told.push(
            serde_json::from_str(&if mask.is_empty() { shown } else { shown.replace(mask, "PORT") })
                .expect("JSON"),
        );
    };
    side.link(json!({"type": "stream", "id": "link", "server": true, "addr": addr}));
    side.shows("listening");
    for _ in 0..2 {
        let (socket, port) = peer();
        tell(side, &port);
        drop(socket);
        tell(side, "");
    }
    side.unlink();
    told
}

#[test]
fn events_and_descriptions_are_qemus() {
    if !ready("events_and_descriptions_are_qemus", NEEDS) {
        return;
    }
    let (place, mut ours, mut theirs) = pair();
    for (host, port) in [("127.0.0.1", "7020"), ("::1", "7021")] {
        let addr = json!({"type": "inet", "host": host, "port": port});
        let peer = || {
            let dial = || TcpStream::connect((host, port.parse().expect("a port"))).ok();
            let socket = wait::until(wait::PATIENCE, || place.inside(dial)).expect("it listens");
            let own = socket.local_addr().expect("an address").port().to_string();
            (socket.into(), own)
        };
        let both = [&mut ours, &mut theirs].map(|side| life(side, &addr, &peer));
        assert_eq!(both[0], both[1], "{addr}");
        assert_eq!(both[0].len(), 4);
    }
    for addr in [
        json!({"type": "unix", "path": ours.daemon.directory().join("v")}),
        json!({"type": "unix", "path": "nd-life", "abstract": true}),
    ] {
        let peer = || {
            use std::os::linux::net::SocketAddrExt;
            let path = text(&addr["path"]);
            let name = match addr["abstract"].as_bool() {
                Some(true) => std::os::unix::net::SocketAddr::from_abstract_name(path),
                _ => std::os::unix::net::SocketAddr::from_pathname(path),
            };
            let name = name.expect("a name");
            let dial = || UnixStream::connect_addr(&name).ok();
            let socket = wait::until(wait::PATIENCE, || place.inside(dial)).expect("it listens");
            (socket.into(), "no port".to_owned())
        };
        let both = [&mut ours, &mut theirs].map(|side| life(side, &addr, &peer));
        assert_eq!(both[0], both[1], "{addr}");
    }
}

#[test]
fn descriptions_of_what_fails_are_qemus() {
    if !ready("descriptions_of_what_fails_are_qemus", NEEDS) {
        return;
    }
    let (_place, mut ours, mut theirs) = pair();
    let inet = |host: &str, port: &str| json!({"type": "inet", "host": host, "port": port});
    let mut numeric = inet("localhost", "7030");
    numeric["numeric"] = json!(true);
    let mut neither = inet("127.0.0.1", "7030");
    (neither["ipv4"], neither["ipv6"]) = (json!(false), json!(false));
    let nowhere = json!({"type": "unix", "path": "/nonexistent/socket"});
    let long = json!({"type": "unix", "path": "x".repeat(200)});
    for (addr, server) in [
        (inet("127.0.0.1", "7030"), false),
        (inet("127.0.0.1", "zz"), false),
        (inet("198.51.100.1", "7030"), true),
        (inet("127.0.0.1", "zz"), true),
        (numeric.clone(), false),
        (numeric, true),
        (neither.clone(), false),
        (neither, true),
        (nowhere.clone(), false),
        (nowhere, true),
        (long.clone(), false),
        (long, true),
    ] {
        let said = [&mut ours, &mut theirs].map(|side| {
            side.link(json!({"type": "stream", "id": "link", "server": server, "addr": addr}));
            side.shows("error: ");
            let said = info(&mut side.qmp, "link");
            side.unlink();
            said
        });
        assert_eq!(said[0], said[1], "{addr}, server {server}");
    }
}

#[test]
fn a_client_tries_again_as_often_as_it_takes() {
    if !ready("a_client_tries_again_as_often_as_it_takes", NAMESPACE) {
        return;
    }
    let place = NetNs::new();
    let mut ours = Side::new(Program::Netdevd, &place);
    for (option, every) in [("reconnect-ms", 60), ("reconnect", 1)] {
        let addr = json!({"type": "inet", "host": "127.0.0.1", "port": "7040"});
        let mut options = json!({"type": "stream", "id": "link", "addr": addr});
        options[option] = json!(every);
        let interval = Duration::from_millis(if every == 1 { 1000 } else { 60 });
        ours.link(options);
        ours.shows("connecting");
        assert_eq!(ours.qmp.ok("query-netdev", json!({"name": "link"}))[0]["link"], false);
        // The first attempt has failed; some more do.
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 7040)).expect("nobody listens there");
        let listener = place.inside(listen);
        for round in 0..2 {
            let begun = Instant::now();
            let (mut peer, _) = listener.accept().expect("it connects");
            ours.qmp.event("NETDEV_STREAM_CONNECTED", wait::PATIENCE).expect("an event");
            let state = ours.qmp.ok("query-netdev", json!({"name": "link"}))[0].clone();
            assert_eq!(
                (&state["link"], &state["transport"]["state"]),
                (&json!(true), &json!("ready")),
                "{state}"
            );
            send(&mut ours.wire, &frame(100, round));
            assert!(receive(&mut peer) == frame(100, round));
            drop(peer);
            ours.qmp.event("NETDEV_STREAM_DISCONNECTED", wait::PATIENCE).expect("an event");
            ours.shows("connecting");
            if round > 0 {
                assert!(
                    begun.elapsed() + Duration::from_millis(20) >= interval,
                    "not sooner than it was told"
                );
            }
        }
        ours.unlink();
    }
}

#[test]
fn one_client_at_a_time_and_none_without_a_netdev() {
    if !ready("one_client_at_a_time_and_none_without_a_netdev", NAMESPACE) {
        return;
    }
    let place = NetNs::new();
    let mut ours = Side::new(Program::Netdevd, &place);
    let path = ours.daemon.directory().join("one");
    ours.link(
        json!({"type": "stream", "id": "link", "server": true, "addr": {"type": "unix", "path": path}}),
    );
    ours.shows("listening");
    let mut first = connect(&path);
    let mut second = connect(&path);
    ours.qmp.event("NETDEV_STREAM_CONNECTED", wait::PATIENCE).expect("the first");
    send(&mut second, &frame(60, 2));
    send(&mut first, &frame(60, 1));
    assert!(receive(&mut ours.wire) == frame(60, 1));
    drop(first);
    ours.qmp.event("NETDEV_STREAM_DISCONNECTED", wait::PATIENCE).expect("the first went");
    ours.qmp.event("NETDEV_STREAM_CONNECTED", wait::PATIENCE).expect("the second");
    assert!(receive(&mut ours.wire) == frame(60, 2), "what it had sent while it waited");
    // A length that cannot be ends the connection, not the netdev.
    second.write_all(&[0xff; 64]).expect("it is read");
    ours.qmp.event("NETDEV_STREAM_DISCONNECTED", wait::PATIENCE).expect("the second was sent away");
    assert_eq!(second.read(&mut [0; 8]).map_err(|error| error.kind()).unwrap_or(0), 0, "closed");
    let state = ours.qmp.ok("query-netdev", json!({"name": "link"}))[0]["transport"].clone();
    assert_eq!(state["state"], "listening", "{state}");
    assert_eq!(state["error"], "the peer announced a frame of more than 69632 bytes", "{state}");
    let mut third = connect(&path);
    ours.qmp.event("NETDEV_STREAM_CONNECTED", wait::PATIENCE).expect("the third");
    // An empty frame, which stops QEMU's netdev for good.
    third.write_all(&[0; 4]).expect("it is read");
    send(&mut third, &frame(60, 3));
    assert!(receive(&mut ours.wire) == frame(60, 3));
    // Removal closes without an event, and the path goes.
    ours.qmp.ok("netdev_del", json!({"id": "link"}));
    assert_eq!(third.read(&mut [0; 8]).expect("an end"), 0);
    assert!(UnixStream::connect(&path).is_err() && !path.exists());
    let names: Vec<_> = ours.qmp.take_events().iter().map(|event| event["event"].clone()).collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn descriptors_that_are_handed_over_serve() {
    if !ready("descriptors_that_are_handed_over_serve", NEEDS) {
        return;
    }
    let (_place, mut ours, mut theirs) = pair();
    let (one, other) = UnixStream::pair().expect("a pair");
    ours.qmp.execute_with("getfd", json!({"fdname": "f"}), &[one.as_fd()]).expect("taken");
    ours.link(json!({"type": "stream", "id": "link", "addr": {"type": "fd", "str": "f"}}));
    ours.shows("unix:");
    theirs.qmp.execute_with("getfd", json!({"fdname": "f"}), &[other.as_fd()]).expect("taken");
    theirs.link(json!({"type": "socket", "id": "link", "fd": "f"}));
    drop((one, other));
    both_ways(&ours, &theirs, &[14, 1514, LONGEST], "a pair of sockets");
    theirs.unlink();
    ours.qmp.event("NETDEV_STREAM_DISCONNECTED", wait::PATIENCE).expect("the end");
    ours.unlink();
    // A socket that listens already.
    let path = ours.daemon.directory().join("given");
    let listener = UnixListener::bind(&path).expect("bound");
    ours.qmp.execute_with("getfd", json!({"fdname": "l"}), &[listener.as_fd()]).expect("taken");
    ours.link(json!({"type": "stream", "id": "link", "server": true, "addr": {"type": "fd", "str": "l"}}));
    ours.shows("listening");
    let mut peer = connect(&path);
    send(&mut peer, &frame(77, 1));
    assert!(receive(&mut ours.wire) == frame(77, 1));
    ours.unlink();
    // One that is no stream.
    let (datagram, _) = std::os::unix::net::UnixDatagram::pair().expect("a pair");
    ours.qmp.execute_with("getfd", json!({"fdname": "d"}), &[datagram.as_fd()]).expect("taken");
    ours.link(json!({"type": "stream", "id": "link", "addr": {"type": "fd", "str": "d"}}));
    ours.shows("error: File descriptor 'd' is not a stream socket");
}

#[test]
fn the_older_socket_netdev_listens_and_connects() {
    if !ready("the_older_socket_netdev_listens_and_connects", NEEDS) {
        return;
    }
    let (place, mut ours, mut theirs) = pair();
    let sizes = [14, 1514, 65_535, LONGEST];
    for server in [true, false] {
        let (first, second) = if server { (&mut ours, &mut theirs) } else { (&mut theirs, &mut ours) };
        first.link(json!({"type": "socket", "id": "link", "listen": "127.0.0.1:7050"}));
        assert_eq!(info(&mut first.qmp, "link"), "");
        second.link(json!({"type": "socket", "id": "link", "connect": "127.0.0.1:7050"}));
        second.shows("socket: connect to 127.0.0.1:7050");
        first.shows("socket: connection from 127.0.0.1:");
        both_ways(&ours, &theirs, &sizes, if server { "we listen" } else { "they listen" });
        ours.unlink();
        theirs.unlink();
    }
    // The next client after one that has gone; no event tells of either.
    ours.link(json!({"type": "socket", "id": "link", "listen": ":7051"}));
    for number in 0..2 {
        let mut peer = place.inside(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 7051))).expect("it listens");
        let own = peer.local_addr().expect("an address").port();
        ours.shows(&format!("socket: connection from 127.0.0.1:{own}"));
        send(&mut peer, &frame(60, number));
        assert!(receive(&mut ours.wire) == frame(60, number));
        drop(peer);
        wait::until(wait::PATIENCE, || info(&mut ours.qmp, "link").is_empty().then_some(()))
            .expect("alone again");
    }
    assert!(ours.qmp.take_events().is_empty());
    // A port in use is said at once; an address where nobody listens is not.
    let taken = ours.qmp.refused("netdev_add", json!({"type": "socket", "id": "x", "listen": ":7051"}));
    assert_eq!(taken, "can't bind ip=0.0.0.0 to socket: Address already in use");
    ours.unlink();
    ours.link(json!({"type": "socket", "id": "link", "connect": "127.0.0.1:7052"}));
    wait::until(wait::PATIENCE, || info(&mut ours.qmp, "link").is_empty().then_some(()))
        .expect("it has failed");
    assert_eq!(ours.qmp.ok("query-netdev", json!({"name": "link"}))[0]["link"], false);
}

/// Three legs on a hub: one stops reading. The others go on, and with a pair nothing is lost at all.
#[test]
fn a_peer_that_stops_reading_holds_up_nobody_else_and_loses_nothing() {
    if !ready("a_peer_that_stops_reading_holds_up_nobody_else_and_loses_nothing", NAMESPACE) {
        return;
    }
    let place = NetNs::new();
    let daemon = Daemon::of(Program::Netdevd).within(&place).start();
    let mut qmp = daemon.client();
    let mut wires = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let path = daemon.directory().join(name);
        let addr = json!({"type": "unix", "path": path});
        qmp.ok("netdev_add", json!({"type": "stream", "id": name, "server": true, "addr": addr}));
        let hub = i32::from(matches!(name, "c" | "d"));
        qmp.ok(
            "netdev_add",
            json!({"type": "hubport", "id": format!("{name}-port"), "hubid": hub, "netdev": name}),
        );
        wires.push(connect(&path));
        qmp.event("NETDEV_STREAM_CONNECTED", wait::PATIENCE).expect("connected");
    }
    let [a, mut b, c, d]: [UnixStream; 4] = wires.try_into().expect("four");
    // As much as fits between a and b, who does not read: then a is held up, without a loss.
    a.set_nonblocking(true).expect("non-blocking");
    let mut sent = Vec::new();
    let (mut quiet, mut whole) = (Instant::now(), Vec::new());
    for number in 0.. {
        let one = frame(500 + number * 37 % 9000, number);
        whole.extend_from_slice(&(one.len() as u32).to_be_bytes());
        whole.extend_from_slice(&one);
        sent.push(one);
        if whole.len() > 4 << 20 {
            break;
        }
    }
    let mut at = 0;
    while at < whole.len() && quiet.elapsed() < Duration::from_millis(300) {
        match (&a).write(&whole[at..]) {
            Ok(n) => {
                at += n;
                quiet = Instant::now();
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(at < whole.len(), "the sender is held up");
    // The other hub does not notice.
    let lengths: Vec<usize> = (0..2000).map(|i| 60 + i % 1400).collect();
    carries(&c, &d, &lengths, "beside a peer that does not read");
    carries(&d, &c, &lengths, "beside a peer that does not read");
    // It reads again: all of it, in order.
    a.set_nonblocking(false).expect("blocking");
    let rest = std::thread::spawn(move || {
        (&a).write_all(&whole[at..]).expect("the rest goes");
        a
    });
    for (number, frame) in sent.iter().enumerate() {
        assert!(&receive(&mut b) == frame, "frame {number}");
    }
    drop(rest.join().expect("sent"));
    let stats = qmp.ok("query-net-stats", json!({}));
    let lost: Vec<_> =
        stats["ports"].as_array().expect("ports").iter().filter(|port| port["drops"] != json!({})).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn a_netdev_that_goes_while_it_connects_leaves_nothing() {
    if !ready("a_netdev_that_goes_while_it_connects_leaves_nothing", NAMESPACE) {
        return;
    }
    let place = NetNs::new();
    let (daemon, mut qmp) = Daemon::netdevd_within(&place, &[]);
    let before = daemon.open_files();
    for round in 0..20 {
        let listener = place.inside(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("bound");
        let port = listener.local_addr().expect("an address").port().to_string();
        let addr = json!({"type": "inet", "host": "127.0.0.1", "port": port});
        let options = json!({"type": "stream", "id": "s", "addr": addr, "reconnect-ms": 1});
        qmp.ok("netdev_add", options);
        if round % 2 == 0 {
            qmp.event("NETDEV_STREAM_CONNECTED", wait::PATIENCE).expect("connected");
        }
        qmp.ok("netdev_del", json!({"id": "s"}));
        qmp.take_events();
    }
    let after = wait::until(wait::PATIENCE, || (daemon.open_files() <= before).then_some(()));
    assert!(after.is_some(), "{} files were open, {} are", before, daemon.open_files());
}
