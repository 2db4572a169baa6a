//! What lies between ports: building and adopting a plan, and a hub's flood to 2, 8 and 32 ports.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::burst::{Burst, Mask, Seg};
use engine::mem::arena::{Arena, ArenaConfig};
use engine::mem::pool::Pool;
use engine::port::Turn;
use engine::port::lanes::Lanes;
use engine::switch::{Outlet, Routes, Walk, forward, routes::LaneTable};
use engine::topology::cell;
use engine::topology::model::{Client, ClientId, ClientKind, HUB_BACKLOG, QueueRef, Topology};
use engine::topology::plan::{self, FilterStep, Slots, Target};
use engine::uring::FdIo;
use engine::wire::vnet_hdr::VnetHdr;
use std::hint::black_box;
use std::ptr::NonNull;

/// `n` ports on one hub, all on worker 0.
fn hub(n: u64) -> (Topology, Slots) {
    let mut topology = Topology::default();
    let mut slots = Slots::default();
    for i in 0..n {
        let (a, b) = (ClientId(i * 2), ClientId(i * 2 + 1));
        let client = |id, kind, peer| Client {
            id,
            kind,
            link_up: true,
            connected: true,
            pads: false,
            peer: Some(peer),
            filters: Vec::new(),
        };
        let queues = vec![QueueRef { id: i, worker: 0 }];
        topology.clients.push(client(a, ClientKind::Port { queues }, b));
        topology.clients.push(client(b, ClientKind::HubPort { hub: 0, backlog: HUB_BACKLOG }, a));
        slots.queues.insert(i, i as u32);
    }
    (topology, slots)
}

/// Takes everything and does nothing: what is measured is the walk.
struct Sink;

impl Outlet for Sink {
    fn deliver(
        &mut self,
        _: &mut Turn<'_>,
        to: Target,
        _: Option<&Lanes>,
        burst: &Burst,
        mask: Mask,
        _: bool,
    ) -> usize {
        black_box((to, burst.len(), mask)).2.count()
    }

    fn offer(
        &mut self,
        _: &mut Turn<'_>,
        to: Target,
        _: Option<&Lanes>,
        burst: &Burst,
        mask: Mask,
        _: bool,
    ) -> Mask {
        black_box((to, burst.len(), mask));
        Mask::NONE
    }

    fn heads(&mut self, _: &[u8]) -> Option<Seg> {
        None
    }

    fn filter(&mut self, _: &mut Turn<'_>, _: FilterStep, _: &Burst, mask: Mask) -> Mask {
        mask
    }

    fn worker(&self) -> usize {
        0
    }
}

fn flood(c: &mut Criterion) {
    let arena = Arena::new(&ArenaConfig::default()).expect("memory");
    let mut pool = Pool::set(1, &arena).expect("memory").remove(0);
    let (mut io, _) = FdIo::new(None).expect("file I/O");
    let mut bytes = [0u8; 64];
    let mut burst = Burst::new();
    for _ in 0..32 {
        // SAFETY: `bytes` outlives the burst.
        let seg = unsafe { Seg::new(NonNull::new(bytes.as_mut_ptr()).expect("an array"), 64) };
        burst.push(VnetHdr::NONE, &[seg]);
    }
    let mut group = c.benchmark_group("hub_walk_of_32_frames");
    group.throughput(Throughput::Elements(32));
    for ports in [2u64, 8, 32] {
        let (topology, slots) = hub(ports);
        let routes = Routes::new(plan::build(&topology, &slots, 1), &LaneTable::default());
        let entry = routes.entry(0, 0, 0).expect("the first port");
        let mut walk = Walk::new(routes.extent());
        group.bench_function(BenchmarkId::new("ports", ports), |b| {
            b.iter(|| {
                let mut turn = Turn { now: 0, io: &mut io, pool: &mut pool };
                forward(&routes, &entry, &mut turn, black_box(&burst), &mut walk, &mut Sink)
            });
        });
    }
    group.finish();
}

fn plans(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan");
    for ports in [2u64, 32, 1000] {
        let (topology, slots) = hub(ports);
        group.bench_function(BenchmarkId::new("build_hub_of", ports), |b| {
            b.iter(|| plan::build(black_box(&topology), &slots, 1));
        });
    }
    let (mut publisher, mut readers) = cell::new(0u64, 1);
    group.bench_function("look_for_a_newer_one", |b| b.iter(|| black_box(&readers[0]).changed()));
    group.bench_function("publish_adopt_acknowledge_retire", |b| {
        b.iter(|| {
            publisher.publish(black_box(1));
            readers[0].adopt();
            readers[0].acknowledge();
            publisher.retire()
        });
    });
    group.finish();
}

criterion_group!(benches, flood, plans);
criterion_main!(benches);
