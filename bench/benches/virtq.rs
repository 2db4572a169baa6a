//! Rings, both sides in one thread: what each side costs a frame, and the whole hop from one guest's ring to another's.
//!
//! `device` looks at a burst, gives it and publishes; `driver` adds a burst, publishes, and takes a used one. The lines of the ring are
//! local, so these are the instructions alone. `hop` is a nic's two queue halves between two drivers, of which only the halves are timed;
//! the floor is one copy a frame.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::backend::nic::{NetFeatures, pair};
use engine::burst::Burst;
use engine::mem::arena::{Arena, ArenaConfig};
use engine::mem::pool::Pool;
use engine::port::counters::PortCounters;
use engine::port::{RxQueue, Turn, TxQueue};
use engine::uring::FdIo;
use engine::virtq::packed::{PackedDevice, PackedDriver};
use engine::virtq::split::{SplitDevice, SplitDriver};
use engine::virtq::testing::{Format, Rig};
use engine::virtq::{Access, DeviceRing, DriverRing, DriverSeg, F_RING_PACKED, F_VERSION_1, Found};
use nix::sys::eventfd::EventFd;
use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Frames of a burst.
const FRAMES: usize = 32;
/// Entries of the rings.
const SIZE: u16 = 256;
/// Bytes from buffer to buffer: whole lines, an odd number of them, so that buffers spread over all sets of the caches.
const STRIDE: usize = 27 * 64;
/// Bytes of a virtio-net header.
const HEADER: usize = 12;

fn rig(format: Format) -> Rig {
    let packed = if format == Format::Packed { F_RING_PACKED } else { 0 };
    let features = F_VERSION_1 | NetFeatures::MRG_RXBUF | packed;
    Rig::new(format, SIZE, features, usize::from(SIZE) * STRIDE).expect("memory for a ring")
}

/// A driver that keeps its buffers: buffer `token` is always at the same place.
struct Guest<V> {
    rig: Rig,
    driver: V,
    free: Vec<u32>,
}

impl<V: DriverRing> Guest<V> {
    fn new(format: Format) -> Self {
        let rig = rig(format);
        let driver = V::new(&rig.config).expect("a ring");
        Self { rig, driver, free: (0..u32::from(SIZE)).rev().collect() }
    }

    #[inline]
    fn add(&mut self, n: usize, len: u32, readable: usize) {
        for _ in 0..n {
            let Some(token) = self.free.pop() else { break };
            let addr = self.rig.buffer(token as usize * STRIDE);
            assert!(self.driver.add(&[DriverSeg { addr, len }], readable, token));
        }
        black_box(self.driver.publish());
    }

    #[inline]
    fn take(&mut self) -> usize {
        let mut n = 0;
        while let Some((token, _)) = self.driver.used().expect("a correct device") {
            self.free.push(token);
            n += 1;
        }
        n
    }
}

/// Times `part` of each round; the rest of the round is not counted.
fn timed<S>(
    rounds: u64,
    state: &mut S,
    mut before: impl FnMut(&mut S),
    mut part: impl FnMut(&mut S),
) -> Duration {
    // The clock is read once a round; what that costs is taken off.
    let mut sum = Duration::ZERO;
    let empty = {
        let start = Instant::now();
        (0..64).for_each(|_| {
            black_box(Instant::now());
        });
        start.elapsed() / 64
    };
    for _ in 0..rounds {
        before(state);
        let start = Instant::now();
        part(state);
        sum += start.elapsed().saturating_sub(empty);
    }
    sum
}

