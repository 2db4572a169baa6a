//! Filters come, change and go under traffic: the path loses nothing.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;

use serde_json::json;
use tests::wait;

use super::{Side, carries, connect, frame, receive, send};

/// Frames numbered in their first bytes.
pub(super) fn numbered(number: u32) -> Vec<u8> {
    let mut frame = frame(60 + number as usize % 1400, 1);
    frame[..4].copy_from_slice(&number.to_be_bytes());
    frame
}

/// Runs `work` while frames go from near to far; each arrives once and in order.
pub(super) fn under_traffic(side: &mut Side, work: impl FnOnce(&mut Side)) -> u32 {
    let (mut near, mut far) = (side.near.try_clone().expect("a copy"), side.far.try_clone().expect("a copy"));
    let stop = AtomicBool::new(false);
    let (under_way, arrived) = sync_channel(64);
    std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                under_way.send(()).expect("somebody reads");
                send(&mut near, &numbered(number));
            }
        });
        let reader = scope.spawn(move || {
            let mut number = 0;
            while arrived.recv().is_ok() {
                assert!(receive(&mut far) == numbered(number), "frame {number}");
                number += 1;
            }
            number
        });
        work(side);
        stop.store(true, Ordering::Relaxed);
        reader.join().expect("all frames, in order")
    })
}

/// Reads records until the end, all of which must be whole frames in order; how many.
fn sink(mut peer: UnixStream) -> usize {
    let (mut count, mut last) = (0, None);
    let mut length = [0; 4];
    peer.set_read_timeout(None).expect("no timeout");
    while peer.read_exact(&mut length).is_ok() {
        let mut got = vec![0; u32::from_be_bytes(length) as usize];
        if peer.read_exact(&mut got).is_err() {
            return count;
        }
        let number = u32::from_be_bytes(got[..4].try_into().expect("four bytes"));
        assert!(got == numbered(number), "record {count} is frame {number}");
        assert!(last.is_none_or(|last| number > last), "in order, each once");
        last = Some(number);
        count += 1;
    }
    count
}

#[test]
fn mirrors_come_change_and_go_a_thousand_times_without_loss() {
    let mut side = Side::ours();
    let path = side.listens("c");
    let peer = connect(&path);
    let reader = std::thread::spawn(move || sink(peer));
    let frames = under_traffic(&mut side, |side| {
        for round in 0..1000 {
            side.filter("filter-mirror", &json!({"outdev": "c", "queue": "tx"}));
            match round % 3 {
                0 => side.set("status", &json!("off")),
                1 => side.set("queue", &json!("rx")),
                _ => {}
            }
            side.qmp.ok("object-del", json!({"id": "f"}));
        }
    });
    // One connection for all of them: it stays when its filter goes.
    assert!(!reader.is_finished());
    side.qmp.ok("chardev-remove", json!({"id": "c"}));
    let mirrored = reader.join().expect("whole frames");
    println!("{frames} frames passed, {mirrored} were mirrored");
    assert!(mirrored > 0 && mirrored <= frames as usize);
}

#[test]
fn readers_come_change_and_go_a_thousand_times_without_loss() {
    let mut side = Side::ours();
    let path = side.listens("c");
    let mut peer = connect(&path);
    let frames = under_traffic(&mut side, |side| {
        for round in 0..1000 {
            side.filter("filter-redirector", &json!({"indev": "c", "queue": "rx"}));
            if round % 2 == 0 {
                side.set("status", &json!("off"));
            }
            side.qmp.ok("object-del", json!({"id": "f"}));
        }
    });
    assert!(frames > 0);
    // The connection has outlived a thousand readers.
    side.filter("filter-redirector", &json!({"indev": "c", "queue": "rx"}));
    send(&mut peer, &numbered(1));
    assert!(receive(&mut side.near.try_clone().expect("a copy")) == numbered(1));
}

