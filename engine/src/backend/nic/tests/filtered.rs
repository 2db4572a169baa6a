//! Guests that do not take every frame.

#![allow(unsafe_code)] // changes guest memory under the nic's hands

use super::super::options::Features;
use super::super::tx::NicTx;
use super::*;
use crate::burst::Head;
use crate::port::TxQueue;
use crate::virtq::DeviceRing;
use crate::virtq::split::SplitDevice;

/// A frame to that address.
fn addressed(to: [u8; 6], mark: u8) -> Vec<u8> {
    let mut bytes = frame(60, mark);
    bytes[..6].copy_from_slice(&to);
    bytes
}

#[test]
fn frames_that_the_guest_does_not_take_are_dropped_by_name_and_need_no_buffer() {
    let asked: Arc<Published> = Arc::default();
    let mut two = Two::<SplitDriver>::new(Format::Split, 8, MERGEABLE, 2048);
    two.to = pair(None, Some(&two.receiver.rig.config), &wake(), &asked).unwrap();
    let mut filter = RxFilter::new(MAC);
    filter.set_mode(Mode::Promiscuous, false);
    let other = [2, 0, 0, 0, 0, 8];
    let send = |two: &mut Two<SplitDriver>, first: u32, to: &[[u8; 6]]| {
        for (i, to) in to.iter().enumerate() {
            two.sender.send(first + i as u32, &addressed(*to, i as u8), &[]);
        }
    };
    // Promiscuous at first: the filter's other parts do not count.
    send(&mut two, 0, &[other, MAC]);
    two.receiver.post(0, 2048);
    two.receiver.post(1, 2048);
    assert_eq!(two.hop(), (2, 2));
    while two.receiver.receive().is_some() {}
    while two.sender.driver.used().unwrap().is_some() {}
    asked.publish(&filter, u64::MAX);
    for token in 2..5 {
        two.receiver.post(token, 2048);
    }
    let before = two.world.counters.tx.frames.get();
    send(&mut two, 0, &[other, MAC, other]);
    assert_eq!(two.hop(), (3, 3));
    assert_eq!(two.receiver.receive().unwrap().0, addressed(MAC, 1));
    assert!(two.receiver.receive().is_none());
    assert_eq!(two.world.counters.dropped(DropReason::RxFilter), 2);
    assert_eq!(two.world.counters.tx.frames.get(), before + 1);
    // Three wanted frames and two buffers: what is in front of the one that has to wait is done with, and counted once.
    while two.sender.driver.used().unwrap().is_some() {}
    let mut world = World::new();
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    send(&mut two, 0, &[other, MAC, MAC, other, MAC, other]);
    world.burst.clear();
    two.from.rx.rx(&mut turn, 64, &mut world.burst);
    let all = world.burst.all();
    assert_eq!(two.to.tx.tx(&mut turn, &world.burst, all), 4);
    two.receiver.post(0, 2048);
    let rest = crate::burst::Mask(all.0 & !0b1111);
    assert_eq!(two.to.tx.tx(&mut turn, &world.burst, rest), 2);
    two.to.tx.settle(&mut turn, &two.world.counters);
    assert_eq!(two.world.counters.dropped(DropReason::RxFilter), 5);
    assert_eq!(two.world.counters.tx.frames.get(), before + 4);
}

#[test]
fn a_head_that_was_decided_on_before_decides_here_too() {
    let asked: Arc<Published> = Arc::default();
    let mut filter = RxFilter::new(MAC);
    filter.set_mode(Mode::Promiscuous, false);
    asked.publish(&filter, u64::MAX);
    for filters in [true, false] {
        filter.set_mode(Mode::Promiscuous, !filters);
        asked.publish(&filter, u64::MAX);
        let mut two = Two::<SplitDriver>::new(Format::Split, 8, MERGEABLE, 2048);
        two.to = pair(None, Some(&two.receiver.rig.config), &wake(), &asked).unwrap();
        // What lies there now says the opposite.
        let said = [MAC, OTHER];
        for (i, to) in said.iter().rev().enumerate() {
            two.sender.send(i as u32, &addressed(*to, i as u8), &[]);
            two.receiver.post(i as u32, 2048);
        }
        let mut world = World::new();
        let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
        world.burst.clear();
        two.from.rx.rx(&mut turn, 64, &mut world.burst);
        let frames = [0, 1].map(|i| addressed(said[i], i as u8));
        let heads: Vec<Head> = frames.iter().map(|frame| *frame.first_chunk().unwrap()).collect();
        assert_eq!(two.to.tx.room(&mut turn, 2), 2);
        let taken = two.to.tx.tx_headed(&mut turn, &world.burst, world.burst.all(), &heads);
        assert_eq!(taken, Some(2));
        two.to.tx.flush(&mut turn);
        two.to.tx.settle(&mut turn, &two.world.counters);
        assert_eq!(two.receiver.receive().unwrap().0, frames[0]);
        assert_eq!(two.receiver.receive().map(|got| got.0), (!filters).then(|| frames[1].clone()));
        assert_eq!(two.world.counters.dropped(DropReason::RxFilter), u64::from(filters));
    }
}

