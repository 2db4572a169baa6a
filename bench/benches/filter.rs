//! What a filter adds to a frame: a burst of 64 frames, as the worker shows it to the filter. Cycles a frame are the time a frame by the
//! clock's rate. The writer of a dump is a thread of its own, whose file here takes all and keeps nothing.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::burst::{Burst, Seg};
use engine::filter::Handle;
use engine::filter::dump::DumpFile;
use engine::filter::matching::{self, Action};
use engine::filter::{Direction, Filter, bpf};
use engine::mem::arena::{Arena, ArenaConfig};
use engine::mem::pool::Pool;
use engine::port::Turn;
use engine::uring::FdIo;
use engine::wire::vnet_hdr::VnetHdr;
use std::hint::black_box;
use std::path::Path;
use std::ptr::NonNull;
use std::time::Duration;

/// Frames of a burst.
const FRAMES: usize = 64;

/// IPv4 UDP frames of `len` bytes.
fn frames(len: usize) -> Vec<Vec<u8>> {
    let frame = |i: usize| {
        let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0];
        f.extend([10, 0, 0, 1, 10, 0, 0, 2, 3, 232, 0, i as u8, 0, 30, 0, 0]);
        f.resize(len, 7);
        f
    };
    (0..FRAMES).map(frame).collect()
}

fn burst(frames: &[Vec<u8>]) -> Burst {
    let mut burst = Burst::new();
    for f in frames {
        // SAFETY: the caller keeps the frames for as long as it uses the burst.
        let seg = unsafe { Seg::new(NonNull::from(f.as_slice()).cast(), f.len() as u32) };
        assert!(burst.push(VnetHdr::NONE, &[seg]));
    }
    burst
}

/// Shows bursts to `filter`, a microsecond apart.
fn run(c: &mut Criterion, group: &str, id: BenchmarkId, len: usize, filter: &mut dyn Filter) {
    let arena = Arena::new(&ArenaConfig::default()).expect("memory");
    let mut pool = Pool::set(1, &arena).expect("a pool").remove(0);
    let (mut io, _) = FdIo::new(None).expect("an io_uring, or its stand-in");
    let frames = frames(len);
    let burst = burst(&frames);
    let mut now = 0;
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function(id, |b| {
        b.iter(|| {
            now += 1000;
            let mut turn = Turn { now, io: &mut io, pool: &mut pool };
            black_box(filter.frames(&mut turn, Direction::Tx, black_box(&burst), burst.all()))
        });
    });
    group.finish();
}

fn dump(c: &mut Criterion) {
    for len in [60, 64, 128, 1514] {
        let path = Path::new("/dev/null");
        let (file, mut instances) = DumpFile::open(path, 65536, None, 0, 1).expect("a capture");
        run(c, "filter/dump", BenchmarkId::from_parameter(len), len, &mut *instances[0]);
        drop(instances);
        file.finish(Duration::from_secs(5));
    }
}

fn matching(c: &mut Criterion) {
    for expression in ["udp", "udp dst port 53", "tcp port 80 and host 10.0.0.1"] {
        let program = match bpf::compile(expression) {
            Ok(program) => program,
            Err(error) => return eprintln!("filter/match is left out: {error}"),
        };
        let (_held, mut instances) = matching::open(program, Action::Drop, 1);
        let id = BenchmarkId::from_parameter(expression.replace(' ', "-"));
        run(c, "filter/match", id, 64, &mut *instances[0]);
    }
}

criterion_group!(benches, dump, matching);
criterion_main!(benches);