/// Inserted and removed under traffic, a redirector takes a frame away, or it passes: each once, and none is lost between.
#[test]
fn redirectors_come_and_go_and_each_frame_is_somewhere() {
    const FRAMES: u32 = 30_000;
    let mut side = Side::ours();
    let path = side.listens("c");
    let peer = connect(&path);
    let arrived = AtomicU32::new(0);
    let places: Vec<AtomicU32> = (0..FRAMES).map(|_| AtomicU32::new(0)).collect();
    let (mut near, far) = (side.near.try_clone().expect("a copy"), side.far.try_clone().expect("a copy"));
    let mut stolen = 0;
    std::thread::scope(|scope| {
        let (arrived, places) = (&arrived, &places);
        let reader = move |mut wire: UnixStream, place: u32| {
            let mut length = [0; 4];
            while arrived.load(Ordering::Relaxed) < FRAMES && wire.read_exact(&mut length).is_ok() {
                let mut got = vec![0; u32::from_be_bytes(length) as usize];
                wire.read_exact(&mut got).expect("whole frames");
                let number = u32::from_be_bytes(got[..4].try_into().expect("four bytes"));
                assert!(got == numbered(number), "frame {number}");
                places[number as usize].fetch_add(place, Ordering::Relaxed);
                arrived.fetch_add(1, Ordering::Relaxed);
            }
        };
        scope.spawn(move || reader(far, 1));
        scope.spawn(move || reader(peer, 1000));
        scope.spawn(move || {
            for number in 0..FRAMES {
                let room = || (number - arrived.load(Ordering::Relaxed) < 64).then_some(());
                if wait::until(wait::PATIENCE, room).is_none() {
                    return; // the test says what is missing
                }
                send(&mut near, &numbered(number));
            }
        });
        let mut before = 0;
        while arrived.load(Ordering::Relaxed) < FRAMES {
            side.filter("filter-redirector", &json!({"outdev": "c", "queue": "tx"}));
            side.qmp.ok("object-del", json!({"id": "f"}));
            let now = || (arrived.load(Ordering::Relaxed) != before).then_some(());
            if wait::until(wait::PATIENCE, now).is_none() {
                break;
            }
            before = arrived.load(Ordering::Relaxed);
        }
        // Those who still read are let go.
        side.near.shutdown(std::net::Shutdown::Both).expect("open");
        side.far.shutdown(std::net::Shutdown::Both).expect("open");
        side.qmp.ok("chardev-remove", json!({"id": "c"}));
        for (number, place) in places.iter().enumerate() {
            let place = place.load(Ordering::Relaxed);
            assert!(
                place == 1 || place == 1000,
                "frame {number} came {} and {} times",
                place % 1000,
                place / 1000
            );
            stolen += usize::from(place == 1000);
        }
    });
    println!("{stolen} of {FRAMES} were taken away");
    assert!(stolen > 0);
}

#[test]
fn a_chain_of_redirectors_brings_every_frame_once_and_in_order() {
    let mut side = Side::ours();
    let path = side.listens("out");
    side.connects("in", &path);
    side.filter("filter-redirector", &json!({"outdev": "out", "queue": "tx"}));
    let other =
        json!({"qom-type": "filter-redirector", "id": "g", "netdev": "far", "indev": "in", "queue": "rx"});
    side.qmp.ok("object-add", other);
    let there = || {
        let all = side.qmp.ok("query-chardev", json!({})).to_string();
        (!all.contains("disconnected")).then_some(())
    };
    wait::until(wait::PATIENCE, there).expect("connected");
    let lengths: Vec<usize> = (0..20_000).map(|n| 60 + n * 37 % 9000).collect();
    carries(&side.near, &[&side.far], &lengths, "by way of a socket");
    assert_eq!(side.count("sent"), 20_000);
    // Off, they pass by the straight way, which is no longer.
    side.set("status", &json!("off"));
    carries(&side.near, &[&side.far], &lengths[..1000], "straight");
    assert_eq!(side.count("sent"), 20_000);
}
