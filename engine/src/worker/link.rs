//! Links between workers: one queue of bursts for each ordered pair of workers, single producer, single consumer.
//!
//! A burst is moved whole, so the cost of the queue is shared by its frames. Room is asked for before frames are read
//! (lanes count what is under way to each port), so a push does not fail; where it would, the frames stay.

use crate::mem::pool::{BUNDLE, Bundle, Pool, PoolFrame};
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;

/// Frames in one link burst at most.
pub const LINK_BURST: usize = BUNDLE;

/// Bursts that a link holds.
const LINK_DEPTH: usize = 256;

/// Frames under way from one worker to one port at most.
pub const LANE_FRAMES: u64 = 256;

/// Frames of one source worker for one queue of another. Small, since it is moved whole: 80 bytes.
#[derive(Debug)]
pub struct LinkBurst {
    /// Name of the destination queue; when the slot has another owner, the burst is dropped as `port-gone`.
    pub queue: u64,
    /// The frames; their tag is the slot of the destination queue.
    frames: Bundle,
}

const _: () = assert!(size_of::<LinkBurst>() == 80 && super::turn::MAX_SLOTS <= 1 << 16);

impl LinkBurst {
    /// An empty burst for a queue.
    #[must_use]
    pub const fn new(slot: u32, queue: u64) -> Self {
        Self { queue, frames: Bundle::new(slot as u16) }
    }

    /// Slot of the destination queue.
    #[must_use]
    pub const fn slot(&self) -> u32 {
        self.frames.tag as u32
    }

    /// Appends frames of the sending worker's pool until it is full; returns the first that came from another pool,
    /// which stays outside.
    #[inline]
    pub fn extend(&mut self, frames: &mut impl Iterator<Item = PoolFrame>) -> Option<PoolFrame> {
        self.frames.extend(frames)
    }

    /// Frames in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether it takes no more.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.frames.is_full()
    }

    /// Takes the frames out, first to last; `pool` is any of the engine's.
    #[inline]
    pub fn drain<'a>(&'a mut self, pool: &'a Pool) -> impl Iterator<Item = PoolFrame> + 'a {
        pool.unpack(&mut self.frames)
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
