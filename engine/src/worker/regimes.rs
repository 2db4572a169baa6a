//! Where a worker's time goes, so that a full core can be told from a spinning one.

use crate::port::counters::Counter;
use crossbeam::utils::CachePadded;

/// What a turn was spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regime {
    /// A poll returned frames: from there to the end of their transmission.
    Busy,
    /// Nothing to do.
    Empty,
    /// Frames wait, but no destination has room.
    BackPressured,
    /// Plan changes, returned buffers, ticks.
    Housekeeping,
}

/// Counters of one worker; the worker writes, anybody reads. Ticks are TSC cycles.
#[derive(Debug, Default)]
pub struct WorkerCounters(CachePadded<Words>);

#[derive(Debug, Default)]
struct Words {
    turns: Counter,
    frames: Counter,
    ticks: [Counter; 4],
}

impl WorkerCounters {
    /// Charges a turn.
    pub fn charge(&self, regime: Regime, ticks: u64, frames: u64) {
        self.0.turns.add(1);
        self.0.ticks[regime as usize].add(ticks);
        if frames != 0 {
            self.0.frames.add(frames);
        }
    }

    /// Charges part of a turn that is counted elsewhere.
    pub fn charge_part(&self, regime: Regime, ticks: u64) {
        self.0.ticks[regime as usize].add(ticks);
    }

    /// Turns made.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.0.turns.get()
    }

    /// Frames read from sources.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.0.frames.get()
    }

    /// Ticks spent in a regime.
    #[must_use]
    pub fn ticks(&self, regime: Regime) -> u64 {
        self.0.ticks[regime as usize].get()
    }
}
