//! What opening a file-like backend gives.

use crate::port::{RxQueue, TxQueue};
use std::os::fd::RawFd;

/// One queue pair, ready for a worker.
pub struct QueuePair {
    /// Receiving half.
    pub rx: Box<dyn RxQueue>,
    /// Transmitting half.
    pub tx: Box<dyn TxQueue>,
    /// The descriptor, for messages; the two halves own it.
    pub fd: RawFd,
}
