//! `filter-replay` of a file: what was dumped comes again as it was, and a file that is of no use costs no traffic.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::kinds::captured;
use super::{Side, carries, filter, frame, receive, send};

/// The beginning of a pcap file of Ethernet frames, in host byte order.
pub(super) fn header() -> Vec<u8> {
    [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65536, 1].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
}

/// Records of frames, a time apart each.
fn records(frames: &[Vec<u8>], micros: u32) -> Vec<u8> {
    let mut all = Vec::new();
    for (number, frame) in frames.iter().enumerate() {
        let (at, len) = (number as u32 * micros, frame.len() as u32);
        all.extend([at / 1_000_000, at % 1_000_000, len, len].iter().flat_map(|word| word.to_ne_bytes()));
        all.extend(frame);
    }
    all
}

fn write(side: &Side, name: &str, bytes: &[u8]) -> PathBuf {
    let file = side.daemon.directory().join(name);
    fs::write(&file, bytes).expect("a file");
    file
}

fn dump(side: &mut Side, queue: &str) -> PathBuf {
    let file = side.daemon.directory().join("capture");
    side.qmp.ok(
        "object-add",
        json!({"qom-type": "filter-dump", "id": "dump", "netdev": "near", "queue": queue, "maxlen": 70_000, "file": file}),
    );
    file
}

/// Without `vnet_hdr_support` and offloads a capture has all of each frame.
#[test]
fn a_dump_replayed_elsewhere_makes_the_same_dump() {
    let mut first = Side::ours();
    let original = dump(&mut first, "tx");
    let lengths: Vec<usize> =
        (14..400).chain([1514, 9000, 65_535, super::LONGEST]).chain([60; 3000]).collect();
    carries(&first.near, &[&first.far], &lengths, "past a capture");
    first.qmp.ok("object-del", json!({"id": "dump"}));
    let frames = captured(&original);
    assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
    for (queue, paced) in [("tx", false), ("rx", false), ("tx", true)] {
        let mut second = Side::ours();
        let copy = dump(&mut second, queue);
        // Frames from the netdev pass its chain from the head, those to it from the tail.
        let position = if queue == "tx" { "head" } else { "tail" };
        second.filter(
            "filter-replay",
            &json!({"file": original, "pace": paced, "queue": queue, "status": "off", "position": position}),
        );
        second.counts("replayed", 0);
        second.set("status", &json!("on"));
        let to = if queue == "tx" { &second.far } else { &second.near };
        for (number, frame) in frames.iter().enumerate() {
            assert!(receive(&mut &*to) == *frame, "frame {number} of {} bytes, {queue}", frame.len());
        }
        second.counts("ended", 1);
        second.counts("replayed", frames.len() as u64);
        second.qmp.ok("object-del", json!({"id": "dump"}));
        assert!(captured(&copy) == frames, "{queue}: the same frames in the same order");
    }
}

#[test]
fn a_file_that_cannot_be_replayed_is_an_error_and_traffic_goes_on() {
    let mut side = Side::ours();
    let (whole, file) = (header(), records(&[frame(60, 1)], 0));
    let mut radio = whole.clone();
    radio[20] = 105;
    let bad: [(PathBuf, &str); 6] = [
        (side.daemon.directory().join("none"), "can't open FILE: No such file or directory"),
        (side.daemon.directory().to_owned(), "can't replay FILE: it is a directory"),
        (
            write(&side, "empty", &[]),
            "can't replay FILE: it is no pcap file: it ends after 0 bytes, within its header",
        ),
        (
            write(&side, "text", b"#!/bin/sh\n# longer than a header of a pcap file"),
            "can't replay FILE: it is no pcap file",
        ),
        (
            write(&side, "short", &whole[..20]),
            "can't replay FILE: it is no pcap file: it ends after 20 bytes, within its header",
        ),
        (
            write(&side, "radio", &radio),
            "can't replay FILE: its frames are of link type 105, not Ethernet (1)",
        ),
    ];
    for (path, why) in bad {
        let wanted = format!("filter replay: {}", why.replace("FILE", path.to_str().expect("a name")));
        assert_eq!(side.qmp.refused("object-add", filter("filter-replay", &json!({"file": path}))), wanted);
        side.passes(&frame(100, 1));
    }
    let mut snapped = records(&[frame(60, 3)], 0);
    snapped[12..16].copy_from_slice(&1514u32.to_ne_bytes());
    let mut long = records(&[frame(60, 3)], 0);
    long[8..16].copy_from_slice(&[0xff; 8]);
    for (name, tail) in [("truncated", &file[..75]), ("cut", &snapped[..]), ("too-long", &long[..])] {
        let path = write(&side, name, &[&whole[..], &file[..], tail].concat());
        side.filter("filter-replay", &json!({"file": path, "queue": "tx"}));
        assert!(receive(&mut &side.far) == frame(60, 1), "what is before it");
        side.counts("ended", 1);
        assert_eq!((side.count(name), side.count("replayed")), (1, 1), "{name}");
        side.passes(&frame(100, 2));
        side.qmp.ok("object-del", json!({"id": "f"}));
    }
    // One with an hour to go ends at once.
    let path = write(&side, "hour", &[whole, records(&[frame(60, 1), frame(60, 2)], 3_600_000_000)].concat());
    side.filter("filter-replay", &json!({"file": path}));
    assert!(receive(&mut &side.far) == frame(60, 1) && receive(&mut &side.near) == frame(60, 1), "both ways");
    let begin = std::time::Instant::now();
    side.qmp.ok("object-del", json!({"id": "f"}));
    assert!(begin.elapsed().as_secs() < 5);
    send(&mut &side.far, &frame(80, 1));
    assert!(receive(&mut &side.near) == frame(80, 1), "nothing else came");
    let left: Value = side.qmp.ok("query-filter", json!({}));
    assert_eq!(left, json!([]));
}
