//! The two halves over rings whose other end plays the kernel.

use super::RING;
use super::Share;
use super::rx::AfXdpRx;
use super::testing::{CHUNKS, Fake, Parts, parts};
use super::tx::AfXdpTx;
use crate::backend::testing::{World, frame};
use crate::burst::{BURST, Mask, Seg};
use crate::mem::chunks::{Census, Seat, SharedUmem};
use crate::port::counters::{DropReason, PortCounters};
use crate::port::{RxQueue, Turn, TxQueue};
use crate::wire::vnet_hdr::{F_NEEDS_CSUM, VnetHdr};
use af_xdp::Desc;
use af_xdp::testing::Kernel;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

mod standing;

/// A queue, and what stands behind it.
struct Rig {
    rx: AfXdpRx<Fake>,
    tx: AfXdpTx<Fake>,
    kernel: Kernel,
    fake: Arc<Fake>,
    limit: Arc<AtomicU32>,
    held: Arc<super::held::Held>,
    seat: Option<Seat>,
}

fn umem() -> Arc<SharedUmem> {
    super::testing::umem().unwrap()
}

impl Rig {
    fn new(world: &mut World, shared: &Arc<SharedUmem>) -> Self {
        let Parts { mut rx, mut tx, kernel, fake, limit, held, seat } = parts(shared).unwrap();
        let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
        rx.start(&mut turn);
        tx.start(&mut turn);
        Self { rx, tx, kernel, fake, limit, held, seat: Some(seat) }
    }

    /// Takes and completes what was sent.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        let frames = self.kernel.transmit(usize::MAX);
        self.kernel.complete(usize::MAX);
        frames.into_iter().map(|(_, frame)| frame).collect()
    }
}

/// One turn from one rig to another, as the worker makes it.
fn hop(world: &mut World, from: &mut Rig, to: &mut Rig) -> (usize, usize) {
    let done = world.hop(&mut from.rx, &mut to.tx);
    world.pool.umems.settle();
    done
}

/// The end of a turn at `now`.
fn settle_at(world: &mut World, to: &mut Rig, now: u64) {
    let mut turn = Turn { now, io: &mut world.io, pool: &mut world.pool };
    to.tx.settle(&mut turn, &world.counters);
}

fn census(world: &mut World) -> Census {
    world.pool.umems.get(0).unwrap().census()
}

#[test]
fn frames_of_one_umem_move_and_none_is_copied_or_lost() {
    let (mut world, shared) = (World::new(), umem());
    let (mut one, mut two) = (Rig::new(&mut world, &shared), Rig::new(&mut world, &shared));
    assert_eq!(one.kernel.filled(), RING);
    let first = one.kernel.filled_at(0);
    let mut sent = Vec::new();
    for round in 0..200u32 {
        let frames: Vec<_> = (0..40).map(|i| frame(60 + (round as usize * 7 + i) % 1400, i as u8)).collect();
        assert!(frames.iter().all(|frame| one.kernel.receive(frame)));
        assert_eq!(hop(&mut world, &mut one, &mut two), (40, 40));
        let census = census(&mut world);
        assert_eq!((census.sending, census.receiving), (40, 2 * RING as usize), "the fill rings stay full");
        let shares = [&one, &two].map(|rig| Share::of(0, &shared, &rig.held));
        let held: u32 = shares.iter().map(|share| share.receiving + share.sending).sum();
        assert_eq!(held + shares[0].free + shares[0].lost, shares[0].chunks, "{shares:?}");
        let got = two.kernel.transmit(usize::MAX);
        assert_eq!(got.iter().map(|(_, frame)| frame.clone()).collect::<Vec<_>>(), frames);
        if round == 0 {
            assert_eq!(two.kernel.complete_front(), Some(first + 256), "the very chunk that it came in");
        }
        two.kernel.complete(usize::MAX);
        sent.extend(got);
        hop(&mut world, &mut one, &mut two);
        let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
        two.tx.settle(&mut turn, &world.counters);
        world.pool.umems.settle();
    }
    assert_eq!((sent.len(), census(&mut world).sending), (8000, 0));
    assert_eq!(world.counters.tx.frames.get(), 8000);
}

