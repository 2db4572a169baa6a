//! Waking a sleeping worker: a flag that says whether it sleeps, and an eventfd that its sleep waits on. Threads of filters sleep the same way.

use super::IoError;
use super::doze::Doze;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Wakes one worker. Shared by all who may have work for it.
#[derive(Debug)]
pub struct Waker {
    doze: Doze,
    event: EventFd,
}

impl Waker {
    /// Of somebody who is awake.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> Result<Self, IoError> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| IoError::Setup { what: "eventfd", errno })?;
        Ok(Self { doze: Doze::new(), event })
    }

    /// Wakes the worker, or makes its next sleep return at once. Never lost; one locked instruction, a write to the
    /// eventfd only when it sleeps.
    pub fn wake(&self) {
        if self.doze.wake() {
            self.kick();
        }
    }

    /// Wakes the worker if it sleeps or has announced sleep; a fence and a load otherwise. The work must have been made
    /// visible before, and the worker must look for it between [`super::FdIo::announce`] and [`super::FdIo::sleep`].
    pub fn nudge(&self) {
        if self.doze.nudge() {
            self.kick();
        }
    }

    /// From now on nudges wake. False when a wake has come already.
    pub fn announce(&self) -> bool {
        self.doze.announce()
    }

    /// The sleeper is awake.
    pub fn rise(&self) {
        self.doze.rise();
    }

    /// 0 while the worker is awake.
    #[cfg(test)]
    pub(super) fn state_for_test(&self) -> u32 {
        self.doze.state()
    }

    /// Takes back the kicks that ended a sleep.
    pub fn acknowledge(&self) {
        // Nothing to read is as good.
        let _ = self.event.read();
    }

    fn kick(&self) {
        // It fails only when 2^64 - 2 wakes are pending, and then the worker is awake.
        let _ = self.event.write(1);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}
