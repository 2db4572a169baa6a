//! The offload stage: no work, coalescing, segmentation, checksum completion.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::burst::{Burst, Seg};
use engine::offload::Offload;
use engine::port::Caps;
use engine::wire::checksum::{Sum, pseudo_v4};
use engine::wire::vnet_hdr::{F_NEEDS_CSUM, GSO_TCPV4, VnetHdr};
use std::hint::black_box;
use std::ptr::NonNull;

/// Frames of a burst, as the ports read them.
const FRAMES: usize = 32;
/// A tap with virtio-net header.
const LARGE: Caps =
    Caps { csum: true, tso4: true, tso6: true, ecn: true, ufo: false, uso: true, coalesce: true };

/// An IPv4 frame of `protocol` with right checksums: a bare TCP or UDP header and `len` bytes of payload.
fn frame(protocol: u8, port: u16, id: u16, len: usize) -> Vec<u8> {
    let l4: usize = if protocol == 6 { 20 } else { 8 };
    let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    f.extend(((20 + l4 + len) as u16).to_be_bytes());
    f.extend(id.to_be_bytes());
    f.extend([0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let check = Sum::of(&f[14..34]).checksum();
    f[24..26].copy_from_slice(&check.to_be_bytes());
    f.extend(port.to_be_bytes());
    f.extend([0, 9]);
    if protocol == 6 {
        f.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    } else {
        f.extend(((l4 + len) as u16).to_be_bytes());
        f.extend([0, 0]);
    }
    f.extend((0..len).map(|i| (i * 7) as u8));
    let mut sum = pseudo_v4(&[10, 0, 0, 1, 10, 0, 0, 2], protocol, (l4 + len) as u16);
    sum.add(&f[34..]);
    let at = 34 + if protocol == 6 { 16 } else { 6 };
    f[at..at + 2].copy_from_slice(&sum.udp_checksum().to_be_bytes());
    f
}

fn burst(frames: &[Vec<u8>], hdr: VnetHdr) -> Burst {
    let mut burst = Burst::new();
    for f in frames {
        // SAFETY: the caller keeps the frames for as long as it uses the burst.
        let seg = unsafe { Seg::new(NonNull::from(f.as_slice()).cast(), f.len() as u32) };
        assert!(burst.push(hdr, &[seg]));
    }
    burst
}

/// One turn: adapt for `caps`, a receiver that takes all, reset.
fn turn(offload: &mut Offload, burst: &Burst, caps: &Caps) -> usize {
    let mut out = 0;
    let adapted = offload.adapt(burst, burst.all(), caps, |burst, mask| {
        out += mask.count();
        black_box(burst);
        mask.count()
    });
    assert!(adapted.left.is_empty());
    offload.reset();
    out
}

fn no_work(c: &mut Criterion) {
    let frames: Vec<Vec<u8>> = (0..FRAMES as u16).map(|i| frame(17, 1, i, 22)).collect();
    let burst = burst(&frames, VnetHdr::NONE);
    let caps = Caps { coalesce: false, ..LARGE };
    let mut group = c.benchmark_group("offload/no-work");
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function("fits_all", |b| {
        b.iter(|| Offload::fits_all(black_box(&burst), burst.all(), black_box(&caps)));
    });
    let mut offload = Offload::new();
    group.bench_function("adapt", |b| b.iter(|| turn(&mut offload, black_box(&burst), &caps)));
    group.finish();
}

fn coalesce(c: &mut Criterion) {
    let mut group = c.benchmark_group("offload/coalesce");
    group.throughput(Throughput::Elements(FRAMES as u64));
    let mut offload = Offload::new();
    let partial = VnetHdr { flags: F_NEEDS_CSUM, csum_start: 34, csum_offset: 6, ..VnetHdr::NONE };
    for size in [64, 1400] {
        let mut frames: Vec<Vec<u8>> = (0..FRAMES as u16).map(|i| frame(17, 1, i, size - 42)).collect();
        let verified = burst(&frames, VnetHdr::NONE);
        assert_eq!(turn(&mut offload, &verified, &LARGE), 1);
        group.bench_function(BenchmarkId::new("one-flow", size), |b| {
            b.iter(|| turn(&mut offload, black_box(&verified), &LARGE));
        });
        let many: Vec<Vec<u8>> = (0..FRAMES as u16).map(|i| frame(17, i, i, size - 42)).collect();
        let many = (burst(&many, VnetHdr::NONE), many);
        assert_eq!(turn(&mut offload, &many.0, &LARGE), FRAMES);
        group.bench_function(BenchmarkId::new("32-flows-of-one", size), |b| {
            b.iter(|| turn(&mut offload, black_box(&many.0), &LARGE));
        });
        for f in &mut frames {
            let sum = pseudo_v4(&[10, 0, 0, 1, 10, 0, 0, 2], 17, (size - 34) as u16).fold();
            f[40..42].copy_from_slice(&sum.to_be_bytes());
        }
        let unsummed = burst(&frames, partial);
        assert_eq!(turn(&mut offload, &unsummed, &LARGE), 1);
        group.bench_function(BenchmarkId::new("one-flow-partial-checksum", size), |b| {
            b.iter(|| turn(&mut offload, black_box(&unsummed), &LARGE));
        });
    }
    group.finish();
}

fn segment(c: &mut Criterion) {
    let mut group = c.benchmark_group("offload/segment");
    let frames = [frame(6, 1, 1, 65495)];
    let hdr = VnetHdr {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        ..VnetHdr::NONE
    };
    let burst = burst(&frames, hdr);
    group.throughput(Throughput::Bytes(65495));
    let mut offload = Offload::new();
    for (name, caps) in
        [("tso4-checksummed", Caps::NONE), ("tso4-partial", Caps { csum: true, ..Caps::NONE })]
    {
        assert_eq!(turn(&mut offload, &burst, &caps), 46);
        group.bench_function(name, |b| b.iter(|| turn(&mut offload, black_box(&burst), &caps)));
    }
    group.finish();
}

fn complete(c: &mut Criterion) {
    let mut group = c.benchmark_group("offload/complete");
    group.throughput(Throughput::Elements(FRAMES as u64));
    let hdr = VnetHdr { flags: F_NEEDS_CSUM, csum_start: 34, csum_offset: 6, ..VnetHdr::NONE };
    let mut offload = Offload::new();
    for size in [64, 1400] {
        let frames: Vec<Vec<u8>> = (0..FRAMES as u16).map(|i| frame(17, 1, i, size - 42)).collect();
        let burst = burst(&frames, hdr);
        group.bench_function(BenchmarkId::new("udp", size), |b| {
            b.iter(|| turn(&mut offload, black_box(&burst), &Caps::NONE));
        });
    }
    group.finish();
}

criterion_group!(benches, no_work, coalesce, segment, complete);
criterion_main!(benches);
