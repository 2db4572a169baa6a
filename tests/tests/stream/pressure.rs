//! Back-pressure: a peer that does not read.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::daemon::{Daemon, Program};
use tests::lab::{Lab, Leg};
use tests::netns::NetNs;
use tests::packet;
use tests::skip::{Need, ready};
use tests::wait;

use super::{NAMESPACE, carries, connect, frame, receive};

/// Two pairs on two hubs: a peer of one stops reading. Its own sender is held up without a loss, the other pair notices nothing.
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

/// Frames that a tap sends before it looks who got them.
const WINDOW: u32 = 32;

/// Three legs on a hub: a tap sends, another tap and a stream receive, whose peer stops reading.
#[test]
fn a_stream_that_is_stalled_costs_the_other_legs_of_its_hub_nothing() {
    let test = "a_stream_that_is_stalled_costs_the_other_legs_of_its_hub_nothing";
    if !ready(test, &[Need::Root, Need::Tap]) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let (a, b) = (Leg::new(&mut lab, "near"), Leg::new(&mut lab, "far"));
    let path = lab.daemon.directory().join("s");
    let addr = json!({"type": "unix", "path": path});
    lab.qmp.ok("netdev_add", json!({"type": "stream", "id": "s", "server": true, "addr": addr}));
    let mut peer = connect(&path);
    lab.qmp.event("NETDEV_STREAM_CONNECTED", wait::PATIENCE).expect("connected");
    lab.hub(0, &["near", "far", "s"]);
    let numbered =
        |number: u32| packet::frame([0xff; 6], [2, 0, 0, 0, 0, 1], &number.to_be_bytes().repeat(300));
    let pass = |from: u32, until: u32| {
        for number in from..until {
            a.socket.send(&numbered(number));
            if number % WINDOW == WINDOW - 1 {
                for number in number - (WINDOW - 1)..=number {
                    let came = wait::until(wait::PATIENCE, || {
                        b.socket.receive(wait::PATIENCE).filter(|frame| ours(frame))
                    });
                    assert!(came.expect("a frame comes") == numbered(number), "frame {number} at the tap");
                }
            }
        }
    };
    let sent = 64 * WINDOW;
    pass(0, sent);
    let full = leg_full(&mut lab);
    assert!(full > 0 && full < u64::from(sent), "{full} of {sent} frames found no room");
    // It reads again: what waited comes whole and in order, and nothing of what was dropped.
    let waited = sent - full as u32;
    for number in 0..waited {
        assert!(receive_ours(&mut peer) == numbered(number), "frame {number} of {waited} at the stream");
    }
    pass(sent, sent + WINDOW);
    for number in sent..sent + WINDOW {
        assert!(receive_ours(&mut peer) == numbered(number), "frame {number}, behind those that waited");
    }
    assert_eq!(leg_full(&mut lab), full);
    let (_, tx, _) = lab.port("s");
    assert!(tx >= u64::from(waited + WINDOW), "{tx} frames went to the stream");
}

fn ours(frame: &[u8]) -> bool {
    frame[12..14] == [0x88, 0xb5]
}

fn receive_ours(peer: &mut UnixStream) -> Vec<u8> {
    std::iter::repeat_with(|| receive(peer)).find(|frame| ours(frame)).expect("a frame of the test")
}

/// Frames that the stream's leg dropped for want of room; no other port dropped any.
fn leg_full(lab: &mut Lab) -> u64 {
    let stats = lab.qmp.ok("query-net-stats", json!({}));
    let mut full = 0;
    for port in stats["ports"].as_array().expect("ports") {
        let drops = port["drops"].as_object().expect("drops");
        if port["name"].as_str().is_some_and(|name| name.starts_with('s')) {
            full += drops.get("leg-full").and_then(serde_json::Value::as_u64).unwrap_or(0);
            assert!(drops.keys().all(|reason| reason == "leg-full"), "{port}");
        } else {
            assert!(drops.is_empty(), "{port}");
        }
    }
    full
}
