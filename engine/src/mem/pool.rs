//! A worker's frame buffers, for frames that must outlive the turn: backlogs, links between workers, filters.
//!
//! Two sizes: [`SMALL`] for frames of an ordinary MTU, [`LARGE`] for any frame. Free buffers are taken last in, first
//! out, so the working set stays as small as the traffic allows; buffers lie an odd number of cache lines apart, so that
//! their first lines spread over all cache sets. Nothing is allocated after construction.
//!
//! A frame's length, weight and virtio-net header lie at the front of its buffer, in the line of its first bytes, which
//! the copy writes anyway. A [`PoolFrame`] is therefore one pointer, and what crosses to another worker by a [`ring`] is
//! its number of 16 bits.

#![allow(unsafe_code)] // owns frame memory: a slot on no free list belongs to exactly one `PoolFrame`, `Bundle` or ring

mod frame;
pub mod ring;

pub use frame::PoolFrame;

use super::arena::{Arena, ArenaError, CACHE_LINE, Part};
use super::chunks::Umems;
use crate::burst::{Burst, Frame, MAX_FRAME, Seg};
use crate::wire::vnet_hdr::VnetHdr;
use crossbeam::queue::ArrayQueue;
use frame::{Bundle, Head};
use ring::{Receiver, Sender};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Bytes of a small buffer.
pub const SMALL: usize = 2048;

/// Bytes of a large buffer: the longest frame and a virtio-net header.
pub const LARGE: usize = MAX_FRAME + 16;

/// Buffers of one worker's pool.
///
/// Too few: backlogs drop `no-buffer` before their own bounds. Too many: memory that falls out of the cache; the last
/// buffer is touched only when all others are out.
#[derive(Debug, Clone, Copy)]
pub struct PoolSize {
    /// Buffers of [`SMALL`] bytes.
    pub small: u32,
    /// Buffers of [`LARGE`] bytes.
    pub large: u32,
}

impl Default for PoolSize {
    fn default() -> Self {
        Self { small: 4096, large: 128 }
    }
}

/// Distance between small buffers. Slots are numbered in these, so that buffers of both sizes are found alike.
const SMALL_STRIDE: usize = stagger(SMALL + Head::LEN);

/// Distance between large buffers, in small ones.
const LARGE_STEPS: u32 = ((LARGE + Head::LEN).div_ceil(SMALL_STRIDE) | 1) as u32;

/// Slots of a pool at most: their numbers have 16 bits.
const MAX_SLOTS: u64 = 1 << 16;

/// A worker's pool of frame buffers.
#[derive(Debug)]
pub struct Pool {
    small: Class,
    large: Class,
    /// The first slot of the large class.
    split: u16,
    /// This pool's number; numbers are never used twice.
    id: u32,
    /// What the pools of its set know of each other.
    set: Arc<Set>,
    /// Frames of each other pool of the set that were given here and have not gone back yet.
    foreign: Box<[Bundle]>,
    /// The memory; taken out only in `drop`.
    part: Option<Part>,
    /// Frame memory of the worker that AF_XDP sockets share with the kernel.
    pub umems: Umems,
}

/// Pools that give buffers to each other.
#[derive(Debug)]
struct Set {
    /// Number of the first pool.
    first: u32,
    members: Box<[Member]>,
}

/// What other workers must know of a pool.
#[derive(Debug)]
struct Member {
    /// The first buffer.
    base: NonNull<u8>,
    /// Slots that other workers gave back. As long as the pool: bundles are not empty, so there is always room.
    returns: ArrayQueue<Bundle>,
    /// How many there are.
    returned: AtomicUsize,
}

// SAFETY: the addresses are only ever used for a slot that its sender handed over in a `Bundle`.
unsafe impl Send for Member {}
// SAFETY: as above; the addresses themselves never change.
unsafe impl Sync for Member {}

impl Member {
    /// Queues slots for their owner.
    #[inline]
    fn take_back(&self, bundle: &mut Bundle) {
        self.returned.fetch_add(bundle.slots().len(), Ordering::Release);
        let _ = self.returns.push(std::mem::replace(bundle, Bundle::EMPTY));
    }

    /// The address of a slot.
    ///
    /// # Safety
    /// The slot must be one of this pool.
    #[inline]
    const unsafe fn at(&self, slot: u16) -> NonNull<Head> {
        // SAFETY: by contract the place is one of the part.
        unsafe { self.base.add(slot as usize * SMALL_STRIDE).cast() }
    }
}

