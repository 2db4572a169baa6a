//! The link between two workers, a frame: `handles` moves bursts of 1, 8 and 32 handles from one core to another and
//! adds up the time of both sides, waiting included, as `dpdk-test`'s `ring_perf_autotest` does ("two physical cores",
//! bulk 8 and 32), which is the peer; `whole_way` also copies each frame into a pool buffer, reads it and gives it back.

use bench::link;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::worker::place;

fn links(c: &mut Criterion) {
    let cores = place::allowed();
    let cpus = [cores[0], cores[cores.len() - 1]];
    if cpus[0] == cpus[1] {
        return eprintln!("link: two CPUs are needed");
    }
    let mut pools = link::pools().expect("memory for pools");
    let mut group = c.benchmark_group("link");
    for bulk in [1usize, 8, 32] {
        group.throughput(Throughput::Elements(bulk as u64));
        group.bench_function(BenchmarkId::new("handles", bulk), |b| {
            b.iter_custom(|n| link::stream(&mut pools, cpus, bulk, n as u32).expect("two CPUs").time);
        });
        group.bench_function(BenchmarkId::new("whole_way", bulk), |b| {
            b.iter_custom(|n| link::lap(&mut pools, cpus, bulk, n as u32).expect("two CPUs").time);
        });
    }
    group.finish();
}

criterion_group!(benches, links);
criterion_main!(benches);
