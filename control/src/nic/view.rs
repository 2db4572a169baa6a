//! A nic as queries show it.

use super::nics::Nic;
use super::plug::QueuePair;
use engine::QueueStats;
use engine::port::counters::{DropReason, PortCounters};
use std::sync::atomic::Ordering;

/// A ring as queries show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingView {
    /// Its number.
    pub ring: usize,
    /// Entries, once it was started.
    pub size: Option<u16>,
    /// Why it was stopped for cause.
    pub fault: Option<String>,
}

impl Nic {
    /// The rings that are started, and the one that was stopped for cause.
    #[must_use]
    pub fn rings(&self) -> Vec<RingView> {
        let sizes = self.state.pairs.iter().flat_map(QueuePair::sizes);
        let fault =
            |ring: usize| self.state.stopped.as_ref().filter(|(r, _)| *r == ring).map(|(_, why)| why.clone());
        let view = |(ring, size)| RingView { ring, size, fault: fault(ring) };
        sizes.enumerate().map(view).filter(|v| v.size.is_some() || v.fault.is_some()).collect()
    }

    /// The counters of each pair, and whether it runs.
    #[must_use]
    pub fn counters(&self) -> Vec<(&PortCounters, bool)> {
        self.state.pairs.iter().map(|pair| (pair.counters(), pair.runs())).collect()
    }
}

/// Makes of the counters of the pairs that run those of all `pairs`. What was dropped before any pair was chosen stays
/// with the first row.
pub fn complete(pairs: &[(&PortCounters, bool)], queues: &mut Vec<QueueStats>) {
    let mut live = std::mem::take(queues).into_iter();
    queues.extend(pairs.iter().map(|(counters, runs)| {
        let counted = || of(counters);
        if *runs { live.next().unwrap_or_else(counted) } else { counted() }
    }));
    let Some(first) = queues.first_mut() else { return };
    for (reason, n) in live.flat_map(|row| row.drops) {
        match first.drops.iter_mut().find(|(r, _)| *r == reason) {
            Some((_, sum)) => *sum += n,
            None => first.drops.push((reason, n)),
        }
    }
}

/// The counters of a pair that does not run.
fn of(c: &PortCounters) -> QueueStats {
    let drops = DropReason::ALL.into_iter().map(|reason| (reason, c.dropped(reason)));
    QueueStats {
        worker: None,
        rx_frames: c.rx.frames.get(),
        rx_bytes: c.rx.bytes.get(),
        tx_frames: c.tx.frames.get(),
        tx_bytes: c.tx.bytes.get(),
        drops: drops.filter(|(_, n)| *n != 0).collect(),
        trouble: c.trouble.load(Ordering::Relaxed),
    }
}
