//! What a filter adds to a frame, in cycles: a burst of 64 frames, as the worker shows it to the filter. The writer of a dump is a thread of its own, whose file here takes all and keeps nothing. What a filter puts in again is taken
//! and given back at once; what a mirror passes on is read and forgotten.

mod cycles;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use cycles::Cycles;
use engine::burst::{Burst, Seg};
use engine::filter::Handle;
use engine::filter::buffer::Buffer;
use engine::filter::dump::DumpFile;
use engine::filter::limit::{Limit, Limits};
use engine::filter::matching::{self, Action};
use engine::filter::mirror::Mirror;
use engine::filter::rewriter::Rewriter;
use engine::filter::{Direction, Filter, Settings, bpf};
use engine::mem::arena::{Arena, ArenaConfig};
use engine::mem::pool::Pool;
use engine::port::Turn;
use engine::uring::FdIo;
use engine::wire::vnet_hdr::VnetHdr;
use std::hint::black_box;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
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

/// A filter, and what its frames need.
struct Place {
    pool: Pool,
    io: FdIo,
    now: u64,
    lent: Burst,
}

impl Place {
    fn new() -> Self {
        let arena = Arena::new(&ArenaConfig::default()).expect("memory");
        let pool = Pool::set(1, &arena).expect("a pool").remove(0);
        let (io, _) = FdIo::new(None).expect("an io_uring, or its stand-in");
        Self { pool, io, now: 0, lent: Burst::new() }
    }

    /// Shows it a burst, a microsecond after the last, and takes what it puts in.
    fn show(&mut self, filter: &mut dyn Filter, direction: Direction, burst: &Burst) {
        self.now += 1000;
        let mut turn = Turn { now: self.now, io: &mut self.io, pool: &mut self.pool };
        black_box(filter.frames(&mut turn, direction, black_box(burst), burst.all()));
        if filter.due(self.now, direction) > 0 {
            self.lent.clear();
            filter.lend(&mut turn, direction, FRAMES, &mut self.lent);
            let n = self.lent.len();
            filter.took(direction, n);
            filter.gone(&mut turn, direction, n);
        }
    }
}

/// Shows bursts of `frames` to `filter`; `after` comes behind each.
fn measure(
    c: &mut Criterion<Cycles>,
    group: &str,
    id: BenchmarkId,
    frames: &[Vec<u8>],
    filter: &mut dyn Filter,
    mut after: impl FnMut(),
) {
    let mut place = Place::new();
    let burst = burst(frames);
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function(id, |b| {
        b.iter(|| {
            place.show(filter, Direction::Rx, &burst);
            after();
        });
    });
    group.finish();
}

/// Shows it UDP frames of `len` bytes.
fn run(c: &mut Criterion<Cycles>, group: &str, id: BenchmarkId, len: usize, filter: &mut dyn Filter) {
    measure(c, group, id, &frames(len), filter, || ());
}

fn dump(c: &mut Criterion<Cycles>) {
    for len in [60, 64, 128, 1514] {
        let path = Path::new("/dev/null");
        let (file, mut instances) = DumpFile::open(path, 65536, None, 0, 1).expect("a capture");
        run(c, "filter/dump", BenchmarkId::from_parameter(len), len, &mut *instances[0]);
        drop(instances);
        file.finish(Duration::from_secs(5));
    }
}

