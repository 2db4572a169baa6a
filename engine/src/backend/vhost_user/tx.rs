//! To the device: one copy into our transmit buffers, and one descriptor a frame.

#![allow(unsafe_code)] // writes the shared region

use super::buffers::Buffers;
use super::open::Report;
use super::options::Agreed;
use crate::backend::nic::copy::copy;
use crate::burst::{BURST, Burst, Frame, Mask};
use crate::mem::guest::GuestMemory;
use crate::port::counters::{DropReason, PortCounters};
use crate::port::{Caps, Turn, TxQueue};
use crate::uring::Bell;
use crate::virtq::{DriverRing, RingConfig, RingFault};
use crate::wire::vnet_hdr::VnetHdr;
use std::sync::Arc;

/// Buffers of one size, and which of them are free.
struct Shelf {
    buffers: Buffers,
    /// What the ring calls the first of them.
    first: u32,
    /// The one given back last is taken first: it is likeliest to be in the cache.
    free: Vec<u32>,
}

impl Shelf {
    fn new(buffers: Buffers, first: u32) -> Self {
        Self { buffers, first, free: (0..buffers.count()).rev().collect() }
    }

    fn has(&self, token: u32) -> bool {
        token.checked_sub(self.first).is_some_and(|i| i < self.buffers.count())
    }
}

/// The transmitting half of a queue pair.
pub(super) struct VhostUserTx<R> {
    ring: Option<R>,
    agreed: Agreed,
    small: Shelf,
    large: Shelf,
    frames: u64,
    bytes: u64,
    too_long: u64,
    /// Frames for a ring that does not run.
    stopped: u64,
    kick: Option<Bell>,
    report: Arc<Report>,
    /// Keeps the region mapped.
    _memory: Arc<GuestMemory>,
}

/// What became of a frame.
enum Put {
    Done,
    /// Every buffer or ring entry is with the device.
    Full,
    /// No buffer can ever hold it.
    Never,
}

impl<R: DriverRing> VhostUserTx<R> {
    pub(super) fn new(
        ring: R,
        agreed: Agreed,
        [small, large]: [Buffers; 2],
        config: &RingConfig,
        report: Arc<Report>,
    ) -> Self {
        Self {
            ring: Some(ring),
            agreed,
            small: Shelf::new(small, 0),
            large: Shelf::new(large, small.count()),
            frames: 0,
            bytes: 0,
            too_long: 0,
            stopped: 0,
            kick: config.kick.as_ref().map(Bell::new),
            report,
            _memory: config.memory.clone(),
        }
    }

    /// Takes back what the device is done with.
    #[inline]
    fn reap(&mut self) -> Result<(), RingFault> {
        let Some(ring) = &mut self.ring else { return Ok(()) };
        while let Some((token, _)) = ring.used()? {
            let shelf = if self.small.has(token) { &mut self.small } else { &mut self.large };
            // Room for all there are was made at the start; the ring gives no token twice.
            shelf.free.push(token - shelf.first);
        }
        Ok(())
    }

    /// Copies a frame and gives it to the ring.
    #[inline]
    fn put(&mut self, burst: &Burst, frame: &Frame) -> Put {
        let header = self.agreed.header;
        let len = header + frame.len();
        let shelf = if len <= self.small.buffers.len() as usize { &mut self.small } else { &mut self.large };
        if len > shelf.buffers.len() as usize {
            return Put::Never;
        }
        let (Some(ring), Some(&i)) = (&mut self.ring, shelf.free.last()) else { return Put::Full };
        let to = shelf.buffers.at(i).as_ptr();
        let mut at = header;
        // SAFETY: the buffer has room for header and frame, and is ours until the ring has it; the segments are lent, make up the
        // frame's length, and lie elsewhere: nobody lends a transmit buffer.
        unsafe {
            to.cast::<[u8; 12]>().write_unaligned([0; 12]);
            to.cast::<[u8; VnetHdr::LEN]>().write_unaligned(frame.hdr.encode());
            for seg in burst.segs(frame) {
                let n = seg.len().min(len - at);
                copy(seg.ptr(), to.add(at), n);
                at += n;
            }
        }
        if !ring.add(&[shelf.buffers.seg(i, at as u32)], 1, shelf.first + i) {
            return Put::Full;
        }
        shelf.free.pop();
        Put::Done
    }

    /// Frames that could be given now, if they are small.
    fn places(&self) -> usize {
        self.ring.as_ref().map_or(0, |ring| ring.room().min(self.small.free.len()))
    }

    /// The ring makes no sense: it ends here.
    #[cold]
    fn fail(&mut self, fault: RingFault) {
        self.ring = None;
        self.report.fail(fault);
    }
}

impl<R: DriverRing> TxQueue for VhostUserTx<R> {
    fn start(&mut self, _turn: &mut Turn<'_>) {}

    fn caps(&self) -> Caps {
        self.agreed.caps
    }

    #[inline]
    fn room(&mut self, _turn: &mut Turn<'_>, want: usize) -> usize {
        if self.ring.is_none() {
            return usize::MAX; // dropped by name
        }
        if (self.places() < want.min(BURST) || self.large.free.is_empty())
            && let Err(fault) = self.reap()
        {
            self.fail(fault);
            return usize::MAX;
        }
        self.places()
    }

    fn tx(&mut self, _turn: &mut Turn<'_>, burst: &Burst, mask: Mask) -> usize {
        if self.ring.is_none() {
            let frames = mask.iter().filter_map(|i| burst.frames().get(i));
            self.stopped += frames.map(|frame| u64::from(frame.weight)).sum::<u64>();
            return mask.count();
        }
        let mut taken = 0;
        for frame in mask.iter().filter_map(|i| burst.frames().get(i)) {
            match self.put(burst, frame) {
                Put::Done => {
                    self.frames += u64::from(frame.weight);
                    self.bytes += frame.len() as u64;
                }
                Put::Full => break,
                Put::Never => self.too_long += u64::from(frame.weight),
            }
            taken += 1;
        }
        taken
    }

    fn flush(&mut self, _turn: &mut Turn<'_>) {
        if let Some(ring) = &mut self.ring
            && ring.publish()
            && let Some(kick) = &mut self.kick
        {
            kick.ring();
        }
    }

    fn settle(&mut self, _turn: &mut Turn<'_>, counters: &PortCounters) {
        if self.frames > 0 {
            counters.tx.frames.add(std::mem::take(&mut self.frames));
            counters.tx.bytes.add(std::mem::take(&mut self.bytes));
        }
        if self.stopped > 0 {
            counters.count_drop(DropReason::NotConnected, std::mem::take(&mut self.stopped));
        }
        if self.too_long > 0 {
            counters.count_drop(DropReason::TooLong, std::mem::take(&mut self.too_long));
        }
    }

    fn stop(&mut self, _turn: &mut Turn<'_>) -> bool {
        self.ring = None;
        true
    }
}
