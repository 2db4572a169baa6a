//! The carrier of a tap, as its host sees it.

use super::{Shared, ioctl};
use nix::errno::Errno;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

/// Control's hold on a tap's carrier. It does not keep the tap open.
#[derive(Debug, Clone, Default)]
pub struct Carrier(Weak<Shared>);

impl Carrier {
    /// The carrier of an interface, by any of its queues.
    pub(super) fn new(queue: &Arc<Shared>) -> Self {
        Self(Arc::downgrade(queue))
    }

    /// Shows the host a carrier, or none. Without one, the host's kernel keeps its frames.
    ///
    /// # Errors
    /// The kernel's: before Linux 5.0, on a macvtap, or where the interface is not ours to change.
    pub fn set(&self, up: bool) -> Result<(), Errno> {
        // A tap that has gone has no carrier to show.
        self.0.upgrade().map_or(Ok(()), |queue| ioctl::set_carrier(queue.fd.as_fd(), up))
    }
}
