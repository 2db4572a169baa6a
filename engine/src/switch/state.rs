//! What a switch has learned and counted: shared by all workers, kept from plan to plan.

use super::table::Table;
use crate::port::counters::Counter;
use crate::sync::Padded;

/// What a switch counts beside the drops of its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Count {
    /// Stations learned.
    Learned,
    /// Stations that went to another port.
    Moved,
    /// Stations forgotten, as nothing was heard of them.
    Aged,
    /// Stations not learned, as the table was full.
    TableFull,
    /// Stations not learned, as their port had as many as it may have.
    Limit,
    /// Frames whose sender is static at another port.
    Static,
    /// Frames sent to all ports of their VLAN.
    Flooded,
}

impl Count {
    /// All of them, in counter order.
    pub const ALL: [Self; 7] =
        [Self::Learned, Self::Moved, Self::Aged, Self::TableFull, Self::Limit, Self::Static, Self::Flooded];

    /// The name that `query-switch` shows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Learned => "learned",
            Self::Moved => "moved",
            Self::Aged => "aged",
            Self::TableFull => "table-full",
            Self::Limit => "limit",
            Self::Static => "static",
            Self::Flooded => "flooded",
        }
    }
}

/// The state of a switch.
#[derive(Debug)]
pub struct State {
    /// Its stations.
    pub table: Table,
    /// Units of time after which a station is forgotten; 0: never.
    pub ageing: u64,
    /// By worker, each its only writer.
    counts: Box<[Padded<[Counter; Count::ALL.len()]>]>,
}

impl State {
    /// Nothing learned yet. Time is rounded up to whole units.
    #[must_use]
    pub fn new(table: Table, ageing: u32, workers: usize) -> Self {
        let ageing = (u64::from(ageing) * 1_000_000_000).div_ceil(1 << 30);
        Self { table, ageing, counts: (0..workers).map(|_| Padded::default()).collect() }
    }

    /// Adds to a counter of `worker`'s.
    pub fn count(&self, worker: usize, what: Count, n: u64) {
        if let Some(counts) = self.counts.get(worker) {
            counts.0[what as usize].add(n);
        }
    }

    /// What all workers counted.
    #[must_use]
    pub fn counted(&self, what: Count) -> u64 {
        self.counts.iter().map(|counts| counts.0[what as usize].get()).sum()
    }

    /// Forgets what is too old in some of the table, from `from` on; where to go on.
    pub fn sweep(&self, worker: usize, from: usize, now: u64) -> usize {
        const BUCKETS: usize = 16;
        if self.ageing == 0 {
            return 0;
        }
        let (gone, next) = self.table.sweep(from, BUCKETS, now, self.ageing);
        if gone != 0 {
            self.count(worker, Count::Aged, gone as u64);
        }
        next
    }
}
