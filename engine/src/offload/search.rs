//! When to look for frames that join: traffic in which none do pays for one look in a few.

use crate::port::Caps;

/// Frames of a burst in which none joining says something about the traffic.
const TELLING: usize = 16;
/// Bursts passed over in a row at most. Too low: many flows pay for looks that find nothing. Too high: a bulk flow that begins
/// among them goes small for longer (15 bursts of 64 frames are a millisecond at a million frames a second).
const LONGEST: u8 = 15;

/// The state of one receiver.
#[derive(Debug, Default, Clone, Copy)]
pub struct Search {
    /// Bursts to pass over before the next look.
    left: u8,
    /// Bursts passed over the last time.
    last: u8,
}

impl Search {
    /// What to adapt the next burst to: `caps`, without coalescing while nothing is looked for.
    #[inline]
    pub const fn next(&mut self, mut caps: Caps) -> Caps {
        if self.left > 0 {
            self.left -= 1;
            caps.coalesce = false;
        }
        caps
    }

    /// A burst of `frames` was looked through, and some of them joined others or none did. Each fruitless look doubles the pause;
    /// bursts too small to tell change nothing.
    #[inline]
    pub const fn looked(&mut self, frames: usize, joined: bool) {
        if joined {
            *self = Self { left: 0, last: 0 };
        } else if frames >= TELLING {
            let pause = 2 * self.last + 1;
            self.last = if pause < LONGEST { pause } else { LONGEST };
            self.left = self.last;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { csum: true, coalesce: true, ..Caps::NONE };

    /// Bursts out of `n` that are looked through, where none joins.
    fn looks(search: &mut Search, n: usize, frames: usize) -> usize {
        let mut looks = 0;
        for _ in 0..n {
            if search.next(CAPS).coalesce {
                search.looked(frames, false);
                looks += 1;
            }
        }
        looks
    }

    #[test]
    fn fruitless_looks_become_rare() {
        let mut search = Search::default();
        assert_eq!(looks(&mut search, 1 + 1 + 1 + 3 + 1 + 7, 64), 3, "pauses of 1, 3 and 7 bursts");
        assert_eq!(looks(&mut search, 16 * 10, 64), 10, "and of 15 from then on");
        assert!(!Search::default().next(Caps::NONE).coalesce, "nothing is added");
    }

    #[test]
    fn a_find_ends_the_pause_and_its_growth() {
        let mut search = Search::default();
        looks(&mut search, 100, 64);
        while !search.next(CAPS).coalesce {}
        search.looked(64, true);
        assert!(search.next(CAPS).coalesce);
        search.looked(64, false);
        assert_eq!((search.next(CAPS).coalesce, search.next(CAPS).coalesce), (false, true));
    }

    #[test]
    fn small_bursts_tell_nothing() {
        assert_eq!(looks(&mut Search::default(), 50, TELLING - 1), 50);
    }
}
