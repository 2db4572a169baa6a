//! What a filter that stays in its chain while it is off must know by itself.

use super::Direction;
use std::sync::atomic::{AtomicU32, Ordering, fence};

const ON: u32 = 1;
const RX: u32 = 2;
const TX: u32 = 4;

/// The `status` and `queue` properties, as control last set them.
#[derive(Debug)]
pub struct Settings(AtomicU32);

impl Settings {
    /// With these.
    #[must_use]
    pub fn new(on: bool, rx: bool, tx: bool) -> Self {
        let settings = Self(AtomicU32::new(0));
        settings.set(on, rx, tx);
        settings
    }

    /// Changes them; workers see it in their next turn.
    pub fn set(&self, on: bool, rx: bool, tx: bool) {
        let word = if on { ON } else { 0 } | if rx { RX } else { 0 } | if tx { TX } else { 0 };
        self.0.store(word, Ordering::Relaxed);
    }

    /// As [`Settings::set`], for a filter that puts frames in: off, only what was read already has a way to go, and goes the one that it was read
    /// for. Whether the filter was on.
    pub(super) fn switch(&self, on: bool, rx: bool, tx: bool) -> bool {
        let goes = |direction, asked| if on { asked } else { self.goes(direction) };
        let was_on = self.is_on();
        self.set(on, goes(Direction::Rx, rx), goes(Direction::Tx, tx));
        // Whoever looks from now on at what a thread holds finds what that has begun with before it saw this.
        fence(Ordering::SeqCst);
        was_on
    }

    /// Whether the filter is on.
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed) & ON != 0
    }

    /// Whether the `queue` property names that direction, on or off.
    #[must_use]
    pub fn goes(&self, direction: Direction) -> bool {
        self.0.load(Ordering::Relaxed) & if direction == Direction::Rx { RX } else { TX } != 0
    }

    /// Whether the filter is on for that direction.
    #[inline]
    #[must_use]
    pub fn sees(&self, direction: Direction) -> bool {
        let bits = ON | if direction == Direction::Rx { RX } else { TX };
        self.0.load(Ordering::Relaxed) & bits == bits
    }
}
