//! The `tap` netdev: Ethernet frames of a kernel interface, by `/dev/net/tun` or a macvtap's `/dev/tapN`.
//!
//! A tap is its file descriptor. Once open, nothing here looks the interface up by name again: it may be renamed or move to
//! another network namespace. The offload state of each frame travels in the ten-byte virtio-net header (`IFF_VNET_HDR`).

mod child;
mod helper;
mod ioctl;
mod open;
mod options;
mod rx;
mod script;
mod tx;

pub use super::pair::QueuePair;
pub use helper::{Helper, run_helper};
pub use open::{Opened, TapError, create, open};
pub use options::{GivenFd, TapOptions};
pub use script::run_script;

use crate::uring::FileId;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};

/// What the two halves of a queue share: the file, and its name on the worker that owns it.
#[derive(Debug)]
struct Shared {
    fd: OwnedFd,
    file: AtomicU32,
    /// Frames carry the virtio-net header.
    vnet_hdr: bool,
}

impl Shared {
    const NONE: u32 = u32::MAX;

    const fn new(fd: OwnedFd, vnet_hdr: bool) -> Self {
        Self { fd, file: AtomicU32::new(Self::NONE), vnet_hdr }
    }

    /// The file, between `start` and `stop`. Both halves live on one worker: the order of memory is a message's.
    fn file(&self) -> Option<FileId> {
        let id = self.file.load(Ordering::Relaxed);
        (id != Self::NONE).then_some(FileId(id))
    }

    fn set_file(&self, id: Option<FileId>) {
        self.file.store(id.map_or(Self::NONE, |id| id.0), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
