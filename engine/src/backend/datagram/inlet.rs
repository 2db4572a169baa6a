//! `recvmmsg`: its lists, made once, and what the kernel wrote into them.

#![allow(unsafe_code)] // lists of pointers for the kernel

use super::buffers::Buffers;
use nix::errno::Errno;
use std::os::fd::RawFd;

/// Messages of one call at most.
pub(super) const MESSAGES: usize = 64;

/// Room for one control message with an `int`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control(pub(super) [u8; 32]);

/// A message that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) len: u32,
    /// Bytes of each datagram in it but the last, which may be shorter.
    pub(super) each: u32,
    /// It did not fit.
    pub(super) cut: bool,
}

/// The lists of one socket.
pub(super) struct Inlet {
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    controls: Box<[Control]>,
    /// Messages may hold several datagrams, and say so.
    gro: bool,
}

// SAFETY: the lists point to each other and, during a call, to buffers of the same owner; nobody else reads them.
unsafe impl Send for Inlet {}

impl Inlet {
    pub(super) fn new(gro: bool) -> Self {
        let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: a message header of zeros names nothing.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let mut inlet = Self {
            headers: vec![header; MESSAGES].into(),
            iovecs: vec![none; MESSAGES].into(),
            controls: vec![Control([0; 32]); MESSAGES].into(),
            gro,
        };
        let lists = inlet.headers.iter_mut().zip(&mut inlet.iovecs).zip(&mut inlet.controls);
        for ((header, iovec), control) in lists {
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            if gro {
                header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            }
        }
        inlet
    }

    /// Receives at most `want` messages into the next free buffers; how many there were.
    #[inline]
    pub(super) fn receive(&mut self, fd: RawFd, buffers: &Buffers, want: usize) -> Result<usize, Errno> {
        let mut n = 0;
        for (header, iovec) in self.headers.iter_mut().zip(&mut self.iovecs).take(want) {
            let Some(buffer) = buffers.next(n) else { break };
            *iovec = libc::iovec { iov_base: buffer.as_ptr().cast(), iov_len: Buffers::SIZE };
            header.msg_hdr.msg_controllen = if self.gro { size_of::<Control>() as _ } else { 0 };
            n += 1;
        }
        let (list, flags) = (self.headers.as_mut_ptr(), libc::MSG_DONTWAIT);
        // SAFETY: `n` headers are set up, each with one iovec of a free buffer and room for control messages that lives as long as this.
        let got = unsafe { libc::recvmmsg(fd, list, n as u32, flags as _, std::ptr::null_mut()) };
        usize::try_from(got).map_err(|_| Errno::last())
    }

    /// The `i`th message of the last call.
    #[inline]
    pub(super) fn arrived(&self, i: usize) -> Option<Arrived> {
        let header = self.headers.get(i)?;
        let len = header.msg_len.min(Buffers::SIZE as u32);
        let cut = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        let each = if self.gro { segment(&header.msg_hdr).unwrap_or(len) } else { len };
        Some(Arrived { len, each: each.max(1), cut })
    }
}

/// Bytes of each datagram of a message that holds several.
fn segment(header: &libc::msghdr) -> Option<u32> {
    // SAFETY: the kernel has written the header's control messages and their length; these calls stay inside of that.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while let Some(control) = at.as_ref() {
            if control.cmsg_level == libc::SOL_UDP && control.cmsg_type == libc::UDP_GRO {
                let size = libc::CMSG_DATA(at).cast::<i32>().read_unaligned();
                return u32::try_from(size).ok().filter(|size| *size > 0);
            }
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
    None
}
