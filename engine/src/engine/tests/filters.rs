//! Filters that hold frames, on running workers.

use super::*;
use crate::burst::{Burst, Mask};
use crate::filter::buffer::Buffer;
use crate::filter::limit::{Limit, Limits};
use crate::filter::rewriter::Rewriter;
use crate::filter::{Direction, Filter, Handle, Settings};
use crate::port::{Doze, RxQueue, Source, Turn};
use crate::topology::model::{FilterId, FilterUse};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what it sees, by direction.
struct Tag(Arc<[AtomicU64; 2]>);

impl Filter for Tag {
    fn frames(&mut self, _turn: &mut Turn<'_>, direction: Direction, _burst: &Burst, mask: Mask) -> Mask {
        self.0[usize::from(direction == Direction::Tx)].fetch_add(mask.count() as u64, Ordering::Relaxed);
        mask
    }

    fn tick(&mut self, _turn: &mut Turn<'_>) {}
}

/// A filter of one of the kinds that hold frames.
struct Held {
    id: FilterId,
    handle: Box<dyn Handle>,
}

impl World {
    fn settings() -> Settings {
        Settings::new(true, true, true)
    }

    fn buffer(&mut self, client: ClientId, id: u64, micros: u32) -> Held {
        let (arena, workers) = (self.engine.arena.clone(), self.engine.workers());
        let (handle, instances) = Buffer::open(Self::settings(), micros, &arena, workers).unwrap();
        self.filter(client, id, instances);
        Held { id: FilterId(id), handle: Box::new(handle) }
    }

    fn limit(&mut self, client: ClientId, id: u64, limits: Limits) -> Held {
        let (arena, workers) = (self.engine.arena.clone(), self.engine.workers());
        let (handle, instances) = Limit::open(Self::settings(), limits, &arena, workers).unwrap();
        self.filter(client, id, instances);
        Held { id: FilterId(id), handle: Box::new(handle) }
    }

    fn rewriter(&mut self, client: ClientId, id: u64) -> Held {
        let (arena, workers) = (self.engine.arena.clone(), self.engine.workers());
        let (handle, instances) = Rewriter::open(Self::settings(), &arena, workers).unwrap();
        self.filter(client, id, instances);
        Held { id: FilterId(id), handle: Box::new(handle) }
    }

    fn tag(&mut self, client: ClientId, id: u64) -> Arc<[AtomicU64; 2]> {
        let seen: Arc<[AtomicU64; 2]> = Arc::default();
        let instances: Vec<Box<dyn Filter>> =
            (0..self.engine.workers()).map(|_| Box::new(Tag(seen.clone())) as Box<dyn Filter>).collect();
        self.filter(client, id, instances);
        seen
    }

    /// Puts a filter at the tail of a client's chain.
    fn filter(&mut self, client: ClientId, id: u64, instances: Vec<Box<dyn Filter>>) {
        let client = self.topology.clients.iter_mut().find(|c| c.id == client).unwrap();
        client.filters.push(FilterUse { id: FilterId(id), rx: true, tx: true });
        let attach = Attachments { queues: vec![], filters: vec![(FilterId(id), instances)] };
        self.engine.commit(&self.topology, attach).unwrap();
    }

    /// As control does it: off, in force everywhere, empty, gone.
    fn unfilter(&mut self, held: &Held) {
        held.handle.set(false, true, true);
        self.settle();
        wait("the filter's end", || held.handle.held() == 0);
        for client in &mut self.topology.clients {
            client.filters.retain(|f| f.id != held.id);
        }
        let workers = self.engine.workers();
        let retired = self.engine.commit(&self.topology, Attachments::default()).unwrap();
        assert_eq!((retired.filters.len(), held.handle.held()), (workers, 0));
    }

