//! Many frames laid out for one `sendmsg`: lengths and small frames side by side in memory of our own, large frames named where they lie.

#![allow(unsafe_code)] // iovecs name lent bytes

use super::options::WORD;
use crate::burst::{BURST, Burst, Frame, Seg};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Frames of so many bytes are copied: an entry in the kernel's list costs more.
const SMALL: usize = 256;
/// Entries of one message at most (UIO_MAXIOV).
const IOVECS: usize = 1024;

const NOTHING: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// The scratch. It is allocated once; what it names is stale after the burst, and is not read then.
#[derive(Debug)]
pub(super) struct Message {
    bytes: Box<[u8]>,
    used: usize,
    iovecs: Box<[libc::iovec]>,
    count: usize,
    /// The last entry ends where the next byte of `bytes` goes.
    open: bool,
    /// Bytes of the message at the end of each frame.
    ends: [usize; BURST],
    frames: usize,
    len: usize,
}

// SAFETY: the entries name memory that is lent during one call of `tx`; between those they are never read.
unsafe impl Send for Message {}

impl Message {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; BURST * (WORD + SMALL)].into(),
            used: 0,
            iovecs: vec![NOTHING; IOVECS].into(),
            count: 0,
            open: false,
            ends: [0; BURST],
            frames: 0,
            len: 0,
        }
    }

    pub(super) const fn clear(&mut self) {
        (self.used, self.count, self.open, self.frames, self.len) = (0, 0, false, 0, 0);
    }

    /// Bytes of all frames.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Where the `i`th frame ends.
    pub(super) fn end(&self, i: usize) -> Option<usize> {
        self.ends.get(..self.frames)?.get(i).copied()
    }

    /// Appends a frame; false, with nothing done, where it does not fit.
    #[inline]
    pub(super) fn push(&mut self, burst: &Burst, frame: &Frame) -> bool {
        let (segs, len) = (burst.segs(frame), frame.len());
        let (copied, named) = if len <= SMALL { (WORD + len, 0) } else { (WORD, segs.len()) };
        let (Some(end), Some(to)) =
            (self.ends.get_mut(self.frames), self.bytes.get_mut(self.used..self.used + copied))
        else {
            return false;
        };
        if self.count + 1 + named > self.iovecs.len() {
            return false;
        }
        self.len += WORD + len;
        *end = self.len;
        self.frames += 1;
        let (word, mut rest) = to.split_at_mut(WORD);
        word.copy_from_slice(&(len as u32).to_be_bytes());
        if named == 0 {
            for seg in segs {
                let n = seg.copy_to(0, rest);
                rest = rest.get_mut(n..).unwrap_or_default();
            }
        }
        let base = to.as_mut_ptr();
        self.used += copied;
        match self.iovecs.get_mut(self.count.wrapping_sub(1)).filter(|_| self.open) {
            Some(last) => last.iov_len += copied,
            None => self.name(base, copied),
        }
        self.open = true;
        if named > 0 {
            segs.iter().for_each(|seg| self.name(seg.ptr().cast_mut(), seg.len()));
            self.open = false;
        }
        true
    }

    /// A frame that takes no byte of the message: it is only counted.
    pub(super) fn skip(&mut self) -> bool {
        let Some(end) = self.ends.get_mut(self.frames) else { return false };
        *end = self.len;
        self.frames += 1;
        true
    }

    #[inline]
    fn name(&mut self, base: *mut u8, len: usize) {
        if let Some(place) = self.iovecs.get_mut(self.count) {
            *place = libc::iovec { iov_base: base.cast(), iov_len: len };
            self.count += 1;
        }
    }

    /// Sends what the socket takes, without waiting; how many bytes that was.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        // SAFETY: all members are integers or pointers, for which zero is a value.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = self.iovecs.as_mut_ptr();
        header.msg_iovlen = self.count;
        // SAFETY: `count` entries are filled, each with bytes of ours or bytes that are lent during this call.
        let n = unsafe {
            libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        };
        usize::try_from(n).map_err(|_| Errno::last())
    }

    /// Copies the bytes of the message from `from` on; how many there were.
    pub(super) fn copy(&self, mut from: usize, to: &mut [u8]) -> usize {
        let mut done = 0;
        for entry in self.iovecs.iter().take(self.count) {
            if from >= entry.iov_len {
                from -= entry.iov_len;
                continue;
            }
            let Some(base) = std::ptr::NonNull::new(entry.iov_base.cast::<u8>()) else { continue };
            // SAFETY: as in `send`: the entry's bytes are readable during this call.
            let seg = unsafe { Seg::new(base, entry.iov_len as u32) };
            done += seg.copy_to(from, to.get_mut(done..).unwrap_or_default());
            from = 0;
        }
        done
    }
}