fn device<D: DeviceRing, V: DriverRing>(c: &mut Criterion, format: Format, name: &str) {
    let mut group = c.benchmark_group("virtq/device");
    group.throughput(Throughput::Elements(FRAMES as u64));
    let guest = Guest::<V>::new(format);
    let device = D::new(&guest.rig.config).expect("a ring");
    let mut state = (guest, device, Found::new());
    group.bench_function(BenchmarkId::new(name, 64), |b| {
        b.iter_custom(|rounds| {
            timed(
                rounds,
                &mut state,
                |(guest, ..)| {
                    guest.take();
                    guest.add(FRAMES, 64, 1);
                },
                |(_, device, found)| {
                    device.look(FRAMES, Access::Read, found).expect("a correct driver");
                    device.give_all(found.chains().iter().map(|chain| (chain, 0)));
                    found.clear();
                    black_box(device.publish());
                },
            )
        });
    });
    group.finish();
    let mut group = c.benchmark_group("virtq/driver");
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function(BenchmarkId::new(name, 64), |b| {
        b.iter_custom(|rounds| {
            timed(
                rounds,
                &mut state,
                |(_, device, found)| {
                    device.look(FRAMES, Access::Read, found).expect("a correct driver");
                    device.give_all(found.chains().iter().map(|chain| (chain, 0)));
                    found.clear();
                    device.publish();
                },
                |(guest, ..)| {
                    guest.take();
                    guest.add(FRAMES, 64, 1);
                },
            )
        });
    });
    group.finish();
}

/// Two guests, and the halves between them.
struct Hop<V> {
    from: Guest<V>,
    to: Guest<V>,
    rx: Box<dyn RxQueue>,
    tx: Box<dyn TxQueue>,
    io: FdIo,
    pool: Pool,
    burst: Burst,
    counters: PortCounters,
    moved: usize,
}

impl<V: DriverRing> Hop<V> {
    fn new(format: Format) -> Self {
        let (from, to) = (Guest::<V>::new(format), Guest::<V>::new(format));
        let wake = Arc::new(OwnedFd::from(EventFd::new().expect("an eventfd")));
        let rx = pair(Some(&from.rig.config), None, &wake, &Arc::default()).expect("a ring").rx;
        let tx = pair(None, Some(&to.rig.config), &wake, &Arc::default()).expect("a ring").tx;
        let arena =
            Arena::new(&ArenaConfig { hugepages: false, ..ArenaConfig::default() }).expect("an arena");
        let pool = Pool::set(1, &arena).expect("a pool").remove(0);
        let io = FdIo::new(None).expect("some kind of I/O").0;
        Self { from, to, rx, tx, io, pool, burst: Burst::new(), counters: PortCounters::default(), moved: 0 }
    }

    /// What the two guests do between two turns.
    fn guests(&mut self, len: usize) {
        self.from.take();
        self.to.take();
        self.from.add(FRAMES, (HEADER + len) as u32, 1);
        let free = self.to.free.len();
        self.to.add(free, STRIDE as u32, 0);
    }

    /// A worker's turn, as far as the two halves go.
    fn turn(&mut self) {
        let mut turn = Turn { now: 0, io: &mut self.io, pool: &mut self.pool };
        self.burst.clear();
        let room = self.tx.room(&mut turn, FRAMES);
        self.rx.rx(&mut turn, room.min(FRAMES), &mut self.burst);
        let taken = self.tx.tx(&mut turn, &self.burst, self.burst.all());
        self.tx.flush(&mut turn);
        self.tx.settle(&mut turn, &self.counters);
        self.rx.release(&mut turn, taken);
        self.moved += taken;
    }
}

fn hop<V: DriverRing>(c: &mut Criterion, format: Format, name: &str) {
    let mut group = c.benchmark_group("virtq/hop");
    group.throughput(Throughput::Elements(FRAMES as u64));
    for len in [64, 1500] {
        let mut hop = Hop::<V>::new(format);
        let mut rounds_run = 0;
        group.bench_function(BenchmarkId::new(name, len), |b| {
            b.iter_custom(|rounds| {
                rounds_run += rounds as usize;
                timed(rounds, &mut hop, |hop| hop.guests(len), Hop::turn)
            });
        });
        assert_eq!(hop.moved, rounds_run * FRAMES, "every frame went through");
    }
    group.finish();
}

fn split(c: &mut Criterion) {
    device::<SplitDevice, SplitDriver>(c, Format::Split, "split");
    hop::<SplitDriver>(c, Format::Split, "split");
}

fn packed(c: &mut Criterion) {
    device::<PackedDevice, PackedDriver>(c, Format::Packed, "packed");
    hop::<PackedDriver>(c, Format::Packed, "packed");
}

criterion_group!(benches, split, packed);
criterion_main!(benches);
