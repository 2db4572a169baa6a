//! Transmitting: all frames of a burst in one call. What the socket did not take of a frame is kept, and goes before all others.

use super::Shared;
use super::message::Message;
use super::options::{LONGEST, WHOLE, WORD};
use crate::backend::account::Account;
use crate::burst::{BURST, Burst, Frame, Mask};
use crate::port::counters::{DropReason, PortCounters};
use crate::port::{Caps, Doze, Turn, TxQueue};
use crate::uring::FileId;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

/// What is left of a frame.
#[derive(Debug)]
struct Rest {
    bytes: Box<[u8]>,
    /// Bytes `from..to` are left.
    from: usize,
    to: usize,
    /// Of the frame: what its counters get, once all of it is out.
    weight: u32,
    len: usize,
}

impl Rest {
    const fn is_empty(&self) -> bool {
        self.from == self.to
    }
}

/// Transmitting half of a connection.
#[derive(Debug)]
pub(super) struct StreamTx {
    shared: Arc<Shared>,
    message: Message,
    rest: Rest,
    /// The kernel says when there is room.
    waits: bool,
    /// Nothing can be sent any more.
    gone: bool,
    account: Account,
}

impl StreamTx {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let rest = Rest { bytes: vec![0; WHOLE].into(), from: 0, to: 0, weight: 0, len: 0 };
        let message = Message::new();
        Self { shared, message, rest, waits: false, gone: false, account: Account::default() }
    }

    /// Whether the socket may have room, and nothing is left of a frame.
    fn is_clear(&mut self, turn: &mut Turn<'_>, id: FileId) -> bool {
        if self.waits && turn.io.waits_writable(id) {
            return false;
        }
        self.waits = false;
        while let Some(bytes) = self.rest.bytes.get(self.rest.from..self.rest.to).filter(|b| !b.is_empty()) {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let sent = send(self.shared.socket.as_raw_fd(), bytes, flags);
            let Some(sent) = self.took(sent) else { return true };
            self.rest.from += sent;
            if !self.rest.is_empty() {
                self.wait(turn, id);
                return false;
            }
            self.account.sent(u64::from(self.rest.weight), self.rest.len as u64);
        }
        true
    }

    /// Bytes that the socket took; none where it takes nothing any more.
    fn took(&mut self, sent: Result<usize, Errno>) -> Option<usize> {
        match sent {
            Ok(sent) => Some(sent),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM) => Some(0),
            Err(_) => {
                // The receiving half finds the end too, behind what the peer sent before.
                self.gone = true;
                None
            }
        }
    }

    fn wait(&mut self, turn: &mut Turn<'_>, id: FileId) {
        turn.io.want_writable(id);
        self.waits = turn.io.waits_writable(id);
    }

    /// Lays out as many of the selected frames as one message takes.
    fn lay_out(&mut self, burst: &Burst, mask: Mask) {
        self.message.clear();
        for frame in mask.iter().filter_map(|i| burst.frames().get(i)) {
            let fits = match frame.len() {
                1..=LONGEST => self.message.push(burst, frame),
                _ => self.message.skip(),
            };
            if !fits {
                break;
            }
        }
    }

    /// Accounts for the message, of which the socket took `sent` bytes; returns how many frames are done with.
    fn count(&mut self, burst: &Burst, mask: Mask, sent: usize) -> usize {
        let mut begin = 0;
        for (done, frame) in mask.iter().filter_map(|i| burst.frames().get(i)).enumerate() {
            let Some(end) = self.message.end(done) else { return done };
            if end > sent {
                if begin >= sent {
                    return done;
                }
                self.keep(frame, sent, end - sent);
                return done + 1;
            }
            match frame.len() {
                0 => self.account.drop(DropReason::Malformed, u64::from(frame.weight)),
                1..=LONGEST => self.account.sent(u64::from(frame.weight), frame.len() as u64),
                _ => self.account.drop(DropReason::TooLong, u64::from(frame.weight)),
            }
            begin = end;
        }
        mask.count()
    }

    /// Copies what is left of a frame: `left` bytes of the message from `from` on.
    fn keep(&mut self, frame: &Frame, from: usize, left: usize) {
        let Some(to) = self.rest.bytes.get_mut(..left) else { return };
        let copied = self.message.copy(from, to);
        (self.rest.from, self.rest.to) = (0, copied);
        (self.rest.weight, self.rest.len) = (frame.weight, frame.len());
    }

    /// A frame in more pieces than a message has entries: copied whole.
    fn keep_whole(&mut self, burst: &Burst, frame: &Frame) {
        let Some((word, bytes)) = self.rest.bytes.split_at_mut_checked(WORD) else { return };
        word.copy_from_slice(&frame.len.to_be_bytes());
        let copied = burst.copy_out(frame, 0, bytes.get_mut(..frame.len()).unwrap_or_default());
        (self.rest.from, self.rest.to) = (0, WORD + copied);
        (self.rest.weight, self.rest.len) = (frame.weight, frame.len());
    }

    /// Sends the selected frames that one message takes; how many are done with, and whether there may be room for more.
    fn send(&mut self, turn: &mut Turn<'_>, id: FileId, burst: &Burst, mask: Mask) -> (usize, bool) {
        self.lay_out(burst, mask);
        if self.message.end(0).is_none() {
            let Some(frame) = mask.iter().next().and_then(|i| burst.frames().get(i)) else {
                return (0, false);
            };
            self.keep_whole(burst, frame);
            return (1, self.is_clear(turn, id));
        }
        let all = self.message.len();
        let sent = if all == 0 { Ok(0) } else { self.message.send(self.shared.socket.as_fd()) };
        let Some(sent) = self.took(sent) else { return (0, true) };
        let done = self.count(burst, mask, sent);
        if sent < all {
            self.wait(turn, id);
        }
        (done, sent == all)
    }
}

