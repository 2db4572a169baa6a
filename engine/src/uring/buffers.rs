//! The receive buffers of one file: cut from the arena by control, shared with the kernel while the file is open.

use crate::burst::Seg;
use crate::mem::arena::{Arena, ArenaError, Part};
use crate::mem::map::page_size;
use crate::mem::pool::stagger;
use io_uring::types::BufRingEntry;
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// Receive buffers of one file. Each is in exactly one place: with the kernel, free, or received.
#[derive(Debug)]
pub struct Buffers {
    part: Part,
    stride: usize,
    size: u32,
    count: u16,
    /// The tail of the kernel's ring, when it has one.
    tail: u16,
    /// Buffers that are neither with the kernel nor received (batched mode: all that wait for a read).
    free: Vec<u16>,
    /// Frames in order of arrival: buffer and length.
    received: VecDeque<(u16, u32)>,
}

impl Buffers {
    /// `count` buffers (rounded up to a power of two, at most 1024) of `size` bytes.
    ///
    /// # Errors
    /// The arena's, when it cannot grow.
    pub fn new(arena: &Arc<Arena>, count: u16, size: usize) -> Result<Self, ArenaError> {
        let count = count.clamp(1, 1024).next_power_of_two();
        let stride = stagger(size);
        // The kernel's ring of buffers comes first: it must start on a page.
        let part = arena.take(ring_bytes(count) + stride * usize::from(count), page_size())?;
        arena.add_receiving(part.len());
        let free = (0..count).rev().collect();
        let received = VecDeque::with_capacity(usize::from(count));
        Ok(Self { part, stride, size: size as u32, count, tail: 0, free, received })
    }

    /// Buffers in all.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count as usize
    }

    /// Bytes of one buffer.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size as usize
    }

    /// Frames received and not yet recycled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.received.len()
    }

    /// Whether no frame waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// The `i`th oldest frame.
    #[inline]
    #[must_use]
    pub fn received(&self, i: usize) -> Option<Seg> {
        let &(bid, len) = self.received.get(i)?;
        // SAFETY: the buffer lies inside the part, `len` is at most its size, and it is lent until it is recycled.
        Some(unsafe { Seg::new(self.at(bid), len) })
    }

    /// Where buffer `bid` starts.
    fn at(&self, bid: u16) -> NonNull<u8> {
        debug_assert!(bid < self.count);
        // SAFETY: every buffer number kept here is below `count`, and the part holds `count` strides behind the ring.
        unsafe { self.part.ptr().add(ring_bytes(self.count) + usize::from(bid) * self.stride) }
    }

    /// A free buffer's number and address, last in first out (batched mode).
    pub(super) fn take_free(&mut self) -> Option<(u16, NonNull<u8>)> {
        let bid = self.free.pop()?;
        Some((bid, self.at(bid)))
    }

    pub(super) fn put_free(&mut self, bid: u16) {
        debug_assert!(self.free.len() < usize::from(self.count));
        self.free.push(bid);
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// A buffer holds a frame of `len` bytes now. False when the kernel named a buffer that it cannot have.
    pub(super) fn push(&mut self, bid: u16, len: u32) -> bool {
        let sound = bid < self.count && len <= self.size && self.received.len() < usize::from(self.count);
        if sound {
            self.received.push_back((bid, len));
        }
        sound
    }

    /// The oldest frame's buffer is free again.
    pub(super) fn pop(&mut self) -> Option<u16> {
        self.received.pop_front().map(|(bid, _)| bid)
    }

    /// Address of the kernel's ring of buffers.
    pub(super) fn ring(&self) -> u64 {
        self.part.ptr().as_ptr() as u64
    }

    /// Buffers with the kernel.
    pub(super) fn with_kernel(&self) -> usize {
        usize::from(self.count) - self.free.len() - self.received.len()
    }

    /// The buffers on our side, free or received.
    #[cfg(test)]
    pub(super) fn places(&self) -> impl Iterator<Item = u16> {
        self.free.iter().copied().chain(self.received.iter().map(|&(bid, _)| bid))
    }

    /// The kernel's ring starts empty, with no buffer in it.
    pub(super) fn reset_ring(&mut self) {
        self.tail = 0;
        self.publish();
    }

    /// Hands all free buffers to the kernel's ring.
    pub(super) fn provide_free(&mut self) {
        while let Some(bid) = self.free.pop() {
            self.provide(bid);
        }
        self.publish();
    }

    /// Hands the `n` oldest frames' buffers to the kernel's ring; returns how many there were.
    pub(super) fn provide_received(&mut self, n: usize) -> usize {
        let mut done = 0;
        while done < n {
            let Some(bid) = self.pop() else { break };
            self.provide(bid);
            done += 1;
        }
        if done > 0 {
            self.publish();
        }
        done
    }

    /// Hands one buffer, which came back without a frame, to the kernel's ring.
    pub(super) fn provide_again(&mut self, bid: u16) {
        if bid < self.count {
            self.provide(bid);
            self.publish();
        }
    }

    /// All buffers that were with the kernel are free: it has forgotten them.
    pub(super) fn take_back(&mut self) {
        self.free.clear();
        for bid in (0..self.count).rev() {
            if !self.received.iter().any(|&(held, _)| held == bid) {
                self.free.push(bid);
            }
        }
    }

    fn provide(&mut self, bid: u16) {
        let addr = self.at(bid).as_ptr() as u64;
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: the ring has `count` entries at the start of the part. The kernel reads entries between its head and the
        // tail; this one lies behind the tail, as at most `count` buffers exist. `tail` (in entry 0) is left alone.
        unsafe {
            let entry = &mut *self.part.ptr().cast::<BufRingEntry>().as_ptr().add(slot);
            entry.set_addr(addr);
            entry.set_len(self.size);
            entry.set_bid(bid);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the ring is at the start of the part, initialised, and its tail is a u16 that only we write.
        let tail = unsafe { &*BufRingEntry::tail(self.part.ptr().cast().as_ptr()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release); // the entries first
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        self.part.arena().sub_receiving(self.part.len());
    }
}

/// Bytes of a ring of `count` buffers, whole pages.
fn ring_bytes(count: u16) -> usize {
    (usize::from(count) * size_of::<BufRingEntry>()).next_multiple_of(page_size())
}
