//! A netdev as queries show it.

use super::netdevs::{Standing, VhostUser};
use crate::nic::RingView;
use engine::port::counters::PortCounters;

impl VhostUser {
    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing<'_> {
        match (&self.stopped, &self.link) {
            (_, None) => Standing::Alone,
            (Some((ring, why)), Some(_)) => Standing::Failed(*ring, why),
            (None, Some(_)) if self.running => Standing::Running,
            (None, Some(_)) => Standing::Connecting,
        }
    }

    /// Queue pairs.
    #[must_use]
    pub const fn pairs(&self) -> usize {
        self.counters.len()
    }

    /// Virtio features that the back-end offered, and those that were accepted.
    #[must_use]
    pub fn features(&self) -> Option<(u64, u64)> {
        self.link.as_ref()?.features
    }

    /// The rings of a back-end that has them.
    #[must_use]
    pub fn rings(&self) -> Vec<RingView> {
        let Some(link) = self.link.as_ref().filter(|_| self.running) else { return Vec::new() };
        let fault =
            |ring: usize| self.stopped.as_ref().filter(|(r, _)| *r == ring).map(|(_, why)| why.clone());
        let sizes = link.sizes.iter().enumerate();
        sizes
            .map(|(ring, size)| RingView { ring, size: Some(*size), used: true, fault: fault(ring) })
            .collect()
    }

    /// The counters of each pair, and whether it runs.
    #[must_use]
    pub fn counters(&self) -> Vec<(&PortCounters, bool)> {
        self.counters.iter().map(|counters| (&**counters, self.running)).collect()
    }
}
