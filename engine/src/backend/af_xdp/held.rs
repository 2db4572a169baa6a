//! Chunks that a queue has, by its own count: with those that the UMEM's books say are free and lost they must be all there are.

use crate::mem::chunks::SharedUmem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a queue has of its UMEM. Its halves write, control reads.
#[derive(Debug)]
pub(super) struct Held {
    /// Its number among the members of the UMEM.
    pub(super) member: u32,
    receiving: AtomicU32,
    sending: AtomicU32,
}

impl Held {
    pub(super) fn new(member: u32) -> Arc<Self> {
        Arc::new(Self { member, receiving: AtomicU32::new(0), sending: AtomicU32::new(0) })
    }

    /// In the fill ring, in the receive ring, or lent.
    #[inline]
    pub(super) fn receives(&self, chunks: u32) {
        self.receiving.store(chunks, Ordering::Relaxed);
    }

    /// In the transmit ring, with the kernel, or in the completion ring.
    #[inline]
    pub(super) fn sends(&self, chunks: u32) {
        self.sending.store(chunks, Ordering::Relaxed);
    }
}

/// A queue's share of its UMEM, and how much of that is free. Each number is as of some moment: they add up while nothing moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Number of the UMEM; queues of one worker share it.
    pub umem: usize,
    /// Chunks there are.
    pub chunks: u32,
    /// Nobody's.
    pub free: u32,
    /// Never used again: their sockets could not be ended.
    pub lost: u32,
    /// The queue's, to receive into.
    pub receiving: u32,
    /// The queue's, under way to the NIC.
    pub sending: u32,
}

impl Share {
    pub(super) fn of(number: usize, umem: &SharedUmem, held: &Held) -> Self {
        Self {
            umem: number,
            chunks: umem.chunks(),
            free: umem.free(),
            lost: umem.lost(),
            receiving: held.receiving.load(Ordering::Relaxed),
            sending: held.sending.load(Ordering::Relaxed),
        }
    }
}
