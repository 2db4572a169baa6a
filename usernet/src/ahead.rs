//! Data for the guest that the stack takes for arrived though it is on its way: acknowledged ahead, kept here until the guest has it.
//!
//! libslirp knows no windows of more than 64 KiB. It would send that much and then wait until an acknowledgement has come round through the
//! daemon and the guest. So it hears of what it has sent at once, and what is behind it here has the guest's own window, which is scaled
//! (RFC 7323): what is lost on the way is sent again from here, what does not fit waits here, and when too much does, the stack is told of a
//! closed window. The end of a connection is never acknowledged ahead.
//!
//! All connections together hold no more than [`TOTAL`]. Beyond, those that hold nothing keep the stack's own pace: what it sends goes by, and it
//! hears what the guest has said; and those that hold something take no more until the guest has that.

use crate::wire::{ACK, FIN, PSH, Packet, RST, SYN, URG, fold, long, put, put_long, word};
use std::collections::VecDeque;

#[cfg(test)]
mod tests;

/// Bytes of a connection that wait here before its window closes for the stack; headers and what keeps them count.
const MOST: usize = 512 * 1024;
/// Bytes that wait here for all connections of a netdev: 128 that are full, more than a guest reads from at once, and less than 300 idle ones cost
/// libslirp, which has two buffers of 128 KiB for each. A guest that acknowledges nothing costs the host no more.
pub(crate) const TOTAL: usize = 64 << 20;
/// The stack's window when it is open.
const OPEN: u16 = u16::MAX;
/// Bytes that may be under way before the guest has acknowledged any, and after a loss at least.
const FIRST: usize = 64 * 1024;
/// Ticks after which the first frame is sent again, at first and at most (RFC 6298 section 2.5).
const PATIENCE: [u16; 2] = [2, 600];
/// Acknowledgements that say nothing new before a frame is taken for lost (RFC 5681 section 3.2).
const DUPLICATES: u8 = 3;

/// A frame with data or the end.
#[derive(Debug)]
struct Held {
    frame: Vec<u8>,
    packet: Packet,
    sequence: u32,
    /// Behind its last byte, or its end.
    end: u32,
}

/// One connection's data for the guest.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// In order, until the guest acknowledges them.
    frames: VecDeque<Held>,
    /// How many of them have been sent.
    sent: usize,
    /// Bytes that they take.
    bytes: usize,
    /// All connections together hold as much as they may.
    pub(crate) full: bool,
    /// Up to here the stack keeps what it sent until the guest has it; nothing when the guest has.
    own: Option<u32>,
    /// Whether the stack has begun the connection.
    begun: bool,
    /// What the guest awaits; what the stack sends next.
    awaited: u32,
    next: u32,
    /// What the guest cannot take any more.
    edge: u32,
    /// Where the stack's data ends, once it has said so.
    end: Option<u32>,
    /// What the stack awaits of the guest, and what it said last: its acknowledgement and its window.
    of_guest: u32,
    said: (u32, u16),
    /// What the stack was told last.
    told: (u32, u16),
    /// The stack has asked for an answer.
    asked: bool,
    /// The shift that the guest offered, and whether it was offered one.
    shift: Option<u8>,
    offered: bool,
    /// The guest's window before the stack has begun.
    window: u32,
    duplicates: u8,
    /// A loss is over when this is acknowledged.
    recovers: Option<u32>,
    /// Bytes that may be under way, and those up to which that doubles in each round trip (RFC 5681).
    flight: usize,
    threshold: usize,
    age: u16,
    patience: u16,
    /// It is among those that ticks are for.
    pub(crate) ticks: bool,
}

/// Whether a sequence number comes after another.
fn after(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() > 0
}

/// Bytes from one to the next.
fn distance(from: u32, to: u32) -> usize {
    if after(to, from) { to.wrapping_sub(from) as usize } else { 0 }
}

/// Writes a word of a TCP header, and what that makes of its checksum (RFC 1624).
fn mend(frame: &mut [u8], checksum: usize, at: usize, value: u16) {
    let sum = u64::from(!word(frame, checksum)) + u64::from(!word(frame, at)) + u64::from(value);
    put(frame, at, value);
    put(frame, checksum, !fold(sum));
}

