//! The guest's end of a TCP connection.

use super::wire::{fold, long, sum, tcp, word};
use super::{Guest, HEADER, ME, PATIENCE};
use std::net::Ipv4Addr;
use std::time::Duration;

impl Guest {
    pub fn connect(&mut self, to: (Ipv4Addr, u16), mss: u16) -> Tcp {
        let port = self.port();
        let mut tcp = Tcp {
            me: port,
            to,
            next: 1000,
            unacked: 1000,
            await_next: 0,
            window: 0,
            received: Vec::new(),
            ended: false,
            largest: 0,
            reset: false,
            size: usize::from(mss),
        };
        tcp.send(self, SYN, &[], Some(mss));
        tcp.next += 1;
        while tcp.await_next == 0 && !tcp.reset {
            tcp.step(self);
        }
        tcp.send(self, ACK, &[], None);
        tcp
    }

    /// Waits for a connection from outside to a port of ours.
    pub fn accept(&mut self, port: u16, mss: u16) -> Tcp {
        let (_, frame) = self.until(|frame| {
            frame[12..14] == [8, 0] && frame[23] == 6 && word(frame, 36) == port && frame[47] == SYN
        });
        let from = Ipv4Addr::from(<[u8; 4]>::try_from(&frame[26..30]).unwrap());
        let mut tcp = Tcp {
            me: port,
            to: (from, word(&frame, 34)),
            next: 5000,
            unacked: 5000,
            await_next: long(&frame, 38) + 1,
            window: usize::from(word(&frame, 48)),
            received: Vec::new(),
            ended: false,
            largest: 0,
            reset: false,
            size: usize::from(mss),
        };
        tcp.send(self, SYN | ACK, &[], Some(mss));
        tcp.next += 1;
        tcp
    }
}

const FIN: u8 = 1;
pub const SYN: u8 = 2;
const RST: u8 = 4;
pub const ACK: u8 = 16;

/// Our end of a connection.
#[derive(Debug)]
pub struct Tcp {
    pub me: u16,
    pub to: (Ipv4Addr, u16),
    next: u32,
    unacked: u32,
    await_next: u32,
    window: usize,
    pub received: Vec<u8>,
    pub ended: bool,
    pub reset: bool,
    /// The largest segment that came, and the size that was asked for.
    pub largest: usize,
    pub size: usize,
}

impl Tcp {
    fn send(&self, guest: &mut Guest, flags: u8, bytes: &[u8], mss: Option<u16>) {
        let frame = tcp((ME, self.me), self.to, self.next, self.await_next, flags, bytes, mss);
        if bytes.len() > self.size {
            // As a driver sends it that leaves segmentation and checksums to the device.
            let mut header = [0; HEADER];
            header[0] = 1;
            header[1] = 1;
            header[2] = 54;
            header[4..6].copy_from_slice(&u16::try_from(self.size).unwrap().to_le_bytes());
            header[6] = 34;
            header[8] = 16;
            let mut frame = frame;
            frame[50..52].copy_from_slice(&[0, 0]);
            guest.send_with(&header, &frame);
        } else {
            guest.send(&frame);
        }
    }

    /// Takes a frame that is for this connection.
    pub fn take(&mut self, guest: &mut Guest, header: &[u8], frame: &[u8]) -> bool {
        let ours = frame[12..14] == [8, 0]
            && frame[23] == 6
            && word(frame, 36) == self.me
            && word(frame, 34) == self.to.1;
        if !ours {
            return false;
        }
        let flags = frame[47];
        let end = 14 + usize::from(word(frame, 16));
        let payload = &frame[34 + usize::from(frame[46] >> 4) * 4..end];
        check(header, frame, self.size, payload.len());
        self.reset |= flags & RST != 0;
        if flags & SYN != 0 {
            self.await_next = long(frame, 38).wrapping_add(1);
        }
        if flags & ACK != 0 {
            self.unacked = long(frame, 42);
        }
        self.window = usize::from(word(frame, 48));
        self.largest = self.largest.max(payload.len());
        let sequence = long(frame, 38);
        if !payload.is_empty() && sequence == self.await_next {
            self.received.extend_from_slice(payload);
            self.await_next = self.await_next.wrapping_add(payload.len() as u32);
        }
        if flags & FIN != 0 && !self.ended && sequence.wrapping_add(payload.len() as u32) == self.await_next {
            self.ended = true;
            self.await_next = self.await_next.wrapping_add(1);
        }
        if !payload.is_empty() || flags & FIN != 0 {
            self.send(guest, ACK, &[], None);
        }
        true
    }

