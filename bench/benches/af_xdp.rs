//! Our own share of an AF_XDP frame: a burst from one socket's rings to another's, without the kernel, whose part of the rings is played between the
//! timed turns. Moved: both sockets share a UMEM. Copied: they do not. Beside it stands `virtq/hop`, the same between two guests.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::backend::af_xdp::testing::{TestQueue, queue, umem};
use engine::burst::{BURST, Burst};
use engine::mem::arena::{Arena, ArenaConfig};
use engine::mem::pool::Pool;
use engine::port::counters::PortCounters;
use engine::port::{RxQueue, Turn, TxQueue};
use engine::uring::FdIo;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Two sockets and a worker.
struct Hop {
    rx: Box<dyn RxQueue>,
    tx: Box<dyn TxQueue>,
    near: af_xdp::testing::Kernel,
    far: af_xdp::testing::Kernel,
    io: FdIo,
    pool: Pool,
    burst: Burst,
    counters: PortCounters,
    moved: usize,
}

impl Hop {
    fn new(shared: bool) -> Self {
        let one = umem().expect("a UMEM");
        let two = if shared { one.clone() } else { umem().expect("a UMEM") };
        let TestQueue { rx, kernel: near, .. } = queue(&one).expect("a queue");
        let TestQueue { tx, kernel: far, .. } = queue(&two).expect("a queue");
        let arena =
            Arena::new(&ArenaConfig { hugepages: false, ..ArenaConfig::default() }).expect("an arena");
        let pool = Pool::set(1, &arena).expect("a pool").remove(0);
        let io = FdIo::new(None).expect("some kind of I/O").0;
        let (burst, counters) = (Burst::new(), PortCounters::default());
        let mut hop = Self { rx, tx, near, far, io, pool, burst, counters, moved: 0 };
        let mut turn = Turn { now: 0, io: &mut hop.io, pool: &mut hop.pool };
        hop.rx.start(&mut turn);
        hop.tx.start(&mut turn);
        // The fake answers at once: what is left is our part of the call.
        hop.far.want_wakeups(false, true);
        hop
    }

    /// What the kernel does between two turns.
    fn kernel(&mut self, frame: &[u8]) {
        self.far.take(usize::MAX);
        self.far.complete(usize::MAX);
        assert!((0..BURST).all(|_| self.near.receive(frame)), "room for a burst");
    }

    /// A worker's turn, as far as the two halves go.
    fn turn(&mut self) {
        let mut turn = Turn { now: 0, io: &mut self.io, pool: &mut self.pool };
        self.burst.clear();
        let room = self.tx.room(&mut turn, BURST);
        self.rx.rx(&mut turn, room.min(BURST), &mut self.burst);
        let taken = self.tx.tx(&mut turn, &self.burst, self.burst.all());
        self.tx.flush(&mut turn);
        self.tx.settle(&mut turn, &self.counters);
        self.rx.release(&mut turn, taken);
        turn.pool.umems.settle();
        self.moved += taken;
    }
}

fn hop(group: &mut BenchmarkGroup<'_, WallTime>, shared: bool, name: &str) {
    for len in [64, 1500] {
        let (mut hop, mut ran) = (Hop::new(shared), 0);
        let frame = vec![7; len];
        group.bench_function(BenchmarkId::new(name, len), |b| {
            b.iter_custom(|rounds| {
                ran += rounds as usize;
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    hop.kernel(&frame);
                    let from = Instant::now();
                    black_box(&mut hop).turn();
                    spent += from.elapsed();
                }
                spent
            });
        });
        assert_eq!(hop.moved, ran * BURST, "every frame went through");
    }
}

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("af_xdp/hop");
    group.throughput(Throughput::Elements(BURST as u64));
    hop(&mut group, true, "moved");
    hop(&mut group, false, "copied");
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
