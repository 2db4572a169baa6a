//! An index of a split ring.

/// Counts modulo 65536. Kept in 32 bits: compilers load a 16-bit field together with its neighbour, and such a load waits for a store to the
/// field alone (measured: 8 ns a buffer).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Index(u32);

impl Index {
    #[inline]
    pub(super) const fn new(index: u16) -> Self {
        Self(index as u32)
    }

    /// As it stands in memory.
    #[inline]
    pub(super) const fn get(self) -> u16 {
        self.0 as u16
    }

    /// The index `n` further on.
    #[inline]
    #[must_use]
    pub(super) const fn plus(self, n: u16) -> Self {
        Self(self.0.wrapping_add(n as u32) & 0xffff)
    }

    /// The index `n` before.
    #[inline]
    #[must_use]
    pub(super) const fn minus(self, n: u16) -> Self {
        self.plus(n.wrapping_neg())
    }

    /// Steps from `from` to here.
    #[inline]
    pub(super) const fn since(self, from: Self) -> u16 {
        self.get().wrapping_sub(from.get())
    }
}
