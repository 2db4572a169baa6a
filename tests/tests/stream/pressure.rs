//! Back-pressure: a peer that does not read.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::daemon::{Daemon, Program};
use tests::netns::NetNs;
use tests::skip::ready;
use tests::wait;

use super::{NAMESPACE, carries, connect, frame, receive};

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