impl TxQueue for StreamTx {
    fn start(&mut self, _turn: &mut Turn<'_>) {}

    fn caps(&self) -> Caps {
        Caps::NONE
    }

    fn room(&mut self, turn: &mut Turn<'_>, want: usize) -> usize {
        let Some(id) = self.shared.file.get() else {
            return if self.shared.report.has_ended() { BURST } else { 0 };
        };
        if self.gone || self.is_clear(turn, id) { want.max(BURST) } else { 0 }
    }

    fn tx(&mut self, turn: &mut Turn<'_>, burst: &Burst, mask: Mask) -> usize {
        let Some(id) = self.shared.file.get() else {
            return if self.shared.report.has_ended() { self.account.refuse(burst, mask) } else { 0 };
        };
        let (mut left, mut done) = (mask, 0);
        let mut clear = self.gone || self.is_clear(turn, id);
        while clear && !left.is_empty() {
            if self.gone {
                return done + self.account.refuse(burst, left);
            }
            let n;
            (n, clear) = self.send(turn, id, burst, left);
            done += n;
            left = left.iter().skip(n).fold(Mask::NONE, |rest, i| Mask(rest.0 | 1 << i));
        }
        done
    }

    fn flush(&mut self, _turn: &mut Turn<'_>) {}

    fn notify(&mut self) {}

    fn settle(&mut self, _turn: &mut Turn<'_>, counters: &PortCounters) {
        if self.gone && !self.rest.is_empty() {
            counters.count_drop(DropReason::NotConnected, u64::from(self.rest.weight));
            self.rest.from = self.rest.to;
        }
        self.account.settle(counters);
    }

    fn stop(&mut self, _turn: &mut Turn<'_>) -> bool {
        self.waits = false;
        true // the receiving half closes the file, poll for room included
    }

    fn stopped(&mut self, counters: &PortCounters) {
        if !self.rest.is_empty() {
            counters.count_drop(DropReason::NotConnected, u64::from(self.rest.weight));
            self.rest.from = self.rest.to;
        }
        self.account.settle(counters);
    }

    fn doze(&mut self) -> Doze {
        // A rest that nobody tells of, or room that came without a word: look again.
        if self.waits { Doze::Sleep } else { Doze::Nap }
    }

    fn blocked(&self) -> bool {
        !self.gone && (self.waits || !self.rest.is_empty())
    }
}
