//! A burst of 32 frames crosses a switch of three ports, to a port that takes all and does nothing: to 1, 64 and 4096 stations, with a tag
//! put on, and flooded. What a frame costs in the table alone stands beside it.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::burst::{Burst, Mask, Seg};
use engine::mem::arena::{Arena, ArenaConfig};
use engine::mem::pool::Pool;
use engine::offload::Offload;
use engine::port::Turn;
use engine::port::lanes::Lanes;
use engine::switch::routes::LaneTable;
use engine::switch::table::{Station, Table};
use engine::switch::{Outlet, Routes, State, Walk, forward};
use engine::topology::model::{Client, ClientId, ClientKind, QueueRef, Topology};
use engine::topology::plan::{self, FilterStep, Slots, Target};
use engine::topology::switch::{PORTS_MOST, SwitchPort};
use engine::uring::FdIo;
use engine::wire::vnet_hdr::VnetHdr;
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::Arc;

/// Frames of a burst.
const FRAMES: usize = 32;

/// Three ports, the last a trunk, all on worker 0; and a table with these stations at the second and third.
fn switch(stations: u32) -> (Routes, Arc<State>) {
    let (mut topology, mut slots, mut lanes) = (Topology::default(), Slots::default(), LaneTable::default());
    let state = Arc::new(State::new(Table::new(8192, PORTS_MOST, 0x5eed), 300, 1));
    for i in 0..3u64 {
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
        let mut rules = SwitchPort::access(1);
        if i == 2 {
            rules.untagged = 0;
            rules.tagged.add(1);
        }
        topology.clients.push(client(a, ClientKind::Port { queues: vec![QueueRef { id: i, worker: 0 }] }, b));
        topology.clients.push(client(b, ClientKind::SwitchPort { switch: 0, port: Box::new(rules) }, a));
        slots.queues.insert(i, i as u32);
        slots.switch_ports.insert(b, i as u32);
    }
    for n in 0..stations {
        state.table.fix(Station::of(mac(1, n), 1), 1, 0);
        state.table.fix(Station::of(mac(2, n), 1), 2, 0);
    }
    lanes.switches.insert(0, state.clone());
    (Routes::new(plan::build(&topology, &slots, 1), &lanes), state)
}

fn mac(port: u8, n: u32) -> [u8; 6] {
    let [_, a, b, c] = n.to_be_bytes();
    [2, 0, port, a, b, c]
}

/// Takes everything and does nothing.
struct Sink(Offload);

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

    fn heads(&mut self, bytes: &[u8]) -> Option<Seg> {
        self.0.lend(bytes)
    }

    fn filter(&mut self, _: &mut Turn<'_>, _: FilterStep, _: &Burst, mask: Mask) -> Mask {
        mask
    }

    fn worker(&self) -> usize {
        0
    }
}

fn cross(c: &mut Criterion) {
    let arena = Arena::new(&ArenaConfig::default()).expect("memory");
    let mut pool = Pool::set(1, &arena).expect("memory").remove(0);
    let (mut io, _) = FdIo::new(None).expect("file I/O");
    let mut group = c.benchmark_group("switch");
    group.throughput(Throughput::Elements(FRAMES as u64));
    for (what, port, stations) in [
        ("to_stations", 1, 1),
        ("to_stations", 1, 64),
        ("to_stations", 1, 4096),
        ("with_a_tag", 2, 64),
        ("flood", 9, 64),
    ] {
        let (routes, state) = switch(stations);
        let entry = routes.entry(0, 0, 0).expect("the first port");
        let mut walk = Walk::new(routes.extent());
        let mut out = Sink(Offload::new());
        // Enough bursts that every station is met.
        let mut memory: Vec<[u8; 64]> = (0..stations.max(FRAMES as u32))
            .map(|n| {
                let mut frame = [0; 64];
                frame[..6].copy_from_slice(&mac(port, n % stations));
                frame[6..12].copy_from_slice(&mac(7, n % stations));
                frame[12..14].copy_from_slice(&[0x88, 0xb5]);
                frame
            })
            .collect();
        let mut bursts: Vec<Burst> = Vec::new();
        for frames in memory.chunks_mut(FRAMES) {
            let mut burst = Burst::new();
            for frame in frames {
                // SAFETY: `memory` outlives the bursts.
                let seg = unsafe { Seg::new(NonNull::from(&mut *frame).cast(), 64) };
                burst.push(VnetHdr::NONE, &[seg]);
            }
            bursts.push(burst);
        }
        let mut next = 0;
        group.bench_function(BenchmarkId::new(what, stations), |b| {
            b.iter(|| {
                let mut turn = Turn { now: 0, io: &mut io, pool: &mut pool };
                let burst = &bursts[next % bursts.len()];
                next += 1;
                let taken = forward(&routes, &entry, &mut turn, black_box(burst), &mut walk, &mut out);
                out.0.reset();
                taken
            });
        });
        black_box(state.table.used());
    }
    group.finish();
}

fn table(c: &mut Criterion) {
    let mut group = c.benchmark_group("switch_table");
    group.throughput(Throughput::Elements(FRAMES as u64));
    for stations in [1u32, 64, 4096] {
        let table = Table::new(8192, PORTS_MOST, 0x5eed);
        let all: Vec<Station> = (0..stations).map(|n| Station::of(mac(1, n), 1)).collect();
        for station in &all {
            table.fix(*station, 1, 0);
        }
        let mut next = 0;
        group.bench_function(BenchmarkId::new("find", stations), |b| {
            b.iter(|| {
                let mut ports = 0;
                for _ in 0..FRAMES {
                    next = if next + 1 == all.len() { 0 } else { next + 1 };
                    let station = all[next];
                    let found = table.find(table.place(station), station);
                    ports += found.map_or(0, |found| found.value.port());
                }
                ports
            });
        });
    }
    group.finish();
}

criterion_group!(benches, cross, table);
criterion_main!(benches);
