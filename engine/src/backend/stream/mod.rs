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

use crate::backend::registered::Registered;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What the two halves share: the socket, its name on the worker that owns it, and the word to control.
#[derive(Debug)]
struct Shared {
    socket: OwnedFd,
    file: Registered,
    report: Arc<Report>,
}

impl Shared {
    const fn new(socket: OwnedFd, report: Arc<Report>) -> Self {
        Self { socket, file: Registered::new(), report }
    }
}

#[cfg(test)]
mod tests;
