//! When a ring's frames are left to gather: a receiver that is behind gets them no sooner by getting them in small bursts, and both sides
//! pay for each burst: lines of the rings go back and forth between their caches.
//!
//! It matters with guests that cost as much a frame as the worker does. Measured with DPDK's virtio-user as the guest, packed rings, 24 million
//! frames a second: 95 busy cycles a frame without, 78 with it.

use crate::burst::BURST;

/// Frames worth waiting for.
const ENOUGH: u64 = 40;

/// How long a frame may have to wait for others, in nanoseconds. So a ring that brings less than 8 million frames a second never waits.
const PATIENCE: u64 = 5_000;

/// Nanoseconds over which frames are counted at least.
const WINDOW: u64 = 250;

/// The pace of one ring.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the count began, and frames since.
    since: u64,
    frames: u64,
    /// The ring is not looked at before.
    until: u64,
}

impl Pace {
    /// Whether the ring is left alone now.
    #[inline]
    pub(super) const fn waits(&self, now: u64) -> bool {
        now < self.until
    }

    /// `frames` were taken at `now`, nanoseconds; `behind` says whether their receiver is. A whole burst means that the worker itself is behind.
    #[inline]
    pub(super) fn took(&mut self, now: u64, frames: u64, behind: impl FnOnce() -> bool) {
        self.frames += frames;
        let passed = now.saturating_sub(self.since);
        if passed < WINDOW {
            return;
        }
        let count = std::mem::take(&mut self.frames);
        self.since = now;
        self.until = 0;
        if count.saturating_mul(PATIENCE) >= ENOUGH.saturating_mul(passed)
            && frames < BURST as u64
            && behind()
        {
            self.until = now + ENOUGH * passed / count.max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ENOUGH, PATIENCE, Pace, WINDOW};
    use crate::burst::BURST;

    /// Takes `frames` every `step` nanoseconds, until it waits.
    fn wait(frames: u64, step: u64, behind: bool) -> Option<u64> {
        let mut pace = Pace::default();
        (1..1000).map(|i| i * step).find_map(|now| {
            pace.took(now, frames, || behind);
            pace.waits(now).then(|| pace.until - now)
        })
    }

    #[test]
    fn frames_gather_where_many_come_and_their_receiver_is_behind() {
        // 20 a microsecond: enough of them in two microseconds.
        assert_eq!(wait(5, WINDOW, true), Some(2000));
        assert_eq!(wait(5, WINDOW, false), None, "a receiver that keeps up gets them at once");
        assert_eq!(wait(1, WINDOW, true), None, "four a microsecond: they would wait too long");
    }

    #[test]
    fn looks_that_follow_fast_are_counted_together() {
        assert_eq!(wait(1, 50, true), Some(2000));
        assert_eq!(wait(1, 500, true), None);
    }

    #[test]
    fn a_whole_burst_means_that_the_worker_is_behind_itself() {
        assert_eq!(wait(BURST as u64, 2 * WINDOW, true), None);
    }

    #[test]
    fn nobody_waits_for_longer_than_is_bearable_nor_for_what_came_before_a_pause() {
        assert_eq!(wait(ENOUGH, PATIENCE, true), Some(PATIENCE));
        let mut pace = Pace::default();
        pace.took(WINDOW, 20, || true);
        assert!(pace.waits(WINDOW));
        pace.took(1_000_000, 20, || true);
        assert!(!pace.waits(1_000_000));
    }
}
