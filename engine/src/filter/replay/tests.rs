use super::file::{Fault, Parsed};
use super::pace::Pace;
use super::*;
use crate::burst::MAX_FRAME;
use crate::filter::Direction;
use crate::filter::dump::pcap::{Time, file_header, record_header};
use crate::filter::testing::Bench;
use proptest::prelude::*;
use std::io::Write;
use std::time::Instant;
use tempfile::NamedTempFile;

const PATIENCE: Duration = Duration::from_secs(10);

fn frame(len: usize, mark: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(29) ^ mark).collect()
}

/// A record of a frame at so many microseconds.
fn record(micros: u64, bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len() as u32;
    [&record_header(Time::of(micros * 1000), len, len)[..], bytes].concat()
}

fn pcap(records: &[Vec<u8>]) -> Vec<u8> {
    [&file_header(65536)[..], &records.concat()].concat()
}

/// A file in the other byte order, with frames of a length each.
fn swapped(bytes: &[u8]) -> Vec<u8> {
    let swap = |words: &[u8]| words.chunks(4).flat_map(|w| [w[3], w[2], w[1], w[0]]).collect::<Vec<_>>();
    let mut all = swap(&bytes[..24]);
    // Two halves make the version.
    all[4..8].copy_from_slice(&[bytes[5], bytes[4], bytes[7], bytes[6]]);
    let mut rest = &bytes[24..];
    while !rest.is_empty() {
        let end = 16 + u32::from_ne_bytes(rest[8..12].try_into().unwrap()) as usize;
        all.extend(swap(&rest[..16]));
        all.extend(&rest[16..end]);
        rest = &rest[end..];
    }
    all
}

/// All that a file says: times and frames, and how many records were skipped; whether it ends between two records.
fn all(bytes: &[u8]) -> (Vec<(u64, Vec<u8>)>, usize, bool) {
    let format = Format::read(&bytes[..HEADER_LEN]).unwrap();
    let (mut frames, mut skipped, mut rest) = (Vec::new(), 0, &bytes[HEADER_LEN..]);
    loop {
        match format.parse(rest) {
            Parsed::Frame(when, at) => {
                frames.push((when, rest[at.clone()].to_vec()));
                rest = &rest[at.end..];
            }
            Parsed::Skip(_, end) => {
                skipped += 1;
                rest = &rest[end..];
            }
            Parsed::More => return (frames, skipped, rest.is_empty()),
            Parsed::TooLong => panic!("no record is too long"),
        }
    }
}

const HEADER_LEN: usize = file::HEADER;

#[test]
fn either_byte_order_and_resolution_is_read() {
    let file = pcap(&[record(1_500_000, &frame(60, 1)), record(2_000_001, &frame(14, 2))]);
    let expected = |unit: u64| {
        vec![(1_000_000_000 + 500_000 * unit, frame(60, 1)), (2_000_000_000 + unit, frame(14, 2))]
    };
    assert_eq!(all(&file), (expected(1000), 0, true));
    assert_eq!(all(&swapped(&file)), (expected(1000), 0, true));
    let mut fine = file;
    fine[..4].copy_from_slice(&0xa1b2_3c4du32.to_ne_bytes());
    assert_eq!(all(&fine), (expected(1), 0, true));
    assert_eq!(all(&swapped(&fine)), (expected(1), 0, true));
}

#[test]
fn a_file_cut_anywhere_has_the_records_before_the_cut() {
    let frames = [frame(60, 1), frame(1, 2), frame(300, 3)];
    let file = pcap(&frames.iter().map(|f| record(7, f)).collect::<Vec<_>>());
    let ends: Vec<usize> = frames
        .iter()
        .scan(HEADER_LEN, |end, f| {
            *end += 16 + f.len();
            Some(*end)
        })
        .collect();
    for cut in 0..HEADER_LEN {
        assert_eq!(Format::read(&file[..cut]), Err(NoPcap::Short(cut)));
    }
    for cut in HEADER_LEN..=file.len() {
        let (found, skipped, between) = all(&file[..cut]);
        let whole = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(found.into_iter().map(|(_, f)| f).collect::<Vec<_>>(), frames[..whole], "{cut}");
        assert_eq!((skipped, between), (0, cut == HEADER_LEN || ends.contains(&cut)), "{cut}");
    }
}

#[test]
fn what_is_no_pcap_file_of_ethernet_frames_is_told_apart() {
    let with = |at: usize, bytes: &[u8]| {
        let mut header = file_header(65536);
        header[at..at + bytes.len()].copy_from_slice(bytes);
        [Format::read(&header), Format::read(&swapped(&header))]
    };
    for (at, bytes, why) in [
        (0, 0x0a0d_0d0au32, NoPcap::Pcapng),
        (20, 113, NoPcap::LinkType(113)),
        (20, 0x2400_0001, NoPcap::Fcs),
        (
            4,
            u32::from_ne_bytes([1u16, 4].map(u16::to_ne_bytes).concat().try_into().unwrap()),
            NoPcap::Version(1, 4),
        ),
    ] {
        let [straight, swapped] = with(at, &bytes.to_ne_bytes());
        assert_eq!((straight, swapped), (Err(why), Err(why)));
    }
    assert_eq!(Format::read(b"#!/bin/sh\necho nothing of a kind"), Err(NoPcap::Magic));
}

