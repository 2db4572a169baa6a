//! Messages of the frames' socket, many a call.

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, sendmsg};
use std::io::IoSlice;
use std::os::fd::RawFd;
use usernet::protocol::LONGEST;

/// Messages a call.
const BURST: usize = 64;

/// Sends one, its parts where they lie.
pub(crate) fn send(socket: RawFd, header: &[u8], parts: &[&[u8]]) -> Result<(), Errno> {
    let mut slices = [IoSlice::new(&[]); 4];
    slices[0] = IoSlice::new(header);
    let count = parts.len().min(3);
    for (slice, part) in slices[1..].iter_mut().zip(parts) {
        *slice = IoSlice::new(part);
    }
    sendmsg::<()>(socket, &slices[..=count], &[], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL, None)
        .map(drop)
}

/// Sends those of `bytes` that end at `ends[from..]`; tells how many went.
pub(crate) fn send_many(socket: RawFd, bytes: &[u8], ends: &[usize], from: usize) -> Result<usize, Errno> {
    let mut slices = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BURST];
    // SAFETY: all zeros is a message header that names nothing.
    let mut headers: [libc::mmsghdr; BURST] = unsafe { std::mem::zeroed() };
    let mut start = from.checked_sub(1).and_then(|last| ends.get(last)).copied().unwrap_or_default();
    let mut count = 0;
    for ((slice, header), &end) in
        slices.iter_mut().zip(&mut headers).zip(ends.get(from..).unwrap_or_default())
    {
        let part = bytes.get(start..end).unwrap_or_default();
        *slice = libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() };
        header.msg_hdr.msg_iov = slice;
        header.msg_hdr.msg_iovlen = 1;
        start = end;
        count += 1;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `count` headers name one slice each, and those name bytes that live longer than the call, which only reads them.
    let sent = unsafe { libc::sendmmsg(socket, headers.as_mut_ptr(), count, flags) };
    usize::try_from(sent).map_err(|_| Errno::last())
}

/// Buffers for a burst.
#[derive(Debug)]
pub(crate) struct Burst {
    bytes: Vec<u8>,
    lengths: [usize; BURST],
}

impl Burst {
    pub(crate) fn new() -> Burst {
        Burst { bytes: vec![0; LONGEST * BURST], lengths: [0; BURST] }
    }

    /// Receives some; none with `Ok(0)` when the daemon has closed the socket.
    pub(crate) fn receive(&mut self, socket: RawFd) -> Result<usize, Errno> {
        let mut slices = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BURST];
        // SAFETY: all zeros is a message header that names nothing.
        let mut headers: [libc::mmsghdr; BURST] = unsafe { std::mem::zeroed() };
        for ((slice, header), buffer) in
            slices.iter_mut().zip(&mut headers).zip(self.bytes.chunks_exact_mut(LONGEST))
        {
            *slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: LONGEST };
            header.msg_hdr.msg_iov = slice;
            header.msg_hdr.msg_iovlen = 1;
        }
        let count = u32::try_from(BURST).unwrap_or(1);
        // SAFETY: each header names one slice, each slice a buffer of its own that lives longer than the call.
        let got = unsafe {
            libc::recvmmsg(socket, headers.as_mut_ptr(), count, libc::MSG_DONTWAIT, std::ptr::null_mut())
        };
        let got = usize::try_from(got).map_err(|_| Errno::last())?;
        let mut ended = false;
        for (length, header) in self.lengths.iter_mut().zip(&headers).take(got) {
            // One that is longer than any may be is none; an empty one is the end.
            let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            ended |= header.msg_len == 0;
            *length = if whole { header.msg_len as usize } else { 0 };
        }
        Ok(if ended && got == 1 { 0 } else { got })
    }

    /// One of those that were received.
    pub(crate) fn message(&mut self, at: usize) -> &mut [u8] {
        let length = self.lengths.get(at).copied().unwrap_or_default();
        let start = at * LONGEST;
        self.bytes.get_mut(start..start + length).unwrap_or_default()
    }
}
