//! To the device: one copy into our transmit buffers, and one descriptor a frame.

#![allow(unsafe_code)] // writes the shared region

use super::buffers::Buffers;
use super::open::Keep;
use super::options::Agreed;
use crate::backend::copy::copy;
use crate::backend::report::Report;
use crate::backend::tally::Tally;
use crate::burst::{BURST, Burst, Frame, Mask};
use crate::mem::guest::GuestMemory;
use crate::port::counters::PortCounters;
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
pub(super) struct DriverTx<R> {
    ring: Option<R>,
    agreed: Agreed,
    small: Shelf,
    large: Shelf,
    tally: Tally,
    kick: Option<Bell>,
    report: Arc<Report>,
    /// Goes before the region.
    _keep: Option<Keep>,
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

impl<R: DriverRing> DriverTx<R> {
    pub(super) fn new(
        ring: R,
        agreed: Agreed,
        [small, large]: [Buffers; 2],
        config: &RingConfig,
        report: Arc<Report>,
        keep: Option<&Keep>,
    ) -> Self {
        Self {
            ring: Some(ring),
            agreed,
            small: Shelf::new(small, 0),
            large: Shelf::new(large, small.count()),
            tally: Tally::default(),
            kick: config.kick.as_ref().map(Bell::new),
            report,
            _keep: keep.cloned(),
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

impl<R: DriverRing> TxQueue for DriverTx<R> {
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
            return self.tally.refuse(burst, mask);
        }
        let mut taken = 0;
        for frame in mask.iter().filter_map(|i| burst.frames().get(i)) {
            match self.put(burst, frame) {
                Put::Done => {
                    self.tally.frames += u64::from(frame.weight);
                    self.tally.bytes += frame.len() as u64;
                }
                Put::Full => break,
                Put::Never => self.tally.too_long += u64::from(frame.weight),
            }
            taken += 1;
        }
        taken
    }

    fn flush(&mut self, _turn: &mut Turn<'_>) {
        if let Some(ring) = &mut self.ring {
            ring.show();
        }
    }

    fn notify(&mut self) {
        if self.ring.as_mut().is_some_and(DriverRing::asks)
            && let Some(kick) = &mut self.kick
        {
            kick.ring();
        }
    }

    fn settle(&mut self, _turn: &mut Turn<'_>, counters: &PortCounters) {
        self.tally.settle(counters);
    }

    fn stop(&mut self, _turn: &mut Turn<'_>) -> bool {
        self.ring = None;
        true
    }
}