fn mend_long(frame: &mut [u8], checksum: usize, at: usize, value: u32) {
    let [high, low] = [value >> 16, value & 0xffff].map(|half| u16::try_from(half).unwrap_or_default());
    mend(frame, checksum, at, high);
    mend(frame, checksum, at + 2, low);
}

/// A SYN with the window scale option for a shift of zero: the guest's windows are scaled then, and the stack's are what they were.
fn with_scale(packet: &Packet, frame: &[u8]) -> Option<Vec<u8>> {
    let options = frame.get(packet.start..packet.payload)?;
    // A data offset has four bits.
    if options.len() + 4 > 60 || packet.bytes() > 0 {
        return None;
    }
    let mut scaled = frame.get(..packet.payload)?.to_vec();
    scaled.extend_from_slice(&[1, 3, 3, 0]);
    *scaled.get_mut(packet.start + 12)? += 0x10;
    let packet = Packet { payload: packet.payload + 4, end: packet.payload + 4, ..*packet };
    packet.write_lengths(&mut scaled);
    packet.write_checksum(&mut scaled);
    Some(scaled)
}

/// The shift that a SYN offers (RFC 7323 section 2.3).
pub(crate) fn shift(packet: &Packet, frame: &[u8]) -> Option<u8> {
    crate::flows::option_at(packet, frame, 3, 3).and_then(|at| frame.get(at)).map(|&shift| shift.min(14))
}

impl Held {
    fn of(packet: &Packet, frame: &[u8]) -> Option<Held> {
        let sequence = long(frame, packet.start + 4);
        let end = u32::from(packet.flags(frame) & FIN != 0);
        let end = sequence.wrapping_add(u32::try_from(packet.bytes()).ok()?).wrapping_add(end);
        Some(Held { frame: frame.get(..packet.end)?.to_vec(), packet: *packet, sequence, end })
    }

    /// Bytes of memory.
    fn weight(&self) -> usize {
        self.frame.len() + size_of::<Held>()
    }

    /// Splits the first `count` bytes of data off.
    fn cut(&mut self, count: usize) -> Option<Held> {
        let at = self.packet.payload + count;
        let first = self.frame.get(..at)?;
        let packet = Packet { end: at, ..self.packet };
        let mut first = Held { frame: first.to_vec(), packet, ..Held::of(&packet, first)? };
        *first.frame.get_mut(packet.start + 13)? &= !(FIN | PSH);
        first.end = first.sequence.wrapping_add(u32::try_from(count).ok()?);
        self.frame.drain(self.packet.payload..at);
        self.packet.end -= count;
        self.sequence = first.end;
        put_long(&mut self.frame, self.packet.start + 4, self.sequence);
        for held in [&mut first, self] {
            held.packet.write_lengths(&mut held.frame);
            held.packet.write_checksum(&mut held.frame);
        }
        Some(first)
    }
}

impl Line {
    /// The window that the stack is told of.
    fn room(&self) -> u16 {
        if self.full && self.frames.is_empty() {
            return u16::try_from(distance(self.awaited, self.edge)).unwrap_or(OPEN);
        }
        if self.bytes < MOST && !self.full { OPEN } else { 0 }
    }

    /// What the stack is told as acknowledged.
    fn ahead(&self) -> u32 {
        if self.own.is_some() { self.awaited } else { self.end.unwrap_or(self.next) }
    }

    /// Bytes of memory that wait here.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the guest gets next.
    fn unsent(&self) -> u32 {
        self.frames.get(self.sent).map_or(self.next, |held| held.sequence)
    }

    /// Whether something waits for the guest.
    pub(crate) fn waits(&self) -> bool {
        !self.frames.is_empty()
    }

    /// Whether the stack is to hear of what it has sent; and what: what it awaits of the guest, the acknowledgement, the window.
    pub(crate) fn tell(&mut self) -> Option<(u32, u32, u16)> {
        if !self.untold() {
            return None;
        }
        self.asked = false;
        self.told = (self.ahead(), self.room());
        Some((self.of_guest, self.told.0, self.told.1))
    }

