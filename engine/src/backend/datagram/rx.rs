//! Receiving: frames are lent where the kernel put them.

use super::Shared;
use super::buffers::Buffers;
use super::framing::{Framing, SEEN};
use super::inlet::{Arrived, Inlet, MESSAGES};
use crate::burst::{BURST, Burst, Seg};
use crate::port::counters::DropReason;
use crate::port::{RxQueue, Source, Turn};
use crate::wire::vnet_hdr::VnetHdr;
use nix::errno::Errno;
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

/// Errors of earlier datagrams of ours that one look takes in: each is told once.
const ERRORS: usize = 4;

/// A message that is not taken apart yet: datagrams of `each` bytes from `at` on.
#[derive(Debug, Clone, Copy)]
struct Message {
    buffer: u16,
    at: u32,
    len: u32,
    each: u32,
    /// Payload of the segments of the large frame that it holds, as far as that was told.
    segment: u32,
    /// It is none, or did not fit.
    bad: Option<DropReason>,
}

/// A frame that waits to be taken.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    hdr: VnetHdr,
    buffer: u16,
    at: u32,
    len: u32,
}

/// The receiving half.
pub(super) struct DatagramRx<F> {
    shared: Arc<Shared>,
    framing: F,
    buffers: Buffers,
    inlet: Inlet,
    messages: VecDeque<Message>,
    frames: VecDeque<Waiting>,
    /// Datagrams of a message, as it was last.
    usual: usize,
    lent: usize,
    /// The socket may have more.
    more: bool,
    drops: [u64; DropReason::ALL.len()],
    dropped: bool,
    trouble: i32,
    /// The other end has closed the connection.
    ended: bool,
}

impl<F: Framing> DatagramRx<F> {
    pub(super) fn new(shared: Arc<Shared>, framing: F, buffers: Buffers, gro: bool) -> Self {
        Self {
            shared,
            framing,
            buffers,
            inlet: Inlet::new(gro),
            messages: VecDeque::with_capacity(MESSAGES),
            frames: VecDeque::with_capacity(BURST),
            usual: 1,
            lent: 0,
            more: false,
            drops: [0; DropReason::ALL.len()],
            dropped: false,
            trouble: 0,
            ended: false,
        }
    }

    fn drop_one(&mut self, reason: DropReason) {
        if let Some(count) = self.drops.get_mut(reason as usize) {
            *count += 1;
            self.dropped = true;
        }
    }

    /// Asks the kernel for messages that hold `frames` frames, if they are as those before.
    #[inline]
    fn receive(&mut self, frames: usize) {
        let want = frames.div_ceil(self.usual).min(self.buffers.free()).min(MESSAGES);
        // Without a free buffer there is more for sure, in the messages that have them.
        self.more = !self.ended;
        if want == 0 || self.ended {
            return;
        }
        for _ in 0..ERRORS {
            match self.inlet.receive(self.shared.fd.as_raw_fd(), &self.buffers, want) {
                Ok(n) => {
                    self.trouble = 0;
                    return self.arrived(n);
                }
                Err(Errno::EAGAIN) => break,
                // What became of a datagram of ours says nothing of those that arrive.
                Err(Errno::EINTR) => {}
                Err(errno) if is_answer(errno) => {}
                Err(errno) => {
                    self.trouble = errno as i32;
                    break;
                }
            }
        }
        self.more = false;
    }

    /// Takes in `n` messages.
    #[inline]
    fn arrived(&mut self, n: usize) {
        let mut datagrams = 0;
        for i in 0..n {
            let Some(Arrived { len, each, cut }) = self.inlet.arrived(i) else { return };
            if F::ENDS && len == 0 {
                (self.ended, self.more, self.trouble) = (true, false, libc::EPIPE);
                break;
            }
            let Some(buffer) = self.buffers.take() else { return };
            datagrams += len.div_ceil(each) as usize;
            // What is bad keeps its buffer until it is taken apart: the next message lies in the next buffer.
            let bad = if cut {
                Some(DropReason::Truncated)
            } else if len == 0 {
                Some(DropReason::Malformed)
            } else {
                None
            };
            let one = F::OFFLOADS && each < len && bad.is_none() && self.is_one(buffer, each, len);
            let (each, segment) = if one { (len, each) } else { (each, 0) };
            self.messages.push_back(Message { buffer, at: 0, len, each, segment, bad });
        }
        self.usual = (datagrams / n.max(1)).max(1);
    }

