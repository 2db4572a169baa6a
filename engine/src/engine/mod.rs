//! The engine as control sees it: start it, commit topologies, read its counters.

mod commit;
mod start;
mod stats;
mod switches;

pub use commit::{Attachments, Retired};
pub use start::{Config, EngineError};
pub use stats::{ClientStats, QueueStats, Stats, WorkerStats};
pub use switches::{StationStats, SwitchStats};

use crate::mem::arena::Arena;
use crate::port::QueueId;
use crate::port::counters::PortCounters;
use crate::switch::routes::LaneTable;
use crate::switch::{Extent, Routes};
use crate::topology::cell::Publisher;
use crate::topology::model::ClientId;
use crate::topology::plan::Slots;
use crate::uring::{IoMode, Waker};
use crate::worker::clock::{Clock, ticks};
use crate::worker::idle::Idle;
use crate::worker::inbox::Mail;
use crate::worker::place::Load;
use crate::worker::regimes::WorkerCounters;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use switches::Switches;

/// A running engine. Dropping it stops the workers.
pub struct Engine {
    publisher: Publisher<Routes>,
    workers: Vec<Handle>,
    stop: Arc<AtomicBool>,
    clock: Clock,
    arena: Arc<Arena>,
    next_queue: AtomicU64,
    load: Load,
    slots: Slots,
    /// By worker: slots that are free again, and the lowest one never used.
    free_queues: Vec<FreeSlots>,
    free_filters: FreeSlots,
    queues: HashMap<u64, Place>,
    lanes: LaneTable,
    /// Clients in creation order, each with its queues.
    clients: Vec<(ClientId, Vec<u64>)>,
    /// What every worker's scratch can hold.
    extent: Extent,
    switches: Switches,
    /// What idle workers do.
    idle: Idle,
}

/// Where a queue is.
struct Place {
    worker: usize,
    slot: u32,
    counters: Arc<PortCounters>,
    /// Frames that wait for it at most.
    backlog: u32,
}

/// Slots to give out, lowest first.
#[derive(Debug, Default)]
struct FreeSlots {
    free: Vec<u32>,
    next: u32,
}

impl FreeSlots {
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn give(&mut self, slot: u32) {
        self.free.push(slot);
    }

    fn in_use(&self) -> usize {
        self.next as usize - self.free.len()
    }
}

/// Control's hold on one worker.
struct Handle {
    mail: Mail,
    waker: Arc<Waker>,
    counters: Arc<WorkerCounters>,
    core: Option<usize>,
    io_mode: IoMode,
    io_reason: Option<String>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Number of workers.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// The worker that should own the next queue.
    pub fn place(&mut self) -> usize {
        self.load.place()
    }

    /// Gives up a place that was asked for and not used.
    pub fn unplace(&mut self, worker: usize) {
        self.load.remove(worker);
    }

    /// Makes a worker take a turn soon: there is something that no file of its tells of.
    pub fn wake(&self, worker: usize) {
        if let Some(worker) = self.workers.get(worker) {
            worker.waker.wake();
        }
    }

    /// What wakes each worker, for threads that have frames for it.
    #[must_use]
    pub fn wakers(&self) -> Vec<Arc<Waker>> {
        self.workers.iter().map(|worker| worker.waker.clone()).collect()
    }

    /// A name for a new queue.
    #[must_use]
    pub fn queue_id(&self) -> QueueId {
        QueueId(self.next_queue.fetch_add(1, Ordering::Relaxed))
    }

    /// The arena that backends cut their buffers from.
    #[must_use]
    pub fn arena(&self) -> Arc<Arena> {
        self.arena.clone()
    }

    /// Whether idle workers poll and never sleep.
    #[must_use]
    pub const fn polls(&self) -> bool {
        matches!(self.idle, Idle::Poll)
    }

    /// How a worker does file I/O.
    #[must_use]
    pub fn io_mode(&self, worker: usize) -> Option<&IoMode> {
        self.workers.get(worker).map(|w| &w.io_mode)
    }

    /// What is not as it should be, though everything works: no hugepages, no io_uring. A sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let memory = self.arena.report().warning();
        let io = self.workers.iter().find_map(|w| w.io_reason.as_ref());
        let io = io.map(|why| format!("file I/O by plain system calls, since io_uring is not usable: {why}"));
        memory.into_iter().chain(io).collect()
    }

    /// Nanoseconds since the engine started.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.clock.nanoseconds(ticks())
    }

    /// Ends all workers and waits for them.
    fn shut_down(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in &self.workers {
            worker.waker.wake();
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shut_down();
    }
}

#[cfg(test)]
mod tests;
