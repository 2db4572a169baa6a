//! `sendmmsg`: its lists, made once and laid out for each burst.

#![allow(unsafe_code)] // lists of pointers for the kernel

use super::framing::Framing;
use super::inlet::Control;
use super::open::Address;
use crate::burst::{BURST, Burst, Frame, Mask, SEGMENTS, Seg};
use crate::wire::vnet_hdr::VnetHdr;
use nix::errno::Errno;
use std::os::fd::RawFd;

/// Datagrams of one message at most (`UDP_MAX_SEGMENTS` before Linux 6.9).
const RUN: usize = 64;

/// Bytes of one message of several datagrams at most: an IP packet, less the longest headers.
const RUN_BYTES: usize = 65_000;

/// Iovecs of one message at most (UIO_MAXIOV).
const MAX_IOVECS: usize = 1024;

/// Iovecs of a burst: each frame's head, and all segments.
const IOVECS: usize = BURST + SEGMENTS;

/// A message that is laid out: what it is made of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Laid {
    /// Frames in it.
    pub(super) frames: usize,
    /// Frames that they stand for.
    pub(super) weight: u64,
    /// Bytes of the frames.
    pub(super) bytes: u64,
    /// Bytes of each datagram but the last.
    pub(super) each: usize,
    /// Bytes of all datagrams.
    total: usize,
    first: usize,
    iovecs: usize,
    /// The last datagram is as long as the others, so one more may follow.
    open: bool,
}

/// The lists of one socket.
pub(super) struct Outlet {
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    controls: Box<[Control]>,
    laid: Box<[Laid]>,
    /// What stands before the frames, [`Framing::len`] bytes each.
    heads: Box<[u8]>,
    head: usize,
    /// Where everything goes; the headers name it.
    _to: Option<Box<Address>>,
}

// SAFETY: the lists point to each other, to the address and, during a call, to lent bytes; nobody else reads them.
unsafe impl Send for Outlet {}

impl Outlet {
    pub(super) fn new(to: Option<Address>, head: usize) -> Self {
        let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: a message header of zeros names nothing.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let to = to.map(Box::new);
        let mut outlet = Self {
            headers: vec![header; BURST].into(),
            iovecs: vec![none; IOVECS].into(),
            controls: vec![Control([0; 32]); BURST].into(),
            laid: vec![Laid::default(); BURST].into(),
            heads: vec![0; head * BURST].into(),
            head,
            _to: to,
        };
        for (header, control) in outlet.headers.iter_mut().zip(&mut outlet.controls) {
            if let Some(to) = &outlet._to {
                (header.msg_hdr.msg_name, header.msg_hdr.msg_namelen) = to.raw();
            }
            control.write_segment(0);
        }
        outlet
    }

    /// Lays out the selected frames as messages, up to the first that can never be one; how many frames and messages there are. Datagrams longer than
    /// `limit` are messages of their own.
    #[inline]
    pub(super) fn lay<F: Framing>(
        &mut self,
        burst: &Burst,
        mask: Mask,
        framing: &mut F,
        limit: usize,
    ) -> (usize, usize) {
        let (mut frames, mut messages, mut used) = (0, 0, 0);
        let mut now = Laid::default();
        for frame in mask.iter().filter_map(|i| burst.frames().get(i)) {
            let segs = burst.segs(frame);
            if never::<F>(frame, segs) {
                break;
            }
            let (len, parts) = (self.head + frame.len(), segs.len() + usize::from(self.head > 0));
            if !now.takes(len, parts) {
                messages += self.close(messages, &now);
                now = Laid { each: len, first: used, open: len <= limit, ..Laid::default() };
            }
            used = self.name(framing, &frame.hdr, frames, segs, now.frames > 0, used);
            now.iovecs = used - now.first;
            now.open &= len == now.each;
            now.frames += 1;
            now.weight += u64::from(frame.weight);
            now.bytes += u64::from(frame.len);
            now.total += len;
            frames += 1;
        }
        messages += self.close(messages, &now);
        (frames, messages)
    }

