use super::bucket::Cost;
use super::*;
use crate::filter::Direction::{Rx, Tx};
use crate::filter::testing::{Bench, frame, numbers};
use crate::wire::vnet_hdr::{GSO_TCPV4, VnetHdr};

const SECOND: u64 = 1_000_000_000;

fn made(bench: &Bench, limits: Limits, workers: usize) -> (Limit, Vec<Box<dyn Filter>>) {
    Limit::open(Settings::new(true, true, true), limits, &bench.arena, workers).unwrap()
}

/// Offers `len`-byte frames at twice the rate for `time`, looking every `step`; bytes that passed, by whoever of the instances.
fn passed(bench: &mut Bench, all: &mut [Box<dyn Filter>], len: usize, bps: u64, step: u64, time: u64) -> u64 {
    let (begin, mut sent, mut bytes, mut turn) = (bench.now, 0u64, 0u64, 0usize);
    while bench.now < begin + time {
        bench.now += step;
        turn += 1;
        let f = &mut *all[turn % all.len()];
        bytes += bench.take(f, Rx, usize::MAX).iter().map(|(_, b)| b.len() as u64).sum::<u64>();
        let due = (u128::from(bench.now - begin) * u128::from(bps) * 2 / u128::from(SECOND)) as u64;
        let n = ((due - sent.min(due)) / len as u64).min(512);
        sent += n * len as u64;
        let offered: Vec<_> = (0..n).map(|n| frame(n as u32, len)).collect();
        bytes += bench.show(f, Rx, &offered).iter().map(|(_, b)| b.len() as u64).sum::<u64>();
    }
    bytes
}

#[test]
fn the_rate_is_held_within_two_percent_from_one_megabit_to_ten_gigabits() {
    // Bits a second, bytes of a frame, nanoseconds between looks, and how long.
    for (bits, len, step, time) in [
        (1_000_000, 1514, 1_000_000, 20 * SECOND),
        (1_000_000, 60, 50_000, 2 * SECOND),
        (10_000_000, 1514, 200_000, 4 * SECOND),
        (100_000_000, 60, 20_000, SECOND),
        (1_000_000_000, 1514, 50_000, SECOND),
        (1_000_000_000, 9014, 3_000_000, SECOND),
        (10_000_000_000, 1514, 3_000, SECOND / 4),
        (10_000_000_000, 60_014, 100_000, SECOND / 2),
    ] {
        for workers in [1, 2] {
            let mut bench = Bench::new();
            let bps = bits / 8;
            let (_limit, mut all) = made(&bench, Limits { bps, queue: 1000, ..Limits::default() }, workers);
            // What may pass at once at the start is no part of the rate.
            passed(&mut bench, &mut all, len, bps, step, time / 10);
            let bytes = passed(&mut bench, &mut all, len, bps, step, time);
            let wanted = (u128::from(bps) * u128::from(time) / u128::from(SECOND)) as f64;
            let off = (bytes as f64 / wanted - 1.0).abs();
            assert!(
                off < 0.02,
                "{bits} bit/s in frames of {len}, {workers} workers: {:.2} % off",
                off * 100.0
            );
        }
    }
}

#[test]
fn frames_are_counted_too_and_the_order_stays() {
    let mut bench = Bench::new();
    let (limit, mut all) = made(&bench, Limits { fps: 1000, queue: 5000, ..Limits::default() }, 1);
    let f = &mut *all[0];
    let offered: Vec<_> = (0..2000).map(|n| frame(n, 60)).collect();
    let mut got = numbers(&bench.show(f, Tx, &offered));
    assert_eq!(got.len(), 5, "4 ms of a thousand a second, and the one that crosses the border");
    let mut steps = 0;
    while got.len() < 2000 {
        bench.now = f.deadline().unwrap();
        let more = numbers(&bench.take(f, Tx, usize::MAX));
        assert!(!more.is_empty(), "at the deadline something goes");
        got.extend(more);
        steps += 1;
    }
    assert_eq!(got, (0..2000).collect::<Vec<_>>());
    assert!((1.99..2.01).contains(&(bench.now as f64 / 1e9)), "{} in {steps} steps", bench.now);
    assert_eq!((limit.held(), f.deadline()), (0, None));
    assert_eq!(limit.counters(), [("passed", 5), ("held", 0), ("released", 1995), ("queue-full", 0)]);
}

