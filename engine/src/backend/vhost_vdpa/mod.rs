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
mod wishes;

pub use super::driver::Halves;
pub use open::{Opened, VdpaError, open, open_on};
pub use options::VdpaOptions;
pub use wishes::Wishes;

use crate::backend::nic::NetFeatures;
use crate::backend::report::Report;
use crate::vhost::kernel::{Device, status};
use commands::{ANNOUNCED, Commands};
use nix::errno::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use wishes::{Command, Told};

#[cfg(test)]
mod tests;

/// Where the link's state stands in the configuration space (virtio 1.3, 5.1.4).
const STATUS_AT: u32 = 6;
/// A bit of it: the device asks for an announcement.
const ANNOUNCE: u8 = 2;

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
    control: Option<Box<Control>>,
}

/// The control queue, and what went through it.
struct Control {
    commands: Commands,
    told: Told,
    wishes: Wishes,
    /// Under way.
    sent: Option<Command>,
    /// The device asked for an announcement, and is to hear that it is made.
    announced: bool,
    /// It keeps its hardware address.
    keeps_mac: bool,
}

impl Control {
    fn new(commands: Commands, features: u64) -> Self {
        let told = Told::new(features);
        Self { commands, told, wishes: Wishes::default(), sent: None, announced: false, keeps_mac: false }
    }

    /// Takes an answer, and sends what is next.
    fn go_on(&mut self) {
        if self.commands.reap() == Some(false)
            && let Some(command) = self.sent.take()
        {
            self.keeps_mac |= !self.told.refused(&command);
        }
        if !self.commands.idle() {
            return;
        }
        if std::mem::take(&mut self.announced) {
            self.sent = None;
            self.commands.tell(ANNOUNCED, &[]);
        } else if let Some(command) = self.told.next(&self.wishes) {
            self.commands.tell(command.number, &command.data);
            self.sent = Some(command);
        }
    }
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

    /// Files that can be read when [`Handle::health`] may have changed, or has an answer to take.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let answers = self.control.as_ref().and_then(|control| control.commands.call());
        std::iter::once(self.changed.as_fd()).chain(answers)
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
        if let Some(control) = &mut self.control {
            control.go_on();
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

    /// Tells the device what it is to do, as far as it can be told, one command after the other.
    pub fn wish(&mut self, wishes: Wishes) {
        if let Some(control) = &mut self.control
            && control.wishes != wishes
        {
            control.wishes = wishes;
            control.go_on();
        }
    }

    /// Whether the device has refused another hardware address since this was asked last.
    pub fn keeps_mac(&mut self) -> bool {
        self.control.as_mut().is_some_and(|control| std::mem::take(&mut control.keeps_mac))
    }

    /// Whether the device asks for an announcement of whoever is behind it; it is told that this is made.
    pub fn asks_announcement(&mut self) -> bool {
        let mut status = [0; 2];
        let asks = self.features.1 & NetFeatures::GUEST_ANNOUNCE != 0
            && self.device.calls().config(STATUS_AT, &mut status).is_ok()
            && status[0] & ANNOUNCE != 0;
        if let Some(control) = self.control.as_mut().filter(|_| asks) {
            control.announced = true;
            control.go_on();
        }
        asks
    }
}
