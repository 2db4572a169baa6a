use super::*;
use crate::mem::arena::{Arena, ArenaConfig};
use crate::port::Caps;
use crate::port::testing::{Outside, port};
use crate::uring::FdIo;
use std::sync::atomic::Ordering;

const QUEUE: u64 = 5;

/// Worker 1 of two, with one port in slot 0 that holds `depth` frames.
fn worker(depth: usize) -> (Outlets, Outside, Arc<PortCounters>, Arc<Lanes>) {
    let (queue, outside) = port(QueueId(QUEUE), depth, Caps::NONE);
    let (counters, lanes) = (queue.counters.clone(), Arc::new(Lanes::new(2)));
    let backlog = Backlog::new(4, 10_000).with_arrivals(4);
    let slot = TxSlot::new(QUEUE, queue.tx, queue.counters, lanes.clone(), backlog, vec![0; 2].into());
    let outlets = Outlets {
        index: 1,
        tx: vec![Some(slot)],
        filters: Vec::new(),
        links: Links::default(),
        wakers: Wakers::new(Vec::new()),
        offload: Offload::new(),
        dirty: Vec::new(),
        shown: Vec::new(),
        waiting: Vec::new(),
        full: Vec::new(),
        elsewhere: false,
        filters_top: 0,
        injectors: Vec::new(),
        filtered: 0,
    };
    (outlets, outside, counters, lanes)
}

fn pools() -> (Pool, Pool) {
    let arena = Arena::new(&ArenaConfig { initial: 1 << 20, step: 1 << 20, hugepages: false }).unwrap();
    let mut pools = Pool::set_of(2, crate::mem::pool::PoolSize { small: 64, large: 0 }, &arena).unwrap();
    (pools.remove(0), pools.remove(0))
}

const ARRIVAL: (usize, Destination) = (0, Destination { slot: 0, queue: QUEUE });

/// Frames that hold their number, of weight number + 2.
fn sent(pool: &mut Pool, n: u8) -> Vec<PoolFrame> {
    let frame = |i: u8| {
        let mut frame = pool.take(60).unwrap();
        frame.bytes_mut().fill(i);
        frame.set_weight(u32::from(i) + 2);
        frame
    };
    (0..n).map(frame).collect()
}

fn received(outside: &Outside) -> Vec<u8> {
    std::iter::from_fn(|| outside.received.pop()).map(|(_, bytes)| bytes[0]).collect()
}

#[test]
fn frames_keep_their_weight_over_a_link() {
    let ((mut theirs, mut ours), (mut io, _)) = (pools(), FdIo::new(None).unwrap());
    let (mut outlets, outside, counters, lanes) = worker(8);
    let (mut scratch, mut held) = (Burst::new(), sent(&mut theirs, 3));
    lanes.sent(0, 3);
    let mut turn = Turn { now: 0, io: &mut io, pool: &mut ours };
    outlets.arrive(&mut turn, ARRIVAL, &mut scratch, &mut held, 0);
    outlets.flush(&mut turn);
    outlets.settle(&mut turn);
    assert_eq!(received(&outside), [0, 1, 2]);
    assert_eq!(counters.tx.frames.get(), 2 + 3 + 4);
    assert_eq!((held.len(), lanes.under_way(0)), (3, 0));
}

#[test]
fn what_the_port_does_not_take_waits_in_order_and_keeps_its_weight() {
    let ((mut theirs, mut ours), (mut io, _)) = (pools(), FdIo::new(None).unwrap());
    let (mut outlets, outside, counters, lanes) = worker(2);
    let (mut scratch, mut held) = (Burst::new(), sent(&mut theirs, 12));
    lanes.sent(0, 12);
    let mut turn = Turn { now: 0, io: &mut io, pool: &mut ours };
    // Two go, eight wait (four of its own and four arrivals), two are one too many.
    outlets.arrive(&mut turn, ARRIVAL, &mut scratch, &mut held, 0);
    outlets.settle(&mut turn);
    assert_eq!(counters.dropped(DropReason::LegFull), 12 + 13, "dropped with their weight");
    assert_eq!((held.len(), lanes.under_way(0)), (2, 8));
    let mut order = received(&outside);
    while order.len() < 10 {
        let (slot, gone) = outlets.retry(&mut turn, &mut scratch).unwrap();
        outlets.settle(&mut turn);
        let Some(Some(dest)) = outlets.tx.get_mut(slot as usize) else { panic!("the slot is there") };
        dest.backlog.done_selected(turn.pool, gone);
        dest.settle_lanes();
        let more = received(&outside);
        assert!(!more.is_empty(), "room was made, so frames went");
        order.extend(more);
        if !outlets.tx[0].as_ref().unwrap().backlog.is_empty() && outlets.waiting.is_empty() {
            outlets.waiting.push(slot);
        }
    }
    assert_eq!(order, (0..10).collect::<Vec<_>>());
    assert_eq!(counters.tx.frames.get(), (2..12).sum::<u64>());
    assert_eq!(lanes.under_way(0), 0);
    held.into_iter().for_each(|frame| ours.give(frame));
    ours.reclaim();
    assert_eq!(theirs.out(), 0);
}

#[test]
fn a_burst_for_a_queue_that_is_gone_goes_home() {
    let ((mut theirs, mut ours), (mut io, _)) = (pools(), FdIo::new(None).unwrap());
    let (mut outlets, outside, ..) = worker(8);
    let (mut scratch, mut held) = (Burst::new(), sent(&mut theirs, 32));
    outlets.tx[0] = None;
    let mut turn = Turn { now: 0, io: &mut io, pool: &mut ours };
    outlets.arrive(&mut turn, ARRIVAL, &mut scratch, &mut held, 0);
    ours.reclaim();
    assert_eq!((received(&outside).len(), held.len(), theirs.out()), (0, 0, 0));
}

#[test]
fn a_burst_is_shown_when_it_is_delivered() {
    let ((_, mut ours), (mut io, _)) = (pools(), FdIo::new(None).unwrap());
    let (mut outlets, outside, ..) = worker(8);
    let (mut burst, held) = (Burst::new(), sent(&mut ours, 3));
    held.iter().for_each(|frame| assert!(burst.push(frame.hdr(), &[frame.seg()])));
    let mut turn = Turn { now: 0, io: &mut io, pool: &mut ours };
    let to = Target { worker: 1, slot: 0, queue: QUEUE };
    assert_eq!(outlets.deliver(&mut turn, to, None, &burst, burst.all(), false), 3);
    assert_eq!(outside.shown.load(Ordering::Relaxed), 3, "before the turn ends");
    held.into_iter().for_each(|frame| ours.give(frame));
}
