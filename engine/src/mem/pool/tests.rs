use super::*;
use crate::mem::arena::ArenaConfig;
use proptest::prelude::*;

fn arena() -> Arc<Arena> {
    Arena::new(&ArenaConfig { initial: 4 << 20, step: 1 << 20, hugepages: false }).unwrap()
}

fn pools(n: usize, small: u32, large: u32) -> Vec<Pool> {
    Pool::set_of(n, PoolSize { small, large }, &arena()).unwrap()
}

fn lend(burst: &mut Burst, parts: &[&[u8]]) {
    // SAFETY: the callers keep `parts` alive as long as the burst is read.
    let segs: Vec<Seg> =
        parts.iter().map(|p| unsafe { Seg::new(NonNull::from(&p[0]), p.len() as u32) }).collect();
    assert!(burst.push(VnetHdr { flags: 1, ..VnetHdr::NONE }, &segs));
}

#[test]
fn a_copy_holds_all_segments_and_the_offload_state() {
    let mut pool = pools(1, 4, 2).remove(0);
    let (head, tail) = ([1u8; 14], vec![2u8; 5000]);
    let mut burst = Burst::new();
    lend(&mut burst, &[&head, &tail]);
    burst.weigh(3);
    let frame = burst.frames()[0];
    let copy = pool.copy(&burst, &frame).unwrap();
    assert_eq!((copy.hdr().flags, copy.weight()), (1, 3));
    assert_eq!(copy.len(), 5014);
    assert_eq!(copy.bytes()[..14], head);
    assert_eq!(copy.bytes()[14..], tail[..]);
    pool.give(copy);
    assert_eq!(pool.out(), 0);
}

#[test]
fn the_last_buffer_given_is_the_next_one_taken() {
    let mut pool = pools(1, 8, 1).remove(0);
    let (a, b) = (pool.take(60).unwrap(), pool.take(60).unwrap());
    let at = a.seg().ptr();
    pool.give(b);
    pool.give(a);
    assert_eq!(pool.take(60).unwrap().seg().ptr(), at);
}

#[test]
fn an_empty_class_yields_nothing_and_leaves_the_other_alone() {
    let mut pool = pools(1, 1, 1).remove(0);
    let held = (pool.take(SMALL).unwrap(), pool.take(SMALL + 1).unwrap());
    assert!(pool.take(1).is_none() && pool.take(LARGE).is_none());
    pool.give(held.0);
    assert!(pool.take(LARGE).is_none());
    assert!(pool.take(SMALL).is_some());
    pool.give(held.1);
    assert!(pool.take(LARGE + 1).is_none(), "longer than any buffer");
}

#[test]
fn buffers_of_another_worker_return_by_its_queue() {
    let mut set = pools(2, 4, 2);
    let (mut b, mut a) = (set.pop().unwrap(), set.pop().unwrap());
    let frames: Vec<_> = [100, 100, 100, 100, 9000, 9000].map(|len| a.take(len).unwrap()).into();
    assert_eq!(a.out(), 6);
    let other = std::thread::spawn(move || {
        frames.into_iter().for_each(|f| b.give(f));
        b.reclaim();
        b
    });
    let b = other.join().unwrap();
    assert_eq!((a.out(), b.out()), (0, 0));
    assert!(a.take(100).is_none(), "not before they are taken in");
    a.reclaim();
    assert!(a.take(100).is_some() && a.take(9000).is_some());
}

#[test]
fn a_frame_of_a_foreign_set_never_enters_a_free_list() {
    let (mut a, mut b) = (pools(1, 2, 1).remove(0), pools(1, 2, 1).remove(0));
    let frame = a.take(10).unwrap();
    b.give(frame);
    assert_eq!((a.out(), b.out()), (1, 0));
}

#[test]
fn memory_of_frames_that_are_out_survives_the_pool() {
    let arena = arena();
    let mut pool = Pool::set_of(1, PoolSize { small: 2, large: 0 }, &arena).unwrap().remove(0);
    let mut frame = pool.take(4).unwrap();
    frame.bytes_mut().copy_from_slice(b"data");
    drop(pool);
    assert!(arena.report().used > 0);
    assert_eq!(frame.bytes(), b"data");
}

#[test]
fn strides_are_odd_numbers_of_lines_and_buffers_do_not_overlap() {
    assert_eq!(SMALL_STRIDE / 64 % 2, 1);
    assert_eq!(LARGE_STEPS as usize * SMALL_STRIDE / 64 % 2, 1);
    let mut pool = pools(1, 16, 4).remove(0);
    let mut all: Vec<_> = (0..16).map(|_| pool.take(SMALL).unwrap()).collect();
    all.extend((0..4).map(|_| pool.take(LARGE).unwrap()));
    let mut spans: Vec<_> = all.iter().map(|f| (f.seg().ptr() as usize, f.capacity())).collect();
    spans.sort_unstable();
    assert!(spans.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0));
}

/// Frames sent over a link and received by `pool`.
fn crossed(from: &Pool, pool: &Pool, frames: impl IntoIterator<Item = PoolFrame>) -> Vec<PoolFrame> {
    let ((mut to, mut end), mut got) = (from.link(8), Vec::new());
    let (sent, strange) = to.send((5, 7), frames.into_iter());
    assert!(strange.is_none());
    assert_eq!(pool.receive(&mut end, &mut got), (sent != 0).then_some((5, 7)));
    assert_eq!(pool.receive(&mut end, &mut got), None, "each frame comes out once");
    got
}

