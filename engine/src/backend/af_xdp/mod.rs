//! The `af-xdp` netdev: frames of one or more receive queues of a NIC that the kernel keeps.
//!
//! ```text
//!  NIC queue --XDP program--> socket -- fill, rx, tx, completion -- worker
//!                                UMEM of the worker: shared by all its sockets
//! ```
//!
//! What arrives is lent where it lies, and its chunk goes back to the fill ring. Toward another socket of the UMEM the chunk itself moves;
//! everything else is copied once into a chunk of the transmitting half. A worker's frames are shown to the kernel with one call a turn.
//!
//! Without a virtio-net header there are no large frames. A checksum that is still to be computed is left to the kernel where it knows metadata
//! (Linux 6.8), else it is completed before.

mod held;
mod interface;
mod open;
mod options;
mod rx;
mod standing;
pub mod testing;
mod tx;
mod umems;

pub use held::Share;
pub use interface::{Link, link, link_of_index};
pub use open::{OpenError, Opened, Port, QueuePair, open};
pub use options::{AfXdpOptions, Filter, Given, XdpMode};
pub use umems::UmemSets;

use crate::mem::chunks::Seat;
use af_xdp::socket::try_zero_copy;
use af_xdp::{Socket, Umem};
use held::Held;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Entries of each ring, as QEMU has them (net/af-xdp.c); chunks that a queue receives into, and sends from, at most.
const RING: u32 = 2048;

/// Parts of a frame at most: one of a large MTU, and as many as the kernel sends (`MAX_SKB_FRAGS` and one).
const PARTS: usize = 18;

/// Times that a queue of a closed socket is tried, 0.2 seconds each.
const PATIENCE: u32 = 10;

/// What a queue asks of its socket; tests have one without a kernel.
trait Transport: Send + Sync {
    /// See [`Socket::send`].
    fn send(&self) -> Result<(), i32>;
    /// See [`Socket::receive`].
    fn receive(&self) -> Result<(), i32>;
    /// Frames are still under way in it, and it is closed nevertheless: its chunks are never used again.
    fn abandon(&self);
}

/// A socket and its membership. The socket is closed first: then its chunks are free.
#[derive(Debug)]
struct Bound {
    socket: Socket,
    seat: Option<Seat>,
    abandoned: AtomicBool,
    /// Where the NIC itself writes to the chunks: what tells when it has stopped.
    lingers: Option<Lingering>,
}

/// How to learn that a queue is free again.
#[derive(Debug)]
struct Lingering {
    /// Memory to try with.
    probe: Arc<Umem>,
    ifindex: u32,
    queue: u32,
}

impl Bound {
    const fn new(socket: Socket, seat: Seat, lingers: Option<Lingering>) -> Self {
        Self { socket, seat: Some(seat), abandoned: AtomicBool::new(false), lingers }
    }

    const fn socket(&self) -> &Socket {
        &self.socket
    }
}

impl Drop for Bound {
    /// Closing a zero-copy socket only begins to take its memory from the NIC, which may write to it until the queue can be bound again. In copy mode the
    /// kernel is done when the close has returned, which is when the fields after this are dropped.
    fn drop(&mut self) {
        if let (true, Some(seat)) = (self.abandoned.load(Ordering::Relaxed), &mut self.seat) {
            seat.give_up();
        }
        let (Some(Lingering { probe, ifindex, queue }), Some(mut seat)) =
            (self.lingers.take(), self.seat.take())
        else {
            return;
        };
        let wait = move || {
            for _ in 0..PATIENCE {
                match try_zero_copy(&probe, ifindex, queue) {
                    // The socket is still open, or was closed a moment ago.
                    Err(error) if error.errno() == libc::EBUSY => {}
                    // Free, or the interface is gone.
                    _ => return,
                }
            }
            seat.give_up();
        };
        // Without a thread the chunks stay unused.
        let _ = std::thread::Builder::new().name("netdevd-umem".into()).spawn(wait);
    }
}

impl Transport for Bound {
    #[inline]
    fn send(&self) -> Result<(), i32> {
        self.socket.send()
    }

    #[inline]
    fn receive(&self) -> Result<(), i32> {
        self.socket.receive()
    }

    fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

/// What both halves of a queue know.
#[derive(Debug, Clone)]
struct Place {
    held: Arc<Held>,
    /// The queue's number among the members of the UMEM.
    member: u32,
    /// The number of the UMEM on the worker, from `start` on.
    umem: usize,
}

impl Place {
    /// Before `start`: no UMEM has it.
    const NOWHERE: usize = usize::MAX;

    fn nowhere(held: Arc<Held>) -> Self {
        Self { member: held.member, held, umem: Self::NOWHERE }
    }
}

#[cfg(test)]
mod tests;
