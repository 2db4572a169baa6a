//! Sides that send nonsense.

use super::*;
use crate::wire::framing::{Oversized, RECORD_MAX};

#[test]
fn a_length_above_the_limit_ends_the_reader() {
    let mut reader = Reader::new(false);
    let most = RECORD_MAX as u32;
    assert_eq!(reader.feed(&(most + 1).to_be_bytes(), |_, _| {}), Err(Oversized(most + 1)));
    let mut reader = Reader::new(true);
    reader.feed(&most.to_be_bytes(), |_, _| {}).unwrap();
    assert!(reader.inside());
    assert_eq!(reader.feed(&[0xff; 4], |_, _| panic!("not yet")), Ok(()));
    let mut seen = 0;
    reader.feed(&vec![7; RECORD_MAX], |frame, len| seen = frame.len() as u64 + u64::from(len)).unwrap();
    assert_eq!(seen, RECORD_MAX as u64 + u64::from(u32::MAX));
}

#[test]
fn headers_that_make_no_sense_are_counted_and_hold_nothing() {
    let whole = tcp(1, 5, ACK, b"payload");
    let mut damaged = vec![whole.clone(); 6];
    damaged[0][14] = 0x44; // a header shorter than any
    damaged[1][14] = 0x4f; // options that are not there
    damaged[1].truncate(50);
    damaged[2][14] = 0x65; // IPv6 in IPv4's clothes
    damaged[3][46] = 0x10; // a TCP header shorter than any
    damaged[4][46] = 0xf0; // TCP options that are not there
    damaged[5][16] = 0xff; // longer than the frame
    let mut b = Bench::new();
    for frame in &damaged {
        b.primary(frame);
        b.secondary(frame);
    }
    assert_eq!(b.take(), (damaged, 0));
    assert_eq!((b.count("malformed"), b.count("passed"), b.count("secondary-ignored")), (12, 6, 6));
    assert_eq!(b.comparer.held(), 0);
}

#[test]
fn every_truncation_of_a_frame_is_taken_calmly() {
    for frame in
        [tcp(1, 5, ACK, b"payload"), udp(1, 0, b"payload"), ip(51, 0, b"abc"), eth(0x88a8, &[0, 1, 0x81])]
    {
        for vnet_len in [0, 10, 1 << 16, u32::MAX] {
            let mut b = Bench::new();
            b.vnet_len = vnet_len;
            for len in 0..frame.len() {
                b.primary(&frame[..len]);
                b.secondary(&frame[..len]);
            }
            assert_eq!((b.count("primary"), b.count("secondary")), (frame.len() as u64, frame.len() as u64));
            b.comparer.checkpoint(&mut b.out);
            assert_eq!(b.comparer.held(), 0);
        }
    }
}

#[test]
fn what_one_side_sends_takes_no_more_memory_than_it_may() {
    let mut b = Bench::with_queue(u32::MAX);
    let frame = udp(1, 0, &vec![1; 60_000]);
    for _ in 0..=super::super::compare::HELD / frame.len() {
        b.primary(&frame);
    }
    assert!(
        b.comparer.held() <= super::super::compare::HELD + frame.len() + super::super::connection::OVERHEAD
    );
    assert!(b.count("memory-full") > 0);
}