fn matching(c: &mut Criterion<Cycles>) {
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

fn arena() -> Arc<Arena> {
    Arena::new(&ArenaConfig::default()).expect("memory")
}

fn on() -> Settings {
    Settings::new(true, true, true)
}

fn mirror(c: &mut Criterion<Cycles>) {
    for (name, steals, len) in [("mirror", false, 64), ("mirror", false, 1514), ("redirector", true, 64)] {
        let (_held, mut instance, mut reader) = Mirror::unread(&arena(), steals).expect("a mirror");
        let mut burst = Burst::new();
        let read = || {
            burst.clear();
            reader.lend(FRAMES, &mut burst);
            reader.took(burst.len());
            reader.done(burst.len());
        };
        let group = format!("filter/{name}");
        measure(c, &group, BenchmarkId::from_parameter(len), &frames(len), &mut *instance, read);
    }
}

fn buffer(c: &mut Criterion<Cycles>) {
    for len in [64, 1514] {
        let (_held, mut instances) = Buffer::open(on(), 1, &arena(), 1).expect("a buffer");
        run(c, "filter/buffer", BenchmarkId::from_parameter(len), len, &mut *instances[0]);
    }
}

fn limit(c: &mut Criterion<Cycles>) {
    // A rate that is never reached, and one that holds every frame back for a moment.
    for (name, bps) in [("passes", 1 << 50), ("holds", 4_096_000_000)] {
        let limits = Limits { bps, queue: 4096, ..Limits::default() };
        let (_held, mut instances) = Limit::open(on(), limits, &arena(), 1).expect("a limit");
        run(c, "filter/limit", BenchmarkId::from_parameter(name), 64, &mut *instances[0]);
    }
}

/// A TCP segment of one connection, 64 bytes.
fn segment(to_guest: bool, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let (ends, ports) = if to_guest { ([1, 2], [4000, 80]) } else { ([2, 1], [80, 4000u16]) };
    let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 50, 0, 0, 0, 0, 64, 6, 0, 0];
    f.extend([10, 0, 0, ends[0], 10, 0, 0, ends[1]]);
    ports.iter().for_each(|port| f.extend(port.to_be_bytes()));
    f.extend(seq.to_be_bytes());
    f.extend(ack.to_be_bytes());
    f.extend([0x50, flags, 255, 255, 0, 0, 0, 0]);
    f.resize(64, 7);
    f
}

fn rewriter(c: &mut Criterion<Cycles>) {
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    for (name, apart) in [("same-numbers", 0), ("other-numbers", 4000)] {
        let (held, mut instances) = Rewriter::open(on(), &arena(), 1).expect("a rewriter");
        let filter = &mut *instances[0];
        let mut place = Place::new();
        let greeting = [
            (Direction::Tx, segment(true, SYN, 1000, 0)),
            (Direction::Rx, segment(false, SYN | ACK, 5000, 1001)),
            (Direction::Tx, segment(true, ACK, 1001, 5001 + apart)),
        ];
        for (direction, frame) in &greeting {
            place.show(filter, *direction, &burst(std::slice::from_ref(frame)));
        }
        let data: Vec<_> = (0..FRAMES as u32).map(|i| segment(false, ACK, 5001 + 10 * i, 1001)).collect();
        measure(c, "filter/rewriter", BenchmarkId::from_parameter(name), &data, filter, || ());
        let rewritten = held.counters().iter().any(|(name, n)| *name == "rewritten" && *n > 1);
        assert_eq!(rewritten, apart != 0, "{name}: {:?}", held.counters());
    }
}

/// Those that stay in their chain while they are off: a look at a word a burst. The others are not shown what they must not see.
fn off(c: &mut Criterion<Cycles>) {
    let off = || Settings::new(false, true, true);
    let limits = Limits { bps: 1, queue: 4096, ..Limits::default() };
    let (_buffer, mut buffer) = Buffer::open(off(), 1, &arena(), 1).expect("a buffer");
    let (_limit, mut limit) = Limit::open(off(), limits, &arena(), 1).expect("a limit");
    let (_rewriter, mut rewriter) = Rewriter::open(off(), &arena(), 1).expect("a rewriter");
    for (name, filter) in [("buffer", &mut buffer), ("limit", &mut limit), ("rewriter", &mut rewriter)] {
        run(c, "filter/off", BenchmarkId::from_parameter(name), 64, &mut *filter[0]);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(Cycles);
    targets = dump, matching, mirror, buffer, limit, rewriter, off
}
criterion_main!(benches);
