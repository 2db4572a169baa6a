//! Sockets that only send, one of which each flow has: those who receive, and paths of equal cost, tell flows of a tunnel apart by the source port only.

#![allow(unsafe_code)] // an ioctl

use crate::burst::{Burst, Frame, Mask};
use crate::wire::flow::{SEEN, flow};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// What the kernel counts for a datagram beside its bytes, at most: a buffer's own structure, headers, what allocation adds.
const OVERHEAD: usize = 2048;

/// The sockets.
#[derive(Debug)]
pub(super) struct Spread {
    sockets: Box<[Socket]>,
}

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    /// Bytes on their way at which the kernel takes no more.
    room: usize,
    /// Frames of the burst that go here.
    part: Mask,
}

impl Spread {
    /// Over sockets that nobody reads.
    pub(super) fn new(sockets: Vec<OwnedFd>) -> Self {
        let socket = |fd: OwnedFd| {
            let _ = setsockopt(&fd, sockopt::RcvBuf, &0);
            let room = getsockopt(&fd, sockopt::SndBuf).unwrap_or(0);
            Socket { fd, room, part: Mask::NONE }
        };
        Self { sockets: sockets.into_iter().map(socket).collect() }
    }

    /// Parts the selected frames by flow; how many sockets have some.
    #[inline]
    pub(super) fn part(&mut self, burst: &Burst, mask: Mask) -> usize {
        self.sockets.iter_mut().for_each(|socket| socket.part = Mask::NONE);
        for i in mask.iter() {
            let Some(frame) = burst.frames().get(i) else { continue };
            let at = self.of(burst, frame);
            if let Some(socket) = self.sockets.get_mut(at) {
                socket.part.0 |= 1 << i;
            }
        }
        self.sockets.iter().filter(|socket| !socket.part.is_empty()).count()
    }

    #[inline]
    fn of(&self, burst: &Burst, frame: &Frame) -> usize {
        let mut front = [0; SEEN];
        let n = burst.copy_out(frame, 0, &mut front);
        flow(front.get(..n).unwrap_or_default()) as usize % self.sockets.len().max(1)
    }

    /// The part of socket `at`, and its file.
    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<(RawFd, Mask)> {
        self.sockets.get(at).map(|socket| (socket.fd.as_raw_fd(), socket.part))
    }

    /// The frames at the front of `left` that go by one socket, and its file.
    pub(super) fn run(&self, left: Mask) -> Option<(RawFd, Mask)> {
        let first = left.iter().next()?;
        let socket = self.sockets.iter().find(|socket| socket.part.has(first))?;
        let others = left.0 & !socket.part.0;
        let run = Mask::first(others.trailing_zeros() as usize).0 & left.0;
        Some((socket.fd.as_raw_fd(), Mask(run)))
    }

    /// Whether each socket takes its part for sure: else some flow would have to wait while others, behind it in the burst, are gone.
    pub(super) fn holds(&self, burst: &Burst) -> bool {
        self.sockets.iter().filter(|socket| !socket.part.is_empty()).all(|socket| {
            let need = |i| burst.frames().get(i).map_or(0, |frame: &Frame| 2 * frame.len() + OVERHEAD);
            let need: usize = socket.part.iter().map(need).sum();
            under_way(socket.fd.as_raw_fd()).is_some_and(|bytes| bytes + need <= socket.room)
        })
    }
}

/// Bytes that a socket has sent and that are still on their way out of this host (`SIOCOUTQ`, which is `TIOCOUTQ`).
fn under_way(fd: RawFd) -> Option<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes one integer, a local.
    let done = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    if done == 0 { usize::try_from(bytes).ok() } else { None }
}
