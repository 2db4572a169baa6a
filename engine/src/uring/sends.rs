//! A turn's sends: headers and iovecs in scratch memory of fixed size, and each send's result.
//!
//! A send is one write of a header and the frame's segments. Where both lie together already (a frame that goes on to a
//! tap as another tap gave it) it has a single iovec, and the kernel is spared the list.

use crate::burst::Seg;
use crate::wire::vnet_hdr::VnetHdr;
use nix::errno::Errno;
use std::os::fd::RawFd;
use std::ptr::NonNull;

/// Sends between two submissions. Too few: a turn of a large hub is cut into several; too many: cold memory.
const SENDS: usize = 4096;
/// Iovecs between two submissions: a header and a few segments a send.
const IOVECS: usize = 4 * SENDS;
/// Iovecs of one `writev` at most (UIO_MAXIOV).
const MAX_IOVECS: usize = 1024;
/// Iovecs that only [`Sends::write_now`] may use.
const SPARE: usize = MAX_IOVECS + 1;

/// Result not known yet.
const PENDING: i32 = i32::MIN;

/// Names a send of this turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(pub u32);

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of the frame, header excluded.
    pub len: usize,
    /// Its header.
    pub hdr: VnetHdr,
    /// Frames of the source that it stands for ([`crate::burst::Frame::weight`]).
    pub weight: u32,
    /// Bytes written, header included, or the errno; `None` before the submission.
    pub result: Option<Result<usize, Errno>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    fd: RawFd,
    first: u32,
    count: u16,
    with_hdr: bool,
    hdr: VnetHdr,
    weight: u32,
    len: u32,
    result: i32,
}

/// The scratch. Its vectors are filled to capacity once and never move: the kernel reads headers and iovecs in place.
#[derive(Debug)]
pub(super) struct Sends {
    entries: Vec<Entry>,
    headers: Box<[[u8; 16]]>,
    iovecs: Box<[libc::iovec]>,
    used: usize,
    /// Sends without result.
    pending: usize,
    /// The batched mode's next entry to write.
    next: usize,
    /// All entries have results: the next send starts a new turn.
    done: bool,
}

// SAFETY: the iovecs name memory that is lent until the submission; between turns they are stale and never read. The
// scratch moves between threads only with its worker.
unsafe impl Send for Sends {}

/// One send as the kernel takes it.
pub(super) struct Write {
    pub fd: RawFd,
    pub iovecs: *const libc::iovec,
    pub count: u16,
    /// The run of bytes, when it is only one.
    pub run: Option<libc::iovec>,
}

