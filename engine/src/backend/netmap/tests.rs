//! Ports whose other end plays the kernel.

#![allow(unsafe_code)] // lends bytes of their own

use super::abi::{self, Interface, NS_MOREFRAG, NS_REPORT, RingHeader};
use super::open::open_by;
use super::testing::{BUFFER, Fake};
use super::{DEVICE, NetmapOptions, Opened, Regions};
use crate::backend::pair::QueuePair;
use crate::backend::testing::{World, frame};
use crate::burst::{BURST, Seg};
use crate::port::Turn;
use crate::port::counters::DropReason;
use crate::wire::vnet_hdr::{F_NEEDS_CSUM, GSO_TCPV4, VnetHdr};
use nix::errno::Errno;
use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::Arc;

mod opening;
mod several;
mod workers;

fn options(ifname: &str) -> NetmapOptions {
    NetmapOptions { ifname: ifname.into(), device: DEVICE.into() }
}

fn try_open(fake: &Arc<Fake>, regions: &Regions, ifname: &str) -> Result<Opened, String> {
    open_by(&(fake.clone() as _), &options(ifname), regions).map_err(|error| error.to_string())
}

/// The port's queues, with a worker.
fn start(world: &mut World, fake: &Arc<Fake>, regions: &Regions, ifname: &str) -> Vec<QueuePair> {
    let mut queues = try_open(fake, regions, ifname).unwrap().queues;
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    for queue in &mut queues {
        queue.rx.start(&mut turn);
        queue.tx.start(&mut turn);
    }
    queues
}

/// Sends the `count` frames that have come to both receivers, which settle before the frames are given back.
#[track_caller]
fn to_both(world: &mut World, from: &mut QueuePair, mut to: [&mut QueuePair; 2], count: usize) {
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    from.rx.rx(&mut turn, BURST, &mut world.burst);
    let all = world.burst.all();
    for to in &mut to {
        assert_eq!(to.tx.tx(&mut turn, &world.burst, all), count);
    }
    for to in &mut to {
        to.tx.settle(&mut turn, &world.counters);
    }
    from.rx.release(&mut turn, count);
    from.rx.rx(&mut turn, BURST, &mut world.burst);
}

fn plain(frames: &[Vec<u8>]) -> Vec<(u16, Vec<u8>)> {
    frames.iter().map(|frame| (0, frame.clone())).collect()
}

fn bytes(slots: Vec<(u16, Vec<u8>)>) -> Vec<Vec<u8>> {
    slots.into_iter().map(|(_, bytes)| bytes).collect()
}

#[test]
fn buffers_of_one_region_change_hands_and_none_is_lost() {
    let (mut world, fake, regions) = (World::new(), Fake::new(), Regions::default());
    let mut one = start(&mut world, &fake, &regions, "netmap:a").remove(0);
    let mut two = start(&mut world, &fake, &regions, "netmap:b").remove(0);
    assert_eq!(fake.state().maps, 1, "both have the region");
    let first = fake.slot(&fake.state().ports[0].rx[0], 0).buf_idx;
    let mut expected = Vec::new();
    let mut got = Vec::new();
    for round in 0..100usize {
        let frames: Vec<_> = (0..round % 16).map(|i| frame(60 + (round * 7 + i) % 1400, i as u8)).collect();
        fake.send(0, 0, plain(&frames));
        expected.extend(frames);
        while world.hop(&mut *one.rx, &mut *two.tx).1 > 0 {}
        if round == 1 {
            assert_eq!(
                fake.slot(&fake.state().ports[1].tx[0], 0).buf_idx,
                first,
                "the very buffer that it came in"
            );
        }
        got.extend(bytes(fake.sent(1, 0)));
        fake.census();
    }
    assert_eq!(got, expected);
    assert_eq!(world.counters.tx.frames.get(), expected.len() as u64);
}

#[test]
fn the_last_slot_of_a_burst_asks_for_a_report_and_a_burst_is_one_call() {
    let (mut world, fake, regions) = (World::new(), Fake::new(), Regions::default());
    let mut one = start(&mut world, &fake, &regions, "netmap:a").remove(0);
    let mut two = start(&mut world, &fake, &regions, "netmap:b").remove(0);
    fake.send(0, 0, plain(&[frame(60, 1), frame(61, 2), frame(62, 3)]));
    fake.state().ports[0].rx[0].incoming.make_contiguous();
    assert_eq!(world.hop(&mut *one.rx, &mut *two.tx), (3, 3));
    let flags: Vec<u16> = fake.sent(1, 0).iter().map(|(flags, _)| flags & NS_REPORT).collect();
    assert_eq!(flags, [0, 0, NS_REPORT]);
    let state = fake.state();
    assert_eq!((state.ports[0].syncs.1, state.ports[0].syncs.0), (1, 0));
    // One since the ring is shorter than a burst could be, one that sends.
    assert_eq!(state.ports[1].syncs, (2, 0));
}