#[test]
fn frames_that_come_fast_and_one_by_one_gather_and_slow_ones_do_not() {
    let (mut world, shared) = (World::new(), umem());
    let (mut one, mut two) = (Rig::new(&mut world, &shared), Rig::new(&mut world, &shared));
    let (mut finds, mut taken, mut got) = (0, 0, Vec::new());
    for mark in 0..200u8 {
        world.now += 1000;
        assert!(one.kernel.receive(&frame(60, mark)));
        let (read, gone) = hop(&mut world, &mut one, &mut two);
        assert_eq!(read, gone);
        (finds, taken) = (finds + usize::from(read > 0), taken + read);
        got.extend(two.sent());
    }
    assert!(taken > 180 && finds < taken / 8, "{taken} frames in {finds} turns");
    world.now += 1_000_000;
    hop(&mut world, &mut one, &mut two);
    got.extend(two.sent());
    assert_eq!(got, (0..200).map(|mark| frame(60, mark)).collect::<Vec<_>>(), "all of them, in order");
    for mark in 0..10 {
        world.now += 10_000;
        assert!(one.kernel.receive(&frame(60, mark)));
        assert_eq!(hop(&mut world, &mut one, &mut two), (1, 1), "a tenth as many go at once");
        two.sent();
    }
}

#[test]
fn a_frame_from_elsewhere_is_copied_into_a_chunk() {
    let (mut world, one, other) = (World::new(), umem(), umem());
    let (mut from, mut to) = (Rig::new(&mut world, &one), Rig::new(&mut world, &other));
    for round in 0..100 {
        let frames: Vec<_> = (0..BURST).map(|i| frame(14 + round * 13 + i, i as u8)).collect();
        assert!(frames.iter().all(|frame| from.kernel.receive(frame)));
        assert_eq!(hop(&mut world, &mut from, &mut to), (BURST, BURST));
        assert_eq!(from.kernel.filled(), RING, "given back at once");
        assert_eq!(to.sent(), frames);
        hop(&mut world, &mut from, &mut to);
    }
}

#[test]
fn a_jumbo_frame_takes_several_chunks_both_ways_and_moves_as_one() {
    let (mut world, one, other) = (World::new(), umem(), umem());
    let (mut from, mut near, mut far) =
        (Rig::new(&mut world, &one), Rig::new(&mut world, &one), Rig::new(&mut world, &other));
    let frames: Vec<_> = [9000, 64, 3840, 3841, 8000].map(|len| frame(len, 3)).into();
    for to in [&mut near, &mut far] {
        assert!(frames.iter().all(|frame| from.kernel.receive(frame)));
        assert_eq!(hop(&mut world, &mut from, to), (5, 5));
        assert_eq!(to.sent(), frames);
    }
    assert_eq!(from.kernel.filled(), RING);
}

#[test]
fn what_the_receiver_does_not_take_comes_again_in_order() {
    let (mut world, shared) = (World::new(), umem());
    let mut from = Rig::new(&mut world, &shared);
    let frames: Vec<_> = (0..10).map(|i| frame(60, i)).collect();
    assert!(frames.iter().all(|frame| from.kernel.receive(frame)));
    let mut seen = Vec::new();
    for taken in [3, 0, 4, 3] {
        let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
        world.burst.clear();
        from.rx.rx(&mut turn, BURST, &mut world.burst);
        for lent in &world.burst.frames()[..taken] {
            let mut bytes = vec![0; lent.len()];
            world.burst.copy_out(lent, 0, &mut bytes);
            seen.push(bytes);
        }
        from.rx.release(&mut turn, taken);
    }
    assert_eq!(seen, frames);
    assert_eq!(from.kernel.filled(), RING);
}

#[test]
fn a_queue_that_found_no_chunk_gets_those_of_one_that_ended() {
    let (mut world, shared) = (World::new(), umem());
    let mut old: Vec<Rig> = (0..4).map(|_| Rig::new(&mut world, &shared)).collect();
    assert_eq!(census(&mut world).free, 0);
    let mut new = Rig::new(&mut world, &shared);
    assert_eq!(new.kernel.filled(), 0);
    drop(old.pop().and_then(|mut rig| rig.seat.take()));
    let mut turns = 0;
    while new.kernel.filled() < RING {
        world.pool.umems.settle();
        let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
        new.rx.rx(&mut turn, BURST, &mut world.burst);
        turns += 1;
        assert!(turns <= CHUNKS / 512 + 1, "the kernel sees none of them");
    }
}

#[test]
fn a_fill_ring_that_is_given_back_late_costs_no_chunk() {
    let (mut world, shared) = (World::new(), umem());
    let (mut from, mut to) = (Rig::new(&mut world, &shared), Rig::new(&mut world, &umem()));
    for round in 0..200u8 {
        from.kernel.is_late(true);
        assert!((0..10).all(|i| from.kernel.receive(&frame(60, round ^ i))));
        assert_eq!(hop(&mut world, &mut from, &mut to), (10, 10));
        from.kernel.is_late(false);
        hop(&mut world, &mut from, &mut to);
        assert_eq!(to.sent().len(), 10);
    }
    world.pool.umems.settle();
    assert_eq!(from.kernel.filled(), RING);
    let Census { free, receiving, .. } = census(&mut world);
    assert_eq!((receiving, free), (RING as usize, CHUNKS - RING as usize));
    assert_eq!(shared.free(), free as u32);
}

