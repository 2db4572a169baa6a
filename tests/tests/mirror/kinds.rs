//! Filters of the kinds that need no chardev come, change and go under traffic: each frame arrives once and in order.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tests::daemon::Program;
use tests::guest::Guest;
use tests::nics::{SPLIT, Split};
use tests::skip::{Need, ready};

use super::churn::{numbered, under_traffic};
use super::{Side, carries, connect, filter, frame, receive, send};

/// Makes a filter, changes it by each of `sets` in turn, and removes it, a thousand times.
fn a_thousand_times(side: &mut Side, kind: &str, options: &Value, sets: &[(&str, Value)]) {
    let frames = under_traffic(side, |side| {
        for round in 0..1000 {
            side.filter(kind, options);
            // One change a round, and off and on again in every fourth.
            let (property, value) = &sets[round % sets.len()];
            side.set(property, value);
            if round % 4 == 0 {
                side.set("status", &json!("off"));
                side.set("status", &json!("on"));
            }
            side.qmp.ok("object-del", json!({"id": "f"}));
        }
    });
    println!("{kind}: {frames} frames passed");
    assert!(frames > 1000, "{frames} frames during a thousand rounds");
}

/// The frames of a capture, whole.
pub(super) fn captured(file: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(file).expect("the capture");
    let (mut found, mut rest) = (Vec::new(), &bytes[24..]);
    while !rest.is_empty() {
        let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().expect("four bytes")) as usize;
        let end = 16 + word(8);
        found.push(rest[16..end].to_vec());
        rest = &rest[end..];
    }
    found
}

#[test]
fn dumps_come_change_and_go_a_thousand_times_without_loss() {
    let mut side = Side::ours();
    let file = side.daemon.directory().join("capture");
    let sets = [("queue", json!("tx")), ("maxlen", json!(64)), ("queue", json!("rx"))];
    a_thousand_times(&mut side, "filter-dump", &json!({"file": file, "queue": "tx"}), &sets);
    // What the last ones hold are runs of whole frames.
    let mut most = 0;
    for _ in 0..20 {
        under_traffic(&mut side, |side| {
            side.filter("filter-dump", &json!({"file": file, "queue": "tx"}));
            side.set("status", &json!("off"));
            side.qmp.ok("object-del", json!({"id": "f"}));
        });
        let frames = captured(&file);
        let first = frames.first().map_or(0, |f| u32::from_be_bytes(f[..4].try_into().expect("a number")));
        for (frame, number) in frames.iter().zip(first..) {
            assert!(*frame == numbered(number), "frame {number} in its place");
        }
        most = most.max(frames.len());
    }
    assert!(most > 0, "some frames passed while there was a dump");
}

#[test]
fn rewriters_come_change_and_go_a_thousand_times_without_loss() {
    let sets = [("queue", json!("tx")), ("vnet_hdr_support", json!(true)), ("queue", json!("rx"))];
    a_thousand_times(&mut Side::ours(), "filter-rewriter", &json!({}), &sets);
}

#[test]
fn buffers_come_change_and_go_a_thousand_times_without_loss() {
    let sets = [("interval", json!(500)), ("queue", json!("rx")), ("interval", json!(60_000_000))];
    a_thousand_times(&mut Side::ours(), "filter-buffer", &json!({"interval": 200}), &sets);
}

#[test]
fn limits_come_change_and_go_a_thousand_times_without_loss() {
    let sets = [("bps", json!(1_000_000)), ("fps", json!(1000)), ("queue", json!("rx"))];
    a_thousand_times(&mut Side::ours(), "filter-limit", &json!({"bps": 50_000_000}), &sets);
}

#[test]
fn replays_come_change_and_go_a_thousand_times_without_loss() {
    let sets = [("queue", json!("tx")), ("queue", json!("rx"))];
    a_thousand_times(&mut Side::ours(), "filter-replay", &json!({}), &sets);
    // One that has frames to put in stays in the chain while it is off; this one's are never there.
    let mut side = Side::ours();
    let file = side.daemon.directory().join("replayed");
    fs::write(&file, super::replay::header()).expect("a file");
    a_thousand_times(&mut side, "filter-replay", &json!({"file": file}), &sets);
}

