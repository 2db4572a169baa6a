//! The `tap` netdev: Ethernet frames of a kernel interface, by `/dev/net/tun` or a macvtap's `/dev/tapN`.
//!
//! A tap is its file descriptor. Once open, nothing here looks the interface up by name again: it may be renamed or move to
//! another network namespace. The offload state of each frame travels in the ten-byte virtio-net header (`IFF_VNET_HDR`).

mod carrier;
mod helper;
mod ioctl;
mod open;
mod options;
mod rx;
mod script;
mod tx;
mod vhost;

pub use super::pair::QueuePair;
pub use carrier::Carrier;
pub use helper::{Helper, run_helper};
pub use open::{Opened, TapError, create, open, open_with};
pub use options::{GivenFd, TapOptions, VhostOptions};
pub use script::run_script;
pub use vhost::Rings;

use crate::backend::registered::Registered;
use std::os::fd::OwnedFd;

/// What the two halves of a queue share: the file, and its name on the worker that owns it.
#[derive(Debug)]
struct Shared {
    fd: OwnedFd,
    file: Registered,
    /// Frames carry the virtio-net header.
    vnet_hdr: bool,
}

impl Shared {
    const fn new(fd: OwnedFd, vnet_hdr: bool) -> Self {
        Self { fd, file: Registered::new(), vnet_hdr }
    }
}

#[cfg(test)]
mod tests;
