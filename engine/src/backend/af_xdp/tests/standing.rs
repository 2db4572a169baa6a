//! Frames that stand in a transmit ring when it ends.

use super::*;
use proptest::prelude::*;

/// Ends a rig's queue as the worker does, at `now`; frames and bytes that count as sent, and dropped for `reason`.
fn end(world: &mut World, to: &mut Rig, reason: DropReason) -> (u64, u64, u64) {
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    if !to.tx.stop(&mut turn) {
        turn.now += crate::backend::af_xdp::tx::LINGER;
        assert!(to.tx.stop(&mut turn), "it waits no longer");
    }
    to.tx.stopped(&world.counters);
    let sent = &world.counters.tx;
    (sent.frames.get(), sent.bytes.get(), world.counters.dropped(reason))
}

fn give(world: &mut World, from: &mut Rig, to: &mut Rig, lengths: &[usize]) {
    assert!(lengths.iter().all(|len| from.kernel.receive(&frame(*len, 7))));
    assert_eq!(hop(world, from, to), (lengths.len(), lengths.len()));
}

#[test]
fn what_the_kernel_never_took_is_dropped_and_not_sent() {
    for (errno, reason) in [(libc::ENXIO, DropReason::NotConnected), (libc::EAGAIN, DropReason::PortGone)] {
        let (mut world, shared) = (World::new(), umem());
        let (mut from, mut to) = (Rig::new(&mut world, &shared), Rig::new(&mut world, &shared));
        to.fake.errno.store(errno, Ordering::Relaxed);
        give(&mut world, &mut from, &mut to, &[60, 100, 9000, 200, 9000, 60]);
        assert_eq!(world.counters.tx.frames.get(), 0, "nothing was sent yet");
        assert_eq!(to.kernel.transmit(3).len(), 3);
        assert_eq!(end(&mut world, &mut to, reason), (3, 60 + 100 + 9000, 3));
        assert_eq!(end(&mut world, &mut to, reason), (3, 60 + 100 + 9000, 3), "only once");
    }
}

#[test]
fn a_frame_of_which_the_kernel_took_a_part_is_dropped() {
    let (mut world, shared) = (World::new(), umem());
    let (mut from, mut to) = (Rig::new(&mut world, &shared), Rig::new(&mut world, &shared));
    give(&mut world, &mut from, &mut to, &[60, 9000]);
    assert_eq!(to.kernel.take(2), 2, "the first of three parts");
    let (frames, bytes, dropped) = end(&mut world, &mut to, DropReason::PortGone);
    assert_eq!((frames, dropped), (1, 1));
    assert_eq!(bytes, 60 + 3840);
}

#[test]
#[allow(unsafe_code)]
fn frames_count_by_their_weight_when_their_last_piece_is_taken() {
    let (mut world, shared) = (World::new(), umem());
    let mut to = Rig::new(&mut world, &shared);
    to.fake.errno.store(libc::EAGAIN, Ordering::Relaxed);
    let bytes = frame(100, 3);
    // SAFETY: they live longer than the burst.
    let seg = unsafe { Seg::new(NonNull::from(&bytes[..]).cast(), 100) };
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    // Two frames that were cut into three and two pieces, and one that stands for four.
    let weights = [0, 0, 1, 0, 1, 4];
    world.burst.clear();
    for weight in weights {
        world.burst.push(VnetHdr::NONE, &[seg]);
        world.burst.weigh(weight);
    }
    assert_eq!(to.tx.tx(&mut turn, &world.burst, world.burst.all()), weights.len());
    let mut counted = 0;
    for weight in weights {
        to.tx.settle(&mut turn, &world.counters);
        assert_eq!(world.counters.tx.frames.get(), counted);
        assert_eq!(to.kernel.transmit(1).len(), 1);
        counted += u64::from(weight);
    }
    assert_eq!(end(&mut world, &mut to, DropReason::PortGone), (6, 600, 0));
}

#[test]
fn frames_that_are_taken_later_count_later() {
    let (mut world, shared) = (World::new(), umem());
    let (mut from, mut to) = (Rig::new(&mut world, &shared), Rig::new(&mut world, &shared));
    // Somebody takes frames by himself: no call is asked for.
    to.kernel.want_wakeups(false, false);
    give(&mut world, &mut from, &mut to, &[60; 5]);
    assert!(to.tx.blocked(), "the worker looks again");
    assert_eq!(to.sent().len(), 5);
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    to.tx.settle(&mut turn, &world.counters);
    assert_eq!(world.counters.tx.frames.get(), 5);
    assert!(!to.tx.blocked());
    assert_eq!(end(&mut world, &mut to, DropReason::PortGone), (5, 300, 0));
}

proptest! {
    /// Whatever the kernel takes when: what was given is what was sent and what was dropped in the end.
    #[test]
    fn out_is_in_minus_named_drops(rounds in proptest::collection::vec((0usize..12, 14usize..6000, 0usize..20), 1..40)) {
        let (mut world, shared) = (World::new(), umem());
        let (mut from, mut to) = (Rig::new(&mut world, &shared), Rig::new(&mut world, &shared));
        to.fake.errno.store(libc::EAGAIN, Ordering::Relaxed);
        let (mut given, mut taken) = (0, 0);
        for (n, len, takes) in rounds {
            give(&mut world, &mut from, &mut to, &vec![len; n]);
            given += n as u64;
            taken += to.kernel.transmit(takes).len() as u64;
            to.kernel.complete(usize::MAX);
        }
        let (sent, _, dropped) = end(&mut world, &mut to, DropReason::PortGone);
        prop_assert_eq!((sent, dropped), (taken, given - taken));
    }
}
