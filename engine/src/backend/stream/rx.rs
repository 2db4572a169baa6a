//! Receiving: many frames a call, lent from where the kernel put them.

use super::Shared;
use super::buffer::Buffer;
use super::options::{LONGEST, WORD};
use super::report::End;
use crate::burst::{BURST, Burst};
use crate::port::counters::DropReason;
use crate::port::{RxQueue, Source, Turn};
use crate::uring::IoError;
use crate::wire::vnet_hdr::VnetHdr;
use nix::errno::Errno;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Receiving half of a connection.
#[derive(Debug)]
pub(super) struct StreamRx {
    shared: Arc<Shared>,
    buffer: Buffer,
    /// Where each frame of the last burst ends, from the first byte in the buffer.
    ends: [u32; BURST],
    /// Frames of the last burst.
    lent: usize,
    /// The socket, or the buffer, may have more: nothing will be told of it.
    more: bool,
    malformed: u64,
}

impl StreamRx {
    pub(super) const fn new(shared: Arc<Shared>, buffer: Buffer) -> Self {
        Self { shared, buffer, ends: [0; BURST], lent: 0, more: true, malformed: 0 }
    }

    /// Lends the frames that are complete.
    fn lend(&mut self, want: usize, burst: &mut Burst) -> Result<(), End> {
        let mut at = 0;
        while let Some(end) = self.ends.get_mut(self.lent).filter(|_| self.lent < want) {
            let Some(len) = self.buffer.word(at).map(|len| len as usize) else { break };
            if len > LONGEST {
                return Err(End::TooLong);
            }
            if len == 0 {
                // Only the oldest can be taken out: behind others it waits for the next burst.
                if self.lent > 0 {
                    break;
                }
                self.malformed += 1;
                self.buffer.take(WORD);
                continue;
            }
            let Some(frame) = self.buffer.seg(at + WORD, len) else { break };
            if !burst.push_one(VnetHdr::NONE, frame) {
                break;
            }
            at += WORD + len;
            *end = at as u32;
            self.lent += 1;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), End> {
        self.more = true;
        match self.buffer.receive(self.shared.socket.as_fd()) {
            Ok(0) => Err(End::Closed),
            Ok(_) => Ok(()),
            // An event will tell of more.
            Err(Errno::EAGAIN) => {
                self.more = false;
                Ok(())
            }
            // For a moment only.
            Err(Errno::EINTR | Errno::ENOMEM | Errno::ENOBUFS) => Ok(()),
            Err(errno) => Err(End::Failed(errno)),
        }
    }
}

impl RxQueue for StreamRx {
    fn start(&mut self, turn: &mut Turn<'_>) {
        match turn.io.watch(self.shared.socket.as_fd()) {
            Ok(id) => self.shared.file.set(Some(id)),
            Err(IoError::Watch { errno, .. } | IoError::Setup { errno, .. }) => {
                self.shared.report.tell(End::Failed(errno));
            }
            Err(IoError::NoUring(_) | IoError::TooMany(_)) => {
                self.shared.report.tell(End::Failed(Errno::EMFILE));
            }
        }
        self.more = true;
    }

    fn rx(&mut self, _turn: &mut Turn<'_>, want: usize, burst: &mut Burst) {
        self.lent = 0;
        if self.shared.report.has_ended() {
            self.more = false;
            return;
        }
        let mut result = self.lend(want, burst);
        if self.lent == 0 && result.is_ok() {
            result = self.receive().and_then(|()| self.lend(want, burst));
        }
        // Frames before the end go first; then it is found again.
        if let Err(end) = result
            && self.lent == 0
        {
            self.more = false;
            self.shared.report.tell(end);
        }
    }

    fn release(&mut self, _turn: &mut Turn<'_>, taken: usize) {
        let last = taken.min(self.lent).checked_sub(1).and_then(|last| self.ends.get(last));
        if let Some(&end) = last {
            self.buffer.take(end as usize);
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
        self.more
    }

    fn drops(&mut self) -> Option<(DropReason, u64)> {
        let n = std::mem::take(&mut self.malformed);
        (n > 0).then_some((DropReason::Malformed, n))
    }
}
