//! When a recorded frame goes.

use std::time::{Duration, Instant};

/// Records of several workers are not in order by so much at most. One that is older was written when the clock had been set back.
const DISORDER: u64 = 1_000_000_000;

/// The clock of a replay.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When a frame went, and when it was recorded (in nanoseconds since 1970): distances are from this one, so that no delay adds up.
    first: Option<(Instant, u64)>,
    /// The latest time of a frame so far.
    latest: u64,
}

impl Pace {
    /// How long the frame recorded at `when` still waits.
    pub(super) fn wait(&mut self, when: u64, now: Instant) -> Option<Duration> {
        let (begin, first) = match self.first {
            Some(first) if when.saturating_add(DISORDER) >= self.latest => first,
            _ => {
                self.latest = when;
                *self.first.insert((now, when))
            }
        };
        self.latest = self.latest.max(when);
        let due = Duration::from_nanos(when.saturating_sub(first));
        due.checked_sub(now.saturating_duration_since(begin)).filter(|left| !left.is_zero())
    }

    /// The replay stood still for so long.
    pub(super) fn shift(&mut self, by: Duration) {
        self.first = self.first.and_then(|(begin, first)| Some((begin.checked_add(by)?, first)));
    }
}
