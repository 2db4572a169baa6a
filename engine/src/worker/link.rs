//! Links between workers: one queue of bursts for each ordered pair of workers, single producer, single consumer.
//!
//! A burst is moved whole, so the cost of the queue is shared by its frames. Room is asked for before frames are read
//! (lanes count what is under way to each port), so a push does not fail; where it would, the frames stay.

use crate::mem::pool::ring::{Receiver, Sender, ring};
use crate::mem::pool::{BUNDLE, Bundle, Pool, PoolFrame};

/// Frames in one link burst at most.
pub const LINK_BURST: usize = BUNDLE;

/// Cache lines of a link; a burst takes one to three. More of them do not fit into the nearest cache beside all else.
const LINK_LINES: usize = 256;

/// Frames under way from one worker to one port at most.
pub const LANE_FRAMES: u64 = 256;

/// Frames of one source worker for one queue of another. Of it only the frames in use are moved.
#[derive(Debug)]
pub struct LinkBurst {
    /// Name of the destination queue; when the slot has another owner, the burst is dropped as `port-gone`.
    pub queue: u64,
    /// The frames; their tag is the slot of the destination queue.
    frames: Bundle,
}

const _: () = assert!(super::turn::MAX_SLOTS <= 1 << 16);

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

    /// Moves the frames to the end of `into`, first to last; `pool` is any of the engine's.
    #[inline]
    pub fn unpack(&mut self, pool: &Pool, into: &mut Vec<PoolFrame>) {
        pool.unpack(&mut self.frames, into);
    }

    /// Gives the frames back, since nobody takes them.
    pub fn give_all(&mut self, pool: &mut Pool) {
        pool.give_all(&mut self.frames);
    }
}

/// A worker's ends of all links.
#[derive(Debug, Default)]
pub struct Links {
    to: Vec<Option<Sender>>,
    from: Vec<Option<Receiver>>,
}

impl Links {
    /// Links between `workers` workers: the ends of each.
    #[must_use]
    pub fn all(workers: usize) -> Vec<Self> {
        let mut all: Vec<_> = (0..workers).map(|_| Self::default()).collect();
        for to in 0..workers {
            for from in 0..workers {
                let (sender, receiver) = (from != to).then(|| ring(LINK_LINES)).unzip();
                if let Some(links) = all.get_mut(from) {
                    links.to.push(sender);
                }
                if let Some(links) = all.get_mut(to) {
                    links.from.push(receiver);
                }
            }
        }
        all
    }

    /// Whether the link to a worker would refuse a burst.
    #[must_use]
    pub fn is_full(&self, to: usize) -> bool {
        self.to.get(to).and_then(Option::as_ref).is_none_or(Sender::is_full)
    }

    /// Sends a burst to a worker and leaves it empty; false, changing nothing, when the link has no room.
    #[inline]
    pub fn push(&mut self, to: usize, burst: &mut LinkBurst) -> bool {
        let link = self.to.get_mut(to).and_then(Option::as_mut);
        link.is_some_and(|link| link.push(burst.queue, &mut burst.frames))
    }

    /// Fills `burst`, which should be empty, with the oldest one from a worker; false when there is none.
    #[inline]
    pub fn pop(&mut self, from: usize, burst: &mut LinkBurst) -> bool {
        let link = self.from.get_mut(from).and_then(Option::as_mut);
        let queue = link.and_then(|link| link.pop(&mut burst.frames));
        burst.queue = queue.unwrap_or(burst.queue);
        queue.is_some()
    }

    /// Whether anything waits.
    #[must_use]
    pub fn waiting(&self) -> bool {
        self.from.iter().flatten().any(|link| !link.is_empty())
    }

    /// Workers that the links join.
    #[must_use]
    pub const fn workers(&self) -> usize {
        self.from.len()
    }
}
