//! A bounded queue of pool copies for a receiver that cannot take frames now.

use super::counters::DropReason;
use crate::burst::{Burst, Frame};
use crate::mem::pool::{Pool, PoolFrame};
use std::collections::VecDeque;

/// Frames that wait for one receiver, in order.
#[derive(Debug)]
pub struct Backlog {
    frames: VecDeque<PoolFrame>,
    max_frames: usize,
    max_bytes: usize,
    bytes: usize,
}

impl Backlog {
    /// An empty backlog with room for `max_frames` frames and `max_bytes` bytes; allocates its ring here.
    #[must_use]
    pub fn new(max_frames: usize, max_bytes: usize) -> Self {
        Self { frames: VecDeque::with_capacity(max_frames), max_frames, max_bytes, bytes: 0 }
    }

    /// Frames waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Copies a frame to the end.
    ///
    /// # Errors
    /// [`DropReason::LegFull`] at either bound, [`DropReason::NoBuffer`] when the pool is empty.
    pub fn push(&mut self, pool: &mut Pool, burst: &Burst, frame: &Frame) -> Result<(), DropReason> {
        if self.frames.len() >= self.max_frames || self.bytes + frame.len() > self.max_bytes {
            return Err(DropReason::LegFull);
        }
        let copy = pool.copy(burst, frame).ok_or(DropReason::NoBuffer)?;
        self.bytes += frame.len();
        self.frames.push_back(copy);
        Ok(())
    }

    /// Moves a pool frame to the end; hands it back with the reason where there is no room.
    ///
    /// # Errors
    /// [`DropReason::LegFull`] at either bound.
    pub fn push_owned(&mut self, frame: PoolFrame) -> Result<(), (PoolFrame, DropReason)> {
        let len = frame.seg().len();
        if self.frames.len() >= self.max_frames || self.bytes + len > self.max_bytes {
            return Err((frame, DropReason::LegFull));
        }
        self.bytes += len;
        self.frames.push_back(frame);
        Ok(())
    }

    /// Appends at most `want` frames, oldest first, to `burst`; they stay valid until [`Backlog::done`].
    pub fn lend(&self, want: usize, burst: &mut Burst) {
        for f in self.frames.iter().take(want) {
            if !burst.push(f.hdr, &[f.seg()]) {
                return;
            }
        }
    }

    /// The oldest `n` frames have gone.
    pub fn done(&mut self, pool: &mut Pool, n: usize) {
        for _ in 0..n {
            if let Some(f) = self.frames.pop_front() {
                self.bytes -= f.seg().len();
                pool.give(f);
            }
        }
    }
}