/// The address of somebody else.
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 8];

/// What arrives begins with the head that was decided on, whatever lies in the sender's memory.
fn heads_are_what_arrives(features: u64, header: usize, buffer: usize, pieces: &[usize]) {
    let lengths: Vec<_> =
        [14, 15, 16, 17, 60, 64, 200, 1500, 4000].into_iter().filter(|n| *n < 10 * buffer + 1).collect();
    let mut two = Two::<SplitDriver>::new(Format::Split, 64, features, buffer);
    let config = &two.receiver.rig.config;
    let shared = two.to.tx_shared.clone();
    let features = Features { header, ..Features::of(config.features) };
    let mut tx = NicTx::new(Some(SplitDevice::new(config).unwrap()), features, config, shared);
    for (token, &len) in lengths.iter().enumerate() {
        two.sender.send(token as u32, &frame(len, 1), pieces);
    }
    for token in 0..64 {
        two.receiver.post(token, buffer);
    }
    let World { io, pool, burst, .. } = &mut two.world;
    let mut turn = Turn { now: 0, io, pool };
    burst.clear();
    two.from.rx.rx(&mut turn, 64, burst);
    let heads: Vec<Head> = (0..64).map(|i| [0xa0 + i; 16]).collect();
    assert_eq!(tx.give(burst, burst.all(), |i| heads.get(i)), lengths.len());
    tx.flush(&mut turn);
    for (i, &len) in lengths.iter().enumerate() {
        let (mut bytes, mut left) = (Vec::new(), header + len);
        while left > 0 {
            let (token, written) = two.receiver.driver.used().unwrap().expect("a frame");
            bytes.extend(two.receiver.bytes(token, written as usize));
            left -= written as usize;
        }
        let mut wanted = frame(len, 1);
        let head = &heads[i][..len.min(16)];
        wanted[..head.len()].copy_from_slice(head);
        assert_eq!(bytes.split_off(header), wanted, "{len} bytes in {pieces:?}, header {header}");
    }
}

#[test]
fn the_head_that_was_decided_on_is_what_arrives() {
    for pieces in [&[][..], &[HEADER], &[HEADER + 5], &[HEADER, 6, 6, 6], &[HEADER, 16], &[HEADER + 14]] {
        heads_are_what_arrives(MERGEABLE, 12, 2048, pieces);
        heads_are_what_arrives(MERGEABLE, 12, 20, pieces);
        heads_are_what_arrives(0, 12, 4096, pieces);
        heads_are_what_arrives(0, 10, 4096, pieces);
    }
}

/// A sender that changes the address while the nic looks at it: what arrives is for its receiver.
fn a_changing_address_passes_no_filter<V: DriverRing>(format: Format, pieces: &[usize]) {
    let asked: Arc<Published> = Arc::default();
    let mut filter = RxFilter::new(MAC);
    filter.set_mode(Mode::Promiscuous, false);
    asked.publish(&filter, u64::MAX);
    let mut two = Two::<V>::new(format, 8, MERGEABLE, 2048);
    two.to = pair(None, Some(&two.receiver.rig.config), &wake(), &asked).unwrap();
    let Two { world, sender, receiver, from, to } = &mut two;
    // The last byte of the address alone tells the one from the other.
    let last = sender.rig.at(sender.rig.buffer(HEADER + 5), 1).unwrap().as_ptr() as usize;
    let running = Arc::new(());
    let watched = Arc::downgrade(&running);
    std::thread::scope(|scope| {
        let _running = running; // also where an assertion fails
        scope.spawn(move || {
            while watched.strong_count() > 0 {
                for value in [OTHER[5], MAC[5]] {
                    // SAFETY: a byte of guest memory, which outlives this thread; all read it by raw copies.
                    unsafe { (last as *mut u8).write_volatile(value) };
                }
            }
        });
        let (mut arrived, mut wrong, mut posted) = (0, 0, false);
        while wrong == 0 && (arrived < 500 || world.counters.dropped(DropReason::RxFilter) < 500) {
            if !std::mem::replace(&mut posted, true) {
                receiver.post(0, 2048);
            }
            sender.send(0, &addressed(MAC, 1), pieces);
            assert_eq!(world.hop(&mut *from.rx, &mut *to.tx), (1, 1));
            assert!(sender.driver.used().unwrap().is_some());
            if let Some((bytes, _)) = receiver.receive() {
                wrong += usize::from(bytes[..6] != MAC);
                (arrived, posted) = (arrived + 1, false);
            }
        }
        assert_eq!(wrong, 0, "behind {arrived} frames");
    });
}

#[test]
fn an_address_that_changes_meanwhile_passes_no_filter() {
    a_changing_address_passes_no_filter::<SplitDriver>(Format::Split, &[]);
    a_changing_address_passes_no_filter::<SplitDriver>(Format::Split, &[HEADER]);
    a_changing_address_passes_no_filter::<PackedDriver>(Format::Packed, &[HEADER, 5]);
}