#[test]
fn what_lies_elsewhere_is_copied_and_a_second_receiver_copies_too() {
    let (mut world, fake, regions) = (World::new(), Fake::new(), Regions::default());
    let mut one = start(&mut world, &fake, &regions, "netmap:a").remove(0);
    let mut two = start(&mut world, &fake, &regions, "netmap:b").remove(0);
    let mut three = start(&mut world, &fake, &regions, "netmap:c").remove(0);
    let frames = [frame(60, 1), frame(1500, 2)];
    fake.send(0, 0, plain(&frames));
    to_both(&mut world, &mut one, [&mut two, &mut three], 2);
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    assert_eq!((bytes(fake.sent(1, 0)), bytes(fake.sent(2, 0))), (frames.to_vec(), frames.to_vec()));
    fake.census();
    // Memory of another owner.
    let mut other = frame(100, 9);
    world.burst.clear();
    // SAFETY: the bytes outlive the burst.
    let seg = unsafe { Seg::new(NonNull::new(other.as_mut_ptr()).unwrap(), 100) };
    assert!(world.burst.push(VnetHdr::NONE, &[seg.slice(0, 30), seg.slice(30, 70)]));
    assert_eq!(two.tx.tx(&mut turn, &world.burst, world.burst.all()), 1);
    two.tx.settle(&mut turn, &world.counters);
    assert_eq!(bytes(fake.sent(1, 0)), [other]);
    fake.census();
}

#[test]
fn a_full_ring_holds_frames_back_until_there_is_room() {
    let (mut world, fake, regions) = (World::new(), Fake::new(), Regions::default());
    let mut one = start(&mut world, &fake, &regions, "netmap:a").remove(0);
    let mut two = start(&mut world, &fake, &regions, "netmap:b").remove(0);
    fake.state().ports[1].tx[0].holds = true;
    let frames: Vec<_> = (0..40).map(|i| frame(64, i)).collect();
    fake.send(0, 0, plain(&frames));
    let mut gone = 0;
    for _ in 0..10 {
        gone += world.hop(&mut *one.rx, &mut *two.tx).1;
    }
    assert_eq!((gone, two.tx.blocked()), (15, true));
    let ring = fake.state().ports[1].tx[0].at;
    let cur: u32 = fake.read(ring + offset_of!(RingHeader, cur));
    let tail: u32 = fake.read(ring + offset_of!(RingHeader, tail));
    assert_eq!(cur, tail, "room behind the tail wakes");
    fake.state().ports[1].tx[0].holds = false;
    for _ in 0..10 {
        world.now += 10_000_000;
        gone += world.hop(&mut *one.rx, &mut *two.tx).1;
    }
    assert_eq!((gone, two.tx.blocked()), (40, false));
    assert_eq!(bytes(fake.sent(1, 0)), frames);
    fake.census();
}

#[test]
fn frames_of_several_slots_are_whole_or_not_there() {
    let (mut world, fake, regions) = (World::new(), Fake::new(), Regions::default());
    let mut one = start(&mut world, &fake, &regions, "netmap:a").remove(0);
    let mut two = start(&mut world, &fake, &regions, "netmap:b").remove(0);
    let long = frame(5000, 3);
    let cut = |from: usize, to: usize, flags| (flags, long[from..to].to_vec());
    fake.send(0, 0, [cut(0, 2000, NS_MOREFRAG), cut(2000, 4000, NS_MOREFRAG)]);
    assert_eq!(world.hop(&mut *one.rx, &mut *two.tx), (0, 0), "the rest is to come");
    fake.send(0, 0, [cut(4000, 5000, 0), (0, frame(60, 1))]);
    // One that lies elsewhere fills the slots that it needs; these would change hands.
    let elsewhere = Regions::default();
    let mut three = start(&mut world, &fake, &elsewhere, "netmap:c").remove(0);
    assert_eq!(world.hop(&mut *one.rx, &mut *three.tx), (2, 2));
    let sent = fake.sent(2, 0);
    let shape: Vec<_> = sent.iter().map(|(flags, bytes)| (flags & NS_MOREFRAG, bytes.len())).collect();
    assert_eq!(shape, [(NS_MOREFRAG, BUFFER), (NS_MOREFRAG, BUFFER), (0, 5000 - 2 * BUFFER), (0, 60)]);
    assert_eq!(bytes(sent[..3].to_vec()).concat(), long);
    // One that fills the ring and has no end is none.
    fake.send(0, 0, (0..20).map(|_| (NS_MOREFRAG, vec![1; 100])));
    for _ in 0..4 {
        world.hop(&mut *one.rx, &mut *two.tx);
    }
    assert_eq!(one.rx.drops().map(|(reason, _)| reason), Some(DropReason::Malformed));
    fake.census();
}

