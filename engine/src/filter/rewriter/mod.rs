//! `filter-rewriter`: on the secondary side of COLO, makes the client's TCP streams fit the secondary guest, whose sequence numbers began elsewhere than
//! the primary's, and the guest's output fit the client (QEMU `net/filter-rewriter.c`).
//!
//! ```text
//!   netdev --tx--> acknowledgements + offset --> guest        offset = secondary's first number - primary's
//!   netdev <--rx-- sequence numbers - offset <-- guest
//! ```
//! Only TCP over IPv4 without VLAN tags and in whole packets is changed. A frame that must be changed is copied, and goes on in the next turn; what comes behind it
//! goes the same way while some of it is left, so that nothing is overtaken. Checksums are updated by the difference (RFC 1624), so one that was wrong stays
//! wrong; one that is left to be computed stays so.

pub mod conn;
mod instance;
pub mod table;

use super::hold::{Accounts, Hold};
use super::{Filter, Handle, Settings};
use crate::mem::arena::{Arena, ArenaError};
use crate::port::counters::Counter;
use crossbeam::utils::CachePadded;
use instance::Instance;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use table::Table;

/// Bytes of a ring: two bursts of the largest frames. What comes when it is full is dropped as `queue-full`.
const RING: usize = 8 << 20;

/// What workers read.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    table: Table,
    /// New connections are those of a guest that runs alone: they need nothing.
    alone: AtomicBool,
}

/// Control's hold on a rewriter.
#[derive(Debug)]
pub struct Rewriter {
    shared: Arc<Shared>,
    accounts: Accounts,
    rewritten: Vec<Arc<CachePadded<Counter>>>,
}

impl Rewriter {
    /// A rewriter, and its instances, one a worker.
    ///
    /// # Errors
    /// No memory for its rings.
    pub fn open(
        settings: Settings,
        arena: &Arc<Arena>,
        workers: usize,
    ) -> Result<(Self, Vec<Box<dyn Filter>>), ArenaError> {
        let random = RandomState::new();
        let table = Table::new([random.hash_one(0), random.hash_one(1)]);
        let shared = Arc::new(Shared { settings, table, alone: AtomicBool::new(false) });
        let mut accounts = Accounts::default();
        let mut rewritten = Vec::new();
        let mut instances: Vec<Box<dyn Filter>> = Vec::new();
        for _ in 0..workers {
            let holds = Hold::pair(arena, RING, &mut accounts)?;
            let counter: Arc<CachePadded<Counter>> = Arc::default();
            rewritten.push(counter.clone());
            instances.push(Box::new(Instance::new(shared.clone(), holds, counter)));
        }
        Ok((Self { shared, accounts, rewritten }, instances))
    }
}

impl Handle for Rewriter {
    fn set(&self, on: bool, rx: bool, tx: bool) {
        self.shared.settings.set(on, rx, tx);
    }

    /// `checkpoint`: both guests are the same again, and so are their numbers. `failover`: the secondary runs alone from now on; connections whose
    /// numbers differ go on, and if there are none (as in QEMU) no new ones are followed.
    fn tune(&self, property: &str, _value: u64) {
        match property {
            "checkpoint" => self.shared.table.level(),
            "failover" => {
                let alone = self.shared.table.count().1 == 0;
                self.shared.alone.store(alone, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    fn held(&self) -> u64 {
        self.accounts.held()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut all = vec![
            ("rewritten", self.rewritten.iter().map(|counter| counter.get()).sum()),
            ("connections", self.shared.table.count().0),
        ];
        all.extend(self.accounts.counters());
        all
    }
}

#[cfg(test)]
mod tests;
