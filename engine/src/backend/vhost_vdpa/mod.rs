//! The `vhost-vdpa` netdev: a vDPA device of the kernel's, whose rings are ours (`backend::driver`).
//!
//! ```text
//!  open: questions -> features -> rings in memory of our own -> IOTLB -> rings of the device -> runs -> control queue
//! ```
//!
//! What the device says is checked against what we have: it never makes us read or map more than that.

mod commands;
mod open;
mod options;

pub use super::driver::Halves;
pub use open::{Opened, VdpaError, open, open_on};
pub use options::VdpaOptions;

use crate::backend::nic::NetFeatures;
use crate::backend::report::Report;
use crate::vhost::kernel::{Device, status};
use commands::Commands;
use nix::errno::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// Where the link's state stands in the configuration space (virtio 1.3, 5.1.4).
const STATUS_AT: u32 = 6;

/// How a device stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It runs; whether its link is up.
    Runs(bool),
    /// It asks for a reset.
    Broken,
    /// It was removed.
    Gone,
}

/// Control's hold on an open device. It goes when the netdev does: the device runs as long as it or a queue is there.
pub struct Handle {
    device: Arc<Device>,
    features: (u64, u64),
    /// Written to when the configuration changed.
    changed: OwnedFd,
    /// By ring, two a pair.
    reports: Vec<Arc<Report>>,
    size: u16,
    commands: Option<Commands>,
}

impl Handle {
    /// Virtio features that the device offered, and those that were accepted.
    #[must_use]
    pub const fn features(&self) -> (u64, u64) {
        self.features
    }

    /// Entries of each ring.
    #[must_use]
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// Readable when [`Handle::health`] may have changed.
    #[must_use]
    pub fn changed(&self) -> BorrowedFd<'_> {
        self.changed.as_fd()
    }

    /// The device's file, whose node goes with the device.
    #[must_use]
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.device.calls().fd()
    }

    /// The ring that stopped for cause, and why.
    #[must_use]
    pub fn fault(&self) -> Option<(usize, String)> {
        let reports = self.reports.iter().enumerate();
        reports
            .map(|(ring, report)| (ring, report.fault()))
            .find_map(|(ring, why)| Some((ring, why?.to_string())))
    }

    /// How it stands now.
    pub fn health(&mut self) -> Health {
        // Ours and non-blocking: an empty one is one that was read before.
        let _ = nix::unistd::read(&self.changed, &mut [0; 8]);
        if let Some(commands) = &mut self.commands {
            commands.reap();
        }
        let calls = self.device.calls();
        match calls.status() {
            _ if calls.has_gone() => Health::Gone,
            Err(Errno::ENODEV | Errno::ENXIO) => Health::Gone,
            Ok(now) if now & status::NEEDS_RESET != 0 => Health::Broken,
            _ if self.features.1 & NetFeatures::STATUS == 0 => Health::Runs(true),
            _ => {
                let mut link = [0; 2];
                // Without an answer the link is as it was said to be at the start.
                let told = calls.config(STATUS_AT, &mut link).is_ok();
                Health::Runs(!told || link[0] & 1 != 0)
            }
        }
    }

    /// Tells the device the hardware address of the nic that it is joined to, so that it lets frames for it in. False: it cannot be told.
    pub fn set_mac(&mut self, mac: [u8; 6]) -> bool {
        let told = self.features.1 & NetFeatures::CTRL_MAC_ADDR != 0;
        told && self.commands.as_mut().is_some_and(|commands| commands.tell(commands::MAC_SET, &mac))
    }
}