    pub(crate) fn untold(&self) -> bool {
        // A window that closes is told of with the next acknowledgement.
        self.begun
            && (self.asked || after(self.ahead(), self.told.0) || (self.room() != 0 && self.told.1 == 0))
    }

    /// A SYN of the guest's.
    pub(crate) fn guest_begins(&mut self, packet: &Packet, frame: &[u8]) {
        let window = u32::from(word(frame, packet.start + 14));
        let of_guest = long(frame, packet.start + 4).wrapping_add(1);
        if packet.flags(frame) & ACK != 0 && self.begun {
            // The stack has asked for the connection.
            self.shift = shift(packet, frame).filter(|_| self.offered);
            self.of_guest = of_guest;
            self.edge = self.awaited.wrapping_add(window);
        } else {
            *self = Line { shift: shift(packet, frame), window, of_guest, ..Line::default() };
        }
    }

    /// A SYN of the stack's.
    fn stack_begins(&mut self, packet: &Packet, frame: &[u8], emit: &mut dyn FnMut(&[u8])) {
        let first = long(frame, packet.start + 4).wrapping_add(1);
        let Line { shift, window, of_guest, .. } = *self;
        // It answers an offer, or makes one.
        let scaled =
            (shift.is_some() || packet.flags(frame) & ACK == 0).then(|| with_scale(packet, frame)).flatten();
        let offered = scaled.is_some();
        *self = Line {
            begun: true,
            awaited: first,
            next: first,
            edge: first.wrapping_add(window),
            of_guest,
            window,
            told: (first, OPEN),
            shift: shift.filter(|_| offered),
            offered,
            flight: FIRST,
            threshold: MOST,
            patience: PATIENCE[0],
            ..Line::default()
        };
        emit(scaled.as_deref().unwrap_or(frame));
    }

    /// A frame of the stack's; what may go to the guest is emitted, `mss` is the size of its segments.
    pub(crate) fn stack_sends(
        &mut self,
        packet: &Packet,
        frame: &[u8],
        mss: u16,
        emit: &mut dyn FnMut(&[u8]),
    ) {
        let flags = packet.flags(frame);
        if flags & SYN != 0 {
            return self.stack_begins(packet, frame, emit);
        }
        if !self.begun {
            return emit(frame);
        }
        let said = self.said;
        if flags & ACK != 0 {
            self.said = (long(frame, packet.start + 8), word(frame, packet.start + 14));
        }
        let sequence = long(frame, packet.start + 4);
        if flags & RST != 0 || (packet.bytes() == 0 && flags & FIN == 0) {
            return self.emit_without_data(packet, frame, sequence, emit);
        }
        if let Some(own) = self.own.filter(|&own| after(own, sequence) && !after(self.awaited, sequence)) {
            return self.own_again(packet, frame, own, emit);
        }
        let passes = self.full && self.frames.is_empty();
        let shut = (self.full || (self.told.1 == 0 && flags & FIN == 0)) && packet.bytes() > 0;
        if sequence != self.next || (shut && !passes) {
            // It is here already, or asks whether the window has opened; what else it says is news.
            self.asked = true;
            if self.said != said {
                self.emit_bare(packet, frame, emit);
            }
            return;
        }
        let Some(held) = Held::of(packet, frame) else { return };
        if passes {
            return self.pass(&held, emit);
        }
        self.take(&held);
        self.bytes += held.weight();
        self.frames.push_back(held);
        self.pump(mss, emit);
    }

    /// Takes note of a frame that comes next.
    fn take(&mut self, held: &Held) {
        self.next = held.end;
        if held.packet.flags(&held.frame) & FIN != 0 {
            self.end = Some(held.end.wrapping_sub(1));
        }
    }

    /// A frame goes by, and the stack keeps what is in it.
    fn pass(&mut self, held: &Held, emit: &mut dyn FnMut(&[u8])) {
        self.take(held);
        self.own = Some(held.end);
        emit(&held.frame);
    }

