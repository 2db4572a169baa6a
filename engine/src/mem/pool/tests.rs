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
    assert_eq!(LARGE_STRIDE / 64 % 2, 1);
    let mut pool = pools(1, 16, 4).remove(0);
    let mut all: Vec<_> = (0..16).map(|_| pool.take(SMALL).unwrap()).collect();
    all.extend((0..4).map(|_| pool.take(LARGE).unwrap()));
    let mut spans: Vec<_> = all.iter().map(|f| (f.seg().ptr() as usize, f.capacity())).collect();
    spans.sort_unstable();
    assert!(spans.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0));
}

fn bundle(frames: impl IntoIterator<Item = PoolFrame>) -> Bundle {
    let mut bundle = Bundle::new(7);
    assert!(bundle.extend(&mut frames.into_iter()).is_none());
    bundle
}

fn unpacked(pool: &Pool, bundle: &mut Bundle) -> Vec<PoolFrame> {
    let mut frames = Vec::new();
    pool.unpack(bundle, &mut frames);
    frames
}

#[test]
fn a_bundle_filled_in_parts_keeps_the_order() {
    for cut in 0..=BUNDLE {
        let mut pool = pools(1, BUNDLE as u32, 0).remove(0);
        let mut frames: Vec<_> = (0..BUNDLE).map(|_| pool.take(1).unwrap()).collect();
        let names: Vec<_> = frames.iter().map(PoolFrame::name).collect();
        let rest = frames.split_off(cut);
        let mut whole = bundle(frames);
        assert!(whole.extend(&mut rest.into_iter()).is_none());
        assert!(unpacked(&pool, &mut whole).iter().map(PoolFrame::name).eq(names));
    }
}

#[test]
fn a_bundle_carries_frames_of_both_sizes_to_another_worker() {
    let mut set = pools(2, 4, 2);
    let (mut b, mut a) = (set.pop().unwrap(), set.pop().unwrap());
    let frames = [60, 9000, 1500].map(|len| {
        let mut frame = a.take(len).unwrap();
        frame.bytes_mut().fill(len as u8);
        frame.set_weight(len as u32);
        frame.set_hdr(VnetHdr { gso_size: 9, ..VnetHdr::NONE });
        frame
    });
    let mut sent = bundle(frames);
    assert_eq!((sent.len(), sent.tag), (3, 7));
    std::thread::spawn(move || {
        let got = unpacked(&b, &mut sent);
        assert!(sent.is_empty() && unpacked(&b, &mut sent).is_empty(), "each frame comes out once");
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
fn a_bundle_takes_frames_of_one_pool_and_no_more_than_it_holds() {
    let mut set = pools(2, 33, 0);
    let mut full = bundle((0..BUNDLE).map(|_| set[0].take(1).unwrap()));
    let more = set[0].take(1).unwrap();
    let mut rest = [more].into_iter();
    assert!(full.extend(&mut rest).is_none());
    let mut other = bundle(rest);
    let strange = other.extend(&mut [set[1].take(1).unwrap()].into_iter()).unwrap();
    assert!(full.is_full());
    assert_eq!(other.len(), 1);
    set[1].give(strange);
    assert!(unpacked(&pools(1, 33, 0)[0], &mut other).is_empty(), "nothing comes out in a foreign set");
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
                let frame = if len % 2 == 0 { frame } else { unpacked(&set[who], &mut bundle([frame])).remove(0) };
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
