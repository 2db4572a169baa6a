//! Peers come and go.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::daemon::{Daemon, Program};
use tests::netns::NetNs;
use tests::skip::ready;
use tests::wait;

use super::{NAMESPACE, Side, connect, frame, receive, send};

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