    /// Takes messages apart until `want` frames wait.
    #[inline]
    fn part(&mut self, want: usize) {
        while self.frames.len() < want {
            let Some(message) = self.messages.front_mut() else { return };
            let Message { buffer, at, len, each, segment, bad } = *message;
            if let Some(reason) = bad {
                self.messages.pop_front();
                self.buffers.release(buffer);
                self.drop_one(reason);
                continue;
            }
            let total = each.min(len - at);
            message.at += total;
            let last = message.at >= len;
            match self.strip(buffer, at, total, segment) {
                Ok((skip, hdr)) => {
                    self.buffers.hold(buffer);
                    self.frames.push_back(Waiting { hdr, buffer, at: at + skip, len: total - skip });
                }
                Err(reason) => self.drop_one(reason),
            }
            if last {
                self.messages.pop_front();
                self.buffers.release(buffer);
            }
        }
    }

    /// As [`Framing::is_one`], of what lies in a buffer.
    #[inline]
    fn is_one(&self, buffer: u16, each: u32, total: u32) -> bool {
        let mut front = [0; SEEN];
        let n = self.buffers.seg(buffer, 0, total).copy_to(0, &mut front);
        self.framing.is_one(front.get(..n).unwrap_or_default(), each as usize, total as usize)
    }

    /// Copies a datagram's first bytes; how many there are.
    #[inline]
    fn front(datagram: Seg, to: &mut [u8; SEEN]) -> usize {
        // Of a length that is known, a copy is a few instructions.
        if datagram.copy_first(to) { SEEN } else { datagram.copy_to(0, to) }
    }

    /// Bytes in front of the frame of a datagram, and what is left to do to the frame.
    #[inline]
    fn strip(
        &mut self,
        buffer: u16,
        at: u32,
        total: u32,
        segment: u32,
    ) -> Result<(u32, VnetHdr), DropReason> {
        if F::BARE {
            return Ok((0, VnetHdr::NONE));
        }
        let mut front = [0; SEEN];
        let n = Self::front(self.buffers.seg(buffer, at, total), &mut front);
        let (front, total) = (front.get(..n).unwrap_or_default(), total as usize);
        let skip = self.framing.strip(front, total)?;
        if skip >= total {
            return Err(DropReason::Malformed);
        }
        let hdr = match front.get(skip..) {
            Some(front) if F::OFFLOADS => self.framing.offload(front, total - skip, segment as usize),
            _ => VnetHdr::NONE,
        };
        Ok((skip as u32, hdr))
    }
}

/// An error that is the network's, or the receiver's, answer to a datagram that was sent (ip(7), unix(7)).
pub(super) const fn is_answer(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ECONNREFUSED
            | Errno::ECONNRESET
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::ENETDOWN
            | Errno::ENOPROTOOPT
            | Errno::EPROTO
            | Errno::ENONET
            | Errno::ENOENT
    )
}

impl<F: Framing> RxQueue for DatagramRx<F> {
    fn start(&mut self, turn: &mut Turn<'_>) {
        match turn.io.watch(self.shared.fd.as_fd()) {
            Ok(id) => self.shared.file.set(Some(id)),
            Err(error) => self.trouble = error.errno() as i32,
        }
    }

    fn rx(&mut self, _turn: &mut Turn<'_>, want: usize, burst: &mut Burst) {
        self.lent = 0;
        if self.shared.file.get().is_none() {
            return;
        }
        let want = want.min(BURST);
        self.part(want);
        let missing = want.saturating_sub(self.frames.len());
        if missing > 0 {
            self.receive(missing);
            self.part(want);
        }
        let Self { frames, buffers, .. } = self;
        self.lent = burst.fill(frames.iter().take(want), |frame| {
            Some((frame.hdr, buffers.seg(frame.buffer, frame.at, frame.len)))
        });
    }

    fn release(&mut self, _turn: &mut Turn<'_>, taken: usize) {
        for frame in self.frames.drain(..taken.min(self.lent)) {
            self.buffers.release(frame.buffer);
        }
        self.lent = 0;
    }

    fn notify(&mut self) {}

    fn stop(&mut self, turn: &mut Turn<'_>) -> bool {
        self.lent = 0;
        self.shared.file.close(turn.io)
    }

    fn source(&self) -> Source {
        self.shared.file.source()
    }

    fn pending(&self) -> bool {
        self.more || self.dropped || !self.frames.is_empty()
    }

    fn drops(&mut self) -> Option<(DropReason, u64)> {
        if !self.dropped {
            return None;
        }
        let mut found = DropReason::ALL.into_iter().zip(&mut self.drops).filter(|(_, count)| **count > 0);
        let (reason, count) = found.next().map(|(reason, count)| (reason, std::mem::take(count)))?;
        self.dropped = found.next().is_some();
        Some((reason, count))
    }

    fn trouble(&self) -> i32 {
        self.trouble
    }
}