impl Sends {
    pub(super) fn new() -> Self {
        let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            entries: Vec::with_capacity(SENDS),
            headers: vec![[0; 16]; SENDS + 1].into(),
            iovecs: vec![none; IOVECS + SPARE].into(),
            used: 0,
            pending: 0,
            next: 0,
            done: false,
        }
    }

    /// Sends that are sure to fit, if they have up to three segments each.
    pub(super) fn room(&self) -> usize {
        if self.done {
            return SENDS;
        }
        (SENDS - self.entries.len()).min((IOVECS - self.used) / 4)
    }

    /// Lays out one send; `None` when the scratch is full.
    #[inline]
    pub(super) fn push(
        &mut self,
        fd: RawFd,
        hdr: Option<&VnetHdr>,
        weight: u32,
        segs: &[Seg],
    ) -> Option<Ticket> {
        if self.done {
            self.entries.clear();
            (self.used, self.next, self.done) = (0, 0, false);
        }
        let at = self.entries.len();
        if at >= SENDS || self.used + segs.len() >= IOVECS {
            return None;
        }
        let (count, len) = self.lay(at, hdr, segs)?;
        // More segments than one writev takes can never go.
        let result = if count > MAX_IOVECS { -libc::EMSGSIZE } else { PENDING };
        let (first, hdr_value) = (self.used as u32, hdr.copied().unwrap_or(VnetHdr::NONE));
        self.entries.push(Entry {
            fd,
            first,
            count: count as u16,
            with_hdr: hdr.is_some(),
            hdr: hdr_value,
            weight,
            len,
            result,
        });
        self.used += count;
        self.pending += usize::from(result == PENDING);
        Some(Ticket(at as u32))
    }

    /// Writes header `at` and the iovecs behind the used ones; returns their number and the frame's length.
    #[inline]
    fn lay(&mut self, at: usize, hdr: Option<&VnetHdr>, segs: &[Seg]) -> Option<(usize, u32)> {
        let mut iovecs = self.iovecs.get_mut(self.used..)?.iter_mut();
        let mut count = 0;
        if let Some(hdr) = hdr {
            let encoded = hdr.encode();
            if let Some(whole) = together(&encoded, segs) {
                *iovecs.next()? =
                    libc::iovec { iov_base: whole.ptr().cast_mut().cast(), iov_len: whole.len() };
                return Some((1, (whole.len() - VnetHdr::LEN) as u32));
            }
            let bytes = self.headers.get_mut(at)?;
            bytes[..VnetHdr::LEN].copy_from_slice(&encoded);
            *iovecs.next()? = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: VnetHdr::LEN };
            count += 1;
        }
        let mut len = 0;
        for seg in segs {
            *iovecs.next()? = libc::iovec { iov_base: seg.ptr().cast_mut().cast(), iov_len: seg.len() };
            count += 1;
            len += seg.len() as u32;
        }
        Some((count, len))
    }

    /// A send that still has to go to the kernel.
    pub(super) fn write(&self, ticket: Ticket) -> Option<Write> {
        let entry = self.entries.get(ticket.0 as usize).filter(|e| e.result == PENDING)?;
        let iovecs = self.iovecs.get(entry.first as usize..)?;
        let run = iovecs.first().copied().filter(|_| entry.count == 1);
        Some(Write { fd: entry.fd, iovecs: iovecs.as_ptr(), count: entry.count, run })
    }

    /// The kernel's word on a send.
    #[inline]
    pub(super) fn complete(&mut self, ticket: Ticket, result: i32) {
        if let Some(entry) = self.entries.get_mut(ticket.0 as usize)
            && entry.result == PENDING
        {
            entry.result = result;
            self.pending -= 1;
        }
    }

    /// No send will be performed any more: all that wait fail with `errno`.
    pub(super) fn fail(&mut self, errno: Errno) {
        for entry in self.entries.iter_mut().filter(|e| e.result == PENDING) {
            entry.result = -(errno as i32);
        }
        self.pending = 0;
    }

    /// Sends without result.
    pub(super) const fn pending(&self) -> usize {
        self.pending
    }

    /// All sends have results.
    pub(super) fn submitted(&mut self) {
        self.done = self.pending == 0;
    }

    /// No send since the last submission: nothing here names lent bytes.
    #[inline]
    pub(super) const fn is_clear(&self) -> bool {
        self.done || self.entries.is_empty()
    }

    /// Writes everything that is pending by plain system calls, in order.
    pub(super) fn write_all(&mut self) {
        while self.next < self.entries.len() {
            let ticket = Ticket(self.next as u32);
            self.next += 1;
            if let Some(write) = self.write(ticket) {
                let result = writev(write.fd, write.iovecs, write.count);
                self.complete(ticket, result);
            }
        }
    }

    pub(super) fn result(&self, ticket: Ticket) -> Option<Sent> {
        let entry = self.entries.get(ticket.0 as usize)?;
        let result = match entry.result {
            PENDING => None,
            n if n < 0 => Some(Err(Errno::from_raw(-n))),
            n => Some(Ok(n as usize)),
        };
        Some(Sent { len: entry.len as usize, hdr: entry.hdr, weight: entry.weight, result })
    }

    pub(super) fn segs(&self, ticket: Ticket, mut each: impl FnMut(Seg)) {
        let Some(entry) = self.entries.get(ticket.0 as usize) else { return };
        let from = entry.first as usize;
        let until = (from + usize::from(entry.count)).min(self.iovecs.len());
        let mut header = if entry.with_hdr { VnetHdr::LEN } else { 0 };
        for iovec in self.iovecs.get(from..until).unwrap_or_default() {
            let Some(ptr) = NonNull::new(iovec.iov_base.cast()) else { continue };
            // SAFETY: it was made from a lent segment, and the burst is given back only after the results are read.
            let run = unsafe { Seg::new(ptr, iovec.iov_len as u32) };
            let part = run.slice(header, run.len());
            header -= run.len() - part.len();
            if !part.is_empty() {
                each(part);
            }
        }
    }

    /// Writes one frame at once, outside of the turn's sends.
    pub(super) fn write_now(
        &mut self,
        fd: RawFd,
        hdr: Option<&VnetHdr>,
        segs: &[Seg],
    ) -> Result<usize, Errno> {
        // A header of its own, and the iovecs behind the used ones for the moment of the call.
        let (count, _) = self.lay(SENDS, hdr, segs).ok_or(Errno::EMSGSIZE)?;
        if count > MAX_IOVECS {
            return Err(Errno::EMSGSIZE);
        }
        let iovecs = self.iovecs.get(self.used..).ok_or(Errno::EMSGSIZE)?.as_ptr();
        let n = writev(fd, iovecs, count as u16);
        usize::try_from(n).map_err(|_| Errno::from_raw(-n))
    }
}

/// The header and the only segment as one run, if they lie so.
#[inline]
fn together(hdr: &[u8; VnetHdr::LEN], segs: &[Seg]) -> Option<Seg> {
    let [seg] = segs else { return None };
    let whole = seg.with_front(VnetHdr::LEN)?;
    let mut there = [0; VnetHdr::LEN];
    whole.copy_to(0, &mut there);
    (there == *hdr).then_some(whole)
}

/// `writev`, with the negative errno as the kernel's rings have it.
fn writev(fd: RawFd, iovecs: *const libc::iovec, count: u16) -> i32 {
    loop {
        // SAFETY: the iovecs lie in the scratch, and the segments that they name are lent until the turn's results are read.
        let n = unsafe { libc::writev(fd, iovecs, i32::from(count)) };
        if n >= 0 {
            return n as i32;
        }
        let errno = Errno::last_raw();
        if errno != libc::EINTR {
            return -errno;
        }
    }
}