    /// A change of a filter's settings is in force on all workers.
    fn settle(&mut self) {
        self.engine.commit(&self.topology, Attachments::default()).unwrap();
        (0..self.engine.workers()).for_each(|worker| self.engine.wake(worker));
    }
}

fn counter(held: &Held, name: &str) -> u64 {
    held.handle.counters().into_iter().find(|(n, _)| *n == name).unwrap().1
}

/// Takes `n` frames that are numbered from 0 on.
fn take(to: &Outside, n: u32) {
    let mut next = 0;
    wait("frames", || {
        while let Some((_, bytes)) = to.received.pop() {
            assert_eq!(number(&bytes), next);
            next += 1;
        }
        next == n
    });
}

#[test]
fn held_frames_stay_in_order_and_wait_for_a_receiver_that_is_full() {
    for (workers, other) in [(1, 0), (2, 1)] {
        let mut w = World::new(workers);
        let (a_id, a) = w.add(0, 256);
        let (b_id, b) = w.add(other, 4);
        let near = w.buffer(a_id, 1, 1000);
        let far = w.buffer(b_id, 2, 700);
        assert_eq!(pump(&a, &b, 4_000), (0..4_000).collect::<Vec<_>>());
        wait("all to be counted", || [&near, &far].iter().all(|held| counter(held, "released") == 4_000));
        assert_eq!(counter(&near, "queue-full") + counter(&far, "queue-full"), 0);
        // What still waits when a filter goes is on its way before it has gone.
        near.handle.tune("interval", 3_600_000_000);
        w.settle();
        for n in 0..200 {
            a.sent.push(frame(n)).unwrap();
        }
        wait("the frames to be held", || near.handle.held() == 200);
        let (to, taken) = (
            b.clone(),
            std::thread::spawn({
                let b = b.clone();
                move || take(&b, 200)
            }),
        );
        w.unfilter(&near);
        w.unfilter(&far);
        taken.join().unwrap();
        assert!(to.received.is_empty());
    }
}

#[test]
fn what_a_filter_puts_in_passes_those_behind_it_and_no_other_twice() {
    let mut w = World::new(2);
    let (_, a) = w.add(0, 256);
    let (b_id, b) = w.add(1, 256);
    let first = w.tag(b_id, 1);
    let held = w.buffer(b_id, 2, u32::MAX);
    let last = w.tag(b_id, 3);
    let seen = |tag: &[AtomicU64; 2]| [0, 1].map(|i| tag[i].load(Ordering::Relaxed));
    for n in 0..100 {
        a.sent.push(frame(n)).unwrap();
        b.sent.push(frame(n)).unwrap();
    }
    wait("both ways to be held", || held.handle.held() == 200);
    assert_eq!((seen(&first), seen(&last)), ([0, 100], [100, 0]));
    assert!(a.received.is_empty() && b.received.is_empty());
    held.handle.tune("interval", 1);
    w.settle();
    take(&a, 100);
    take(&b, 100);
    assert_eq!((seen(&first), seen(&last)), ([100, 100], [100, 100]));
}

#[test]
fn filters_that_come_change_and_go_lose_and_reorder_nothing() {
    let mut w = World::new(2);
    let (a_id, a) = w.add(0, 64);
    let (b_id, b) = w.add(1, 64);
    let stop = Arc::new(AtomicU64::new(0));
    let (from, to, ending) = (a.clone(), b.clone(), stop.clone());
    let traffic = std::thread::spawn(move || {
        let (mut next, mut got) = (0, 0);
        while ending.load(Ordering::Relaxed) == 0 || got < next {
            // As much under way as no ring of a filter is too small for.
            while ending.load(Ordering::Relaxed) == 0
                && next - got < 500
                && from.sent.push(frame(next)).is_ok()
            {
                next += 1;
            }
            while let Some((_, bytes)) = to.received.pop() {
                assert_eq!(number(&bytes), got, "in order");
                got += 1;
            }
            std::thread::yield_now();
        }
        got
    });
    for round in 0..250u64 {
        let client = if round & 1 == 0 { a_id } else { b_id };
        let held = match round % 3 {
            0 => w.buffer(client, round, 300),
            1 => w.limit(client, round, Limits { bps: 50_000_000, queue: 1000, ..Limits::default() }),
            _ => w.rewriter(client, round),
        };
        held.handle.set(false, true, true);
        w.settle();
        held.handle.set(true, true, round & 2 == 0);
        held.handle.tune("interval", 100);
        held.handle.tune("bps", 10_000_000);
        w.settle();
        w.unfilter(&held);
        assert_eq!(counter(&held, "queue-full"), 0);
        assert!(!traffic.is_finished(), "round {round}");
    }
    stop.store(1, Ordering::Relaxed);
    let end = Instant::now() + Duration::from_secs(60);
    while !traffic.is_finished() {
        assert!(Instant::now() < end, "frames are missing");
        std::thread::yield_now();
    }
    assert!(traffic.join().unwrap() > 1000);
}

/// A queue whose outside never has anything to say: its worker sleeps.
struct Silent(Box<dyn RxQueue>);

impl RxQueue for Silent {
    fn start(&mut self, turn: &mut Turn<'_>) {
        self.0.start(turn);
    }

