//! Links between workers: one queue of bursts for each ordered pair of workers, single producer, single consumer.
//!
//! A burst is moved whole, so the cost of the queue is shared by its frames. Room is asked for before frames are read
//! (lanes count what is under way to each port), so a push does not fail; where it would, the frames stay.

pub use crate::mem::pool::ring::LINK_BURST;
use crate::mem::pool::ring::{Receiver, Sender};
use crate::mem::pool::{Pool, PoolFrame};

/// Cache lines of a link; a burst takes one or two. More of them do not fit into the nearest cache beside all else.
const LINK_LINES: usize = 256;

/// Frames under way from one worker to one port at most.
pub const LANE_FRAMES: u64 = 256;

/// Where the frames of a burst go.
#[derive(Debug, Clone, Copy)]
pub struct Destination {
    /// Slot of the queue at its worker.
    pub slot: u32,
    /// Name of the queue; when the slot has another owner, the frames are dropped as `port-gone`.
    pub queue: u64,
}

const _: () = assert!(super::turn::MAX_SLOTS <= 1 << 16);

/// A worker's ends of all links.
#[derive(Debug, Default)]
pub struct Links {
    to: Vec<Option<Sender>>,
    from: Vec<Option<Receiver>>,
}

impl Links {
    /// Links between the workers that these pools belong to: the ends of each.
    #[must_use]
    pub fn all(pools: &[Pool]) -> Vec<Self> {
        let mut all: Vec<_> = pools.iter().map(|_| Self::default()).collect();
        for to in 0..pools.len() {
            for (from, pool) in pools.iter().enumerate() {
                let (sender, receiver) = (from != to).then(|| pool.link(LINK_LINES)).unzip();
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
    pub fn is_full(&mut self, to: usize) -> bool {
        self.to.get_mut(to).and_then(Option::as_mut).is_none_or(Sender::is_full)
    }

    /// Sends the first frames of this worker's pool, [`LINK_BURST`] at most, to a worker. Returns how many went, and the
    /// first that is of another pool: it stays here. Takes no frame when the link is full.
    #[inline]
    pub fn send(
        &mut self,
        to: usize,
        dest: Destination,
        frames: impl Iterator<Item = PoolFrame>,
    ) -> (usize, Option<PoolFrame>) {
        let Some(link) = self.to.get_mut(to).and_then(Option::as_mut) else { return (0, None) };
        link.send((dest.queue, dest.slot as u16), frames)
    }

    /// Takes the oldest burst from a worker, if there is one: its frames go to the end of `into`.
    #[inline]
    pub fn receive(&mut self, from: usize, pool: &Pool, into: &mut Vec<PoolFrame>) -> Option<Destination> {
        let link = self.from.get_mut(from).and_then(Option::as_mut)?;
        let (queue, tag) = pool.receive(link, into)?;
        Some(Destination { slot: tag.into(), queue })
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