    /// Names a frame's bytes in the iovecs from `used` on; where they end.
    #[inline]
    fn name<F: Framing>(
        &mut self,
        framing: &mut F,
        hdr: &VnetHdr,
        number: usize,
        segs: &[Seg],
        joins: bool,
        mut used: usize,
    ) -> usize {
        if self.head > 0 {
            let from = number * self.head;
            let Some(head) = self.heads.get_mut(from..from + self.head) else { return used };
            framing.head_of(hdr, head);
            if let Some(iovec) = self.iovecs.get_mut(used) {
                *iovec = libc::iovec { iov_base: head.as_mut_ptr().cast(), iov_len: head.len() };
                used += 1;
            }
        } else if joins
            && let [seg] = segs
            && let Some(last) = used.checked_sub(1).and_then(|at| self.iovecs.get_mut(at))
            && last.iov_base.cast::<u8>().wrapping_add(last.iov_len).cast_const() == seg.ptr()
        {
            // It came in one message with the frame before, and lies behind it.
            last.iov_len += seg.len();
            return used;
        }
        for (seg, iovec) in segs.iter().zip(self.iovecs.get_mut(used..).unwrap_or_default()) {
            *iovec = libc::iovec { iov_base: seg.ptr().cast_mut().cast(), iov_len: seg.len() };
            used += 1;
        }
        used
    }

    /// Writes the header of a message, if it has something; how many messages that makes.
    #[inline]
    fn close(&mut self, at: usize, laid: &Laid) -> usize {
        let (Some(header), Some(control), Some(place)) =
            (self.headers.get_mut(at), self.controls.get_mut(at), self.laid.get_mut(at))
        else {
            return 0;
        };
        if laid.frames == 0 {
            return 0;
        }
        *place = *laid;
        let header = &mut header.msg_hdr;
        header.msg_iov = self.iovecs.as_mut_ptr().wrapping_add(laid.first);
        header.msg_iovlen = laid.iovecs as _;
        (header.msg_control, header.msg_controllen) = (std::ptr::null_mut(), 0);
        if laid.frames > 1 {
            let len = control.write_segment(laid.each as u16);
            (header.msg_control, header.msg_controllen) = (control.0.as_mut_ptr().cast(), len as _);
        }
        1
    }

    /// Gives messages `from..until` to the kernel; how many it took.
    #[inline]
    pub(super) fn send(&mut self, fd: RawFd, from: usize, until: usize) -> Result<usize, Errno> {
        let until = until.min(self.headers.len());
        let Some(list) = self.headers.get_mut(from..until) else { return Ok(0) };
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: `lay` has set these headers up: their iovecs name heads of ours and segments that are lent during the call.
        let sent = unsafe { libc::sendmmsg(fd, list.as_mut_ptr(), list.len() as u32, flags as _) };
        usize::try_from(sent).map_err(|_| Errno::last())
    }

    /// What a message is made of.
    #[inline]
    pub(super) fn laid(&self, message: usize) -> Laid {
        self.laid.get(message).copied().unwrap_or_default()
    }
}

impl Laid {
    /// Whether a datagram of `len` bytes in so many parts can be the next.
    #[inline]
    const fn takes(&self, len: usize, parts: usize) -> bool {
        self.open
            && self.frames > 0
            && len <= self.each
            && self.frames < RUN
            && self.total + len <= RUN_BYTES
            && self.iovecs + parts <= MAX_IOVECS
    }
}

impl Control {
    /// Makes it say of how many bytes each datagram is; how long that is.
    #[inline]
    fn write_segment(&mut self, each: u16) -> usize {
        let control: *mut libc::cmsghdr = self.0.as_mut_ptr().cast();
        // SAFETY: the room is larger than a header and two bytes, and aligned for it.
        unsafe {
            (*control).cmsg_len = libc::CMSG_LEN(2) as _;
            (*control).cmsg_level = libc::SOL_UDP;
            (*control).cmsg_type = libc::UDP_SEGMENT;
            libc::CMSG_DATA(control).cast::<u16>().write_unaligned(each);
            libc::CMSG_SPACE(2) as usize
        }
    }
}

/// Whether a frame can be no datagram: one without a byte would end the reception of a QEMU that gets it, and the kernel takes no more parts.
#[inline]
pub(super) fn never<F: Framing>(frame: &Frame, segs: &[Seg]) -> bool {
    frame.is_empty() || frame.len() > F::LONGEST || segs.len() >= MAX_IOVECS
}