    fn rx(&mut self, turn: &mut Turn<'_>, want: usize, burst: &mut Burst) {
        self.0.rx(turn, want, burst);
    }

    fn release(&mut self, turn: &mut Turn<'_>, taken: usize) {
        self.0.release(turn, taken);
    }

    fn notify(&mut self) {}

    fn stop(&mut self, turn: &mut Turn<'_>) -> bool {
        self.0.stop(turn)
    }

    fn source(&self) -> Source {
        self.0.source()
    }

    fn pending(&self) -> bool {
        self.0.pending()
    }

    fn doze(&mut self) -> Doze {
        Doze::Sleep
    }
}

impl World {
    fn add_silent(&mut self) -> (ClientId, Outside) {
        let id = self.engine.queue_id();
        let (mut queue, outside) = port(id, 64, Caps::NONE);
        queue.rx = Box::new(Silent(queue.rx));
        let (a, b) = (ClientId(id.0 * 2), ClientId(id.0 * 2 + 1));
        let kind = ClientKind::Port { queues: vec![QueueRef { id: id.0, worker: 0 }] };
        let client = |id, kind, peer| Client {
            id,
            kind,
            link_up: true,
            connected: true,
            pads: false,
            peer: Some(peer),
            filters: vec![],
        };
        self.topology.clients.push(client(a, kind, b));
        self.topology.clients.push(client(b, ClientKind::HubPort { hub: 0, backlog: HUB_BACKLOG }, a));
        let attach = Attachments { queues: vec![(0, queue)], filters: vec![] };
        self.engine.commit(&self.topology, attach).unwrap();
        (a, outside)
    }
}

#[test]
fn a_worker_that_sleeps_wakes_when_frames_become_due_or_a_setting_changes() {
    let mut w = World::new(1);
    let (_, a) = w.add_silent();
    let (b_id, b) = w.add_silent();
    let held = w.buffer(b_id, 1, 1_500_000);
    let send = |w: &World, n: u32| {
        (0..n).for_each(|n| a.sent.push(frame(n)).unwrap());
        w.engine.wake(0);
        wait("the frames to be held", || held.handle.held() == u64::from(n));
    };
    send(&w, 3);
    let turns = |w: &World| w.engine.stats().workers[0].turns;
    // Whoever polls makes a turn or more in every microsecond or two.
    let mut quiet = 0;
    while held.handle.held() == 3 {
        let before = turns(&w);
        std::thread::sleep(Duration::from_millis(100));
        quiet += u32::from(turns(&w) - before < 1000);
    }
    assert!(quiet > 5, "it slept in {quiet} of 15 parts of the interval");
    take(&b, 3);
    held.handle.tune("interval", 3_600_000_000);
    w.settle();
    send(&w, 5);
    std::thread::sleep(Duration::from_millis(50));
    held.handle.set(false, true, true);
    w.engine.wake(0);
    take(&b, 5);
    // A limit names the time at which the next frame fits.
    w.unfilter(&held);
    let limit = w.limit(b_id, 2, Limits { fps: 20, queue: 100, ..Limits::default() });
    let begin = Instant::now();
    (0..11).for_each(|n| a.sent.push(frame(n)).unwrap());
    w.engine.wake(0);
    take(&b, 11);
    let took = begin.elapsed().as_millis();
    assert!((450..2000).contains(&took), "ten intervals of 50 ms took {took} ms");
    // Counted at the end of the turn in which they went.
    wait("all to be counted", || counter(&limit, "released") == 10);
}
