//! The eventfd by which the other side of a ring wakes a sleeping worker: a kick, or a call.

use crate::port::Doze;
use crate::uring::{FdIo, FileId};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Such an eventfd, watched while its queue is with a worker.
#[derive(Debug, Default)]
pub(super) struct Signal {
    event: Option<Arc<OwnedFd>>,
    watched: Option<FileId>,
}

impl Signal {
    /// Not watched yet. Without an eventfd nobody is ever heard.
    pub(super) fn new(event: Option<&Arc<OwnedFd>>) -> Self {
        Self { event: event.cloned(), watched: None }
    }

    /// Watches it. One that cannot be watched is one that nobody hears: the ring is looked at by timer then.
    pub(super) fn start(&mut self, io: &mut FdIo) {
        self.watched = self.event.as_ref().and_then(|event| io.watch(event.as_fd()).ok());
    }

    /// Begins to let go of it, or goes on; true when the kernel holds it no more.
    pub(super) fn stop(&mut self, io: &mut FdIo) -> bool {
        if let Some(file) = self.watched {
            if !io.close(file) {
                return false;
            }
            io.remove(file);
            self.watched = None;
        }
        true
    }

    /// How deep a worker may sleep that waits for it alone.
    pub(super) const fn doze(&self) -> Doze {
        if self.watched.is_some() { Doze::Sleep } else { Doze::Nap }
    }
}
