//! Frames for the daemon. A large one goes straight to the socket, small ones gather until the end of the turn; what a full socket does
//! not take waits here, and who asks for more is not asked.

use crate::message;
use crate::split;
use crate::wire::{ETHERNET, Packet, URG, fold};
use nix::errno::Errno;
use std::os::fd::RawFd;
use usernet::protocol::HEADER;

/// Frames of this size and above are not gathered.
const LARGE: usize = 4096;
/// So many are gathered.
const GATHERED: usize = 64;
const TCPV4: u8 = 1;
const TCPV6: u8 = 4;
const NEEDS_CSUM: u8 = 1;

/// The frames that wait.
#[derive(Debug)]
pub(crate) struct Outbox {
    socket: RawFd,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// How many of them have gone.
    gone: usize,
    /// Whether the socket is full.
    full: bool,
    /// Why nothing can be sent any more.
    failed: Option<Errno>,
}

/// The header of a segment that is to be cut by the receiver (virtio 1.3 section 5.1.6).
fn header(packet: &Packet, mss: u16) -> [u8; HEADER] {
    let low = |value: usize| u16::try_from(value).unwrap_or_default().to_le_bytes();
    let mut header = [0; HEADER];
    header[0] = NEEDS_CSUM;
    header[1] = if packet.six { TCPV6 } else { TCPV4 };
    header[2..4].copy_from_slice(&low(packet.payload));
    header[4..6].copy_from_slice(&mss.to_le_bytes());
    header[6..8].copy_from_slice(&low(packet.start));
    header[8..10].copy_from_slice(&low(packet.checksum() - packet.start));
    header
}

impl Outbox {
    pub(crate) fn new(socket: RawFd) -> Outbox {
        Outbox { socket, bytes: Vec::new(), ends: Vec::new(), gone: 0, full: false, failed: None }
    }

    /// Bytes that wait.
    pub(crate) fn waiting(&self) -> usize {
        let gone = self.gone.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or_default();
        self.bytes.len() - gone
    }

    /// Whether the daemon has to take some before more may come.
    pub(crate) fn full(&self) -> bool {
        self.full
    }

    /// Why the socket is of no use any more.
    pub(crate) fn failed(&self) -> Option<Errno> {
        self.failed
    }

    /// A segment of TCP, complete, for a guest that takes `mss` bytes of them.
    pub(crate) fn segment(&mut self, frame: &[u8], mss: u16) {
        let Some(packet) = Packet::of(frame, false).filter(|packet| packet.bytes() > usize::from(mss)) else {
            return self.push(&[0; HEADER], &[frame]);
        };
        // Who cuts a segment would leave the urgent pointer to each of its pieces.
        if packet.flags(frame) & URG != 0 {
            return split::segments(frame, &packet, usize::from(mss), |piece| {
                self.push(&[0; HEADER], &[piece]);
            });
        }
        let at = packet.checksum();
        let partial = fold(packet.pseudo(frame)).to_be_bytes();
        let (Some(first), Some(last)) = (frame.get(..at), frame.get(at + 2..packet.end)) else { return };
        self.push(&header(&packet, mss), &[first, &partial, last]);
    }

    /// A frame of the stack's that is no TCP is no larger than the guest takes it.
    pub(crate) fn send(&mut self, frame: &[u8], mtu: usize) {
        if frame.len() <= ETHERNET + mtu {
            self.push(&[0; HEADER], &[frame]);
        } else {
            split::fragments(frame, mtu, |piece| self.push(&[0; HEADER], &[piece]));
        }
    }

    fn push(&mut self, header: &[u8; HEADER], parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length >= LARGE {
            self.flush();
            if self.ends.is_empty() && !self.full {
                match message::send(self.socket, header, parts) {
                    Err(Errno::EAGAIN) => self.full = true,
                    done => return self.note(done),
                }
            }
        }
        self.bytes.extend_from_slice(header);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.ends.push(self.bytes.len());
        if self.ends.len() - self.gone >= GATHERED && !self.full {
            self.flush();
        }
    }

    fn note(&mut self, done: Result<(), Errno>) {
        if let Err(why) = done {
            self.failed = Some(why);
        }
    }

    /// The socket takes frames again.
    pub(crate) fn ready(&mut self) {
        self.full = false;
        self.flush();
    }

    /// Sends what has gathered.
    pub(crate) fn flush(&mut self) {
        while self.gone < self.ends.len() && !self.full && self.failed.is_none() {
            match message::send_many(self.socket, &self.bytes, &self.ends, self.gone) {
                Ok(count) => self.gone += count,
                Err(Errno::EAGAIN) => self.full = true,
                Err(why) => self.failed = Some(why),
            }
        }
        if self.gone == self.ends.len() {
            self.bytes.clear();
            self.ends.clear();
            self.gone = 0;
        }
    }
}
