//! Virtqueues (virtio 1.3, 2.6 to 2.8): split and packed rings, the device's side and the driver's.
//!
//! A side of a format is a type of its own; what uses a ring is generic over [`DeviceRing`] or [`DriverRing`], so the hot loop
//! asks no flag. A burst is worked in stages (ring slots, descriptors, addresses), each a loop over all chains: loads of lines
//! that the other side wrote then overlap, where a walk chain by chain would wait for each in turn.
//!
//! The other side is hostile: every index is checked or masked, every chain bounded, every value read once.

pub mod config;
pub mod fault;
pub mod found;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod ids;
mod index;
mod indirect;
pub mod inflight;
mod notify;
#[cfg(any(test, fuzzing))]
pub mod oracle;
pub mod packed;
pub mod split;
pub mod testing;

pub use config::{Position, RingConfig};
pub use fault::RingFault;
pub use found::{CHAIN_SEGMENTS, CHAINS, Chain, Found};
pub use inflight::InflightRing;

use std::sync::atomic::{Ordering, fence};

/// A descriptor continues in another.
pub(crate) const DESC_NEXT: u16 = 1;
/// The device writes to this buffer.
pub(crate) const DESC_WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub(crate) const DESC_INDIRECT: u16 = 4;

/// Feature bit: a descriptor may name a table of descriptors.
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// Feature bit: notifications are asked for by index.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// Feature bit: virtio 1.0 and later.
pub const F_VERSION_1: u64 = 1 << 32;
/// Feature bit: packed rings.
pub const F_RING_PACKED: u64 = 1 << 34;
/// Feature bit: buffers are used in the order in which they were made available.
pub const F_IN_ORDER: u64 = 1 << 35;

/// Which way the device moves bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The device reads: the driver's transmit queue.
    Read,
    /// The device writes: the driver's receive queue.
    Write,
    /// The device reads a chain's first part and writes the rest: the control queue ([`DeviceRing::look_both`]).
    Both,
}

/// The device's side of a ring. Buffers are taken and used in the order in which they were made available.
pub trait DeviceRing: Send + Sized + 'static {
    /// Goes on where `config.position` stands.
    ///
    /// # Errors
    /// A size or position that no ring has.
    fn new(config: &RingConfig) -> Result<Self, RingFault>;

    /// Chains that can be looked at now (packed: at least this many of them, at most `want`).
    ///
    /// # Errors
    /// An index that jumped.
    fn available(&mut self, want: usize) -> Result<usize, RingFault>;

    /// Whether the driver has made about as many slots available as these, told by one load.
    fn reaches(&mut self, slots: u16) -> bool;

    /// Whether there is nothing to look at. A chain that makes no sense is something.
    fn is_empty(&mut self) -> bool;

    /// Appends up to `want` chains to `found`, behind those that it holds and that have not been taken.
    ///
    /// # Errors
    /// What the driver wrote makes no sense. Chains before the bad one are in `found`; the ring is to be stopped when those
    /// are done.
    fn look(&mut self, want: usize, access: Access, found: &mut Found) -> Result<(), RingFault>;

    /// Looks at the oldest chain, whatever its direction: [`Found::both`] has its parts. False when there is none. For slow queues.
    ///
    /// # Errors
    /// What the driver wrote makes no sense.
    fn look_both(&mut self, found: &mut Found) -> Result<bool, RingFault>;

    /// Takes the oldest chain and marks it used, with `written` bytes; the driver sees it after [`DeviceRing::publish`].
    fn give(&mut self, chain: &Chain, written: u32);

    /// As [`DeviceRing::give`] for each of a run of chains, with the bytes written to each.
    fn give_all<'c>(&mut self, chains: impl Iterator<Item = (&'c Chain, u32)>);

    /// Shows the driver what was used.
    fn show(&mut self);

    /// As [`DeviceRing::show`], but the last `most` buffers may wait for a later one; how many do. None where the driver wants to be told of one,
    /// and none in a packed ring: its drivers take back no more than they need.
    fn show_but(&mut self, most: u16) -> u16 {
        let _ = most;
        self.show();
        0
    }

    /// Whether the driver asked to be told of what was shown since the last call. The caller fences ([`Ordering::SeqCst`]) between
    /// [`DeviceRing::show`] and this: the driver asks, fences and looks; we show, fence and look. One fence does for many rings.
    fn asks(&mut self) -> bool;

    /// Shows the driver what was used. True when it asked to be told.
    fn publish(&mut self) -> bool {
        self.show();
        fence(Ordering::SeqCst);
        self.asks()
    }

    /// Asks for kicks, or for none. After asking, look once more before going to sleep.
    fn want_kicks(&mut self, on: bool);

    /// Where the ring stands. What was given must be published before.
    fn position(&self) -> Position;
}

/// A run of a buffer as the driver names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriverSeg {
    /// Address as the device knows it.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
}

/// The driver's side of a ring: for the `vhost-user` and `vhost-vdpa` netdevs, load tools, and as the other side in tests.
pub trait DriverRing: Send + Sized + 'static {
    /// A ring in its first state; `config.position` is written to memory where the format keeps it there.
    ///
    /// # Errors
    /// A size that no ring has.
    fn new(config: &RingConfig) -> Result<Self, RingFault>;

    /// Descriptors that are free.
    fn room(&self) -> usize;

    /// Makes a buffer available: the first `readable` of `segs` are read by the device, the others written. `token` comes back
    /// with it. The device sees it after [`DriverRing::publish`]. False, changing nothing, when there is no room.
    fn add(&mut self, segs: &[DriverSeg], readable: usize, token: u32) -> bool;

    /// As [`DriverRing::add`], of a buffer whose descriptors stand in an indirect table: `table`, which the caller wrote. The device may
    /// write `writable` bytes of it. Only where [`F_INDIRECT_DESC`] was agreed on.
    fn add_table(&mut self, table: DriverSeg, writable: u32, token: u32) -> bool;

    /// Shows the device what was added.
    fn show(&mut self);

    /// Whether the device asked to be kicked for what was shown since the last call; fences as [`DeviceRing::asks`].
    fn asks(&mut self) -> bool;

    /// Shows the device what was added. True when it asked to be kicked.
    fn publish(&mut self) -> bool {
        self.show();
        fence(Ordering::SeqCst);
        self.asks()
    }

    /// The next buffer that the device is done with: its token and the bytes written.
    ///
    /// # Errors
    /// The device used what it does not have.
    fn used(&mut self) -> Result<Option<(u32, u32)>, RingFault>;

    /// Asks for calls, or for none. After asking, look once more before going to sleep.
    fn want_calls(&mut self, on: bool);
}
