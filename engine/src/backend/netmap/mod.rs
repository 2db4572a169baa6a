//! The `netmap` netdev: rings of a NIC, of a VALE switch's port or of a pipe that the kernel module netmap shares (QEMU net/netmap.c).
//!
//! ```text
//!  kernel -- slots of the receive ring --> lent where they lie        frames --> slots of the transmit ring -- kernel
//!                    region: rings and buffers of all ports with one memory id
//! ```
//!
//! Each ring pair of a NIC has a file and a queue of its own. What a queue has used is shown to the kernel with one call a burst. Toward another port of
//! the region a buffer changes hands: the transmit ring gets it, and the receive ring the one that stood there. Everything else is copied once.
//!
//! A port of a VALE switch has a virtio-net header in front of each frame, so that large frames pass; toward ports without one, the switch segments.

mod abi;
mod cursor;
mod driver;
mod exchange;
mod name;
mod open;
mod options;
mod region;
mod ring;
mod rx;
#[cfg(test)]
mod testing;
mod tx;

pub use open::{NetmapError, Opened, open};
pub use options::{DEVICE, NetmapOptions};
pub use region::Regions;
pub use ring::Flaw;

use super::registered::Registered;
use driver::{Driver, Way};
use nix::errno::Errno;
use open::Restore;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// What the two halves of a queue share: the file, and its name on the worker that owns it.
struct Shared {
    /// Before the file: it needs one.
    _restore: Option<Arc<Restore>>,
    fd: OwnedFd,
    driver: Arc<dyn Driver>,
    file: Registered,
    /// Bytes of the virtio-net header in front of each frame: 0, 10 or 12.
    header: usize,
}

impl Shared {
    #[inline]
    fn sync(&self, way: Way) -> Result<(), Errno> {
        match self.driver.sync(self.fd.as_fd(), way) {
            // Nothing is wrong: the next call does it.
            Err(Errno::EINTR | Errno::EAGAIN | Errno::EBUSY) => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests;
