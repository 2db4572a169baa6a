//! What control publishes to the workers that fill a nic's receive rings: the guest's filter and the offloads that it takes.
//!
//! A sequence lock of plain words, with control as its one writer: a worker compares one word a burst, and copies the rest when that
//! has changed. No lock, no allocation, and no commit for each of a guest's commands; a copy that was torn is thrown away, and the
//! worker goes on with what it had until its next burst.

use super::filter::{RxFilter, WORDS};
use crate::sync::{AtomicU64, Ordering};

/// The words. Control writes, workers read.
#[derive(Debug)]
pub struct Published {
    /// Odd while the words change.
    version: AtomicU64,
    offloads: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Default for Published {
    /// For a guest that takes every frame, as far as its features go.
    fn default() -> Self {
        Self::new(&RxFilter::new([0; 6]), u64::MAX)
    }
}

impl Published {
    /// With a filter, and the feature bits of the guest's offloads that are in force.
    #[must_use]
    pub fn new(filter: &RxFilter, offloads: u64) -> Self {
        Self {
            version: AtomicU64::new(0),
            offloads: AtomicU64::new(offloads),
            words: filter.words().map(AtomicU64::new),
        }
    }

    /// Replaces both. One thread may call this.
    pub fn publish(&self, filter: &RxFilter, offloads: u64) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // Each store releases the odd version: who reads a new word sees that, too.
        self.offloads.store(offloads, Ordering::Release);
        for (word, value) in self.words.iter().zip(filter.words()) {
            word.store(value, Ordering::Release);
        }
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// What tells whether anything changed.
    #[inline]
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// Version, filter and offloads; nothing while they change.
    #[cold]
    pub(super) fn read(&self) -> Option<(u64, RxFilter, u64)> {
        let version = self.version.load(Ordering::Acquire);
        let offloads = self.offloads.load(Ordering::Acquire);
        let mut words = [0; WORDS];
        for (to, from) in words.iter_mut().zip(&self.words) {
            *to = from.load(Ordering::Acquire);
        }
        let stable = version.is_multiple_of(2) && self.version() == version;
        stable.then(|| (version, RxFilter::of(&words), offloads))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn a_reader_sees_one_state_or_none_never_a_mixture() {
        let state = |n: u8| {
            let mut filter = RxFilter::new([n; 6]);
            (0..=u16::from(n)).for_each(|vlan| assert!(filter.set_vlan(vlan * 16, false)));
            filter
        };
        let states: Vec<_> = (0..8).map(state).collect();
        let cell = Arc::new(Published::new(&states[0], 0));
        let reader = {
            let (cell, states) = (cell.clone(), states.clone());
            thread::spawn(move || {
                let (mut seen, mut last) = (0, 0);
                while last < 8000 {
                    if let Some((version, filter, offloads)) = cell.read() {
                        assert_eq!(filter, states[offloads as usize], "version {version}");
                        assert!(version >= last);
                        (seen, last) = (seen + 1, version);
                    }
                }
                seen
            })
        };
        for round in 1..=4000 {
            let n = round % 8;
            cell.publish(&states[n], n as u64);
        }
        assert!(reader.join().unwrap() > 0);
    }
}
