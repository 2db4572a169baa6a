//! What frames carry, and what is read of them.

#![allow(unsafe_code)] // reads and writes buffers of guest memory

use super::frame::{HEADER, Shape};
use super::stations::{Pairs, Stations};
use crate::histogram::Histogram;
use engine::worker::clock::ticks;

/// What the sender writes into a frame and the receiver reads from it. Pointers are to the Ethernet header.
pub(super) trait Payload {
    /// Whether frames are touched at all.
    const TOUCH: bool;
    /// Whether the receiver needs the whole frame, even one that lies in several buffers.
    const WHOLE: bool;

    /// Before a burst is sent, and after one has arrived.
    fn burst(&mut self) {}

    /// Writes into a frame of `len` bytes, variant `variant`.
    ///
    /// # Safety
    /// `frame` points to `len` bytes that may be written.
    unsafe fn mark(&mut self, _frame: *mut u8, _len: usize, _variant: u32) {}

    /// Reads a frame of `len` bytes.
    ///
    /// # Safety
    /// `frame` points to `len` bytes.
    unsafe fn see(&mut self, _frame: *const u8, _len: usize) {}
}

/// Nothing: the load is as light as it can be.
#[derive(Debug)]
pub(super) struct Plain;

impl Payload for Plain {
    const TOUCH: bool = false;
    const WHOLE: bool = false;
}

/// Addresses of more stations than there are buffers.
#[derive(Debug)]
pub(super) struct Addresses(Pairs);

impl Addresses {
    pub(super) fn new(stations: Stations) -> Self {
        Self(Pairs::new(stations))
    }
}

impl Payload for Addresses {
    const TOUCH: bool = true;
    const WHOLE: bool = false;

    // SAFETY: as the trait says.
    #[inline]
    unsafe fn mark(&mut self, frame: *mut u8, _len: usize, _variant: u32) {
        // SAFETY: a frame is longer than what is in front of its payload (`Shape::build`).
        unsafe { frame.cast::<[u8; 12]>().write_unaligned(self.0.next()) };
    }
}

/// IPv4 identifications that count up by one in each flow, as a host's connected socket sends them: what coalesces looks at them.
#[derive(Debug)]
pub(super) struct Idents {
    /// Sum over each variant's IPv4 header, and its flow.
    variants: Vec<(u16, usize)>,
    /// The next one of each flow.
    next: Vec<u16>,
}

/// Where the identification and the checksum of an untagged IPv4 frame are.
const IDENT: usize = 14 + 4;
const CHECK: usize = 14 + 10;

impl Idents {
    pub(super) fn new(shape: &Shape) -> Self {
        let variant = |variant| {
            let frame = shape.build(variant, true).split_off(HEADER);
            let check =
                frame.get(CHECK..CHECK + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_be_bytes);
            (!check, shape.flow(variant))
        };
        Self { variants: (0..shape.variants()).map(variant).collect(), next: vec![0; shape.flows.max(1)] }
    }
}

impl Payload for Idents {
    const TOUCH: bool = true;
    const WHOLE: bool = false;

    // SAFETY: as the trait says.
    #[inline]
    unsafe fn mark(&mut self, frame: *mut u8, _len: usize, variant: u32) {
        let Some(&(sum, flow)) = self.variants.get(variant as usize) else { return };
        let Some(next) = self.next.get_mut(flow) else { return };
        let total = u32::from(sum) + u32::from(*next);
        let check = !((total & 0xffff) + (total >> 16)) as u16;
        // SAFETY: a frame is longer than what is in front of its payload (`Shape::build`).
        unsafe {
            frame.add(IDENT).cast::<u16>().write_unaligned(next.to_be());
            frame.add(CHECK).cast::<u16>().write_unaligned(check.to_be());
        }
        *next = next.wrapping_add(1);
    }
}

/// The time of sending, in ticks, in every frame; read of every eighth.
#[derive(Debug)]
pub(super) struct Stamps {
    at: usize,
    now: u64,
    seen: u32,
    /// Ticks from sending to receiving.
    pub(super) histogram: Histogram,
    /// Stamps before this are of an earlier slice.
    since: u64,
}

/// One frame of so many is looked at; a power of two.
const SAMPLED: u32 = 8;

impl Stamps {
    pub(super) fn new(shape: &Shape, since: u64) -> Self {
        Self { at: shape.payload_at(), now: 0, seen: 0, histogram: Histogram::default(), since }
    }

    /// Forgets what was seen, and what was sent before now.
    pub(super) fn reset(&mut self, since: u64) {
        self.histogram = Histogram::default();
        self.since = since;
    }
}

impl Payload for Stamps {
    const TOUCH: bool = true;
    const WHOLE: bool = false;

    #[inline]
    fn burst(&mut self) {
        self.now = ticks();
    }

    // SAFETY: as the trait says.
    #[inline]
    unsafe fn mark(&mut self, frame: *mut u8, _len: usize, _variant: u32) {
        // SAFETY: a frame is at least 16 bytes longer than what is in front of its payload (`Shape::build`).
        unsafe { frame.add(self.at).cast::<u64>().write_unaligned(self.now) };
    }

