//! Receiving from a tap: lends the frames where the kernel put them.

use super::Shared;
use crate::burst::{Burst, Seg};
use crate::port::counters::DropReason;
use crate::port::{RxQueue, Source, Turn};
use crate::uring::{Buffers, FileId, IoError};
use crate::wire::vnet_hdr::VnetHdr;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Bytes of an Ethernet header.
const ETH_HEADER: usize = 14;

/// Receiving half of a tap queue.
#[derive(Debug)]
pub(super) struct TapRx {
    shared: Arc<Shared>,
    /// Here while no worker has the queue.
    buffers: Option<Buffers>,
    /// Bytes of a buffer: a frame that fills one may have been cut.
    size: usize,
    /// Frames of the last burst.
    lent: usize,
    malformed: u64,
    truncated: u64,
    /// Frames that nobody has taken lay in buffers at the last look.
    more: bool,
    /// Why nothing arrives any more.
    trouble: i32,
}

impl TapRx {
    pub(super) const fn new(shared: Arc<Shared>, buffers: Buffers) -> Self {
        let size = buffers.size();
        Self {
            shared,
            buffers: Some(buffers),
            size,
            lent: 0,
            malformed: 0,
            truncated: 0,
            more: false,
            trouble: 0,
        }
    }

    /// Splits what the kernel wrote into header and frame.
    #[inline]
    fn parse(&self, read: Seg) -> Result<(VnetHdr, Seg), DropReason> {
        if read.len() >= self.size {
            return Err(DropReason::Truncated);
        }
        let (hdr, from) = if self.shared.vnet_hdr {
            let mut bytes = [0; VnetHdr::LEN];
            read.copy_to(0, &mut bytes);
            (VnetHdr::decode(&bytes), VnetHdr::LEN)
        } else {
            (VnetHdr::NONE, 0)
        };
        let frame = read.behind(from);
        if frame.len() < ETH_HEADER { Err(DropReason::Malformed) } else { Ok((hdr, frame)) }
    }

    fn drop_first(&mut self, turn: &mut Turn<'_>, id: FileId, reason: DropReason) {
        match reason {
            DropReason::Truncated => self.truncated += 1,
            _ => self.malformed += 1,
        }
        turn.io.recycle(id, 1);
    }
}

impl RxQueue for TapRx {
    fn start(&mut self, turn: &mut Turn<'_>) {
        match turn.io.register(self.shared.fd.as_fd(), self.buffers.take()) {
            Ok(id) => self.shared.file.set(Some(id)),
            Err(refused) => {
                self.buffers = refused.buffers;
                self.trouble = match refused.error {
                    IoError::Watch { errno, .. } | IoError::Setup { errno, .. } => errno as i32,
                    IoError::NoUring(_) | IoError::TooMany(_) => libc::EMFILE,
                };
            }
        }
    }

    fn rx(&mut self, turn: &mut Turn<'_>, want: usize, burst: &mut Burst) {
        self.lent = 0;
        let Some(id) = self.shared.file.get() else { return };
        while self.lent < want {
            let Some(read) = turn.io.received(id, self.lent) else { break };
            match self.parse(read) {
                Ok((hdr, frame)) if burst.push(hdr, &[frame]) => self.lent += 1,
                Ok(_) => break,
                // Only the oldest can be taken out: behind others it waits for the next burst.
                Err(_) if self.lent > 0 => break,
                Err(reason) => self.drop_first(turn, id, reason),
            }
        }
        self.more = self.lent > 0;
        if let Some(errno) = turn.io.ended(id) {
            self.trouble = if errno as i32 == 0 { libc::EPIPE } else { errno as i32 };
        }
    }

    fn release(&mut self, turn: &mut Turn<'_>, taken: usize) {
        let taken = taken.min(self.lent);
        self.lent = 0;
        if let Some(id) = self.shared.file.get().filter(|_| taken > 0) {
            turn.io.recycle(id, taken);
            self.more = turn.io.backlog(id) > 0;
        }
    }

    fn notify(&mut self) {}

    fn stop(&mut self, turn: &mut Turn<'_>) -> bool {
        let Some(id) = self.shared.file.get() else { return true };
        if !turn.io.close(id) {
            return false;
        }
        self.buffers = turn.io.remove(id);
        self.shared.file.set(None);
        self.lent = 0;
        true
    }

    fn source(&self) -> Source {
        self.shared.file.source()
    }

    fn pending(&self) -> bool {
        self.more
    }

    fn drops(&mut self) -> Option<(DropReason, u64)> {
        let (reason, count) = if self.truncated > 0 {
            (DropReason::Truncated, &mut self.truncated)
        } else {
            (DropReason::Malformed, &mut self.malformed)
        };
        let n = std::mem::take(count);
        (n > 0).then_some((reason, n))
    }

    fn trouble(&self) -> i32 {
        self.trouble
    }
}
