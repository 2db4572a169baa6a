//! A passt that runs, and its end.

use engine::backend::child::{pidfd, pidfd_of, readable, signal};
use nix::sys::signal::Signal;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::time::{Duration, Instant};

/// How long one that was asked to end may take, before it is killed. Its end is the work of an instant.
const ENDING: Duration = Duration::from_secs(1);
/// How long one that was killed may take to be gone, before it is left to itself.
const DYING: Duration = Duration::from_millis(200);

/// A passt. It is asked to end when this is dropped.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
    /// Where it stays our child, since it was told not to go into the background.
    child: Option<Child>,
}

impl Process {
    /// One that has left its parent.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, pidfd: pidfd_of(pid)?, child: None })
    }

    /// One that stays our child.
    pub(super) fn child(child: Child) -> io::Result<Self> {
        Ok(Self { pid: child.id(), pidfd: pidfd(&child)?, child: Some(child) })
    }

    /// Its number.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// A descriptor that becomes readable when it ends.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn watch(&self) -> io::Result<OwnedFd> {
        self.pidfd.try_clone()
    }

    /// Asks it to end, kills it if it does not, and takes note of its end. Blocks for a second or so at most.
    pub fn end(mut self) {
        if !self.ask(Signal::SIGTERM, ENDING) && !self.ask(Signal::SIGKILL, DYING) {
            tracing::warn!("passt, process {}, does not end", self.pid);
        }
        self.reap();
    }

    /// Sends a signal; whether it has ended then in time.
    fn ask(&self, what: Signal, limit: Duration) -> bool {
        // One that has ended takes no signal.
        let _ = signal(self.pidfd.as_fd(), what);
        let end = Instant::now() + limit;
        while Instant::now() < end {
            match readable([self.pidfd.as_fd()], end) {
                Ok([true]) => return true,
                Ok([false]) => {}
                Err(_) => return false,
            }
        }
        false
    }

    fn reap(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.try_wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = signal(self.pidfd.as_fd(), Signal::SIGTERM);
        self.reap();
    }
}
