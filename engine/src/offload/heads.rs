//! The arena of rewritten frame heads: bytes that the offload stage makes itself, lent like any others.

#![allow(unsafe_code)] // owns the memory that its segments name

use crate::burst::Seg;
use crate::wire::headers::MAX_HEADERS;
use std::ptr::NonNull;

/// A cache line; heads start on one, so that two of them share none.
#[derive(Clone, Copy)]
#[repr(align(64))]
#[expect(dead_code, reason = "only its size and alignment count; it is written through raw pointers")]
struct Line([u8; LINE]);

const LINE: usize = 64;

/// Heads that are filled from the start and forgotten together.
#[derive(Debug)]
pub(super) struct Heads {
    /// From a boxed slice of `lines` lines; a raw pointer, since lent segments point into it while others are written.
    memory: NonNull<Line>,
    lines: usize,
    used: usize,
}

// SAFETY: the memory is owned by this value alone; segments that name it live no longer than the worker's turn.
unsafe impl Send for Heads {}

impl Heads {
    /// An arena of `bytes` bytes; allocates them here, once.
    pub(super) fn new(bytes: usize) -> Self {
        let lines = bytes / LINE;
        let memory = vec![Line([0; LINE]); lines].into_boxed_slice();
        let memory = NonNull::new(Box::into_raw(memory).cast()).unwrap_or(NonNull::dangling());
        Self { memory, lines, used: 0 }
    }

    /// Whether `count` heads of `len` bytes fit.
    pub(super) const fn has_room(&self, count: usize, len: usize) -> bool {
        count * len.div_ceil(LINE) <= self.lines - self.used
    }

    /// Copies a head in; `None` when it does not fit. The segment is valid until [`Heads::reset`].
    pub(super) fn push(&mut self, head: &[u8]) -> Option<Seg> {
        if head.len() > MAX_HEADERS { None } else { self.lend(head) }
    }

    /// As [`Heads::push`], of one or more heads side by side.
    pub(super) fn lend(&mut self, head: &[u8]) -> Option<Seg> {
        if !self.has_room(1, head.len()) {
            return None;
        }
        // SAFETY: `used <= lines`, so the sum stays inside (or one past the end of) the allocation.
        let to = unsafe { self.memory.add(self.used) }.cast::<u8>();
        // SAFETY: `has_room` says that `head.len()` bytes from `to` on lie inside the allocation and behind every head
        // that is lent; `head` is a reference and cannot overlap them, since none is ever made into this memory.
        unsafe { std::ptr::copy_nonoverlapping(head.as_ptr(), to.as_ptr(), head.len()) };
        self.used += head.len().div_ceil(LINE);
        // SAFETY: just written, and not written again before `reset`, whose caller has given the burst back.
        Some(unsafe { Seg::new(to, head.len() as u32) })
    }

    /// Forgets all heads; nobody may still read a segment of them.
    pub(super) const fn reset(&mut self) {
        self.used = 0;
    }
}

impl Drop for Heads {
    fn drop(&mut self) {
        let memory = std::ptr::slice_from_raw_parts_mut(self.memory.as_ptr(), self.lines);
        // SAFETY: pointer and length are those of the boxed slice that `new` took apart.
        drop(unsafe { Box::from_raw(memory) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_keep_their_bytes_until_reset() {
        let mut heads = Heads::new(256);
        assert!(
            heads.has_room(2, 128)
                && heads.has_room(4, 1)
                && !heads.has_room(5, 1)
                && !heads.has_room(2, 129)
        );
        let a = heads.push(&[1; 65]).unwrap();
        let b = heads.push(&[2; 64]).unwrap();
        assert!(heads.push(&[3; 65]).is_none());
        let mut out = [0; 128];
        assert_eq!((a.copy_to(0, &mut out), out[64], out[65]), (65, 1, 0));
        assert_eq!((b.copy_to(0, &mut out), out[0], out[63]), (64, 2, 2));
        heads.reset();
        assert!(heads.has_room(4, 64));
    }

    #[test]
    fn a_head_longer_than_a_slot_is_refused() {
        assert!(Heads::new(4096).push(&[0; MAX_HEADERS + 1]).is_none());
    }
}