    pub fn step(&mut self, guest: &mut Guest) {
        let (header, frame) = guest.receive(PATIENCE).unwrap_or_else(|| panic!("nothing comes: {self:?}"));
        self.take(guest, &header, &frame);
    }

    fn flying(&self) -> usize {
        self.next.wrapping_sub(self.unacked) as usize
    }

    /// Writes all of it in segments of `segment` bytes, as the window allows.
    pub fn write(&mut self, guest: &mut Guest, bytes: &[u8], segment: usize) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.reset {
            let room = self.window.saturating_sub(self.flying());
            // What does not fit at all goes in part, when nothing is under way.
            let fits = rest.len().min(segment) <= room || (self.flying() == 0 && room > 0);
            if !fits {
                self.step(guest);
                continue;
            }
            let (part, later) = rest.split_at(rest.len().min(segment).min(room));
            rest = later;
            self.send(guest, ACK, part, None);
            self.next = self.next.wrapping_add(part.len() as u32);
        }
    }

    /// Writes until the window is closed and stays so; how many bytes went.
    pub fn fill(&mut self, guest: &mut Guest, bytes: &[u8]) -> usize {
        let mut gone = 0;
        while gone < bytes.len() {
            let room = self.window.saturating_sub(self.flying()).min(bytes.len() - gone).min(60_000);
            if room > 0 {
                self.send(guest, ACK, &bytes[gone..gone + room], None);
                self.next = self.next.wrapping_add(room as u32);
                gone += room;
            } else {
                let Some((header, frame)) = guest.receive(Duration::from_millis(300)) else { break };
                self.take(guest, &header, &frame);
            }
        }
        gone
    }

    /// Writes as long as what was written is acknowledged within a second; how many bytes were.
    pub fn write_while_taken(&mut self, guest: &mut Guest, bytes: &[u8], segment: usize) -> usize {
        let start = self.next;
        for part in bytes.chunks(segment) {
            self.send(guest, ACK, part, None);
            self.next = self.next.wrapping_add(part.len() as u32);
            while self.flying() > 0 {
                let Some((header, frame)) = guest.receive(Duration::from_secs(1)) else {
                    self.next = self.unacked;
                    return self.unacked.wrapping_sub(start) as usize;
                };
                self.take(guest, &header, &frame);
            }
        }
        bytes.len()
    }

    /// Writes, and writes again what is not acknowledged in time.
    pub fn write_again(&mut self, guest: &mut Guest, bytes: &[u8], segment: usize) {
        let mut gone = 0;
        while gone < bytes.len() {
            gone += self.write_while_taken(guest, &bytes[gone..], segment);
        }
    }

    pub fn read(&mut self, guest: &mut Guest, count: usize) -> Vec<u8> {
        while self.received.len() < count && !self.ended && !self.reset {
            self.step(guest);
        }
        let rest = self.received.split_off(count.min(self.received.len()));
        std::mem::replace(&mut self.received, rest)
    }

    pub fn finish(&mut self, guest: &mut Guest) {
        self.send(guest, FIN | ACK, &[], None);
        self.next = self.next.wrapping_add(1);
    }

    /// Ends it from both sides.
    pub fn close(&mut self, guest: &mut Guest) {
        self.finish(guest);
        while (!self.ended || self.flying() != 0) && !self.reset {
            self.step(guest);
        }
    }
}

/// A message is what the contract says: whole, or with what is left to do.
fn check(header: &[u8], frame: &[u8], mss: usize, payload: usize) {
    let pseudo = sum(&frame[26..34]) + 6 + (usize::from(word(frame, 16)) - 20) as u32;
    let end = 14 + usize::from(word(frame, 16));
    assert_eq!(fold(sum(&frame[14..34])), 0xffff, "the checksum of the IP header");
    if payload > mss {
        let low = |at: usize| usize::from(header[at]) | usize::from(header[at + 1]) << 8;
        assert_eq!((header[0], header[1], low(4), low(6), low(8)), (1, 1, mss, 34, 16), "{header:?}");
        assert_eq!(word(frame, 50), fold(pseudo), "the pseudo header's sum");
    } else {
        assert_eq!(header, [0; HEADER]);
        assert_eq!(fold(pseudo + sum(&frame[34..end])), 0xffff, "the checksum of the segment");
    }
}