#[test]
fn a_burst_passes_after_a_pause_and_not_twice() {
    let mut bench = Bench::new();
    let limits = Limits { bps: 1_000_000, bps_burst: 100_000, queue: 1000, ..Limits::default() };
    let (_limit, mut all) = made(&bench, limits, 1);
    let offered: Vec<_> = (0..300).map(|n| frame(n, 1000)).collect();
    bench.now = SECOND;
    assert_eq!(bench.show(&mut *all[0], Rx, &offered).len(), 101);
    assert_eq!(bench.take(&mut *all[0], Rx, usize::MAX).len(), 0);
    // The other direction has a bucket of its own.
    assert_eq!(bench.show(&mut *all[0], Tx, &offered).len(), 101);
    bench.now += SECOND / 100;
    assert_eq!(bench.take(&mut *all[0], Rx, usize::MAX).len(), 10);
}

#[test]
fn a_change_is_in_force_at_once() {
    let mut bench = Bench::new();
    let (limit, mut all) = made(&bench, Limits { bps: 1, queue: 10, ..Limits::default() }, 1);
    let f = &mut *all[0];
    let offered: Vec<_> = (0..20).map(|n| frame(n, 1000)).collect();
    assert_eq!(bench.show(f, Rx, &offered).len(), 1);
    assert_eq!(limit.counters()[1..], [("held", 10), ("released", 0), ("queue-full", 9)]);
    assert!(f.deadline().unwrap() > 900 * SECOND);
    limit.tune("bps", 1_000_000_000);
    assert!(f.deadline().unwrap() <= bench.now, "the debt was one of the old rate");
    assert_eq!(bench.take(f, Rx, usize::MAX).len(), 10);
    limit.tune("fps", 1);
    assert_eq!(bench.show(f, Rx, &offered).len(), 1);
    limit.tune("queue-limit", 3);
    bench.show(f, Rx, &offered);
    assert_eq!(limit.held(), 10, "what is held stays");
    limit.set(false, true, true);
    assert_eq!(bench.take(f, Rx, usize::MAX).len(), 10);
    assert_eq!(bench.show(f, Rx, &offered).len(), 20);
    limit.tune("bps", 0);
    limit.tune("fps", 0);
    limit.set(true, true, true);
    assert_eq!(bench.show(f, Rx, &offered).len(), 20, "0 is no limit");
}

#[test]
fn a_frame_that_is_segmented_later_costs_what_its_segments_do() {
    let hdr = VnetHdr { gso_type: GSO_TCPV4, gso_size: 1448, hdr_len: 66, ..VnetHdr::NONE };
    assert_eq!(Cost::of(&hdr, 66 + 10 * 1448), Cost { bytes: 10 * 1514, frames: 10 });
    assert_eq!(Cost::of(&hdr, 66 + 10 * 1448 + 1), Cost { bytes: 10 * 1514 + 67, frames: 11 });
    assert_eq!(Cost::of(&VnetHdr::NONE, 1514), Cost { bytes: 1514, frames: 1 });
    // What a guest says of its header is not believed far.
    assert_eq!(Cost::of(&VnetHdr { hdr_len: 0, ..hdr }, 42 + 1448), Cost { bytes: 42 + 1448, frames: 1 });
    assert_eq!(Cost::of(&VnetHdr { hdr_len: 0xffff, ..hdr }, 20), Cost { bytes: 20, frames: 1 });
}
