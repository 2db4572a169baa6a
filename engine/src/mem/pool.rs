//! A worker's frame buffers, for frames that must outlive the turn: backlogs, links between workers, filters.

use crate::burst::{Burst, Frame, Seg};
use crate::wire::vnet_hdr::VnetHdr;

/// A worker's pool of frame buffers.
#[derive(Debug)]
pub struct Pool {}

/// A copy of a frame in a pool buffer. Not `Clone`; it must go back by [`Pool::give`] (any worker's pool).
#[derive(Debug)]
pub struct PoolFrame {
    /// Offload state of the frame.
    pub hdr: VnetHdr,
}

impl PoolFrame {
    /// The bytes, valid until the frame is given back.
    #[must_use]
    pub fn seg(&self) -> Seg {
        unreachable!()
    }
}

impl Pool {
    /// Copies a lent frame; `None` when no buffer is free.
    pub fn copy(&mut self, _burst: &Burst, _frame: &Frame) -> Option<PoolFrame> {
        None
    }

    /// Takes a frame back: into its own free list, or by queue to the worker it came from.
    pub fn give(&mut self, _frame: PoolFrame) {}

    /// Takes in what other workers gave back.
    pub fn reclaim(&mut self) {}
}