impl Set {
    #[inline]
    fn member(&self, id: u32) -> Option<&Member> {
        self.members.get(id.wrapping_sub(self.first) as usize)
    }
}

/// Free slots of one size.
#[derive(Debug)]
struct Class {
    count: u32,
    free: Vec<u16>,
}

impl Pool {
    /// The pools of `workers` workers, of the default size.
    ///
    /// # Errors
    /// The arena's, when it cannot grow.
    pub fn set(workers: usize, arena: &Arc<Arena>) -> Result<Vec<Self>, ArenaError> {
        Self::set_of(workers, PoolSize::default(), arena)
    }

    /// The pools of `workers` workers, of `size` each.
    ///
    /// # Errors
    /// The arena's, when it cannot grow.
    pub fn set_of(workers: usize, size: PoolSize, arena: &Arc<Arena>) -> Result<Vec<Self>, ArenaError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let PoolSize { small, large } = size;
        let slots = u64::from(small) + u64::from(LARGE_STEPS) * u64::from(large);
        let bytes = (slots as usize).saturating_mul(SMALL_STRIDE).max(1);
        if slots > MAX_SLOTS || small >= 1 << 16 {
            return Err(ArenaError::Size { bytes, align: CACHE_LINE });
        }
        let split = small as u16;
        let parts = (0..workers).map(|_| arena.take(bytes, CACHE_LINE)).collect::<Result<Vec<_>, _>>()?;
        let members = parts.iter().map(|part| Member {
            base: part.ptr(),
            returns: ArrayQueue::new((small as usize + large as usize).max(1)),
            returned: AtomicUsize::new(0),
        });
        let first = NEXT.fetch_add(workers as u32, Ordering::Relaxed);
        let set = Arc::new(Set { first, members: members.collect() });
        let pool = |(part, id)| Self {
            small: Class::new(small, 0, 1),
            large: Class::new(large, small, LARGE_STEPS),
            split,
            id,
            set: set.clone(),
            foreign: (0..workers).map(|_| Bundle::EMPTY).collect(),
            part: Some(part),
            umems: Umems::default(),
        };
        Ok(parts.into_iter().zip(first..).map(pool).collect())
    }

    /// A buffer for a frame of `len` bytes with undefined contents; `None` when none is free or `len` exceeds [`LARGE`].
    #[inline]
    pub fn take(&mut self, len: usize) -> Option<PoolFrame> {
        let (class, capacity) =
            if len <= SMALL { (&mut self.small, SMALL) } else { (&mut self.large, LARGE) };
        if len > capacity {
            return None;
        }
        let member = self.set.member(self.id)?;
        let slot = class.free.pop()?;
        // SAFETY: slots on the free lists number this pool's buffers, and this one is on it no more.
        Some(unsafe { PoolFrame::new(member.at(slot), (self.id, slot), len, capacity) })
    }

    /// Copies a lent frame; `None` when no buffer is free.
    #[inline]
    pub fn copy(&mut self, burst: &Burst, frame: &Frame) -> Option<PoolFrame> {
        let mut copy = self.gather(frame.hdr, frame.len(), burst.segs(frame))?;
        copy.set_weight(frame.weight);
        Some(copy)
    }

    /// Copies `len` bytes of lent segments; `None` when no buffer is free.
    #[inline]
    pub fn gather(&mut self, hdr: VnetHdr, len: usize, segs: &[Seg]) -> Option<PoolFrame> {
        self.gather_from(hdr, len, segs.iter())
    }

    /// As [`Pool::gather`], of segments that do not lie side by side.
    #[inline]
    pub fn gather_from<'s>(
        &mut self,
        hdr: VnetHdr,
        len: usize,
        segs: impl Iterator<Item = &'s Seg>,
    ) -> Option<PoolFrame> {
        let mut copy = self.take(len)?;
        copy.set_hdr(hdr);
        let to = copy.bytes_mut();
        let mut done = 0;
        for seg in segs {
            done += seg.copy_to(0, to.get_mut(done..).unwrap_or_default());
        }
        Some(copy)
    }

    /// Takes a frame back: into its own free list, or to be returned to the worker it came from. Frames of others go
    /// back by the bundle, the last of them with [`Pool::reclaim`].
    #[inline]
    #[allow(clippy::needless_pass_by_value)] // by value: a frame that was given back must not be used again
    pub fn give(&mut self, frame: PoolFrame) {
        let (owner, slot) = frame.name();
        if owner == self.id {
            return self.put(slot);
        }
        let Some(member) = self.set.member(owner) else { return };
        if let Some(bundle) = self.foreign.get_mut(owner.wrapping_sub(self.set.first) as usize) {
            bundle.push(slot);
            if bundle.is_full() {
                member.take_back(bundle);
            }
        }
    }

    /// A ring of `lines` cache lines for frames of this pool, to another worker.
    #[must_use]
    pub fn link(&self, lines: usize) -> (Sender, Receiver) {
        ring::ring(self.id, lines)
    }

    /// Takes the oldest burst from a ring: its frames go to the end of `into`, first to last; the names that came with it.
    /// Frames of another set of pools stay out.
    #[inline]
    pub fn receive(&self, from: &mut Receiver, into: &mut Vec<PoolFrame>) -> Option<(u64, u16)> {
        let burst = from.pop()?;
        if let Some(member) = self.set.member(burst.owner) {
            let len = into.len() + burst.len();
            into.reserve(burst.len() + ring::IN_WORD);
            let places = into.spare_capacity_mut().chunks_exact_mut(ring::IN_WORD);
            // By fours: 1.7 instead of 4 cycles a frame.
            for (places, slots) in places.zip(burst.slots()) {
                for (place, slot) in places.iter_mut().zip(slots) {
                    // SAFETY: a ring only carries slots of frames that its sender swallowed, all of the pool `owner`, and
                    // slot 0, whose handle stays beyond the new length, behind the last.
                    place.write(unsafe { PoolFrame::known(member.at(slot)) });
                }
            }
            // SAFETY: so many handles were written: places were reserved for them, each of a frame that nobody else holds.
            unsafe { into.set_len(len) };
        }
        Some((burst.queue, burst.tag))
    }

    /// Takes in what other workers gave back, and gives back what is theirs.
    pub fn reclaim(&mut self) {
        for (member, bundle) in self.set.members.iter().zip(&mut self.foreign) {
            if !bundle.is_empty() {
                member.take_back(bundle);
            }
        }
        let set = self.set.clone();
        let Some(member) = set.member(self.id) else { return };
        // As many as there are now: others may push meanwhile.
        for _ in 0..member.returns.len() {
            let Some(bundle) = member.returns.pop() else { return };
            member.returned.fetch_sub(bundle.slots().len(), Ordering::Relaxed);
            bundle.slots().iter().for_each(|&slot| self.put(slot));
        }
    }

    /// Slots in the return queue.
    fn returned(&self) -> usize {
        self.set.member(self.id).map_or(0, |m| m.returned.load(Ordering::Acquire))
    }

    #[inline]
    fn put(&mut self, slot: u16) {
        if slot < self.split { self.small.put(slot) } else { self.large.put(slot) }
    }

    /// Whether less than an eighth of either class is free: filters and backlogs should stop hoarding.
    #[must_use]
    pub const fn low(&self) -> bool {
        self.small.low() || self.large.low()
    }

    /// Buffers that are out: held by backlogs, links and filters of any worker, or not returned yet. 0 after all work is done, or there is a
    /// leak.
    #[must_use]
    pub fn out(&self) -> usize {
        let all = self.small.count as usize + self.large.count as usize;
        all - self.small.free.len() - self.large.free.len() - self.returned()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.reclaim();
        if self.out() > 0 {
            // Somebody still holds frames of this pool: their memory must outlive them.
            std::mem::forget(self.part.take());
        }
    }
}

impl Class {
    fn new(count: u32, first: u32, steps: u32) -> Self {
        // The lowest addresses come out first.
        Self { count, free: (0..count).rev().map(|i| (first + i * steps) as u16).collect() }
    }

    #[inline]
    fn put(&mut self, slot: u16) {
        debug_assert!(self.free.len() < self.count as usize, "a buffer came back twice");
        self.free.push(slot);
    }

    const fn low(&self) -> bool {
        self.free.len() < self.count as usize / 8
    }
}

/// Distance between buffers of `size` bytes: an odd number of cache lines.
pub(crate) const fn stagger(size: usize) -> usize {
    (size.div_ceil(CACHE_LINE) | 1) * CACHE_LINE
}

#[cfg(test)]
mod tests;
