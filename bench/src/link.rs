//! What the link between two workers costs: a stream of bursts from one core to another.
//!
//! [`stream`] counts as DPDK's `ring_perf_autotest` ("two physical cores") does: one core only enqueues, the other only
//! dequeues, both wait for each other (a pause for each attempt on a full or empty queue) and both count their time from
//! the first transfer to the last, waiting included. The figure is the sum of both sides, an element. What is moved are
//! handles: ring_perf enqueues the same array of pointers again and again and frees nothing, and so does `stream` with
//! the handles of one burst; the other side takes the burst apart into handles and stops there.
//!
//! [`lap`] is the whole way of a frame: copied into a pool buffer, sent, read, given back and taken in again.

#![allow(unsafe_code)] // makes second copies of handles, see `stream`

use crate::failure::{Context, Failure, Result};
use crate::sched;
use engine::burst::{Burst, Seg};
use engine::mem::arena::{Arena, ArenaConfig};
use engine::mem::pool::{Pool, PoolFrame};
use engine::wire::vnet_hdr::VnetHdr;
use engine::worker::clock::ticks;
use engine::worker::link::{Destination, LINK_BURST, Links};
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Time that both sides took together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// In TSC cycles.
    pub cycles: u64,
    /// By the clock.
    pub time: Duration,
}

/// Two pools, for the two workers of a link.
///
/// # Errors
/// No memory.
pub fn pools() -> Result<[Pool; 2]> {
    let arena = Arena::new(&ArenaConfig::default()).context("arena")?;
    let pools = Pool::set(2, &arena).context("pools")?;
    <[Pool; 2]>::try_from(pools).map_err(|_| Failure::new("not two pools"))
}

fn ends(pools: &[Pool; 2]) -> Result<[Links; 2]> {
    Links::all(pools).try_into().map_err(|_| Failure::new("not two ends"))
}

/// Where the frames say they go.
const TO: Destination = Destination { slot: 1, queue: 2 };

/// Waits for a burst.
fn received(here: &mut Links, pool: &Pool, into: &mut Vec<PoolFrame>) -> Destination {
    loop {
        match here.receive(0, pool, into) {
            Some(to) => return to,
            None => std::hint::spin_loop(),
        }
    }
}

/// Cost of moving `bursts` bursts of `bulk` handles from CPU `from` to CPU `to`.
///
/// # Errors
/// No CPU to pin to, or a `bulk` that no burst holds.
pub fn stream(pools: &mut [Pool; 2], [from, to]: [usize; 2], bulk: usize, bursts: u32) -> Result<Cost> {
    let start = AtomicU32::new(0);
    let [mut there, mut here] = ends(pools)?;
    let [sender, receiver] = pools;
    let frames: Vec<_> = (0..bulk.min(LINK_BURST)).map_while(|_| sender.take(64)).collect();
    if frames.len() != bulk {
        return Err(Failure::new("bursts are shorter than that"));
    }
    let handles = &frames;
    let cost = sides(
        || {
            clock(from, &start, || {
                for _ in 0..bursts {
                    // SAFETY: nobody touches the bytes behind a copy, and only the original is given back.
                    let copy = |handle: &PoolFrame| unsafe { std::ptr::read(handle) };
                    while there.send(1, TO, black_box(handles).iter().map(copy)).0 == 0 {
                        std::hint::spin_loop();
                    }
                }
            })
        },
        || {
            clock(to, &start, || {
                let mut got = Vec::with_capacity(LINK_BURST);
                for _ in 0..bursts {
                    got.clear();
                    let to = received(&mut here, receiver, &mut got);
                    black_box((to, &got));
                }
            })
        },
    )?;
    frames.into_iter().for_each(|frame| sender.give(frame));
    Ok(cost)
}

/// Cost of `bursts` bursts of `bulk` frames of 64 bytes that are copied, moved, read, given back and taken in again.
///
/// # Errors
/// No CPU to pin to.
pub fn lap(pools: &mut [Pool; 2], [from, to]: [usize; 2], bulk: usize, bursts: u32) -> Result<Cost> {
    let start = AtomicU32::new(0);
    let [mut there, mut here] = ends(pools)?;
    let [sender, receiver] = pools;
    sides(
        || {
            let bytes = [7; 64];
            // SAFETY: `bytes` outlives the burst.
            let seg = unsafe { Seg::new(NonNull::from(&bytes).cast(), 64) };
            let mut lent = Burst::new();
            while lent.len() < bulk.min(LINK_BURST) && lent.push(VnetHdr::NONE, &[seg]) {}
            clock(from, &start, || {
                for _ in 0..bursts {
                    sender.reclaim();
                    while sender.low() {
                        sender.reclaim();
                    }
                    while there.is_full(1) {
                        std::hint::spin_loop();
                    }
                    let copies =
                        lent.frames().iter().filter_map(|frame| sender.copy(black_box(&lent), frame));
                    there.send(1, TO, copies);
                }
            })
        },
        || {
            clock(to, &start, || {
                let mut held = Vec::with_capacity(LINK_BURST);
                for _ in 0..bursts {
                    received(&mut here, receiver, &mut held);
                    for frame in held.drain(..) {
                        black_box((frame.hdr(), frame.bytes().first()));
                        receiver.give(frame);
                    }
                }
            })
        },
    )
    .inspect(|_| {
        receiver.reclaim();
        sender.reclaim();
    })
}

/// Runs both sides and adds up what they took.
fn sides(
    send: impl FnOnce() -> Result<Cost> + Send,
    receive: impl FnOnce() -> Result<Cost> + Send,
) -> Result<Cost> {
    let panicked = |_| Failure::new("a measuring thread panicked");
    std::thread::scope(|scope| {
        let (send, receive) = (scope.spawn(send), scope.spawn(receive));
        let (a, b) = (send.join().map_err(panicked)??, receive.join().map_err(panicked)??);
        Ok(Cost { cycles: a.cycles + b.cycles, time: a.time + b.time })
    })
}

/// Runs one side on its CPU, from the moment that both are there.
fn clock(cpu: usize, start: &AtomicU32, work: impl FnOnce()) -> Result<Cost> {
    let pinned = sched::pin(cpu);
    start.fetch_add(1, Ordering::SeqCst);
    while start.load(Ordering::SeqCst) < 2 {
        std::hint::spin_loop();
    }
    let (time, cycles) = (Instant::now(), ticks());
    work();
    let cost = Cost { cycles: ticks() - cycles, time: time.elapsed() };
    pinned.context("pin").map(|()| cost)
}