#[test]
fn a_full_ring_is_back_pressure_and_goes_on_when_the_kernel_does() {
    let (mut world, shared) = (World::new(), umem());
    let (mut from, mut to) = (Rig::new(&mut world, &shared), Rig::new(&mut world, &shared));
    to.fake.errno.store(libc::EAGAIN, Ordering::Relaxed);
    let mut gone = 0;
    while gone < RING as usize {
        assert!((0..BURST).all(|i| from.kernel.receive(&frame(60, i as u8))));
        let (_, went) = hop(&mut world, &mut from, &mut to);
        assert!(to.tx.blocked());
        gone += went;
    }
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    assert_eq!(to.tx.room(&mut turn, BURST), 0);
    to.fake.errno.store(0, Ordering::Relaxed);
    assert_eq!(to.sent().len(), RING as usize);
    to.tx.settle(&mut turn, &world.counters);
    assert!(!to.tx.blocked());
    assert!(to.tx.room(&mut turn, BURST) >= BURST);
}

#[test]
fn an_interface_that_is_down_drops_by_name_and_comes_back() {
    let (mut world, shared) = (World::new(), umem());
    let (mut from, mut to) = (Rig::new(&mut world, &shared), Rig::new(&mut world, &shared));
    to.fake.errno.store(libc::ENETDOWN, Ordering::Relaxed);
    for _ in 0..3 {
        assert!(from.kernel.receive(&frame(60, 1)));
        assert_eq!(hop(&mut world, &mut from, &mut to), (1, 1), "nobody is held up");
    }
    assert_eq!(world.counters.dropped(DropReason::NotConnected), 2, "the first one is in the ring");
    to.fake.errno.store(0, Ordering::Relaxed);
    assert_eq!(to.sent().len(), 1);
    assert!(from.kernel.receive(&frame(60, 2)));
    hop(&mut world, &mut from, &mut to); // is refused
    settle_at(&mut world, &mut to, super::tx::RETRY); // and the kernel is found well again
    assert!(from.kernel.receive(&frame(60, 3)));
    hop(&mut world, &mut from, &mut to);
    assert_eq!(to.sent(), [frame(60, 3)]);
}

#[test]
fn a_refusal_is_told_and_the_kernel_is_asked_again_now_and_then() {
    for errno in [libc::EINVAL, libc::ENXIO, libc::ENOMEM, libc::EPERM, libc::EOPNOTSUPP] {
        let (mut world, shared) = (World::new(), umem());
        let (mut from, mut to) = (Rig::new(&mut world, &shared), Rig::new(&mut world, &shared));
        to.fake.errno.store(errno, Ordering::Relaxed);
        let told = |world: &World| world.counters.tx_trouble.load(Ordering::Relaxed);
        assert!(from.kernel.receive(&frame(60, 1)));
        hop(&mut world, &mut from, &mut to);
        assert_eq!((told(&world), to.fake.sends.load(Ordering::Relaxed)), (errno, 1));
        let retry = super::tx::RETRY;
        for turn in 0..1000 {
            assert!(to.tx.blocked(), "the worker looks again by itself");
            settle_at(&mut world, &mut to, turn * retry / 100);
        }
        assert_eq!(to.fake.sends.load(Ordering::Relaxed), 10, "once in each of ten milliseconds");
        assert!(from.kernel.receive(&frame(60, 2)));
        hop(&mut world, &mut from, &mut to);
        assert_eq!(world.counters.dropped(DropReason::NotConnected), 1);
        to.fake.errno.store(0, Ordering::Relaxed);
        assert_eq!(to.sent(), [frame(60, 1)], "what had stood there is sent");
        settle_at(&mut world, &mut to, 11 * retry);
        assert_eq!((told(&world), world.counters.tx.frames.get()), (0, 1));
        assert!(!to.tx.blocked());
        assert!(from.kernel.receive(&frame(60, 3)));
        hop(&mut world, &mut from, &mut to);
        assert_eq!(to.sent(), [frame(60, 3)], "and what comes after it");
    }
}

#[test]
fn frames_longer_than_the_interface_takes_are_too_long() {
    let (mut world, shared) = (World::new(), umem());
    let (mut from, mut to) = (Rig::new(&mut world, &shared), Rig::new(&mut world, &shared));
    to.limit.store(1518, Ordering::Relaxed);
    for len in [1518, 1519, 60] {
        assert!(from.kernel.receive(&frame(len, 0)));
    }
    assert_eq!(hop(&mut world, &mut from, &mut to), (3, 3));
    assert_eq!(to.sent().iter().map(Vec::len).collect::<Vec<_>>(), [1518, 60]);
    assert_eq!(world.counters.dropped(DropReason::TooLong), 1);
    assert_eq!(from.kernel.filled(), RING);
}