    /// The stack sends what it keeps itself once more, perhaps with more behind it.
    fn own_again(&mut self, packet: &Packet, frame: &[u8], own: u32, emit: &mut dyn FnMut(&[u8])) {
        let Some(mut held) = Held::of(packet, frame) else { return };
        if !after(held.end, own) {
            emit(frame);
        } else if self.frames.is_empty() {
            self.pass(&held, emit);
        } else if let Some(first) = held.cut(distance(held.sequence, own)) {
            emit(&first.frame);
        }
    }

    /// What has no data does not run ahead of what has.
    fn emit_without_data(&self, packet: &Packet, frame: &[u8], sequence: u32, emit: &mut dyn FnMut(&[u8])) {
        let unsent = self.unsent();
        if !after(sequence, unsent) {
            return emit(frame);
        }
        let mut copy = frame.to_vec();
        mend_long(&mut copy, packet.checksum(), packet.start + 4, unsent);
        emit(&copy);
    }

    /// What a frame acknowledges, without its data and its end.
    fn emit_bare(&self, packet: &Packet, frame: &[u8], emit: &mut dyn FnMut(&[u8])) {
        let Some(mut bare) = frame.get(..packet.payload).map(<[u8]>::to_vec) else { return };
        put_long(&mut bare, packet.start + 4, self.unsent());
        if let Some(flags) = bare.get_mut(packet.start + 13) {
            *flags = ACK;
        }
        let packet = Packet { end: packet.payload, ..*packet };
        packet.write_lengths(&mut bare);
        packet.write_checksum(&mut bare);
        emit(&bare);
    }

    /// Sends what the guest takes.
    fn pump(&mut self, mss: u16, emit: &mut dyn FnMut(&[u8])) {
        let mss = usize::from(mss.max(1));
        while let Some(held) = self.frames.get_mut(self.sent) {
            let flying = distance(self.awaited, held.sequence);
            let room = distance(held.sequence, self.edge).min(self.flight.saturating_sub(flying));
            let bytes = held.packet.bytes();
            if bytes > room {
                // Whole segments, unless nothing is under way that would bring an acknowledgement.
                let part = if room >= mss {
                    room - room % mss
                } else if flying == 0 {
                    room
                } else {
                    0
                };
                if part == 0 {
                    return;
                }
                if self.cut(self.sent, part).is_none() {
                    return;
                }
            }
            self.again(self.sent, emit);
            self.sent += 1;
        }
    }

    /// Splits the first `count` bytes of a frame off.
    fn cut(&mut self, index: usize, count: usize) -> Option<()> {
        let held = self.frames.get_mut(index)?;
        let before = held.weight();
        let first = held.cut(count)?;
        self.bytes = self.bytes + first.weight() + held.weight() - before;
        self.frames.insert(index, first);
        Some(())
    }

    /// Sends a frame, with what the stack said last.
    fn again(&mut self, index: usize, emit: &mut dyn FnMut(&[u8])) {
        let (acknowledgement, window) = self.said;
        let Some(Held { frame, packet, .. }) = self.frames.get_mut(index) else { return };
        let at = packet.start;
        if (long(frame, at + 8), word(frame, at + 14)) != self.said {
            mend_long(frame, packet.checksum(), at + 8, acknowledgement);
            mend(frame, packet.checksum(), at + 14, window);
        }
        emit(frame);
    }

