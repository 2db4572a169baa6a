//! The Internet checksum over frames of common sizes, beside a copy of the same bytes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::wire::checksum::Sum;
use std::hint::black_box;

fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in [64_usize, 256, 1400, 1500, 65536] {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        let mut copy = vec![0_u8; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("sum", len), |b| {
            b.iter(|| Sum::of(black_box(&bytes)).checksum());
        });
        group.bench_function(BenchmarkId::new("memcpy", len), |b| {
            b.iter(|| black_box(&mut copy).copy_from_slice(black_box(&bytes)));
        });
    }
    group.finish();
}

criterion_group!(benches, checksum);
criterion_main!(benches);