#[test]
fn descriptors_that_make_no_sense_are_no_frames_and_take_no_chunk() {
    let (mut world, shared) = (World::new(), umem());
    let (mut from, mut to) = (Rig::new(&mut world, &shared), Rig::new(&mut world, &shared));
    let theirs = to.kernel.filled_at(0);
    let before = census(&mut world);
    let across = from.kernel.filled_at(0) + 4090;
    for addr in [across, u64::MAX - 5, (CHUNKS * 4096) as u64, theirs + 256] {
        assert!(from.kernel.receive_raw(Desc { addr, len: 60, options: 0 }));
    }
    assert!(from.kernel.receive(&frame(13, 0)), "shorter than a header");
    assert!(from.kernel.receive(&frame(60, 9)));
    let mut malformed = 0;
    let mut went = 0;
    for _ in 0..8 {
        went += hop(&mut world, &mut from, &mut to).1;
        malformed += from.rx.drops().map_or(0, |(_, n)| n);
    }
    assert_eq!((malformed, went), (5, 1));
    assert_eq!(to.sent(), [frame(60, 9)]);
    // Three chunks did not come back, and the fill ring got others; the socket's end will free them.
    assert_eq!(census(&mut world).receiving, before.receiving + 3);
    assert_eq!(from.kernel.filled(), RING);
    to.kernel.complete_raw(12345 * 4096);
    to.kernel.complete_raw(u64::MAX);
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    to.tx.settle(&mut turn, &PortCounters::default());
    world.pool.umems.settle();
    let after = census(&mut world);
    assert_eq!((after.free, after.sending), (before.free - 3, 0));
}

#[test]
fn a_checksum_is_left_to_a_kernel_that_knows_metadata_only() {
    let (mut world, shared) = (World::new(), umem());
    let to = Rig::new(&mut world, &shared);
    assert!(!to.tx.caps().csum, "no socket of this UMEM was bound");
}

#[test]
#[allow(unsafe_code)]
fn a_frame_of_the_arena_with_work_left_is_never_moved() {
    let (mut world, shared) = (World::new(), umem());
    let (mut from, mut to) = (Rig::new(&mut world, &shared), Rig::new(&mut world, &shared));
    assert!(from.kernel.receive(&frame(60, 1)));
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    world.burst.clear();
    from.rx.rx(&mut turn, 1, &mut world.burst);
    let lent = world.burst.segs(&world.burst.frames()[0])[0];
    let bytes = [7u8; 20];
    world.burst.clear();
    let hdr = VnetHdr { flags: F_NEEDS_CSUM, csum_start: 14, csum_offset: 2, ..VnetHdr::NONE };
    // SAFETY: `bytes` outlives the burst's use.
    let own = unsafe { Seg::new(NonNull::from(&bytes).cast(), 20) };
    assert!(world.burst.push(hdr, &[lent]) && world.burst.push(VnetHdr::NONE, &[own, lent]));
    assert_eq!(to.tx.tx(&mut turn, &world.burst, Mask::first(2)), 2);
    to.tx.settle(&mut turn, &world.counters);
    from.rx.release(&mut turn, 1);
    assert_eq!(from.kernel.filled(), RING, "its chunk came back");
    assert_eq!(to.sent().iter().map(Vec::len).collect::<Vec<_>>(), [60, 80]);
}

#[test]
fn what_a_queue_held_is_free_when_its_socket_has_ended() {
    let (mut world, shared) = (World::new(), umem());
    let (mut from, mut to) = (Rig::new(&mut world, &shared), Rig::new(&mut world, &shared));
    assert!((0..20).all(|i| from.kernel.receive(&frame(60, i))));
    hop(&mut world, &mut from, &mut to);
    to.fake.errno.store(libc::EAGAIN, Ordering::Relaxed);
    let mut turn = Turn { now: 5, io: &mut world.io, pool: &mut world.pool };
    assert!(!to.tx.stop(&mut turn), "frames are under way");
    turn.now += super::tx::LINGER;
    assert!(!to.fake.abandoned.load(Ordering::Relaxed));
    assert!(to.tx.stop(&mut turn) && to.rx.stop(&mut turn), "it waits no longer");
    assert!(to.fake.abandoned.load(Ordering::Relaxed), "its socket will not say that these chunks are free");
    drop((to.seat.take(), from.seat.take()));
    while world.pool.umems.is_ending() {
        world.pool.umems.settle();
    }
    assert_eq!(census(&mut world), Census { free: CHUNKS, ..Census::default() });
}