    /// A frame of the guest's, no SYN; what that makes room for is emitted. Whether the stack is to see it; `whole` says that its checksum is,
    /// and not left to be completed.
    pub(crate) fn guest_sends(
        &mut self,
        packet: &Packet,
        frame: &mut [u8],
        whole: bool,
        mss: u16,
        emit: &mut dyn FnMut(&[u8]),
    ) -> bool {
        let flags = packet.flags(frame);
        if !self.begun || flags & (ACK | RST) != ACK {
            return true;
        }
        let sequence = long(frame, packet.start + 4);
        let acknowledged = long(frame, packet.start + 8);
        let edge =
            acknowledged.wrapping_add(u32::from(word(frame, packet.start + 14)) << self.shift.unwrap_or(0));
        let bare = packet.bytes() == 0 && flags & (FIN | URG) == 0;
        let waited = self.waits();
        self.acknowledge(acknowledged, edge, bare, mss, emit);
        let over = self.end.is_some_and(|end| after(acknowledged, end));
        // What keeps an idle connection alive, and what is asked, the stack answers itself.
        if bare && waited && !over && sequence == self.of_guest {
            return false;
        }
        let end = sequence
            .wrapping_add(u32::try_from(packet.bytes()).unwrap_or_default())
            .wrapping_add(u32::from(flags & FIN != 0));
        if after(end, self.of_guest) {
            self.of_guest = end;
        }
        let ahead = if over { acknowledged } else { self.ahead() };
        self.told = (ahead, self.room());
        self.asked = false;
        let (at, checksum) = (packet.start, packet.checksum());
        if whole {
            mend_long(frame, checksum, at + 8, ahead);
            mend(frame, checksum, at + 14, self.told.1);
        } else {
            put_long(frame, at + 8, ahead);
            put(frame, at + 14, self.told.1);
        }
        true
    }

    /// The guest says what it has, and what it takes.
    fn acknowledge(&mut self, to: u32, edge: u32, bare: bool, mss: u16, emit: &mut dyn FnMut(&[u8])) {
        if after(to, self.awaited) && !after(to, self.unsent()) {
            let fresh = distance(self.awaited, to);
            while self.sent > 0 && self.frames.front().is_some_and(|held| !after(held.end, to)) {
                self.bytes -= self.frames.pop_front().map_or(0, |held| held.weight());
                self.sent -= 1;
            }
            (self.awaited, self.edge) = (to, edge);
            self.own = self.own.filter(|&own| after(own, to));
            (self.duplicates, self.age, self.patience) = (0, 0, PATIENCE[0]);
            if self.recovers.is_some_and(|end| after(end, to)) {
                self.again(0, emit);
            } else {
                self.recovers = None;
                let more = if self.flight < self.threshold { fresh } else { fresh * fresh / self.flight };
                self.flight = (self.flight + more).min(MOST + usize::from(OPEN));
            }
        } else if to == self.awaited {
            if bare && self.sent > 0 && edge == self.edge {
                self.duplicates = self.duplicates.saturating_add(1);
                if self.duplicates == DUPLICATES && self.recovers.is_none() {
                    self.lost(2, emit);
                }
            }
            if distance(self.awaited, self.edge) == 0 && after(edge, self.edge) {
                // What asked for the window has not been taken.
                (self.sent, self.age, self.patience) = (0, 0, PATIENCE[0]);
            }
            self.edge = edge;
        }
        self.pump(mss, emit);
    }

    /// The first frame is lost: what is under way from now on is a part of what it was.
    fn lost(&mut self, part: usize, emit: &mut dyn FnMut(&[u8])) {
        let flying = distance(self.awaited, self.unsent());
        self.recovers = Some(self.unsent());
        self.threshold = (flying / 2).max(FIRST);
        self.flight = (flying / part).max(FIRST);
        self.again(0, emit);
    }

    /// A tick has passed.
    pub(crate) fn tick(&mut self, mss: u16, emit: &mut dyn FnMut(&[u8])) {
        if !self.waits() {
            return;
        }
        self.age += 1;
        if self.age < self.patience {
            return;
        }
        (self.age, self.patience) = (0, (self.patience * 2).min(PATIENCE[1]));
        if self.sent > 0 {
            return self.lost(usize::MAX, emit);
        }
        // A closed window is asked for with the first byte (RFC 9293 section 3.8.6.1).
        self.pump(mss, emit);
        if self.sent == 0 && self.frames.front().is_some_and(|held| held.packet.bytes() > 1) {
            let _ = self.cut(0, 1);
        }
        if self.sent == 0 {
            self.again(0, emit);
            self.sent = 1;
        }
    }
}
