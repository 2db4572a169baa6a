//! A ring as it was agreed on: where it lies, how large it is, where it stands.

use super::fault::RingFault;
use super::inflight::InflightRing;
use crate::mem::guest::GuestMemory;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;

/// Everything that a ring needs to run. The pointers lie in `memory`, with room for what a ring of `size` keeps there.
#[derive(Debug, Clone)]
pub struct RingConfig {
    /// Entries: split 2 to 32768, a power of two; packed 1 to 32768.
    pub size: u16,
    /// The virtio features agreed on.
    pub features: u64,
    /// Where descriptors point to.
    pub memory: Arc<GuestMemory>,
    /// Split: descriptor table; packed: descriptor ring.
    pub desc: NonNull<u8>,
    /// Split: available ring; packed: driver event suppression.
    pub avail: NonNull<u8>,
    /// Split: used ring; packed: device event suppression.
    pub used: NonNull<u8>,
    /// Guest address of `used`, while writes to it are to be logged (packed: those to `desc`, too).
    pub used_log: Option<u64>,
    /// Where the device notes how far it used the ring, for the one that comes after it.
    pub inflight: Option<InflightRing>,
    /// Where it goes on.
    pub position: Position,
    /// The driver writes here when it has made buffers available; without one the ring is looked at by timer.
    pub kick: Option<Arc<OwnedFd>>,
    /// The device writes here when it has used buffers; without one the driver polls.
    pub call: Option<Arc<OwnedFd>>,
    /// The device writes here when the ring stopped for cause.
    pub err: Option<Arc<OwnedFd>>,
}

// SAFETY: the pointers name memory that `memory` keeps mapped; who runs the ring is its only user.
#[allow(unsafe_code)]
unsafe impl Send for RingConfig {}

impl RingConfig {
    /// Whether the parts are aligned to so many bytes (virtio 1.3, 2.7 and 2.8).
    pub(super) fn aligned(&self, desc: usize, avail: usize, used: usize) -> Result<(), RingFault> {
        let is = |ptr: NonNull<u8>, to: usize| ptr.addr().get().is_multiple_of(to);
        let all = is(self.desc, desc) && is(self.avail, avail) && is(self.used, used);
        all.then_some(()).ok_or(RingFault::Alignment)
    }
}

/// Where a ring stands. Split: positions count modulo 65536 and the wraps are true and unused; packed: positions are
/// below the ring's size, each with its wrap counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The next buffer that the device takes.
    pub avail: u16,
    /// Where the device writes the next used one.
    pub used: u16,
    /// Wrap counter of `avail`.
    pub avail_wrap: bool,
    /// Wrap counter of `used`.
    pub used_wrap: bool,
}

impl Position {
    /// A ring that was never used.
    pub const START: Self = Self { avail: 0, used: 0, avail_wrap: true, used_wrap: true };
}