#[test]
fn a_link_keeps_the_order_of_bursts_of_any_length() {
    for len in 0..=ring::LINK_BURST {
        let mut pool = pools(1, 64, 0).remove(0);
        let frames: Vec<_> = (0..len).map(|_| pool.take(1).unwrap()).collect();
        let names: Vec<_> = frames.iter().map(PoolFrame::name).collect();
        assert!(crossed(&pool, &pool, frames).iter().map(PoolFrame::name).eq(names));
    }
}

#[test]
fn a_link_carries_frames_of_both_sizes_to_another_worker() {
    let mut set = pools(2, 4, 2);
    let (mut b, mut a) = (set.pop().unwrap(), set.pop().unwrap());
    let frames = [60, 9000, 1500].map(|len| {
        let mut frame = a.take(len).unwrap();
        frame.bytes_mut().fill(len as u8);
        frame.set_weight(len as u32);
        frame.set_hdr(VnetHdr { gso_size: 9, ..VnetHdr::NONE });
        frame
    });
    let (mut to, mut from) = a.link(8);
    assert_eq!(to.send((5, 7), frames.into_iter()).0, 3);
    std::thread::spawn(move || {
        let mut got = Vec::new();
        assert_eq!(b.receive(&mut from, &mut got), Some((5, 7)));
        assert_eq!(got.iter().map(PoolFrame::weight).collect::<Vec<_>>(), [60, 9000, 1500]);
        for frame in got {
            assert_eq!((frame.len(), frame.hdr().gso_size), (frame.weight() as usize, 9));
            assert!(frame.bytes().iter().all(|&b| b == frame.len() as u8));
            b.give(frame);
        }
        b.reclaim();
    })
    .join()
    .unwrap();
    assert_eq!(a.out(), 0);
}

#[test]
fn a_link_takes_frames_of_its_pool_and_no_more_than_a_burst() {
    let mut set = pools(2, 40, 0);
    let (mut to, mut from) = set[0].link(8);
    let mut frames: Vec<_> = (0..34).map(|_| set[0].take(1).unwrap()).collect();
    let other = set[1].take(1).unwrap();
    let at = other.seg().ptr();
    frames.insert(33, other);
    let mut frames = frames.into_iter();
    assert!(matches!(to.send((1, 1), &mut frames), (32, None)));
    let (sent, strange) = to.send((2, 2), &mut frames);
    assert_eq!((sent, strange.map(|f| f.seg().ptr()), frames.len()), (1, Some(at), 1));
    let (mut got, foreign) = (Vec::new(), pools(1, 40, 0).remove(0));
    assert_eq!(foreign.receive(&mut from, &mut got), Some((1, 1)));
    assert!(got.is_empty(), "nothing comes out in a foreign set");
    assert_eq!((set[1].receive(&mut from, &mut got), got.len()), (Some((2, 2)), 1));
}

#[test]
fn a_pool_whose_slots_have_no_numbers_is_refused() {
    let refused = |small, large| Pool::set_of(1, PoolSize { small, large }, &arena()).is_err();
    assert!(refused(1 << 16, 0) && refused(u32::MAX, u32::MAX) && refused(0, 2000));
    let mut pool = Pool::set_of(1, PoolSize { small: 60_000, large: 160 }, &arena()).unwrap().remove(0);
    let mut ends: Vec<_> = (0..160).map(|_| pool.take(LARGE).unwrap().seg().ptr() as usize).collect();
    ends.sort_unstable();
    assert!(ends.windows(2).all(|w| w[1] - w[0] >= LARGE), "all numbers are different");
}

proptest! {
    /// Frames taken from two pools, bundled or not, and given to either, in any order: each keeps its own contents while
    /// it is out, and all buffers come back.
    #[test]
    fn every_buffer_has_one_holder(ops in proptest::collection::vec((0usize..2, 1usize..6000, any::<bool>()), 1..200)) {
        let mut set = pools(2, 6, 3);
        let mut held: Vec<(PoolFrame, u8)> = Vec::new();
        for (i, (who, len, give)) in ops.into_iter().enumerate() {
            if give && !held.is_empty() {
                let (frame, mark) = held.swap_remove(len % held.len());
                let frame = if len % 2 == 0 { frame } else { crossed(&set[frame.name().0.wrapping_sub(set[0].id) as usize], &set[who], [frame]).remove(0) };
                prop_assert!(frame.bytes().iter().all(|&b| b == mark));
                set[who].give(frame);
            } else {
                set[who].reclaim();
                if let Some(mut frame) = set[who].take(len) {
                    frame.bytes_mut().fill(i as u8);
                    held.push((frame, i as u8));
                }
            }
            set.iter_mut().for_each(Pool::reclaim);
            let out: usize = set.iter().map(Pool::out).sum();
            prop_assert_eq!(out, held.len());
        }
        for (frame, mark) in held {
            prop_assert!(frame.bytes().iter().all(|&b| b == mark));
            set[0].give(frame);
        }
        set[0].reclaim();
        prop_assert_eq!(set.iter().map(Pool::out).sum::<usize>(), 0);
    }
}
