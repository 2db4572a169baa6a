//! The link between two workers: cost a frame of moving bursts of 8 and 32 handles from one core to another and back.
//!
//! Two threads pass bursts round a circle of two links, so each does one push and one pop a burst; the figure is the
//! time a frame and direction. `dpdk-test`'s `ring_perf_autotest` ("two physical cores", bulk 8 and 32) is the peer.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::queue::ArrayQueue;
use engine::mem::arena::{Arena, ArenaConfig};
use engine::mem::pool::Pool;
use engine::worker::link::{LinkBurst, Links};
use engine::worker::place;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bursts in circulation: enough to keep both sides busy, few enough to stay in the nearest caches.
const CIRCULATING: usize = 64;

fn pop(link: &ArrayQueue<LinkBurst>, stop: &AtomicBool) -> Option<LinkBurst> {
    loop {
        if let Some(burst) = link.pop() {
            return Some(burst);
        }
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        std::hint::spin_loop();
    }
}

fn circle(pool: &mut Pool, bulk: usize, iterations: u64) -> Duration {
    let links = Links::new(2);
    let (Some(there), Some(back)) = (links.get(0, 1), links.get(1, 0)) else { return Duration::ZERO };
    for _ in 0..CIRCULATING {
        let mut burst = LinkBurst::new(0, 0);
        for _ in 0..bulk {
            let frame = pool.take(64).expect("the pool holds more than circulates");
            burst.push(frame).expect("a burst holds 32");
        }
        back.push(burst).expect("the link holds more than circulates");
    }
    let cores = place::allowed();
    let stop = AtomicBool::new(false);
    let mut elapsed = Duration::ZERO;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = place::pin(cores[cores.len() - 1]);
            while let Some(burst) = pop(there, &stop) {
                back.push(burst).expect("no more than circulates");
            }
        });
        let _ = place::pin(cores[0]);
        let start = Instant::now();
        for _ in 0..iterations {
            let burst = pop(back, &stop).expect("not stopped yet");
            there.push(burst).expect("no more than circulates");
        }
        elapsed = start.elapsed();
        stop.store(true, Ordering::Relaxed);
    });
    for link in [there, back] {
        while let Some(mut burst) = link.pop() {
            for frame in burst.drain() {
                pool.give(frame);
            }
        }
    }
    // A round moves a burst there and back.
    elapsed / 2
}

fn link(c: &mut Criterion) {
    let arena = Arena::new(&ArenaConfig::default()).expect("memory for a pool");
    let mut pool = Pool::set(1, &arena).expect("memory for a pool").remove(0);
    let mut group = c.benchmark_group("link");
    for bulk in [1usize, 8, 32] {
        group.throughput(Throughput::Elements(bulk as u64));
        group.bench_function(BenchmarkId::new("two_cores", bulk), |b| {
            b.iter_custom(|n| circle(&mut pool, bulk, n));
        });
    }
    group.finish();
}

criterion_group!(benches, link);
criterion_main!(benches);
