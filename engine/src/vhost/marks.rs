//! Where a packed ring stands, as the flags of its descriptors tell (virtio 1.3, 2.8.1): for a ring whose back-end was killed, and of which
//! the front-end remembers no more than where it was stopped in order before (QEMU's `vhost_virtqueue_stop` takes that, or the start, when
//! GET_VRING_BASE gets no answer).
//!
//! A descriptor has two flags, which each side writes in the lap of its own wrap counter. The device visits each slot once a lap; to one
//! that stands before slot `p` in the lap `w`, the next visit of slot `s` is in the lap `w` where `s >= p`, and in the one after it where
//! `s < p`. Seen from the lap `l` of its next visit a slot is
//!
//! | avail, used | is |
//! |---|---|
//! | `l`, `!l` | available: the driver has filled it for that visit |
//! | `!l`, `!l` | used, or never visited |
//! | `!l`, `l` | left as it was filled for the last visit: not the first of its chain, as only that one is marked as used |
//! | `l`, `l` | impossible: used at the visit that is to come |
//!
//! From `p` on all slots that are available follow each other, but for one that a driver leaves out while it fills those behind it; and one
//! that was left lies behind one of the same chain.
//!
//! What cannot be decided:
//!
//! - One slot further than the right one fits, too, where the right one is available: it could be the rest of a chain. One slot before it
//!   does where all slots are available. A front-end remembers any place, so that is one chance in as many as the ring has slots.
//! - Chains of several slots hide more, and none of their places is guessed: what the front-end says is taken or refused.
//! - A device that marks several buffers as used by one descriptor (IN_ORDER) leaves whole buffers, so only what is impossible is refused.
//! - A back-end that is killed while it shows what it used has marked slots behind one that is not marked. No place fits such a ring.
//! - A ring with chains that stands where it began, laps later, is taken for one that went on from its start.
//!
//! Devices are taken to use chains in the order in which they were made available, as those of networks do.

use crate::mem::guest::GuestMemory;
use crate::virtq::{DESC_NEXT, F_IN_ORDER, Position};

/// Flag of a descriptor: the driver's wrap counter.
const AVAIL: u16 = 1 << 7;
/// Flag of a descriptor: the device's wrap counter.
pub(super) const USED: u16 = 1 << 15;
/// Bytes of a descriptor, and where its flags lie.
const BYTES: u64 = 16;
const FLAGS: u64 = 14;

/// What a slot is to a device at some place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Available,
    Used,
    Left,
    Impossible,
}

/// The flags of a ring's descriptors; read when they are asked for, since the driver goes on.
pub(super) struct Marks<F> {
    /// The flags of the descriptor in a slot.
    flags: F,
    size: u16,
    /// One descriptor may mark several buffers as used.
    in_order: bool,
}

/// The marks of a ring that lies at `desc` in the VMM, if it lies there.
pub(super) fn marks(
    memory: &GuestMemory,
    desc: u64,
    size: u16,
    features: u64,
) -> Option<Marks<impl Fn(u16) -> u16>> {
    let flags = memory.words_at_user(desc, size, BYTES, FLAGS)?;
    Some(Marks { flags, size, in_order: features & F_IN_ORDER != 0 })
}

impl<F: Fn(u16) -> u16> Marks<F> {
    /// Whether the ring shows that its device does not stand there.
    pub(super) fn contradict(&self, at: Position) -> bool {
        let slots = self.size;
        if at.used >= slots {
            return true;
        }
        let (mut available_behind, mut holes, mut left_behind) = (false, 0, false);
        // Backwards: what a driver makes available meanwhile lies in front of what was seen.
        for i in (0..slots).rev() {
            let (mark, goes_on) = self.mark(at, i);
            match mark {
                Mark::Impossible => return true,
                Mark::Available => available_behind = true,
                Mark::Used | Mark::Left => holes += usize::from(available_behind),
            }
            let left = mark == Mark::Left;
            // At its start a ring has no last visit; that it stands there again, laps later, is far less likely. Of two slots that were
            // left the first one must have led to the second.
            let misplaced = at == Position::START || (left_behind && !goes_on && !self.in_order);
            if holes > 1 || (left && misplaced) {
                return true;
            }
            left_behind = left;
        }
        false
    }

    /// Where the device stands, if buffers take one slot each, as far as can be seen: then no slot is left, and the used flag changes
    /// where the next lap begins.
    pub(super) fn stands(&self) -> Option<Position> {
        let used = |slot| (self.flags)(slot) & USED != 0;
        let first = used(0);
        let change = (0..self.size).find(|slot| used(*slot) != first);
        let (slot, wrap) = change.map_or((0, !first), |slot| (slot, first));
        let at = Position { avail: slot, used: slot, avail_wrap: wrap, used_wrap: wrap };
        let single =
            |i| !matches!(self.mark(at, i), (Mark::Left | Mark::Impossible, _) | (Mark::Available, true));
        (!self.in_order && !self.contradict(at) && (0..self.size).all(single)).then_some(at)
    }

    /// What the `i`th slot from there on is, and whether its descriptor names another one.
    fn mark(&self, at: Position, i: u16) -> (Mark, bool) {
        // A ring has at most 32768 slots.
        let (slot, lap) = match at.used + i {
            slot if slot < self.size => (slot, at.used_wrap),
            slot => (slot - self.size, !at.used_wrap),
        };
        let flags = (self.flags)(slot);
        let mark = match (flags & AVAIL != 0) == lap {
            true if (flags & USED != 0) == lap => Mark::Impossible,
            true => Mark::Available,
            false if (flags & USED != 0) == lap => Mark::Left,
            false => Mark::Used,
        };
        (mark, flags & DESC_NEXT != 0)
    }
}

#[cfg(test)]
mod tests;
