//! Frames over a connected stream socket (TCP, unix, vsock, or whatever descriptor was given): the `stream` netdev, and `socket` with
//! `listen=`, `connect=` or a stream's `fd=` (QEMU `net/stream.c`, `net/socket.c`).
//!
//! ```text
//!  bytes = length (4, big-endian) frame | length frame | ...
//!  socket -- one recv for many frames --> buffer, lent from there      frames -- one sendmsg for many --> socket
//! ```
//!
//! No io_uring here: one plain call moves dozens of frames, and what a send did not take must be known before the next frame is looked at, or
//! one would overtake another. The worker's ring only says when the socket has something, or room.
//!
//! The receiving half finds the end of a connection and tells control of it ([`Report`]). The transmitting half that meets an error refuses all
//! later frames; what the peer had sent before is still received, and then the end is found there too.

mod buffer;
mod message;
mod open;
mod options;
mod report;
mod rx;
mod tx;

pub use open::{Opened, open};
pub use report::{End, Report};

use crate::uring::FileId;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What the two halves share: the socket, its name on the worker that owns it, and the word to control.
#[derive(Debug)]
struct Shared {
    socket: OwnedFd,
    file: AtomicU32,
    report: Arc<Report>,
}

impl Shared {
    const NONE: u32 = u32::MAX;

    const fn new(socket: OwnedFd, report: Arc<Report>) -> Self {
        Self { socket, file: AtomicU32::new(Self::NONE), report }
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
