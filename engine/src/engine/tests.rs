use super::*;
use crate::engine::{Attachments, Config};
use crate::port::Caps;
use crate::port::counters::DropReason;
use crate::port::testing::{Outside, port};
use crate::topology::model::{Client, ClientKind, HUB_BACKLOG, QueueRef, Topology};
use crate::wire::vnet_hdr::VnetHdr;
use crate::worker::idle::Idle;
use std::time::{Duration, Instant};

mod filters;

/// An engine of two workers that share the cores with everybody else.
struct World {
    engine: Engine,
    topology: Topology,
}

impl World {
    fn new(workers: usize) -> Self {
        let allowed = crate::worker::place::allowed();
        let cores: Vec<usize> = allowed.into_iter().take(workers).collect();
        let config = Config { cores, idle: Idle::Adaptive, yield_empty: true, io: None };
        Self { engine: Engine::start(&config).unwrap(), topology: Topology::default() }
    }

    /// Adds a port of `depth` on `worker`, joined to a hub port of hub 0. Returns its client and outside.
    fn add(&mut self, worker: usize, depth: usize) -> (ClientId, Outside) {
        let worker = worker % self.engine.workers();
        let id = self.engine.queue_id();
        let (queue, outside) = port(id, depth, Caps::NONE);
        let (a, b) = (ClientId(id.0 * 2), ClientId(id.0 * 2 + 1));
        let client = |id, kind, peer| Client {
            id,
            kind,
            link_up: true,
            connected: true,
            pads: false,
            peer: Some(peer),
            filters: vec![],
        };
        let queues = vec![QueueRef { id: id.0, worker }];
        self.topology.clients.push(client(a, ClientKind::Port { queues }, b));
        self.topology.clients.push(client(b, ClientKind::HubPort { hub: 0, backlog: HUB_BACKLOG }, a));
        let attach = Attachments { queues: vec![(worker, queue)], filters: vec![] };
        self.engine.commit(&self.topology, attach).unwrap();
        (a, outside)
    }

    /// Sets the backlog of the leg that ends in `client`.
    fn resize(&mut self, client: ClientId, frames: u32) {
        for c in self.topology.clients.iter_mut().filter(|c| c.peer == Some(client)) {
            c.kind = ClientKind::HubPort { hub: 0, backlog: frames };
        }
        self.engine.commit(&self.topology, Attachments::default()).unwrap();
    }

    fn remove(&mut self, client: ClientId) -> usize {
        self.topology.clients.retain(|c| c.id != client && c.peer != Some(client));
        self.engine.commit(&self.topology, Attachments::default()).unwrap().queues.len()
    }

    fn drops(&self, client: ClientId, reason: DropReason) -> u64 {
        let stats = self.engine.stats();
        let of = stats.clients.iter().find(|c| c.client == Some(client)).unwrap();
        of.queues.iter().flat_map(|q| &q.drops).filter(|(r, _)| *r == reason).map(|(_, n)| n).sum()
    }
}

fn frame(n: u32) -> (VnetHdr, Vec<u8>) {
    let mut bytes = vec![0xff; 60];
    bytes[14..18].copy_from_slice(&n.to_be_bytes());
    (VnetHdr::NONE, bytes)
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[14..18].try_into().unwrap())
}

fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !until() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// Sends `n` frames as fast as the ring takes them and collects what arrives, in order.
fn pump(from: &Outside, to: &Outside, n: u32) -> Vec<u32> {
    let mut got = Vec::new();
    let mut next = 0;
    wait("delivery", || {
        while next < n && from.sent.push(frame(next)).is_ok() {
            next += 1;
        }
        while let Some((_, bytes)) = to.received.pop() {
            got.push(number(&bytes));
        }
        got.len() == n as usize
    });
    got
}

#[test]
fn a_pair_on_one_worker_delivers_all_in_order() {
    let mut w = World::new(1);
    let (_, a) = w.add(0, 64);
    let (_, b) = w.add(0, 64);
    assert_eq!(pump(&a, &b, 10_000), (0..10_000).collect::<Vec<_>>());
    assert_eq!(pump(&b, &a, 100), (0..100).collect::<Vec<_>>());
    let stats = w.engine.stats();
    assert_eq!(stats.clients[0].queues[0].rx_frames, 10_000);
    wait("tx count", || w.engine.stats().clients[2].queues[0].tx_frames == 10_000);
    assert!(stats.workers[0].busy > 0);
}

#[test]
fn a_pair_across_workers_loses_nothing_though_the_receiver_is_slow() {
    let mut w = World::new(2);
    let (_, a) = w.add(0, 256);
    let (b_id, b) = w.add(1, 4);
    assert_eq!(pump(&a, &b, 4_000), (0..4_000).collect::<Vec<_>>());
    for reason in DropReason::ALL {
        assert_eq!(w.drops(b_id, reason), 0, "{}", reason.name());
    }
}

