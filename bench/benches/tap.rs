//! What a frame costs from one tap to another on one core, by io mode: both ways through the kernel included.
//!
//! A packet socket fills the first tap's queue; timed is only our part, in processor time of this thread: take in, lend,
//! write to the second tap (whose interface has no address, so the kernel drops the frames early), give back. Needs root,
//! for a network namespace of its own.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::backend::tap::{self, QueuePair, TapOptions};
use engine::burst::Burst;
use engine::mem::arena::{Arena, ArenaConfig};
use engine::mem::pool::Pool;
use engine::port::Turn;
use engine::port::counters::PortCounters;
use engine::uring::{FdIo, IoMode};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::time::{ClockId, clock_gettime};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Frames in a tap's queue at a time, below its default length of 1000.
const QUEUED: usize = 512;
/// Frames that a turn moves at most.
const BURST: usize = 32;

/// Processor time of this thread.
fn spent() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock").into()
}

fn ip(args: &str) -> bool {
    Command::new("ip").args(args.split(' ')).status().is_ok_and(|s| s.success())
}

fn open(name: &str, arena: &Arc<Arena>) -> Option<QueuePair> {
    let options = TapOptions { ifname: Some(name.into()), ..TapOptions::default() };
    let pair = tap::open(options, arena).ok()?.queues.pop()?;
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").ok()?;
    ip(&format!("link set {name} up")).then_some(pair)
}

/// A packet socket that sends on an interface.
fn wire(name: &str) -> Option<OwnedFd> {
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).ok()?;
    // SAFETY: an address of plain data, which lives across the call.
    let bound = unsafe {
        let mut addr: libc::sockaddr_ll = std::mem::zeroed();
        addr.sll_family = libc::AF_PACKET as u16;
        addr.sll_ifindex = nix::net::if_::if_nametoindex(name).ok()? as i32;
        libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), size_of::<libc::sockaddr_ll>() as u32)
    };
    (bound == 0).then_some(fd)
}

struct Rig {
    io: FdIo,
    pool: Pool,
    burst: Burst,
    from: QueuePair,
    to: QueuePair,
    wire: OwnedFd,
    counters: PortCounters,
}

impl Rig {
    fn new(mode: IoMode) -> Option<Self> {
        let arena = Arena::new(&ArenaConfig::default()).ok()?;
        let pool = Pool::set(1, &arena).ok()?.pop()?;
        let (mut io, _) = FdIo::new(Some(mode)).ok()?;
        let (mut from, mut to) = (open("from", &arena)?, open("to", &arena)?);
        let mut rig_pool = pool;
        let mut turn = Turn { now: 0, io: &mut io, pool: &mut rig_pool };
        for pair in [&mut from, &mut to] {
            pair.rx.start(&mut turn);
            pair.tx.start(&mut turn);
        }
        let (wire, counters) = (wire("from")?, PortCounters::default());
        Some(Self { io, pool: rig_pool, burst: Burst::new(), from, to, wire, counters })
    }

    fn turn(&mut self) -> usize {
        self.io.poll();
        while self.io.take_ready().is_some() {}
        let mut turn = Turn { now: 0, io: &mut self.io, pool: &mut self.pool };
        let room = self.to.tx.room(&mut turn, BURST).min(BURST);
        self.burst.clear();
        self.from.rx.rx(&mut turn, room, &mut self.burst);
        if self.burst.is_empty() {
            return 0;
        }
        let taken = self.to.tx.tx(&mut turn, &self.burst, self.burst.all());
        self.to.tx.flush(&mut turn);
        turn.io.submit();
        self.to.tx.settle(&mut turn, &self.counters);
        self.from.rx.release(&mut turn, taken);
        taken
    }

    /// Moves `frames` frames; returns the time that took.
    fn run(&mut self, frame: &[u8], frames: u64) -> Duration {
        let (mut left, mut time) = (frames as usize, Duration::ZERO);
        while left > 0 {
            let now = left.min(QUEUED);
            for _ in 0..now {
                let _ = nix::unistd::write(&self.wire, frame);
            }
            let (start, mut gone, mut empty) = (spent(), 0, 0);
            while gone < now && empty < 1000 {
                let n = self.turn();
                gone += n;
                empty = if n == 0 { empty + 1 } else { 0 };
            }
            time += spent() - start;
            left -= now;
        }
        time
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let mut turn = Turn { now: 0, io: &mut self.io, pool: &mut self.pool };
        for pair in [&mut self.from, &mut self.to] {
            while !(pair.rx.stop(&mut turn) && pair.tx.stop(&mut turn)) {}
        }
    }
}

fn tap_to_tap(c: &mut Criterion) {
    if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        println!("skipped: no network namespace (needs root)");
        return;
    }
    let mut group = c.benchmark_group("tap_to_tap");
    group.throughput(Throughput::Elements(1));
    for mode in [IoMode::Uring, IoMode::Batched] {
        let Some(mut rig) = Rig::new(mode) else {
            println!("skipped: no taps by {}", mode.name());
            continue;
        };
        for size in [60usize, 1514] {
            let mut frame = vec![0u8; size];
            frame[..14].copy_from_slice(&[255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
            group.bench_function(BenchmarkId::new(mode.name(), size), |b| {
                b.iter_custom(|n| rig.run(&frame, n));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, tap_to_tap);
criterion_main!(benches);
