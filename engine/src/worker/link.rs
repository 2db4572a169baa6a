//! Links between workers: one queue of bursts for each ordered pair of workers, single producer, single consumer.
//!
//! A burst is moved whole, so the cost of the queue is shared by its frames. Room is asked for before frames are read
//! (lanes count what is under way to each port), so a push does not fail; where it would, the frames stay.

use crate::mem::pool::PoolFrame;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;

/// Frames in one link burst at most.
pub const LINK_BURST: usize = 32;

/// Bursts that a link holds.
const LINK_DEPTH: usize = 256;

/// Frames under way from one worker to one port at most.
pub const LANE_FRAMES: u64 = 256;

/// Frames of one source worker for one queue of another.
#[derive(Debug)]
pub struct LinkBurst {
    /// Slot of the destination queue.
    pub slot: u32,
    /// Frames in use.
    len: u32,
    /// Name of the destination queue; when the slot has another owner, the burst is dropped as `port-gone`.
    pub queue: u64,
    frames: [Option<PoolFrame>; LINK_BURST],
}

impl LinkBurst {
    /// An empty burst for a queue.
    #[must_use]
    pub const fn new(slot: u32, queue: u64) -> Self {
        Self { slot, len: 0, queue, frames: [const { None }; LINK_BURST] }
    }

    /// Appends a frame; hands it back when the burst is full.
    ///
    /// # Errors
    /// The frame itself.
    pub fn push(&mut self, frame: PoolFrame) -> Result<(), PoolFrame> {
        match self.frames.get_mut(self.len as usize) {
            Some(slot) => {
                *slot = Some(frame);
                self.len += 1;
                Ok(())
            }
            None => Err(frame),
        }
    }

    /// Frames in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it takes no more.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.len as usize == LINK_BURST
    }

    /// The frames, first to last.
    pub fn frames(&self) -> impl Iterator<Item = &PoolFrame> {
        self.frames.iter().take(self.len as usize).flatten()
    }

    /// Takes the frames out, first to last.
    pub fn drain(&mut self) -> impl Iterator<Item = PoolFrame> + '_ {
        let n = std::mem::take(&mut self.len) as usize;
        self.frames.iter_mut().take(n).filter_map(Option::take)
    }
}

/// All links of an engine: `links[from][to]`.
#[derive(Debug, Clone)]
pub struct Links(Arc<Vec<Vec<ArrayQueue<LinkBurst>>>>);

impl Links {
    /// Links between `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let depth = |from, to| if from == to { 1 } else { LINK_DEPTH };
        Self(Arc::new(
            (0..workers).map(|f| (0..workers).map(|t| ArrayQueue::new(depth(f, t))).collect()).collect(),
        ))
    }

    /// The link from one worker to another.
    #[must_use]
    pub fn get(&self, from: usize, to: usize) -> Option<&ArrayQueue<LinkBurst>> {
        self.0.get(from)?.get(to)
    }

    /// Whether anything waits for `worker`.
    #[must_use]
    pub fn waiting(&self, worker: usize) -> bool {
        self.0.iter().filter_map(|row| row.get(worker)).any(|l| !l.is_empty())
    }

    /// Workers that the links join.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.0.len()
    }
}
