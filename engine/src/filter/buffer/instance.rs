//! The worker's side of a buffer.

use super::{MOST, Shared};
use crate::burst::{Burst, Mask};
use crate::filter::hold::{Hold, side};
use crate::filter::{Direction, Filter};
use crate::port::Turn;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One worker's instance.
pub(super) struct Instance {
    shared: Arc<Shared>,
    sides: [Side; 2],
    /// When all that is there is released next.
    next: u64,
    /// [`Shared::armed`] as last seen.
    armed: u32,
}

/// The frames of one direction.
struct Side {
    hold: Hold,
    /// The oldest ones, which were released and have not gone.
    due: u64,
}

impl Instance {
    pub(super) fn new(shared: Arc<Shared>, holds: [Hold; 2]) -> Self {
        Self { shared, sides: holds.map(|hold| Side { hold, due: 0 }), next: 0, armed: 0 }
    }

    /// Releases what is there when it is time.
    fn look(&mut self, now: u64) {
        let armed = self.shared.armed.load(Ordering::Acquire);
        let interval = self.shared.interval.load(Ordering::Relaxed);
        if armed != self.armed {
            self.armed = armed;
            self.next = now.saturating_add(interval);
        }
        if now >= self.next {
            // The times are those of a clock: a late look does not shift the later ones.
            let over = (now - self.next) / interval;
            self.next = self.next.saturating_add(interval.saturating_mul(over + 1));
            for side in &mut self.sides {
                side.due = side.hold.waiting();
            }
        }
    }
}

impl Filter for Instance {
    #[inline]
    fn frames(&mut self, _turn: &mut Turn<'_>, direction: Direction, burst: &Burst, mask: Mask) -> Mask {
        let hold = &mut self.sides[side(direction)].hold;
        if !self.shared.settings.sees(direction) && hold.is_empty() {
            return mask;
        }
        hold.keep(burst, mask, MOST);
        Mask::NONE
    }

    fn tick(&mut self, _turn: &mut Turn<'_>) {}

    fn lost(&mut self, _kept: u64) -> u64 {
        self.sides.iter_mut().map(|side| side.hold.lost()).sum()
    }

    fn injects(&self) -> bool {
        true
    }

    fn due(&mut self, now: u64, direction: Direction) -> usize {
        self.look(now);
        let side = &mut self.sides[side(direction)];
        if !self.shared.settings.sees(direction) {
            side.due = side.hold.waiting();
        }
        side.due as usize
    }

    fn lend(&mut self, _turn: &mut Turn<'_>, direction: Direction, want: usize, burst: &mut Burst) {
        let side = &mut self.sides[side(direction)];
        side.hold.lend(want.min(side.due as usize), burst, |_| true);
    }

    fn took(&mut self, direction: Direction, n: usize) {
        let side = &mut self.sides[side(direction)];
        side.hold.took(n);
        side.due = side.due.saturating_sub(n as u64);
    }

    fn gone(&mut self, _turn: &mut Turn<'_>, direction: Direction, n: usize) {
        self.sides[side(direction)].hold.gone(n);
    }

    fn deadline(&self) -> Option<u64> {
        self.sides.iter().any(|side| side.hold.waiting() > side.due).then_some(self.next)
    }
}