#[test]
fn what_is_no_frame_is_dropped_by_name() {
    let (mut world, fake, regions) = (World::new(), Fake::new(), Regions::default());
    let mut one = start(&mut world, &fake, &regions, "netmap:a").remove(0);
    let mut two = start(&mut world, &fake, &regions, "netmap:b").remove(0);
    fake.send(0, 0, plain(&[frame(13, 0), frame(60, 1), frame(0, 0), frame(60, 2)]));
    let (mut gone, mut dropped) = (0, 0);
    for _ in 0..6 {
        gone += world.hop(&mut *one.rx, &mut *two.tx).1;
        dropped +=
            one.rx.drops().map_or(0, |(reason, n)| if reason == DropReason::Malformed { n } else { 0 });
    }
    assert_eq!((gone, dropped), (2, 2));
    // Slots with a length or a buffer that cannot be.
    fake.send(0, 0, plain(&[frame(60, 1), frame(60, 2)]));
    world.hop(&mut *one.rx, &mut *two.tx);
    fake.sent(1, 0);
    fake.census();
}

#[test]
fn words_of_the_ring_that_cannot_be_touch_no_memory() {
    let (mut world, fake, regions) = (World::new(), Fake::new(), Regions::default());
    let mut one = start(&mut world, &fake, &regions, "netmap:a").remove(0);
    let mut two = start(&mut world, &fake, &regions, "netmap:b").remove(0);
    let rx = fake.state().ports[0].rx[0].at;
    let tx = fake.state().ports[1].tx[0].at;
    fake.write(rx + offset_of!(RingHeader, tail), 2u32);
    fake.write(rx + 256, abi::Slot { buf_idx: u32::MAX, len: 60, flags: 0, ptr: 0 });
    fake.write(rx + 256 + 16, abi::Slot { buf_idx: 5, len: 4000, flags: 0, ptr: 0 });
    fake.state().sync_errno = Some(Errno::EBUSY);
    for _ in 0..3 {
        assert_eq!(world.hop(&mut *one.rx, &mut *two.tx), (0, 0));
    }
    assert_eq!(one.rx.drops(), Some((DropReason::Malformed, 2)));
    fake.write(rx + offset_of!(RingHeader, tail), 999u32);
    world.hop(&mut *one.rx, &mut *two.tx);
    assert_eq!(one.rx.trouble(), libc::EPROTO);
    // And for the transmitting half: frames are dropped by name, not held for ever.
    fake.write(tx + offset_of!(RingHeader, tail), u32::MAX);
    let mut other = frame(100, 9);
    // SAFETY: the bytes outlive the burst.
    let seg = unsafe { Seg::new(NonNull::new(other.as_mut_ptr()).unwrap(), 100) };
    world.burst.clear();
    assert!(world.burst.push(VnetHdr::NONE, &[seg]));
    let mut turn = Turn { now: 7, io: &mut world.io, pool: &mut world.pool };
    assert_eq!(two.tx.room(&mut turn, 1), BURST);
    assert_eq!(two.tx.tx(&mut turn, &world.burst, world.burst.all()), 1);
    two.tx.settle(&mut turn, &world.counters);
    assert_eq!(world.counters.dropped(DropReason::NotConnected), 1);
}

