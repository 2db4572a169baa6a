//! Where a user stands in a ring: the slots from `head` up to `tail` are its own, all others are the kernel's (net/netmap.h `struct netmap_ring`).

/// `head`, modulo the number of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    slots: u32,
    head: u32,
}

impl Cursor {
    /// None where a ring has no such place.
    pub(super) fn new(slots: u32, head: u32) -> Option<Self> {
        (head < slots).then_some(Self { slots, head })
    }

    #[inline]
    pub(super) const fn head(self) -> u32 {
        self.head
    }

    /// Slots there are.
    #[inline]
    pub(super) const fn slots(self) -> u32 {
        self.slots
    }

    /// Slots of ours, given `tail`. None where a ring has no such place.
    #[inline]
    pub(super) const fn ours(self, tail: u32) -> Option<u32> {
        if tail >= self.slots {
            None
        } else if tail >= self.head {
            Some(tail - self.head)
        } else {
            Some(tail + self.slots - self.head)
        }
    }

    /// The `n`th slot from `head` on; `n` is below the number of slots.
    #[inline]
    pub(super) const fn nth(self, n: u32) -> u32 {
        // In 64 bits, since a ring may have as many slots as a word can say.
        let at = self.head as u64 + n as u64;
        if at >= self.slots as u64 { (at - self.slots as u64) as u32 } else { at as u32 }
    }

    /// `n` slots, below their number, go to the kernel.
    #[inline]
    pub(super) const fn advance(&mut self, n: u32) {
        self.head = self.nth(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// A ring in which the kernel gives slots in order, and gets them back in order.
        #[test]
        fn it_walks_as_a_queue_of_slots(slots in 1u32..40, start in 0u32..40, steps in prop::collection::vec((0u32..40, 0u32..40), 1..60)) {
            let start = start % slots;
            let mut cursor = Cursor::new(slots, start).unwrap();
            let mut tail = start;
            let mut model = VecDeque::new();
            for (give, take) in steps {
                let give = give.min(slots - 1 - model.len() as u32);
                for _ in 0..give {
                    model.push_back(tail);
                    tail = (tail + 1) % slots;
                }
                prop_assert_eq!(cursor.ours(tail), Some(model.len() as u32));
                for (n, slot) in model.iter().enumerate() {
                    prop_assert_eq!(cursor.nth(n as u32), *slot);
                }
                let take = take.min(model.len() as u32);
                cursor.advance(take);
                model.drain(..take as usize);
                prop_assert_eq!(cursor.ours(tail), Some(model.len() as u32));
                prop_assert!(cursor.head() < slots);
            }
        }
    }

    #[test]
    fn places_that_no_ring_has_are_none() {
        assert!(Cursor::new(8, 8).is_none() && Cursor::new(0, 0).is_none());
        let cursor = Cursor::new(8, 7).unwrap();
        assert_eq!((cursor.ours(6), cursor.ours(7), cursor.ours(8)), (Some(7), Some(0), None));
        let most = Cursor::new(u32::MAX, u32::MAX - 1).unwrap();
        assert_eq!((most.nth(0), most.nth(1), most.ours(0)), (u32::MAX - 1, 0, Some(1)));
    }
}