#[test]
fn a_hub_floods_to_all_but_the_source() {
    let mut w = World::new(2);
    let ports: Vec<_> = (0..4).map(|i| w.add(i, 256).1).collect();
    for n in 0..100 {
        ports[0].sent.push(frame(n)).unwrap();
    }
    for to in &ports[1..] {
        let mut got = 0;
        wait("flood", || {
            while let Some((_, bytes)) = to.received.pop() {
                assert_eq!(number(&bytes), got);
                got += 1;
            }
            got == 100
        });
    }
    assert!(ports[0].received.is_empty());
}

#[test]
fn a_full_leg_keeps_256_frames_drops_the_rest_by_name_and_stops_nobody() {
    let mut w = World::new(1);
    let (_, a) = w.add(0, 2048);
    let (slow_id, slow) = w.add(0, 1);
    let (_, fast) = w.add(0, 2048);
    assert_eq!(pump(&a, &fast, 1000), (0..1000).collect::<Vec<_>>());
    let kept = 256 + 1;
    wait("drops", || w.drops(slow_id, DropReason::LegFull) == 1000 - kept);
    let mut got = Vec::new();
    wait("the backlog", || {
        while let Some((_, bytes)) = slow.received.pop() {
            got.push(number(&bytes));
        }
        got.len() == kept as usize
    });
    assert_eq!(got, (0..kept as u32).collect::<Vec<_>>());
}

#[test]
fn a_leg_keeps_as_many_frames_as_its_hub_port_asks_for_and_loses_none_when_that_changes() {
    let mut w = World::new(1);
    let (_, a) = w.add(0, 2048);
    let (slow_id, slow) = w.add(0, 1);
    let (_, fast) = w.add(0, 2048);
    w.resize(slow_id, 500);
    assert_eq!(pump(&a, &fast, 1000).len(), 1000);
    wait("drops", || w.drops(slow_id, DropReason::LegFull) == 1000 - 501);
    w.resize(slow_id, 10);
    let mut got = Vec::new();
    wait("the backlog", || {
        while let Some((_, bytes)) = slow.received.pop() {
            got.push(number(&bytes));
        }
        got.len() == 501
    });
    assert_eq!(got, (0..501).collect::<Vec<_>>());
    assert_eq!(pump(&a, &fast, 1000).len(), 1000);
    wait("drops", || w.drops(slow_id, DropReason::LegFull) == 2 * 1000 - 501 - 11);
}

#[test]
fn a_removed_port_comes_back_and_frames_for_it_are_dropped_by_name() {
    let mut w = World::new(2);
    let (a_id, a) = w.add(0, 64);
    let (b_id, b) = w.add(1, 64);
    assert_eq!(pump(&a, &b, 100).len(), 100);
    assert_eq!(w.remove(b_id), 1);
    a.sent.push(frame(1)).unwrap();
    wait("reading", || a.sent.is_empty());
    assert!(b.received.is_empty());
    let (_, c) = w.add(1, 64);
    assert_eq!(pump(&a, &c, 100).len(), 100);
    assert_eq!(w.remove(a_id), 1);
}

#[test]
fn changes_beside_a_busy_pair_lose_none_of_its_frames() {
    let mut w = World::new(2);
    let (_, a) = w.add(0, 64);
    let (_, b) = w.add(1, 64);
    let (from, to) = (a.clone(), b.clone());
    let traffic = std::thread::spawn(move || pump(&from, &to, 50_000));
    let mut rounds = 0;
    while !traffic.is_finished() {
        // A client of its own, not on the hub.
        let id = w.engine.queue_id();
        let worker = w.engine.place();
        let (queue, _outside) = port(id, 4, Caps::NONE);
        let kind = ClientKind::Port { queues: vec![QueueRef { id: id.0, worker }] };
        let client = Client {
            id: ClientId(id.0 * 2),
            kind,
            link_up: true,
            connected: true,
            pads: false,
            peer: None,
            filters: vec![],
        };
        w.topology.clients.push(client);
        let attach = Attachments { queues: vec![(worker, queue)], filters: vec![] };
        w.engine.commit(&w.topology, attach).unwrap();
        w.topology.clients.pop();
        assert_eq!(w.engine.commit(&w.topology, Attachments::default()).unwrap().queues.len(), 1);
        rounds += 1;
    }
    assert_eq!(traffic.join().unwrap(), (0..50_000).collect::<Vec<_>>());
    assert!(rounds > 10, "only {rounds} rounds");
}

#[test]
fn a_core_outside_the_mask_is_refused() {
    let config = Config { cores: vec![4000], ..Config::default() };
    assert!(matches!(Engine::start(&config), Err(EngineError::Core(4000, _))));
}
