//! Makes a queue pair of a connected socket.

use super::Shared;
use super::buffer::Buffer;
use super::report::Report;
use super::rx::StreamRx;
use super::tx::StreamTx;
use crate::mem::arena::{Arena, ArenaError};
use crate::port::{RxQueue, TxQueue};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// A connection, ready for a worker.
pub struct Opened {
    /// Receiving half.
    pub rx: Box<dyn RxQueue>,
    /// Transmitting half.
    pub tx: Box<dyn TxQueue>,
    /// The descriptor, for messages; the two halves own it.
    pub fd: RawFd,
    /// Says why the connection ended.
    pub report: Arc<Report>,
}

/// Makes a queue pair of a connected stream socket. `wake` is an eventfd (non-blocking), written to when the connection ends.
///
/// # Errors
/// No memory for the receive buffer; the socket is closed.
pub fn open(socket: OwnedFd, wake: &Arc<OwnedFd>, arena: &Arc<Arena>) -> Result<Opened, ArenaError> {
    let buffer = Buffer::new(arena)?;
    let (fd, report) = (socket.as_raw_fd(), Arc::new(Report::new(wake)));
    let shared = Arc::new(Shared::new(socket, report.clone()));
    Ok(Opened {
        rx: Box::new(StreamRx::new(shared.clone(), buffer)),
        tx: Box::new(StreamTx::new(shared)),
        fd,
        report,
    })
}
