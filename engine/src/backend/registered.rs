//! The name that a file has on the worker that owns it, for both halves of a queue.

use crate::port::Source;
use crate::uring::{FdIo, FileId};
use std::sync::atomic::{AtomicU32, Ordering};

/// Set between `start` and `stop`. Both halves live on one worker: the order of memory is a message's.
#[derive(Debug)]
pub(super) struct Registered(AtomicU32);

impl Registered {
    const NONE: u32 = u32::MAX;

    /// With no worker yet.
    pub(super) const fn new() -> Self {
        Self(AtomicU32::new(Self::NONE))
    }

    /// The file. None, while a worker has the queue, means that the kernel refused to watch it.
    #[inline]
    pub(super) fn get(&self) -> Option<FileId> {
        let id = self.0.load(Ordering::Relaxed);
        (id != Self::NONE).then_some(FileId(id))
    }

    pub(super) fn set(&self, id: Option<FileId>) {
        self.0.store(id.map_or(Self::NONE, |id| id.0), Ordering::Relaxed);
    }

    /// How the worker learns of frames. Without a file nothing ever comes: a name that no file has.
    pub(super) fn source(&self) -> Source {
        Source::File(self.get().unwrap_or(FileId(Self::NONE)))
    }

    /// Begins to close a file that has no buffers, or goes on; true when the kernel holds it no more.
    pub(super) fn close(&self, io: &mut FdIo) -> bool {
        let Some(id) = self.get() else { return true };
        if !io.close(id) {
            return false;
        }
        io.remove(id);
        self.set(None);
        true
    }
}
