//! When frames are left to gather. Each burst costs its receiver a turn, and often both sides more: a system call, or lines of a ring that go back
//! and forth between caches. Where nobody sees a frame sooner, or bears to see it a little later, fewer and larger bursts are less work.

use crate::burst::BURST;

/// How long frames gather, and for what. Times in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Frames worth waiting for.
    pub enough: u64,
    /// How long a frame may have to wait for others: where that many do not come meanwhile, none waits.
    pub patience: u64,
    /// Time over which frames are counted at least.
    pub window: u64,
}

/// The pace of one queue.
#[derive(Debug)]
pub struct Pace {
    terms: Terms,
    /// When the count began, and frames since.
    since: u64,
    frames: u64,
    /// Frames gather till then.
    until: u64,
}

impl Pace {
    /// Nothing waits yet.
    #[must_use]
    pub const fn new(terms: Terms) -> Self {
        Self { terms, since: 0, frames: 0, until: 0 }
    }

    /// Whether frames are left to gather now.
    #[inline]
    #[must_use]
    pub const fn waits(&self, now: u64) -> bool {
        now < self.until
    }

    /// `frames` were taken at `now`, nanoseconds; `may` says whether others may wait. A whole burst means that the worker itself is behind.
    #[inline]
    pub fn took(&mut self, now: u64, frames: u64, may: impl FnOnce() -> bool) {
        self.frames += frames;
        let passed = now.saturating_sub(self.since);
        let Terms { enough, patience, window } = self.terms;
        if passed < window {
            return;
        }
        let count = std::mem::take(&mut self.frames);
        self.since = now;
        self.until = 0;
        if count.saturating_mul(patience) >= enough.saturating_mul(passed) && frames < BURST as u64 && may() {
            self.until = now + enough * passed / count.max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Pace, Terms};
    use crate::burst::BURST;

    const TERMS: Terms = Terms { enough: 40, patience: 5_000, window: 250 };

    /// Takes `frames` every `step` nanoseconds, until it waits.
    fn wait(frames: u64, step: u64, may: bool) -> Option<u64> {
        let mut pace = Pace::new(TERMS);
        (1..1000).map(|i| i * step).find_map(|now| {
            pace.took(now, frames, || may);
            pace.waits(now).then(|| pace.until - now)
        })
    }

    #[test]
    fn frames_gather_where_many_come_and_may_wait() {
        // 20 a microsecond: enough of them in two microseconds.
        assert_eq!(wait(5, 250, true), Some(2000));
        assert_eq!(wait(5, 250, false), None);
        assert_eq!(wait(1, 250, true), None, "four a microsecond: they would wait too long");
    }

    #[test]
    fn looks_that_follow_fast_are_counted_together() {
        assert_eq!(wait(1, 50, true), Some(2000));
        assert_eq!(wait(1, 500, true), None);
    }

    #[test]
    fn a_whole_burst_means_that_the_worker_is_behind_itself() {
        assert_eq!(wait(BURST as u64, 500, true), None);
    }

    #[test]
    fn nobody_waits_for_longer_than_is_bearable_nor_for_what_came_before_a_pause() {
        assert_eq!(wait(TERMS.enough, TERMS.patience, true), Some(TERMS.patience));
        let mut pace = Pace::new(TERMS);
        pace.took(250, 20, || true);
        assert!(pace.waits(250));
        pace.took(1_000_000, 20, || true);
        assert!(!pace.waits(1_000_000));
    }
}
