//! Words between workers about one client: what each worker sent to it over its link, what it dropped on the way.

use super::counters::{Counter, DropReason};
use crossbeam::utils::CachePadded;

/// One lane a worker. Every word has one writer, so nobody locks.
#[derive(Debug)]
pub struct Lanes(Box<[Lane]>);

#[derive(Debug, Default)]
struct Lane {
    /// Written by the sending worker.
    sender: CachePadded<Sender>,
    /// Frames that the receiving worker has disposed of; written by the receiving worker.
    done: CachePadded<Counter>,
}

#[derive(Debug, Default)]
struct Sender {
    sent: Counter,
    drops: [Counter; DropReason::ALL.len()],
}

impl Lanes {
    /// Lanes for `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Lane::default()).collect())
    }

    /// Counts `n` frames that `worker` dropped on their way to this client.
    pub fn count_drop(&self, worker: usize, reason: DropReason, n: u64) {
        if let Some(lane) = self.0.get(worker) {
            lane.sender.drops[reason as usize].add(n);
        }
    }

    /// Frames dropped for `reason`, by all workers.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.0.iter().map(|l| l.sender.drops[reason as usize].get()).sum()
    }

    /// Frames of `worker` that are under way to this client or wait there.
    #[must_use]
    pub fn under_way(&self, worker: usize) -> u64 {
        self.0.get(worker).map_or(0, |l| l.sender.sent.get().wrapping_sub(l.done.get()))
    }

    /// `worker` put `n` frames on its link.
    pub fn sent(&self, worker: usize, n: u64) {
        if let Some(lane) = self.0.get(worker) {
            lane.sender.sent.add(n);
        }
    }

    /// The receiver has disposed of `n` frames that `worker` sent.
    pub fn done(&self, worker: usize, n: u64) {
        if let Some(lane) = self.0.get(worker) {
            lane.done.add(n);
        }
    }
}
