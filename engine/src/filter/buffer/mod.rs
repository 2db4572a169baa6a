//! `filter-buffer`: holds the frames that pass, and lets all of them go at once every interval (QEMU `net/filter-buffer.c`).
//!
//! ```text
//!   frames -> ring (each direction, each worker) --every interval, all that is there--> on behind the filter
//! ```
//! The interval is real time: there is no virtual clock that stops with a guest. What the receiver does not take at a release stays and goes
//! first when it has room, where QEMU drops it. Beyond [`MOST`] frames, or the ring's bytes, frames are dropped as `queue-full`.

mod instance;

use super::hold::{Accounts, Hold};
use super::{Filter, Handle, Settings};
use crate::mem::arena::{Arena, ArenaError};
use instance::Instance;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Frames of a direction that a worker holds at most, as QEMU's queue does.
pub const MOST: u64 = 10_000;

/// Bytes of a ring: [`MOST`] frames of 1,514 bytes. Several workers share what two have, down to a quarter each.
const RING: usize = 16 << 20;

/// What workers read.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    /// Nanoseconds between releases.
    interval: AtomicU64,
    /// Grows when the time of the next release begins anew.
    armed: AtomicU32,
}

/// Control's hold on a buffer.
#[derive(Debug)]
pub struct Buffer {
    shared: Arc<Shared>,
    accounts: Accounts,
}

impl Buffer {
    /// A buffer with `micros` microseconds between releases, and its instances, one a worker.
    ///
    /// # Errors
    /// No memory for its rings.
    pub fn open(
        settings: Settings,
        micros: u32,
        arena: &Arc<Arena>,
        workers: usize,
    ) -> Result<(Self, Vec<Box<dyn Filter>>), ArenaError> {
        let interval = AtomicU64::new(nanoseconds(micros.into()));
        let shared = Arc::new(Shared { settings, interval, armed: AtomicU32::new(1) });
        let bytes = (2 * RING / workers.max(1)).clamp(RING / 4, RING);
        let mut accounts = Accounts::default();
        let mut instances: Vec<Box<dyn Filter>> = Vec::new();
        for _ in 0..workers {
            let holds = Hold::pair(arena, bytes, &mut accounts)?;
            instances.push(Box::new(Instance::new(shared.clone(), holds)));
        }
        Ok((Self { shared, accounts }, instances))
    }
}

impl Handle for Buffer {
    fn set(&self, on: bool, rx: bool, tx: bool) {
        let was = self.shared.settings.is_on();
        self.shared.settings.set(on, rx, tx);
        if on && !was {
            self.shared.armed.fetch_add(1, Ordering::Release);
        }
    }

    fn tune(&self, property: &str, value: u64) {
        if property == "interval" {
            self.shared.interval.store(nanoseconds(value), Ordering::Relaxed);
            self.shared.armed.fetch_add(1, Ordering::Release);
        }
    }

    fn held(&self) -> u64 {
        self.accounts.held()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.accounts.counters()
    }
}

/// At least one.
const fn nanoseconds(micros: u64) -> u64 {
    let micros = if micros == 0 { 1 } else { micros };
    micros.saturating_mul(1000)
}

#[cfg(test)]
mod tests;