/// What a capture holds, put in again by a redirector, makes the same capture.
#[test]
fn a_capture_that_is_put_in_again_makes_the_same_capture() {
    let mut side = Side::ours();
    let directory = side.daemon.directory().to_owned();
    let dump = |side: &mut Side, id: &str| {
        let file = directory.join(id);
        side.qmp.ok(
            "object-add",
            json!({"qom-type": "filter-dump", "id": id, "netdev": "near", "queue": "tx", "maxlen": 70_000, "file": file}),
        );
        file
    };
    let first = dump(&mut side, "first");
    let lengths: Vec<usize> = (14..400).chain([1514, 9000, 65_535, super::LONGEST]).collect();
    carries(&side.near, &[&side.far], &lengths, "past a capture");
    side.qmp.ok("object-del", json!({"id": "first"}));
    let frames = captured(&first);
    assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
    let mut peer = connect(&side.listens("c"));
    side.filter("filter-redirector", &json!({"indev": "c", "queue": "tx"}));
    let second = dump(&mut side, "second");
    for frame in &frames {
        send(&mut peer, frame);
        assert!(receive(&mut &side.far) == *frame, "{} bytes pass again", frame.len());
    }
    side.qmp.ok("object-del", json!({"id": "second"}));
    assert!(captured(&second) == frames);
}

/// Frames that a buffer holds, five from near to far and five the other way; then `remove` takes its netdev away.
fn let_go(side: &mut Side, remove: impl FnOnce(&mut Side)) {
    side.filter("filter-buffer", &json!({"interval": u32::MAX}));
    for number in 0..5 {
        send(&mut side.near.try_clone().expect("a copy"), &frame(100, number));
        send(&mut side.far.try_clone().expect("a copy"), &frame(200, number));
    }
    remove(side);
    for number in 0..5 {
        assert!(receive(&mut &side.far) == frame(100, number), "frame {number} to the far end");
        assert!(receive(&mut &side.near) == frame(200, number), "frame {number} to the near end");
    }
    let filters = side.qmp.ok("qom-list", json!({"path": "/objects"})).to_string();
    assert!(!filters.contains("filter-buffer"), "{filters}");
}

#[test]
fn what_filters_hold_is_on_its_way_before_their_netdev_goes() {
    let mut sides = vec![Side::ours()];
    if ready("what_filters_hold_is_on_its_way_before_their_netdev_goes, on QEMU", &[Need::Oracle]) {
        sides.push(Side::new(Program::Oracle, &[]));
    }
    for side in &mut sides {
        let_go(side, |side| {
            if side.qmp.execute("query-filter", json!({"id": "f"})).is_ok() {
                side.counts("held", 10);
            } else {
                // QEMU's one loop has read them before it answers for the second time.
                (0..3).for_each(|_| drop(side.qmp.ok("query-status", json!({}))));
            }
            side.qmp.ok("netdev_del", json!({"id": "near"}));
        });
        assert_eq!(side.qmp.refused("netdev_del", json!({"id": "near"})), "Device 'near' not found");
    }
}

/// As the other filters of ours, on a nic: by both of the ways that a nic goes.
#[test]
fn what_filters_hold_is_on_its_way_before_their_nic_goes() {
    for device in [false, true] {
        let mut side = Side::ours();
        side.qmp.ok("netdev_add", json!({"type": "hubport", "id": "h", "hubid": 0}));
        if device {
            side.listens("c");
            let options = json!({"driver": "virtio-net-pci", "id": "n0", "chardev": "c", "netdev": "h"});
            side.qmp.ok("device_add", options);
        } else {
            side.qmp.ok("netdev_add", json!({"type": "nic", "id": "n0", "netdev": "h", "addr": "c"}));
        }
        let mut guest: Split = Guest::connect(&side.daemon.directory().join("c"), SPLIT).expect("a guest");
        let mut options = filter("filter-buffer", &json!({"interval": u32::MAX}));
        options["netdev"] = json!("n0");
        side.qmp.ok("object-add", options);
        let sent = tests::nics::frame(300, 1);
        assert!(guest.send(&sent));
        side.counts("held", 1);
        let command = if device { "device_del" } else { "netdev_del" };
        side.qmp.ok(command, json!({"id": "n0"}));
        assert!(receive(&mut &side.far) == sent && receive(&mut &side.near) == sent);
        if device {
            side.qmp.event("DEVICE_DELETED", tests::wait::PATIENCE).expect("it is told");
        }
    }
}

