//! The receive buffers of one socket: cut from the arena by control.

#![allow(unsafe_code)] // lends parts of them

use crate::burst::Seg;
use crate::mem::arena::{Arena, ArenaError, Part};
use crate::mem::pool::{LARGE, stagger};
use std::ptr::NonNull;
use std::sync::Arc;

/// Buffers, each of which holds one message of the kernel's.
#[derive(Debug)]
pub(super) struct Buffers {
    part: Part,
    /// Those that nobody uses, last in first out.
    free: Vec<u16>,
    /// What each holds that is still wanted: frames that wait, and one more while it is not all taken apart.
    uses: Box<[u16]>,
}

impl Buffers {
    /// Bytes of one: any frame with its header.
    pub(super) const SIZE: usize = LARGE;
    const STRIDE: usize = stagger(Self::SIZE);

    /// As many as the arena's use so far allows: a full `recvmmsg` while few sockets are open.
    pub(super) fn new(arena: &Arc<Arena>) -> Result<Self, ArenaError> {
        const MANY: usize = 64 << 20;
        let count: u16 = match arena.receiving() {
            n if n < MANY => 64,
            n if n < 2 * MANY => 16,
            _ => 8,
        };
        let part = arena.take(usize::from(count) * Self::STRIDE, 64)?;
        arena.add_receiving(part.len());
        Ok(Self { part, free: (0..count).rev().collect(), uses: vec![0; usize::from(count)].into() })
    }

    /// How many nobody uses.
    #[inline]
    pub(super) const fn free(&self) -> usize {
        self.free.len()
    }

    /// Where the `i`th free buffer begins, from the one that is used next.
    #[inline]
    pub(super) fn next(&self, i: usize) -> Option<NonNull<u8>> {
        let &buffer = self.free.get(self.free.len().checked_sub(i + 1)?)?;
        Some(self.at(buffer))
    }

    /// The kernel has filled the next free buffer.
    #[inline]
    pub(super) fn take(&mut self) -> Option<u16> {
        let buffer = self.free.pop()?;
        self.hold(buffer);
        Some(buffer)
    }

    /// One more thing in the buffer is wanted.
    #[inline]
    pub(super) fn hold(&mut self, buffer: u16) {
        if let Some(uses) = self.uses.get_mut(usize::from(buffer)) {
            *uses += 1;
        }
    }

    /// One thing less; the last one frees it.
    #[inline]
    pub(super) fn release(&mut self, buffer: u16) {
        if let Some(uses) = self.uses.get_mut(usize::from(buffer)) {
            *uses = uses.saturating_sub(1);
            if *uses == 0 {
                self.free.push(buffer);
            }
        }
    }

    /// `len` bytes of a buffer from `at` on, as far as it has them.
    #[inline]
    pub(super) fn seg(&self, buffer: u16, at: u32, len: u32) -> Seg {
        let at = at.min(Self::SIZE as u32);
        let len = len.min(Self::SIZE as u32 - at);
        // SAFETY: inside of the buffer, which is in use and so neither free nor the kernel's until it is released.
        unsafe { Seg::new(self.at(buffer).add(at as usize), len) }
    }

    fn at(&self, buffer: u16) -> NonNull<u8> {
        let buffer = usize::from(buffer).min(self.uses.len().saturating_sub(1));
        // SAFETY: below the number of buffers, and the part holds that many strides.
        unsafe { self.part.ptr().add(buffer * Self::STRIDE) }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        self.part.arena().sub_receiving(self.part.len());
    }
}
