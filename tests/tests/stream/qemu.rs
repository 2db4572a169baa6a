//! Frames, events and descriptions are those of QEMU, at either end.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use tests::skip::ready;
use tests::wait;

use super::{LONGEST, NEEDS, Side, both_ways, info, pair};

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