    // SAFETY: as the trait says.
    #[inline]
    unsafe fn see(&mut self, frame: *const u8, len: usize) {
        self.seen = self.seen.wrapping_add(1);
        if self.seen.is_multiple_of(SAMPLED) && len >= self.at + 8 {
            // SAFETY: the frame is long enough.
            let sent = unsafe { frame.add(self.at).cast::<u64>().read_unaligned() };
            if sent >= self.since {
                self.histogram.add(self.now.saturating_sub(sent));
            }
        }
    }
}

/// A running number and the number of a pattern; the receiver compares every byte.
#[derive(Debug)]
pub(super) struct Numbers {
    at: usize,
    sent: u64,
    expected: Option<u64>,
    /// All variants, as they arrive.
    frames: Vec<Vec<u8>>,
    /// Numbers that never came, or came out of order.
    pub(super) missing: u64,
    /// Frames whose bytes differ from what was sent.
    pub(super) changed: u64,
}

impl Numbers {
    pub(super) fn new(shape: &Shape, partial: bool) -> Self {
        let frames = (0..shape.variants()).map(|v| shape.build(v, partial).split_off(HEADER)).collect();
        Self { at: shape.payload_at(), sent: 0, expected: None, frames, missing: 0, changed: 0 }
    }
}

impl Payload for Numbers {
    const TOUCH: bool = true;
    const WHOLE: bool = true;

    // SAFETY: as the trait says.
    #[inline]
    unsafe fn mark(&mut self, frame: *mut u8, _len: usize, variant: u32) {
        // SAFETY: a frame is at least 16 bytes longer than what is in front of its payload (`Shape::build`).
        unsafe {
            frame.add(self.at).cast::<u64>().write_unaligned(self.sent);
            frame.add(self.at + 8).cast::<u32>().write_unaligned(variant);
        }
        self.sent += 1;
    }

    // SAFETY: as the trait says.
    unsafe fn see(&mut self, frame: *const u8, len: usize) {
        // SAFETY: by the caller's word; received buffers are the driver's until they are given back.
        let bytes = unsafe { std::slice::from_raw_parts(frame, len) };
        let (at, end) = (self.at, self.at + 12);
        let number = bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let variant = bytes.get(at + 8..end).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let wanted = variant.and_then(|variant| self.frames.get(variant as usize));
        let same = wanted.is_some_and(|wanted| {
            wanted.len() == len && wanted[..at] == bytes[..at] && wanted[end..] == bytes[end..]
        });
        let (true, Some(number)) = (same, number) else {
            self.changed += 1;
            return;
        };
        let expected = self.expected.unwrap_or(number);
        self.missing += number.abs_diff(expected);
        self.expected = Some(number + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(shape: &Shape, variant: usize) -> Vec<u8> {
        shape.build(variant, true).split_off(HEADER)
    }

    #[test]
    fn a_lost_and_a_changed_frame_are_told_apart() {
        let shape = Shape { sizes: vec![64, 300], ..Shape::default() };
        let mut numbers = Numbers::new(&shape, true);
        let mut frames: Vec<Vec<u8>> = (0..5).map(|i| frame(&shape, i % 2)).collect();
        for (i, bytes) in frames.iter_mut().enumerate() {
            // SAFETY: the whole vector.
            unsafe { numbers.mark(bytes.as_mut_ptr(), bytes.len(), (i % 2) as u32) };
        }
        frames[3][40] ^= 1;
        for i in [0, 2, 3, 4] {
            // SAFETY: the whole vector.
            unsafe { numbers.see(frames[i].as_ptr(), frames[i].len()) };
        }
        assert_eq!((numbers.missing, numbers.changed), (2, 1), "1 and 3 did not come as themselves");
    }

    #[test]
    fn identifications_count_up_and_headers_stay_right() {
        let shape = Shape { kind: super::super::frame::Kind::Udp, flows: 2, ..Shape::default() };
        let mut idents = Idents::new(&shape);
        let sum = |ip: &[u8]| ip.chunks(2).fold(0u32, |sum, b| sum + u32::from(b[0]) * 256 + u32::from(b[1]));
        for (i, variant) in [0, 1, 0, 0, 1].into_iter().enumerate() {
            let mut bytes = frame(&shape, variant);
            // SAFETY: the whole vector.
            unsafe { idents.mark(bytes.as_mut_ptr(), bytes.len(), variant as u32) };
            assert_eq!(bytes[18..20], [0, [0, 0, 1, 2, 1][i]]);
            let total = sum(&bytes[14..34]);
            assert_eq!((total & 0xffff) + (total >> 16), 0xffff, "all ones");
        }
    }

    #[test]
    fn stamps_of_an_earlier_slice_do_not_count() {
        let shape = Shape::default();
        let mut stamps = Stamps::new(&shape, 0);
        let mut bytes = frame(&shape, 0);
        stamps.burst();
        // SAFETY: the whole vector.
        unsafe { stamps.mark(bytes.as_mut_ptr(), bytes.len(), 0) };
        stamps.burst();
        for _ in 0..SAMPLED {
            // SAFETY: the whole vector.
            unsafe { stamps.see(bytes.as_ptr(), bytes.len()) };
        }
        assert_eq!(stamps.histogram.count(), 1);
        stamps.reset(ticks());
        for _ in 0..SAMPLED {
            // SAFETY: the whole vector.
            unsafe { stamps.see(bytes.as_ptr(), bytes.len()) };
        }
        assert_eq!(stamps.histogram.count(), 0);
    }
}
