//! Transmit buffers that a guest gets back a little later, as network cards do it.
//!
//! A guest with DPDK on a split ring takes back all that was used when few buffers of its ring are missing. A device that keeps up makes that a whole
//! ring at once, more than the guest's cache of buffers holds: it goes on with buffers that no cache has, its own and ours. The last ones wait
//! therefore, while more frames come: the same guest sends 1.2 to 1.4 times the frames (two nics on a hub, 64 bytes, ring of 256).

use crate::virtq::inflight::{InflightRing, show};
use crate::virtq::{DeviceRing, RingConfig};

/// Buffers that wait at most: DPDK takes all back when 32 are missing, and sends 32 at once.
const MOST: u16 = 64;
/// Looks at the ring after which they do not wait any longer: about ten microseconds where there are few rings.
const LOOKS: u8 = 250;

/// The buffers of one ring that wait. A driver that wants to be told of them gets them at once.
#[derive(Debug, Default)]
pub(super) struct Later {
    most: u16,
    waiting: u16,
    looks: u8,
}

impl Later {
    /// None waits yet. None ever does where the ring is noted in flight: what is noted is noted of the whole ring.
    pub(super) fn new(config: &RingConfig) -> Self {
        Self {
            most: if config.inflight.is_some() { 0 } else { MOST.min(config.size / 4) },
            ..Self::default()
        }
    }

    /// Shows the driver what was used, but for those that may wait.
    #[inline]
    pub(super) fn show<R: DeviceRing>(&mut self, ring: &mut R, inflight: Option<&InflightRing>) {
        if self.most == 0 {
            return show(ring, inflight);
        }
        self.looks = 0;
        self.waiting = ring.show_but(self.most);
    }

    /// Counts a look at the ring; whether those that wait are to be shown now.
    #[inline]
    pub(super) const fn is_due(&mut self) -> bool {
        if self.waiting == 0 {
            return false;
        }
        self.looks += 1;
        self.looks == LOOKS
    }

    /// Forgets those that wait, which the caller shows; whether there were any.
    #[inline]
    pub(super) const fn end(&mut self) -> bool {
        std::mem::replace(&mut self.waiting, 0) > 0
    }
}
