//! A worker's frame buffers, for frames that must outlive the turn: backlogs, links between workers, filters.
//!
//! Two sizes: [`SMALL`] for frames of an ordinary MTU, [`LARGE`] for any frame. Free buffers are taken last in, first
//! out, so the working set stays as small as the traffic allows; buffers lie an odd number of cache lines apart, so that
//! their first lines spread over all cache sets. Nothing is allocated after construction.

#![allow(unsafe_code)] // owns frame memory: a slot on no free list belongs to exactly one `PoolFrame`

use super::arena::{Arena, ArenaError, CACHE_LINE, Part};
use crate::burst::{Burst, Frame, MAX_FRAME, Seg};
use crate::wire::vnet_hdr::VnetHdr;
use crossbeam::queue::ArrayQueue;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

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

/// Set in a slot number of the large class.
const LARGE_BIT: u32 = 1 << 31;

/// A worker's pool of frame buffers.
#[derive(Debug)]
pub struct Pool {
    small: Class,
    large: Class,
    /// This pool's number, and that of the first pool of its set; numbers are never used twice.
    id: u32,
    first: u32,
    /// One queue a pool of the set: buffers that other workers gave back, as long as the pool.
    returns: Arc<[ArrayQueue<u32>]>,
    /// The memory; taken out only in `drop`.
    part: Option<Part>,
}

/// Buffers of one size.
#[derive(Debug)]
struct Class {
    base: NonNull<u8>,
    stride: usize,
    size: usize,
    count: u32,
    free: Vec<u32>,
}

// SAFETY: the class's memory belongs to its pool alone, except the slots that are out as `PoolFrame`s.
unsafe impl Send for Class {}

/// A copy of a frame in a pool buffer. Not `Clone`; it must go back by [`Pool::give`] (any worker's pool).
#[derive(Debug)]
pub struct PoolFrame {
    /// Offload state of the frame.
    pub hdr: VnetHdr,
    /// Frames of the source that it stands for, as [`Frame::weight`].
    pub weight: u32,
    len: u32,
    slot: u32,
    owner: u32,
    ptr: NonNull<u8>,
}

// SAFETY: a pool frame is the only way to its buffer until it is given back.
unsafe impl Send for PoolFrame {}

impl PoolFrame {
    /// The bytes as a segment, valid until the frame is given back.
    #[must_use]
    pub const fn seg(&self) -> Seg {
        // SAFETY: the buffer is at least `len` long and stays this frame's until `Pool::give`.
        unsafe { Seg::new(self.ptr, self.len) }
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it has no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that fit into the buffer.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        if self.slot & LARGE_BIT == 0 { SMALL } else { LARGE }
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8] {
        // SAFETY: pool memory is initialised (mapped zeroed), the first `len` bytes are this frame's alone.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len as usize) }
    }

    /// The bytes, open to change.
    pub const fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `bytes`; the exclusive borrow of the frame is one of its buffer.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len as usize) }
    }

    /// Changes the length, at most to the capacity. Bytes that come into view hold old contents.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.capacity()) as u32;
    }
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
        let all = size.small as usize + size.large as usize;
        let returns: Arc<[_]> = (0..workers).map(|_| ArrayQueue::new(all.max(1))).collect();
        let first = NEXT.fetch_add(workers as u32, Ordering::Relaxed);
        (0..workers as u32).map(|i| Self::one(first + i, first, size, returns.clone(), arena)).collect()
    }

    fn one(
        id: u32,
        first: u32,
        size: PoolSize,
        returns: Arc<[ArrayQueue<u32>]>,
        arena: &Arc<Arena>,
    ) -> Result<Self, ArenaError> {
        let (small, large) = (stagger(SMALL), stagger(LARGE));
        let split = small * size.small as usize;
        let part = arena.take((split + large * size.large as usize).max(1), CACHE_LINE)?;
        // SAFETY: the part is at least `split` long.
        let behind = unsafe { part.ptr().add(split) };
        Ok(Self {
            small: Class::new(part.ptr(), small, SMALL, size.small, 0),
            large: Class::new(behind, large, LARGE, size.large, LARGE_BIT),
            id,
            first,
            returns,
            part: Some(part),
        })
    }

    /// A buffer for a frame of `len` bytes with undefined contents; `None` when none is free or `len` exceeds [`LARGE`].
    #[inline]
    pub fn take(&mut self, len: usize) -> Option<PoolFrame> {
        let class = if len <= SMALL { &mut self.small } else { &mut self.large };
        if len > class.size {
            return None;
        }
        let slot = class.free.pop()?;
        // SAFETY: slots on the free list number this class's buffers, which lie `stride` apart inside the part.
        let ptr = unsafe { class.base.add((slot & !LARGE_BIT) as usize * class.stride) };
        Some(PoolFrame { hdr: VnetHdr::NONE, weight: 1, len: len as u32, slot, owner: self.id, ptr })
    }

    /// Copies a lent frame; `None` when no buffer is free.
    #[inline]
    pub fn copy(&mut self, burst: &Burst, frame: &Frame) -> Option<PoolFrame> {
        let mut copy = self.gather(frame.hdr, frame.len(), burst.segs(frame))?;
        copy.weight = frame.weight;
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
        copy.hdr = hdr;
        let to = copy.bytes_mut();
        let mut done = 0;
        for seg in segs {
            done += seg.copy_to(0, to.get_mut(done..).unwrap_or_default());
        }
        Some(copy)
    }

    /// Takes a frame back: into its own free list, or by queue to the worker it came from.
    #[inline]
    #[allow(clippy::needless_pass_by_value)] // by value: a frame that was given back must not be used again
    pub fn give(&mut self, frame: PoolFrame) {
        if frame.owner == self.id {
            let class = if frame.slot & LARGE_BIT == 0 { &mut self.small } else { &mut self.large };
            class.put(frame.slot);
        } else if let Some(queue) = self.returns.get(frame.owner.wrapping_sub(self.first) as usize) {
            // The queue is as long as the pool, so it always has room.
            let _ = queue.push(frame.slot);
        }
    }

    /// Takes in what other workers gave back.
    pub fn reclaim(&mut self) {
        let Some(queue) = self.returns.get((self.id - self.first) as usize) else { return };
        // As many as there are now: others may push meanwhile.
        for _ in 0..queue.len() {
            let Some(slot) = queue.pop() else { return };
            if slot & LARGE_BIT == 0 { self.small.put(slot) } else { self.large.put(slot) }
        }
    }

    /// Whether less than an eighth of either class is free: filters and backlogs should stop hoarding.
    #[must_use]
    pub const fn low(&self) -> bool {
        self.small.low() || self.large.low()
    }

    /// Buffers that are out: held by backlogs, links and filters of any worker. 0 after all work is done, or there is a
    /// leak.
    #[must_use]
    pub fn out(&self) -> usize {
        let all = (self.small.count + self.large.count) as usize;
        let back = self.returns.get((self.id - self.first) as usize).map_or(0, ArrayQueue::len);
        all - self.small.free.len() - self.large.free.len() - back
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
    fn new(base: NonNull<u8>, stride: usize, size: usize, count: u32, bit: u32) -> Self {
        // The lowest addresses come out first.
        Self { base, stride, size, count, free: (0..count).rev().map(|i| i | bit).collect() }
    }

    fn put(&mut self, slot: u32) {
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
