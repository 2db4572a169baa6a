//! What was received and not yet taken: one run of bytes, from which frames are lent.

#![allow(unsafe_code)] // lends bytes of a part of the arena that is the buffer's own

use super::options::WHOLE;
use crate::burst::Seg;
use crate::mem::arena::{Arena, ArenaError, Part};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

/// Bytes of a buffer. Smaller: more calls, and a long frame's beginning is moved more often. Larger: the bytes leave the cache before they are
/// sent on.
const SIZE: usize = 256 << 10;
/// Bytes of a buffer where hundreds of connections are open.
const LEAN: usize = 128 << 10;
/// Bytes of all receive buffers from which new ones are lean.
const MANY: usize = 64 << 20;
/// So few bytes are moved to the front whenever more is received, so that the same memory is used again.
const FEW: usize = 4 << 10;

const _: () = assert!(
    LEAN > WHOLE + LEAN / 4,
    "what is left of a frame finds room behind a frame that is not complete"
);

/// Bytes `start..end` were received and not taken.
#[derive(Debug)]
pub(super) struct Buffer {
    part: Part,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(super) fn new(arena: &Arc<Arena>) -> Result<Self, ArenaError> {
        let size = if arena.receiving() < MANY { SIZE } else { LEAN };
        let part = arena.take(size, 4096)?;
        arena.add_receiving(part.len());
        Ok(Self { part, start: 0, end: 0 })
    }

    /// Copies the big-endian word that is `at` bytes behind the first one.
    #[inline]
    pub(super) const fn word(&self, at: usize) -> Option<u32> {
        let from = self.start + at;
        if from + 4 > self.end {
            return None;
        }
        // SAFETY: the four bytes lie inside of the part, were written by `receive`, and nobody writes while `self` is borrowed.
        let bytes = unsafe { self.part.ptr().add(from).cast::<[u8; 4]>().read() };
        Some(u32::from_be_bytes(bytes))
    }

    /// The `len` bytes that are `at` behind the first one, if all of them have come. They may be lent until [`Buffer::take`] or
    /// [`Buffer::receive`].
    #[inline]
    pub(super) const fn seg(&self, at: usize, len: usize) -> Option<Seg> {
        let from = self.start + at;
        if from + len > self.end {
            return None;
        }
        // SAFETY: the bytes lie inside of the part and were written. The buffer is not touched while a burst has them: the owner takes and receives
        // only between bursts.
        Some(unsafe { Seg::new(self.part.ptr().add(from), len as u32) })
    }

    /// The first `count` bytes are done with.
    #[inline]
    pub(super) const fn take(&mut self, count: usize) {
        self.start += count;
        if self.start >= self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Receives what fits, without waiting; how many bytes that was, 0 at the end of the stream.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        self.make_room();
        let room = self.part.len() - self.end;
        if room == 0 {
            return Err(Errno::ENOBUFS); // no frame is that long
        }
        // SAFETY: `room` bytes behind the last one are ours, and no frame is lent.
        let n = unsafe {
            let to = self.part.ptr().add(self.end);
            libc::recv(socket.as_raw_fd(), to.as_ptr().cast(), room, libc::MSG_DONTWAIT)
        };
        let n = usize::try_from(n).map_err(|_| Errno::last())?;
        self.end += n;
        Ok(n)
    }

    /// Moves what is left to the front, where that is little or there is not much room behind it.
    fn make_room(&mut self) {
        let left = self.end - self.start;
        if self.start == 0 || (left > FEW && self.part.len() - self.end >= self.part.len() / 4) {
            return;
        }
        // SAFETY: both ranges lie inside of the part (they may overlap), and no frame is lent.
        unsafe { std::ptr::copy(self.part.ptr().add(self.start).as_ptr(), self.part.ptr().as_ptr(), left) };
        (self.start, self.end) = (0, left);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.part.arena().sub_receiving(self.part.len());
    }
}
