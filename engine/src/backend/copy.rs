//! The one copy: lent bytes into a guest's buffers.

#![allow(unsafe_code)] // raw copies between checked ranges

use crate::burst::{Head, Seg};

/// Sixteen bytes that are loaded and stored at once (an array would pass through the stack).
#[cfg(target_arch = "x86_64")]
type Wide = core::arch::x86_64::__m128i;
/// Sixteen bytes that are loaded and stored at once.
#[cfg(not(target_arch = "x86_64"))]
type Wide = u128;

/// Copies `len` bytes from `from` to `to`. Short runs are copied by a few wide loads and stores that may overlap, since a call of
/// `memcpy` costs more than the copy (measured: 64 bytes, 4 ns less a frame).
///
/// # Safety
/// Both ranges must be mapped for the whole call, and must not overlap.
#[inline]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: every access lies inside of the two ranges: offsets are at most len - 16 where len >= 16.
    unsafe {
        let load = |at: usize| from.add(at).cast::<Wide>().read_unaligned();
        let store = |at: usize, v: Wide| to.add(at).cast::<Wide>().write_unaligned(v);
        match len {
            0..16 => std::ptr::copy_nonoverlapping(from, to, len),
            16..=32 => {
                let (a, b) = (load(0), load(len - 16));
                store(0, a);
                store(len - 16, b);
            }
            33..=64 => {
                let (a, b, c, d) = (load(0), load(16), load(len - 32), load(len - 16));
                store(0, a);
                store(16, b);
                store(len - 32, c);
                store(len - 16, d);
            }
            65..=128 => {
                let (a, b, c, d) = (load(0), load(16), load(32), load(48));
                let (e, f, g, h) = (load(len - 64), load(len - 48), load(len - 32), load(len - 16));
                store(0, a);
                store(16, b);
                store(32, c);
                store(48, d);
                store(len - 64, e);
                store(len - 48, f);
                store(len - 32, g);
                store(len - 16, h);
            }
            _ => std::ptr::copy_nonoverlapping(from, to, len),
        }
    }
}

/// As [`copy`] of at least 16 bytes, but that those of `head` go in front of what is copied behind them. The bytes in their place may be
/// copied first: what is written is nobody's frame before its buffer is given.
///
/// # Safety
/// As [`copy`]; both ranges must have at least 16 bytes.
#[inline]
pub(super) unsafe fn copy_headed(head: &Head, from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: every access lies inside of the two ranges: offsets are at most len - 16 where len >= 33.
    unsafe {
        let first = head.as_ptr().cast::<Wide>().read_unaligned();
        if (33..=64).contains(&len) {
            let load = |at: usize| from.add(at).cast::<Wide>().read_unaligned();
            let store = |at: usize, v: Wide| to.add(at).cast::<Wide>().write_unaligned(v);
            let (b, c, d) = (load(16), load(len - 32), load(len - 16));
            store(16, b);
            store(len - 32, c);
            store(len - 16, d);
        } else {
            copy(from, to, len);
        }
        // Last, since the others may reach into its place.
        to.cast::<Wide>().write_unaligned(first);
    }
}

/// Where bytes go: the writable segments of one or more chains, filled in order.
pub(super) struct Writer<'s> {
    segs: &'s [Seg],
    /// Bytes of the first segment that are filled.
    at: usize,
    /// Bytes written.
    pub(super) written: usize,
}

impl<'s> Writer<'s> {
    pub(super) const fn new(segs: &'s [Seg]) -> Self {
        Self { segs, at: 0, written: 0 }
    }

    /// Copies as much of `from` as fits; returns how much that was.
    ///
    /// # Safety
    /// The segments must be writable, and `from` must not overlap them.
    pub(super) unsafe fn put(&mut self, from: *const u8, len: usize) -> usize {
        let mut done = 0;
        while done < len {
            let Some(seg) = self.segs.first() else { break };
            let n = (seg.len() - self.at).min(len - done);
            // SAFETY: by the caller; inside of the segment and of `from..from+len`.
            unsafe { copy(from.add(done), seg.ptr().cast_mut().add(self.at), n) };
            done += n;
            self.at += n;
            if self.at == seg.len() {
                self.segs = &self.segs[1..];
                self.at = 0;
            }
        }
        self.written += done;
        done
    }
}