#[test]
fn records_without_their_whole_frame_are_skipped_and_longer_ones_are_the_end() {
    let format = Format::read(&file_header(60)).unwrap();
    let cut = [&record_header(Time::of(0), 60, 61)[..], &frame(60, 1)].concat();
    assert_eq!(format.parse(&cut), Parsed::Skip(Fault::Cut, 76));
    assert_eq!(format.parse(&cut[..75]), Parsed::More);
    assert_eq!(format.parse(&record(0, &[])), Parsed::Skip(Fault::Empty, 16));
    assert_eq!(format.parse(&record(0, &frame(MAX_FRAME, 1))), Parsed::Frame(0, 16..16 + MAX_FRAME));
    let long = MAX_FRAME as u32 + 1;
    for (kept, len) in [(long, long), (long, u32::MAX), (u32::MAX, 0)] {
        assert_eq!(format.parse(&record_header(Time::of(0), kept, len)), Parsed::TooLong);
    }
}

proptest! {
    #[test]
    fn no_bytes_lead_out_of_the_buffer(header in any::<[u8; 24]>(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Format::read(&header);
        for format in [file_header(9).to_vec(), swapped(&file_header(9))] {
            match Format::read(&format).unwrap().parse(&bytes) {
                Parsed::Frame(_, at) => prop_assert!(at.start == 16 && at.start < at.end && at.end <= bytes.len()),
                Parsed::Skip(_, end) => prop_assert!((16..=bytes.len()).contains(&end)),
                Parsed::More | Parsed::TooLong => {}
            }
        }
    }
}

#[test]
fn a_pace_keeps_distances_through_disorder_delays_and_clocks_set_back() {
    let (begin, mut pace) = (Instant::now(), Pace::default());
    let (milli, second) = (1_000_000, 1_000_000_000);
    let after = |millis| begin + Duration::from_millis(millis);
    let left = |millis| Some(Duration::from_millis(millis));
    assert_eq!(pace.wait(100 * second, after(0)), None, "the first goes at once");
    assert_eq!(pace.wait(100 * second + 10 * milli, after(0)), left(10));
    assert_eq!(pace.wait(100 * second + 10 * milli, after(12)), None, "late");
    assert_eq!(pace.wait(100 * second + 30 * milli, after(12)), left(18), "no delay adds up");
    assert_eq!(pace.wait(100 * second - milli, after(30)), None, "of another worker");
    assert_eq!(pace.wait(100 * second + 40 * milli, after(30)), left(10));
    pace.shift(Duration::from_millis(500));
    assert_eq!(pace.wait(100 * second + 40 * milli, after(530)), left(10), "it stood still");
    assert_eq!(pace.wait(90 * second, after(540)), None, "the clock was set back");
    assert_eq!(pace.wait(90 * second + 5 * milli, after(540)), left(5));
}

/// A replay of these bytes that is on or off, and the file.
fn replay(
    bench: &Bench,
    bytes: &[u8],
    paced: bool,
    (on, rx, tx): (bool, bool, bool),
) -> (Replay, Box<dyn Filter>, NamedTempFile) {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let settings = Settings::new(on, rx, tx);
    let (replay, mut instances) =
        Replay::open(file.path(), paced, settings, &bench.arena, (1, 0), None).unwrap();
    (replay, instances.remove(0), file)
}

/// Takes frames until there are `n`, and no more come when the replay has ended.
fn take(bench: &mut Bench, filter: &mut dyn Filter, direction: Direction, n: usize) -> Vec<Vec<u8>> {
    let (mut all, end) = (Vec::new(), Instant::now() + PATIENCE);
    while all.len() < n {
        all.extend(bench.take(filter, direction, usize::MAX).into_iter().map(|(_, bytes)| bytes));
        assert!(Instant::now() < end, "{} frames of {n}", all.len());
        std::thread::yield_now();
    }
    all
}

fn counter(replay: &Replay, name: &str) -> u64 {
    replay.counters().into_iter().find(|(n, _)| *n == name).unwrap().1
}

fn until(what: &str, mut probe: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !probe() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn all_frames_of_a_file_larger_than_the_rings_come_in_order_both_ways() {
    let mut bench = Bench::new();
    let frames: Vec<_> = (0..1500u32).map(|n| frame(60 + (n as usize * 37) % 9000, n as u8)).collect();
    let bytes = pcap(&frames.iter().map(|f| record(0, f)).collect::<Vec<_>>());
    let (replay, mut filter, _file) = replay(&bench, &bytes, false, (true, true, true));
    let (mut rx, mut tx) = (Vec::new(), Vec::new());
    until("all come", || {
        for (direction, all) in [(Direction::Rx, &mut rx), (Direction::Tx, &mut tx)] {
            all.extend(bench.take(&mut *filter, direction, usize::MAX).into_iter().map(|(_, bytes)| bytes));
        }
        rx.len() >= frames.len() && tx.len() >= frames.len()
    });
    assert!(rx == frames && tx == frames);
    until("it ends", || counter(&replay, "ended") == 1);
    assert_eq!((counter(&replay, "replayed"), counter(&replay, "truncated"), replay.held()), (1500, 0, 0));
    replay.finish(PATIENCE);
}

#[test]
fn a_replay_ends_where_its_file_does_and_says_why() {
    let mut bench = Bench::new();
    let good = [record(0, &frame(60, 1)), record(0, &frame(70, 2))].concat();
    let cut = [&record_header(Time::of(0), 20, 1514)[..], &frame(20, 9)].concat();
    let long = record_header(Time::of(0), 1 << 20, 1 << 20).to_vec();
    for (tail, name) in [
        (vec![], "ended"),
        (record(0, &frame(60, 3))[..75].to_vec(), "truncated"),
        (record(0, &frame(60, 3))[..3].to_vec(), "truncated"),
        ([long, good.clone()].concat(), "too-long"),
        (cut, "cut"),
        (record(0, &[]), "empty"),
    ] {
        let (replay, mut filter, _file) =
            replay(&bench, &pcap(&[good.clone(), tail]), false, (true, false, true));
        assert_eq!(take(&mut bench, &mut *filter, Direction::Tx, 2), [frame(60, 1), frame(70, 2)], "{name}");
        until("it ends", || counter(&replay, "ended") == 1);
        assert_eq!((counter(&replay, name), counter(&replay, "replayed")), (1, 2), "{name}");
        assert!(bench.take(&mut *filter, Direction::Rx, usize::MAX).is_empty(), "not that way");
        replay.finish(PATIENCE);
    }
}

#[test]
fn a_replay_that_is_off_stands_still_and_distances_are_kept() {
    let mut bench = Bench::new();
    let (gap, n) = (Duration::from_millis(10), 12);
    let frames: Vec<_> = (0..n).map(|mark| frame(60, mark)).collect();
    let at = |mark: usize| mark as u64 * gap.as_micros() as u64;
    let bytes = pcap(&frames.iter().enumerate().map(|(mark, f)| record(at(mark), f)).collect::<Vec<_>>());
    let (replay, mut filter, _file) = replay(&bench, &bytes, true, (false, true, false));
    std::thread::sleep(gap);
    assert_eq!((counter(&replay, "replayed"), replay.held()), (0, 0), "off from the beginning");
    let begin = Instant::now();
    replay.set(true, true, false);
    let mut all = take(&mut bench, &mut *filter, Direction::Rx, 2);
    replay.set(false, true, false);
    until("what was put in has gone on", || {
        all.extend(bench.take(&mut *filter, Direction::Rx, usize::MAX).into_iter().map(|(_, bytes)| bytes));
        replay.held() == 0
    });
    let still = counter(&replay, "replayed");
    assert_eq!(all.len() as u64, still);
    std::thread::sleep(10 * gap);
    assert_eq!((counter(&replay, "replayed"), replay.held()), (still, 0), "it stands still");
    replay.set(true, true, false);
    all.extend(take(&mut bench, &mut *filter, Direction::Rx, frames.len() - all.len()));
    assert_eq!(all, frames);
    // The time that it stood still is none of the file's; the thread may have been late to stop.
    assert!(begin.elapsed() >= gap * (u32::from(n) - 1) + 2 * gap, "{:?}", begin.elapsed());
    until("it ends", || counter(&replay, "ended") == 1);
}

#[test]
fn a_replay_that_goes_waits_for_no_frame() {
    let bench = Bench::new();
    let bytes = pcap(&[record(0, &frame(60, 1)), record(3_600_000_000, &frame(60, 2))]);
    let (paced, filter, _file) = replay(&bench, &bytes, true, (true, true, false));
    until("the first is there", || paced.held() == 1);
    drop(filter);
    let begin = Instant::now();
    paced.finish(PATIENCE);
    assert!(begin.elapsed() < PATIENCE / 2 && paced.flow.link.is_over());
}

#[test]
fn files_that_cannot_be_replayed_are_refused() {
    let bench = Bench::new();
    let place = tempfile::tempdir().unwrap();
    let refused = |path: &Path| {
        let settings = Settings::new(true, true, true);
        Replay::open(path, true, settings, &bench.arena, (1, 0), None).err().unwrap().to_string()
    };
    assert!(refused(&place.path().join("none")).starts_with("can't open it: No such file or directory"));
    assert_eq!(refused(place.path()), "it is a directory");
    let pipe = place.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(refused(&pipe), "it is no regular file");
    let text = place.path().join("text");
    std::fs::write(&text, "short").unwrap();
    assert_eq!(refused(&text), "it is no pcap file");
    std::fs::write(&text, &file_header(9)[..23]).unwrap();
    assert_eq!(refused(&text), "it is no pcap file: it ends after 23 bytes, within its header");
    let mut header = file_header(9);
    header[20..].copy_from_slice(&113u32.to_ne_bytes());
    std::fs::write(&text, header).unwrap();
    assert_eq!(refused(&text), "its frames are of link type 113, not Ethernet (1)");
}