#[test]
fn vale_ports_have_a_header_and_take_large_frames() {
    let (mut world, fake, regions) = (World::new(), Fake::new(), Regions::default());
    let opened = try_open(&fake, &regions, "vale0:1").unwrap();
    assert_eq!((opened.header, fake.state().ports[0].header), (10, 10));
    drop(opened);
    assert_eq!(fake.state().ports[0].header, 0, "as it was before");
    let mut one = start(&mut world, &fake, &regions, "vale0:1").remove(0);
    let mut two = start(&mut world, &fake, &regions, "vale0:2").remove(0);
    assert!(two.tx.caps().csum && two.tx.caps().tso4 && !two.tx.caps().uso);
    let hdr = VnetHdr {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        hdr_len: 54,
    };
    let with = |hdr: VnetHdr, frame: &[u8]| [&hdr.encode()[..], frame].concat();
    let (small, large) = (frame(60, 1), frame(4000, 2));
    let stream = with(hdr, &large);
    fake.send(
        0,
        0,
        [
            (0, with(VnetHdr::NONE, &small)),
            (NS_MOREFRAG, stream[..2048].to_vec()),
            (0, stream[2048..].to_vec()),
            // The header in a slot of its own.
            (NS_MOREFRAG, hdr.encode().to_vec()),
            (0, large[..1000].to_vec()),
            (0, vec![0; 9]),
        ],
    );
    assert_eq!(world.hop(&mut *one.rx, &mut *two.tx), (3, 3));
    assert_eq!(world.burst.frames()[1].hdr, hdr);
    assert_eq!(
        bytes(fake.sent(1, 0)),
        [
            with(VnetHdr::NONE, &small),
            stream[..2048].to_vec(),
            stream[2048..].to_vec(),
            with(hdr, &large[..1000]),
        ]
    );
    world.hop(&mut *one.rx, &mut *two.tx);
    assert_eq!(one.rx.drops(), Some((DropReason::Malformed, 1)));
    fake.census();
    // What a guest made up, the kernel would compute by.
    for bad in [VnetHdr { csum_start: 59, ..hdr }, VnetHdr { gso_size: 0, ..hdr }] {
        fake.send(0, 0, [(0, with(bad, &small))]);
        assert_eq!(world.hop(&mut *one.rx, &mut *two.tx), (1, 1));
    }
    assert_eq!(world.counters.dropped(DropReason::BadOffload), 2);
}

#[test]
fn a_port_that_the_kernel_refuses_drops_by_name_and_comes_back() {
    let (mut world, fake, regions) = (World::new(), Fake::new(), Regions::default());
    let mut one = start(&mut world, &fake, &regions, "netmap:a").remove(0);
    let mut two = start(&mut world, &fake, &regions, "netmap:b").remove(0);
    fake.send(0, 0, plain(&[frame(60, 1)]));
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    one.rx.rx(&mut turn, BURST, &mut world.burst);
    assert_eq!(two.tx.tx(&mut turn, &world.burst, world.burst.all()), 1);
    fake.state().sync_errno = Some(Errno::ENXIO);
    two.tx.settle(&mut turn, &world.counters);
    assert_eq!(world.counters.dropped(DropReason::NotConnected), 1);
    assert_eq!(world.counters.tx_trouble.load(std::sync::atomic::Ordering::Relaxed), libc::ENXIO);
    one.rx.release(&mut turn, 1);
    fake.state().sync_errno = None;
    world.now += 2_000_000;
    fake.send(0, 0, plain(&[frame(60, 2)]));
    assert_eq!(world.hop(&mut *one.rx, &mut *two.tx), (1, 1));
    assert_eq!(bytes(fake.sent(1, 0)).last(), Some(&frame(60, 2)));
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    assert!(two.tx.stop(&mut turn) && two.rx.stop(&mut turn));
}

#[test]
fn a_queue_that_is_to_go_waits_for_its_last_frames_but_not_for_ever() {
    let (mut world, fake, regions) = (World::new(), Fake::new(), Regions::default());
    let mut one = start(&mut world, &fake, &regions, "netmap:a").remove(0);
    let mut two = start(&mut world, &fake, &regions, "netmap:b").remove(0);
    fake.state().ports[1].tx[0].holds = true;
    fake.send(0, 0, plain(&[frame(60, 1)]));
    assert_eq!(world.hop(&mut *one.rx, &mut *two.tx), (1, 1));
    for (now, over) in [(0, false), (99_000_000, false), (100_000_000, true)] {
        let mut turn = Turn { now, io: &mut world.io, pool: &mut world.pool };
        assert_eq!(two.tx.stop(&mut turn), over, "{now}");
    }
}

#[test]
fn interfaces_have_the_size_that_the_kernel_gives_them() {
    assert_eq!(size_of::<Interface>(), 56);
}
