use super::*;
use crate::filter::Direction::{Rx, Tx};
use crate::filter::testing::{Bench, Bytes, frame, numbers};

const MS: u64 = 1_000_000;

fn made(bench: &Bench, micros: u32) -> (Buffer, Box<dyn Filter>) {
    let (buffer, mut all) = Buffer::open(Settings::new(true, true, true), micros, &bench.arena, 1).unwrap();
    (buffer, all.remove(0))
}

fn some(from: u32, to: u32) -> Vec<Bytes> {
    (from..to).map(|n| frame(n, 60)).collect()
}

#[test]
fn all_that_is_there_goes_every_interval_in_order() {
    let mut bench = Bench::new();
    let (buffer, mut f) = made(&bench, 10_000);
    assert_eq!(bench.take(&mut *f, Rx, 1000).len(), 0, "arms");
    assert_eq!(f.deadline(), None);
    assert!(bench.show(&mut *f, Rx, &some(0, 200)).is_empty());
    assert!(bench.show(&mut *f, Tx, &some(500, 503)).is_empty());
    assert_eq!((buffer.held(), f.deadline()), (203, Some(10 * MS)));
    bench.now = 10 * MS - 1;
    assert_eq!(bench.take(&mut *f, Rx, 1000).len(), 0);
    bench.now = 10 * MS;
    assert_eq!(numbers(&bench.take(&mut *f, Rx, 1000)), (0..200).collect::<Vec<_>>());
    // What comes after the release waits for the next one.
    assert!(bench.show(&mut *f, Tx, &some(503, 505)).is_empty());
    assert_eq!(numbers(&bench.take(&mut *f, Tx, 1000)), [500, 501, 502]);
    assert_eq!((bench.take(&mut *f, Tx, 1000).len(), f.deadline()), (0, Some(20 * MS)));
    // A late look does not shift the times.
    bench.now = 47 * MS;
    assert_eq!(numbers(&bench.take(&mut *f, Tx, 1000)), [503, 504]);
    bench.show(&mut *f, Tx, &some(0, 1));
    assert_eq!((buffer.held(), f.deadline()), (1, Some(50 * MS)));
}

#[test]
fn what_the_receiver_does_not_take_goes_first_later() {
    let mut bench = Bench::new();
    let (buffer, mut f) = made(&bench, 1000);
    bench.take(&mut *f, Rx, 1);
    bench.show(&mut *f, Rx, &some(0, 10));
    bench.now = MS;
    assert_eq!(numbers(&bench.take(&mut *f, Rx, 4)), [0, 1, 2, 3]);
    bench.show(&mut *f, Rx, &some(10, 12));
    assert_eq!(numbers(&bench.take(&mut *f, Rx, 1000)), (4..10).collect::<Vec<_>>());
    bench.now = 2 * MS;
    assert_eq!(numbers(&bench.take(&mut *f, Rx, 1000)), [10, 11]);
    assert_eq!(buffer.counters(), [("held", 0), ("released", 12), ("queue-full", 0)]);
}

#[test]
fn off_lets_go_of_all_at_once_then_frames_pass_and_on_begins_an_interval_anew() {
    let mut bench = Bench::new();
    let (buffer, mut f) = made(&bench, 10_000);
    bench.take(&mut *f, Rx, 1);
    bench.show(&mut *f, Rx, &some(0, 3));
    bench.now = 4 * MS;
    buffer.set(false, true, true);
    assert!(bench.show(&mut *f, Rx, &some(3, 4)).is_empty(), "overtakes nothing");
    assert_eq!(numbers(&bench.take(&mut *f, Rx, 1000)), [0, 1, 2, 3]);
    assert_eq!(numbers(&bench.show(&mut *f, Rx, &some(4, 6))), [4, 5]);
    buffer.set(true, true, true);
    assert_eq!(bench.take(&mut *f, Rx, 1000).len(), 0);
    bench.show(&mut *f, Rx, &some(6, 7));
    assert_eq!(f.deadline(), Some(14 * MS));
    // Only the other direction from now on.
    buffer.set(true, false, true);
    assert_eq!(numbers(&bench.take(&mut *f, Rx, 1000)), [6]);
    assert_eq!(bench.show(&mut *f, Rx, &some(7, 8)).len(), 1);
    assert_eq!(bench.show(&mut *f, Tx, &some(8, 9)).len(), 0);
    assert_eq!(f.deadline(), Some(14 * MS), "a change of the queue does not begin it anew");
}

#[test]
fn a_new_interval_begins_at_once() {
    let mut bench = Bench::new();
    let (buffer, mut f) = made(&bench, u32::MAX);
    bench.take(&mut *f, Rx, 1);
    bench.show(&mut *f, Rx, &some(0, 3));
    bench.now = 7 * MS;
    buffer.tune("interval", 2000);
    assert_eq!(bench.take(&mut *f, Rx, 1000).len(), 0);
    assert_eq!(f.deadline(), Some(9 * MS));
    bench.now = 9 * MS;
    assert_eq!(bench.take(&mut *f, Rx, 1000).len(), 3);
}

#[test]
fn beyond_ten_thousand_frames_or_the_ring_frames_drop_by_name() {
    let mut bench = Bench::new();
    let (buffer, mut f) = made(&bench, 1000);
    bench.take(&mut *f, Rx, 1);
    bench.show(&mut *f, Rx, &some(0, 10_007));
    assert_eq!(buffer.counters(), [("held", 10_000), ("released", 0), ("queue-full", 7)]);
    bench.now = MS;
    assert_eq!(numbers(&bench.take(&mut *f, Rx, 20_000)), (0..10_000).collect::<Vec<_>>());
    let large: Vec<_> = (0..300).map(|n| frame(n, 65_000)).collect();
    bench.show(&mut *f, Tx, &large);
    let fits = buffer.held();
    assert!((240..=258).contains(&fits), "{fits} of 65,000 bytes in 16 MiB");
    bench.now = 2 * MS;
    assert_eq!(bench.take(&mut *f, Tx, 1000), large[..fits as usize]);
}