/// Nobody takes what is held: the netdev goes all the same, and what went with it is counted where that is read afterwards.
#[test]
fn a_receiver_that_takes_nothing_keeps_no_netdev_from_going() {
    let mut side = Side::ours();
    side.filter("filter-buffer", &json!({"interval": u32::MAX, "queue": "rx"}));
    // More than the socket to the near end takes, which nobody reads.
    for number in 0..100 {
        send(&mut &side.far, &frame(60_000, number));
    }
    let held = || (side.count("held") + side.count("queue-full") == 100).then_some(());
    tests::wait::until(tests::wait::PATIENCE, held).expect("they are held");
    let full = side.count("queue-full");
    side.qmp.ok("netdev_del", json!({"id": "near"}));
    let said = side.daemon.stderr();
    assert!(said.contains("frames that it held are lost"), "{said}");
    let gone =
        |side: &mut Side| side.qmp.ok("query-net-stats", json!({}))["filter-gone"].as_u64().expect("a count");
    let lost = gone(&mut side);
    let mut stream = Vec::new();
    std::io::Read::read_to_end(&mut &side.near, &mut stream).expect("its end");
    // The netdev takes with it the one whose beginning it had sent.
    let out = stream.len().div_ceil(60_004) as u64;
    assert!(lost > 0 && out + full + lost == 100, "{out} frames out, {full} refused, {lost} gone");
    side.qmp.ok("query-net-stats-reset", json!({}));
    assert_eq!(gone(&mut side), 0, "as all counters");
}

/// A dump whose file nobody takes bytes from loses what it captures, with a count, and no frame on its way.
#[test]
fn a_dump_whose_reader_does_not_read_loses_captured_frames_only() {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;

    const FRAMES: usize = 1200;
    let mut side = Side::ours();
    let pipe = side.daemon.directory().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let mut reader = fs::OpenOptions::new().read(true).custom_flags(flags).open(&pipe).expect("its reader");
    side.filter("filter-dump", &json!({"file": pipe, "queue": "tx"}));
    // Several times what the chunks of the capture hold.
    carries(&side.near, &[&side.far], &[60_000; FRAMES], "past a capture that is stuck");
    let [captured, lost] = ["captured", "lost"].map(|name| side.count(name));
    println!("{captured} captured, {lost} lost");
    assert_eq!((side.count("seen"), captured + lost), (FRAMES as u64, FRAMES as u64));
    assert!(lost > FRAMES as u64 / 2 && captured > 10, "{captured} captured, {lost} lost");
    // Read at last, it holds what counts as captured, in order, and nothing else.
    let (sender, bytes) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut all: Vec<u8> = Vec::new();
        let mut piece = vec![0; 1 << 20];
        loop {
            match reader.read(&mut piece) {
                Ok(0) => return sender.send(all),
                Ok(n) => all.extend(&piece[..n]),
                Err(_nothing_yet) => std::thread::yield_now(),
            }
        }
    });
    side.qmp.ok("object-del", json!({"id": "f"}));
    let bytes = bytes.recv_timeout(tests::wait::PATIENCE).expect("the capture ends");
    let record = 16 + 60_000;
    assert_eq!(bytes.len(), 24 + captured as usize * record, "whole records");
    for (number, record) in bytes[24..].chunks(record).enumerate() {
        assert!(record[16..] == frame(60_000, number), "record {number}");
    }
    send(&mut &side.near, &frame(60, 1));
    assert!(receive(&mut &side.far) == frame(60, 1), "the path goes on");
}
