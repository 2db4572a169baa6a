//! A nic as queries show it.

use super::device::Nic;
use super::plug::QueuePair;
use engine::QueueStats;
use engine::port::counters::{DropReason, PortCounters};
use std::sync::atomic::Ordering;

/// The model that QEMU's texts name.
pub const MODEL: &str = "virtio-net-pci";

/// A hardware address as it is shown.
#[must_use]
pub fn show_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What `info network` shows of a nic of that address.
#[must_use]
pub fn info(mac: [u8; 6]) -> String {
    format!("model={MODEL},macaddr={}", show_mac(mac))
}

/// A ring as queries show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingView {
    /// Its number.
    pub ring: usize,
    /// Entries, once it was started.
    pub size: Option<u16>,
    /// Its pair is in use; the driver says how many are.
    pub used: bool,
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
        let mut sizes: Vec<Option<u16>> = sizes.collect();
        let used = 2 * self.state.pairs_in_use();
        let control = self.state.control_ring();
        if let Some(ring) = control {
            sizes.resize(sizes.len().max(ring + 1), None);
            sizes[ring] = self.state.control.size();
        }
        let view = |(ring, size)| RingView {
            ring,
            size,
            used: ring < used || control == Some(ring),
            fault: fault(ring),
        };
        sizes.into_iter().enumerate().map(view).filter(|v| v.size.is_some() || v.fault.is_some()).collect()
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
        tx_trouble: c.tx_trouble.load(Ordering::Relaxed),
    }
}
