//! The frame pool and the burst: what it costs to keep a frame, to give it back, and to lend one.
//!
//! `copy_give` copies a lent frame into a pool buffer and gives it back (backlogs, links, filters); beside it stands
//! `memcpy`, the same bytes into one fixed buffer. `return_by_queue` gives it to another worker's pool, which takes it in.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::burst::{BURST, Burst, Seg};
use engine::mem::arena::{Arena, ArenaConfig};
use engine::mem::pool::{Pool, PoolFrame};
use engine::wire::vnet_hdr::VnetHdr;
use std::hint::black_box;
use std::ptr::NonNull;

const SIZES: [usize; 3] = [60, 1514, 65_550];

fn seg(bytes: &[u8]) -> Seg {
    // SAFETY: the callers keep `bytes` alive as long as the burst is read.
    unsafe { Seg::new(NonNull::from(&bytes[0]), bytes.len() as u32) }
}

fn pools(workers: usize) -> Vec<Pool> {
    let arena = Arena::new(&ArenaConfig::default()).expect("memory for an arena");
    Pool::set(workers, &arena).expect("memory for pools")
}

fn pool(c: &mut Criterion) {
    let mut group = c.benchmark_group("pool");
    let mut pool = pools(1).remove(0);
    for size in SIZES {
        let bytes = vec![7; size];
        let mut burst = Burst::new();
        burst.push(VnetHdr::NONE, &[seg(&bytes)]);
        let frame = burst.frames()[0];
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("copy_give", size), |b| {
            b.iter(|| {
                let copy = pool.copy(black_box(&burst), black_box(&frame)).expect("a free buffer");
                pool.give(black_box(copy));
            });
        });
        let mut to = vec![0; size];
        group.bench_function(BenchmarkId::new("memcpy", size), |b| {
            b.iter(|| black_box(&mut to).copy_from_slice(black_box(&bytes)));
        });
    }
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function("take_give_64", |b| {
        let mut frames: Vec<PoolFrame> = Vec::with_capacity(BURST);
        b.iter(|| {
            frames.extend((0..BURST).map_while(|_| pool.take(60)));
            frames.drain(..).for_each(|f| pool.give(f));
        });
    });
    let mut set = pools(2);
    let (mut near, mut far) = (set.remove(0), set.remove(0));
    group.bench_function("return_by_queue_64", |b| {
        let mut frames: Vec<PoolFrame> = Vec::with_capacity(BURST);
        b.iter(|| {
            frames.extend((0..BURST).map_while(|_| near.take(60)));
            frames.drain(..).for_each(|f| far.give(f));
            near.reclaim();
        });
    });
    group.finish();
}

fn burst(c: &mut Criterion) {
    let mut group = c.benchmark_group("burst");
    group.throughput(Throughput::Elements(BURST as u64));
    let bytes = [0u8; 1514];
    let mut burst = Burst::new();
    for segs in [1usize, 3] {
        let parts = vec![seg(&bytes); segs];
        group.bench_function(BenchmarkId::new("push_64", segs), |b| {
            b.iter(|| {
                burst.clear();
                while burst.push(VnetHdr::NONE, black_box(&parts)) {}
                black_box(burst.len())
            });
        });
    }
    group.bench_function("read_headers_64", |b| {
        b.iter(|| {
            let mut sum = 0;
            for frame in burst.frames() {
                let mut head = [0; 14];
                burst.copy_out(frame, 0, &mut head);
                sum += u32::from(head[0]) + u32::from(head[13]);
            }
            black_box(sum)
        });
    });
    group.finish();
}

criterion_group!(benches, pool, burst);
criterion_main!(benches);
