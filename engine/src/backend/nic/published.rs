//! What control publishes to the workers that fill a nic's receive rings: the guest's filter and the offloads that it takes.
//!
//! Control is the one writer: no lock, no allocation, and no commit for each of a guest's commands. A worker that cannot read while they
//! change goes on with what it had until its next burst.

use super::filter::{RxFilter, WORDS};
use crate::sync::sequence::Sequence;

/// The words: the offloads, then those of the filter.
#[derive(Debug)]
pub struct Published(Sequence<{ 1 + WORDS }>);

impl Default for Published {
    /// For a guest that takes every frame, as far as its features go.
    fn default() -> Self {
        Self::new(&RxFilter::new([0; 6]), u64::MAX)
    }
}

/// Both as words.
fn words(filter: &RxFilter, offloads: u64) -> [u64; 1 + WORDS] {
    let mut all = [offloads; 1 + WORDS];
    for (to, from) in all.iter_mut().skip(1).zip(filter.words()) {
        *to = from;
    }
    all
}

impl Published {
    /// With a filter, and the feature bits of the guest's offloads that are in force.
    #[must_use]
    pub fn new(filter: &RxFilter, offloads: u64) -> Self {
        Self(Sequence::new(words(filter, offloads)))
    }

    /// Replaces both. One thread may call this.
    pub fn publish(&self, filter: &RxFilter, offloads: u64) {
        self.0.write(&words(filter, offloads));
    }

    /// What tells whether anything changed.
    #[inline]
    pub(super) fn version(&self) -> u64 {
        self.0.version()
    }

    /// Version, filter and offloads; nothing while they change.
    #[cold]
    pub(super) fn read(&self) -> Option<(u64, RxFilter, u64)> {
        let (version, [offloads, filter @ ..]) = self.0.read()?;
        Some((version, RxFilter::of(&filter), offloads))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_was_published() {
        let mut filter = RxFilter::new([1, 2, 3, 4, 5, 6]);
        let cell = Published::new(&filter, 5);
        assert_eq!(cell.read(), Some((cell.version(), filter.clone(), 5)));
        let before = cell.version();
        assert!(filter.set_vlan(4095, false));
        cell.publish(&filter, 7);
        assert_ne!(cell.version(), before);
        assert_eq!(cell.read(), Some((cell.version(), filter, 7)));
    }
}
