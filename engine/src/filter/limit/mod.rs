//! `filter-limit`: lets frames pass at a rate, and holds those that come too early (not in QEMU; properties as those of its `throttle`).
//!
//! ```text
//!   frames --fit?--> on                         bytes and frames: one bucket a direction, of all workers
//!            no --> ring (each worker) --when they fit--> on behind the filter
//! ```
//! A frame counts as its bytes go on a wire, without FCS: one that is to be segmented counts as its segments, with the headers that each gets.
//! What comes when the ring holds `queue-limit` frames, or all bytes that fit, is dropped as `queue-full`.

pub mod bucket;
mod instance;

use super::hold::{Accounts, Hold};
use super::{Filter, Handle, Settings};
use crate::mem::arena::{Arena, ArenaError};
use crate::port::counters::Counter;
use crate::sync::Padded;
use bucket::{Bucket, Rate};
use crossbeam::utils::CachePadded;
use instance::Instance;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Frames of a direction that a worker holds by default: a second at 12 Mbit/s, a millisecond at 10 Gbit/s.
pub const QUEUE_LIMIT: u64 = 1000;

/// Bytes of a ring.
const RING: usize = 4 << 20;

/// What may pass, as the user gave it; 0 is no limit, and no burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes a second.
    pub bps: u64,
    /// Frames a second.
    pub fps: u64,
    /// Bytes that may come at once after a pause.
    pub bps_burst: u64,
    /// Frames that may come at once after a pause.
    pub fps_burst: u64,
    /// Frames of a direction that a worker holds.
    pub queue: u64,
}

/// What workers read.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    bytes: Rate,
    frames: Rate,
    queue: AtomicU64,
    /// By direction.
    buckets: [Padded<Bucket>; 2],
}

/// Control's hold on a limit.
#[derive(Debug)]
pub struct Limit {
    shared: Arc<Shared>,
    accounts: Accounts,
    passed: Vec<Arc<CachePadded<Counter>>>,
}

impl Limit {
    /// A limit, and its instances, one a worker.
    ///
    /// # Errors
    /// No memory for its rings.
    pub fn open(
        settings: Settings,
        limits: Limits,
        arena: &Arc<Arena>,
        workers: usize,
    ) -> Result<(Self, Vec<Box<dyn Filter>>), ArenaError> {
        let shared = Arc::new(Shared {
            settings,
            bytes: Rate::new(limits.bps, limits.bps_burst),
            frames: Rate::new(limits.fps, limits.fps_burst),
            queue: AtomicU64::new(limits.queue),
            buckets: Default::default(),
        });
        let mut accounts = Accounts::default();
        let mut passed = Vec::new();
        let mut instances: Vec<Box<dyn Filter>> = Vec::new();
        for _ in 0..workers {
            let holds = Hold::pair(arena, RING, &mut accounts)?;
            let counter: Arc<CachePadded<Counter>> = Arc::default();
            passed.push(counter.clone());
            instances.push(Box::new(Instance::new(shared.clone(), holds, counter)));
        }
        Ok((Self { shared, accounts, passed }, instances))
    }
}

impl Handle for Limit {
    fn set(&self, on: bool, rx: bool, tx: bool) {
        self.shared.settings.set(on, rx, tx);
    }

    fn tune(&self, property: &str, value: u64) {
        match property {
            "bps" => self.shared.bytes.set_rate(value),
            "bps-burst" => self.shared.bytes.set_burst(value),
            "fps" => self.shared.frames.set_rate(value),
            "fps-burst" => self.shared.frames.set_burst(value),
            "queue-limit" => self.shared.queue.store(value, Ordering::Relaxed),
            _ => return,
        }
        // A debt is time, and was made at another rate.
        self.shared.buckets.iter().for_each(|bucket| bucket.0.fill());
    }

    fn held(&self) -> u64 {
        self.accounts.held()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut all = vec![("passed", self.passed.iter().map(|counter| counter.get()).sum())];
        all.extend(self.accounts.counters());
        all
    }
}

#[cfg(test)]
mod tests;
