//! Frames in datagrams: a queue pair over any socket that keeps the bounds of messages (UDP, unix, raw IP), for all netdevs that have one.
//!
//! ```text
//!  kernel --recvmmsg--> buffers, one or many datagrams each --> lent        frame's segments --sendmmsg--> kernel
//!                            (UDP_GRO: many)                      a run of equally long ones is one message (UDP_SEGMENT)
//! ```
//!
//! Both calls are made at once and not by the worker's io_uring: one of them takes a burst, which a ring's requests do not (there is no
//! `recvmmsg` there), and nothing lent outlives it. The ring only tells when the socket has something.
//!
//! The options here are those of the netdevs `dgram` and `socket`, where a datagram is a frame and nothing else (QEMU net/dgram.c, net/socket.c).

mod buffers;
pub(super) mod framing;
mod inlet;
pub(super) mod open;
mod options;
mod outlet;
mod rx;
mod spread;
mod tx;

pub use open::{DatagramError, Opened, open};
pub use options::DatagramOptions;

use crate::backend::registered::Registered;
use std::os::fd::OwnedFd;

/// What the two halves share: the socket, and its name on the worker that owns it.
#[derive(Debug)]
struct Shared {
    fd: OwnedFd,
    file: Registered,
}

impl Shared {
    const fn new(fd: OwnedFd) -> Self {
        Self { fd, file: Registered::new() }
    }
}

#[cfg(test)]
mod tests;
