//! What a ring is made of: its format, and the memory of its buffers.

use engine::mem::guest::GuestMemory;
use engine::virtq::{DriverSeg, RingConfig, RingFault};
use std::ptr::NonNull;
use std::sync::Arc;

/// A place on a ring: a slot, in the lap that is under way there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Place {
    pub(in super::super) slot: u32,
    pub(in super::super) lap: u32,
}

impl Place {
    /// The place `n` slots further on, at most a lap.
    #[inline]
    pub(super) fn plus(self, n: u32, size: u32) -> Self {
        let slot = self.slot + n;
        if slot < size {
            Self { slot, ..self }
        } else {
            Self { slot: slot - size, lap: self.lap.wrapping_add(1) }
        }
    }
}

/// What split and packed rings differ in. Slots are below the ring's size, and runs end where the ring does.
pub(in super::super) trait Format: Sized {
    /// A ring that was never used.
    ///
    /// # Errors
    /// A size or place that no ring has.
    fn new(config: &RingConfig) -> Result<Self, RingFault>;

    /// Writes which buffer is made available at `slot` from now on.
    fn place(&mut self, slot: u32, token: u16, seg: DriverSeg, writable: bool);

    /// Takes entries from `at` on as long as they are used and name what is expected: how many. `under_way` buffers can be used.
    ///
    /// # Errors
    /// An index that jumped.
    fn run(
        &mut self,
        at: Place,
        expected: &[u16],
        under_way: u32,
        back: impl FnMut(u16, u32),
    ) -> Result<usize, RingFault>;

    /// The used entry at `at`, if there is one: a buffer and the bytes written to it.
    ///
    /// # Errors
    /// As [`Format::run`].
    fn entry(&mut self, at: Place, under_way: u32) -> Result<Option<(u32, u32)>, RingFault>;

    /// Makes what stands in the slots from `from` on available, as soon as it is shown.
    fn offer(&mut self, from: Place, count: u32);

    /// Shows the device what was offered.
    fn show(&mut self);

    /// Whether the device wants to be told of what was shown before.
    fn asks(&self) -> bool;
}

/// The memory of a ring's buffers.
#[derive(Debug)]
pub(in super::super) struct Memory {
    /// The buffers as the back-end knows them.
    pub(in super::super) segs: Vec<DriverSeg>,
    /// Buffer 0 in our memory, and the bytes from buffer to buffer.
    pub(in super::super) base: NonNull<u8>,
    pub(in super::super) stride: usize,
    /// Keeps them mapped.
    pub(in super::super) _mapping: Arc<GuestMemory>,
}

impl Memory {
    /// Buffer `token` in our memory.
    #[inline]
    pub(in super::super) fn host(&self, token: u16) -> *mut u8 {
        self.base.as_ptr().wrapping_add(usize::from(token) * self.stride)
    }

    /// Bytes of it.
    #[inline]
    pub(in super::super) fn len(&self, token: u16) -> u32 {
        self.segs.get(usize::from(token)).map_or(0, |seg| seg.len)
    }
}
