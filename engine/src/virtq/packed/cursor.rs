//! A place on a packed ring: a slot and the wrap counter of the round.

use super::layout::{AVAIL, USED};

/// A slot below the ring's size, with its wrap counter. The slot is kept in 32 bits for the reason of the split ring's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    slot: u32,
    wrap: bool,
}

impl Cursor {
    #[inline]
    pub(super) const fn new(slot: u16, wrap: bool) -> Self {
        Self { slot: slot as u32, wrap }
    }

    /// The slot.
    #[inline]
    pub(super) const fn at(self) -> u16 {
        self.slot as u16
    }

    /// The wrap counter.
    #[inline]
    pub(super) const fn wrap(self) -> bool {
        self.wrap
    }

    /// Moves on by `slots`, at most `size`. The slot stays below `size` whatever is asked for.
    #[inline]
    pub(super) const fn advance(&mut self, slots: u16, size: u16) {
        self.moves_round(slots, size);
    }

    /// As [`Cursor::advance`]; whether a new round began.
    #[inline]
    pub(super) const fn moves_round(&mut self, slots: u16, size: u16) -> bool {
        let size = size as u32;
        self.slot += slots as u32;
        let round = self.slot >= size;
        if round {
            self.slot -= size;
            self.wrap = !self.wrap;
            if self.slot >= size {
                self.slot = 0;
            }
        }
        round
    }

    /// The cursor `slots` further on.
    #[inline]
    #[must_use]
    pub(super) const fn plus(mut self, slots: u16, size: u16) -> Self {
        self.advance(slots, size);
        self
    }

    /// Slots from `from` to here, where this one is ahead by less than two rounds.
    #[inline]
    pub(super) const fn since(self, from: Self, size: u16) -> u32 {
        let round = 2 * size as u32;
        let (to, from) = (self.line(size), from.line(size));
        if to >= from { to - from } else { to + round - from }
    }

    /// The place on a line of two rounds.
    const fn line(self, size: u16) -> u32 {
        self.slot + if self.wrap { 0 } else { size as u32 }
    }

    /// The flags of a descriptor that the driver makes available here.
    #[inline]
    pub(super) const fn available(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }

    /// The flags of a descriptor that the device has used here.
    #[inline]
    pub(super) const fn used(self) -> u16 {
        if self.wrap { AVAIL | USED } else { 0 }
    }

    /// As an event suppression structure names it (virtio 1.3, 2.8.14).
    pub(super) const fn event(self) -> u16 {
        self.at() | (self.wrap as u16) << 15
    }

    /// From an event suppression structure; the slot may lie anywhere.
    pub(super) const fn of_event(event: u16) -> Self {
        Self::new(event & 0x7fff, event >> 15 == 1)
    }
}

/// Whether a side that moved from `from` by `moved` slots passed the slot that the other one waits for.
pub(super) const fn passed(event: u16, from: Cursor, moved: u32, size: u16) -> bool {
    Cursor::of_event(event).since(from, size) < moved
}

#[cfg(test)]
mod tests {
    use super::{Cursor, passed};

    const fn at(at: u16, wrap: bool) -> Cursor {
        Cursor::new(at, wrap)
    }

    #[test]
    fn a_cursor_turns_its_wrap_counter_at_the_end() {
        assert_eq!(at(5, true).plus(1, 7), at(6, true));
        assert_eq!(at(6, true).plus(1, 7), at(0, false));
        assert_eq!(at(3, false).plus(7, 7), at(3, true));
        assert_eq!(at(32767, true).plus(32768, 32768), at(32767, false));
        assert_eq!(at(0, true).plus(1, 1), at(0, false));
        assert_eq!(at(2, true).plus(9, 3), at(0, false), "more than there can be stays inside");
    }

    #[test]
    fn a_slot_is_passed_by_whoever_moves_over_it() {
        assert!(passed(at(3, true).event(), at(3, true), 1, 7));
        assert!(!passed(at(4, true).event(), at(3, true), 1, 7));
        assert!(!passed(at(3, false).event(), at(3, true), 1, 7), "the next round");
        assert!(passed(at(0, false).event(), at(6, true), 2, 7));
        assert!(passed(at(6, false).event(), at(0, false), 7, 7));
        assert!(!passed(at(2, true).event(), at(3, true), 7, 7), "it lies behind");
        assert!(!passed(0x7fff, at(0, true), 7, 7), "beyond the ring");
    }
}
