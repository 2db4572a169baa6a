//! From the device: lends frames where it wrote them, in our receive buffers.

use super::buffers::Buffers;
use super::open::Keep;
use super::options::Agreed;
use super::undone;
use crate::backend::report::Report;
use crate::backend::signal::Signal;
use crate::burst::{BURST, Burst, MAX_FRAME, Seg};
use crate::mem::guest::GuestMemory;
use crate::port::counters::DropReason;
use crate::port::{Doze, RxQueue, Source, Turn};
use crate::uring::Bell;
use crate::virtq::{DriverRing, RingConfig, RingFault};
use crate::wire::vnet_hdr::{F_DATA_VALID, VnetHdr};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// Bytes of an Ethernet header.
const ETH_HEADER: usize = 14;
/// Buffers of a frame at most: a device fills each before it takes the next, so this is more than the longest frame takes.
const SEGS: usize = 64;

/// The receiving half of a queue pair.
pub(super) struct DriverRx<R> {
    ring: Option<R>,
    agreed: Agreed,
    buffers: Buffers,
    /// Entries of the ring.
    size: u16,
    /// Buffers that came back and were not given again, oldest first: which, and the bytes written. Room for all there are.
    arrived: VecDeque<(u32, u32)>,
    /// Buffers of each frame of the last burst.
    lent: [u16; BURST],
    /// Frames of the last burst.
    frames: usize,
    malformed: u64,
    /// What the device did wrong, behind the frames that arrived before.
    broken: Option<RingFault>,
    kick: Option<Bell>,
    call: Signal,
    report: Arc<Report>,
    /// Goes before the region.
    _keep: Option<Keep>,
    /// Keeps the region mapped.
    _memory: Arc<GuestMemory>,
}

/// What stands at the front of the buffers that arrived.
enum Next {
    /// A frame of so many buffers, which is in the burst now.
    Frame(u16),
    /// So many buffers that are no frame.
    Malformed(u16),
    /// Nothing, or not yet all of a frame, or a burst that is full.
    Later,
}

impl<R: DriverRing> DriverRx<R> {
    /// Gives all buffers to the ring.
    pub(super) fn new(
        mut ring: R,
        agreed: Agreed,
        buffers: Buffers,
        config: &RingConfig,
        report: Arc<Report>,
        keep: Option<&Keep>,
    ) -> Self {
        for token in 0..buffers.count() {
            ring.add(&[buffers.seg(token, buffers.len())], 0, token);
        }
        ring.publish(); // who starts to run a ring looks at it: no kick is needed
        Self {
            ring: Some(ring),
            agreed,
            buffers,
            size: config.size,
            arrived: VecDeque::with_capacity(usize::from(config.size)),
            lent: [0; BURST],
            frames: 0,
            malformed: 0,
            broken: None,
            kick: config.kick.as_ref().map(Bell::new),
            call: Signal::new(config.call.as_ref()),
            report,
            _keep: keep.cloned(),
            _memory: config.memory.clone(),
        }
    }

    /// Takes buffers back until there are `want` of them, or no more.
    #[inline]
    fn fetch(&mut self, want: usize) -> Result<(), RingFault> {
        let Some(ring) = &mut self.ring else { return Ok(()) };
        while self.arrived.len() < want {
            let room = self.buffers.len();
            let fault = match (self.broken, ring.used()) {
                (Some(fault), _) | (None, Err(fault)) => fault,
                (None, Ok(None)) => break,
                (None, Ok(Some((token, written)))) if written <= room => {
                    self.arrived.push_back((token, written));
                    continue;
                }
                (None, Ok(Some((_, written)))) => RingFault::Overrun { written, room },
            };
            self.broken = Some(fault);
            return Err(fault);
        }
        Ok(())
    }

    /// Appends the frame whose first buffer is the `at`th that arrived.
    #[inline]
    fn next(&mut self, at: usize, burst: &mut Burst) -> Result<Next, RingFault> {
        let Some(&(token, written)) = self.arrived.get(at) else { return Ok(Next::Later) };
        let header = self.agreed.header;
        let first = self.buffers.lend(token, written);
        // Copied once: what is looked at is what is used.
        let mut bytes = [0; 12];
        let (Some(head), true) = (bytes.get_mut(..header), first.len() >= header) else {
            return Ok(Next::Malformed(1));
        };
        first.copy_to(0, head);
        let [.., low, high] = bytes;
        let count = if self.agreed.mergeable { u16::from_le_bytes([low, high]) } else { 1 };
        let mut hdr = match bytes.first_chunk() {
            Some(short) if self.agreed.offloads => VnetHdr::decode(short),
            _ => VnetHdr::NONE,
        };
        let [flags, ..] = bytes;
        let vouched = !self.agreed.offloads && flags & F_DATA_VALID != 0;
        let body = first.slice(header, first.len());
        if count != 1 {
            return self.several(at, count, (hdr, vouched), body, burst);
        }
        if body.len() < ETH_HEADER {
            return Ok(Next::Malformed(1));
        }
        if vouched {
            hdr = undone::checksum(&self.buffers, token, header, &body, body.len());
        }
        Ok(if burst.push_one(hdr, body) { Next::Frame(1) } else { Next::Later })
    }

    /// A frame of several buffers.
    #[inline(never)]
    fn several(
        &mut self,
        at: usize,
        count: u16,
        (mut hdr, vouched): (VnetHdr, bool),
        body: Seg,
        burst: &mut Burst,
    ) -> Result<Next, RingFault> {
        if count == 0 || count > self.size {
            return Err(RingFault::Merged(count));
        }
        self.fetch(at + usize::from(count))?;
        if self.arrived.len() < at + usize::from(count) {
            return Ok(Next::Later);
        }
        let mut segs = [Seg::EMPTY; SEGS];
        let Some(places) = segs.get_mut(..usize::from(count)) else { return Ok(Next::Malformed(count)) };
        for (place, &(token, written)) in places.iter_mut().zip(self.arrived.range(at..)) {
            *place = self.buffers.lend(token, written);
        }
        if let Some(first) = places.first_mut() {
            *first = body;
        }
        let len: usize = places.iter().map(Seg::len).sum();
        if !(ETH_HEADER..=MAX_FRAME).contains(&len) {
            return Ok(Next::Malformed(count));
        }
        if let (true, Some(&(token, _))) = (vouched, self.arrived.get(at)) {
            hdr = undone::checksum(&self.buffers, token, self.agreed.header, &body, len);
        }
        Ok(if burst.push(hdr, places) { Next::Frame(count) } else { Next::Later })
    }
}

impl<R: DriverRing> DriverRx<R> {
    /// Gives the oldest `count` buffers that arrived to the ring again.
    #[inline]
    fn recycle(&mut self, count: usize) {
        let Some(ring) = &mut self.ring else { return };
        for _ in 0..count {
            let Some((token, _)) = self.arrived.pop_front() else { break };
            ring.add(&[self.buffers.seg(token, self.buffers.len())], 0, token);
        }
        ring.show();
    }

    /// The ring makes no sense: it ends here.
    #[cold]
    fn fail(&mut self, fault: RingFault) {
        self.ring = None;
        self.report.fail(fault);
    }
}

impl<R: DriverRing> RxQueue for DriverRx<R> {
    fn start(&mut self, turn: &mut Turn<'_>) {
        self.call.start(turn.io);
    }

    fn rx(&mut self, _turn: &mut Turn<'_>, want: usize, burst: &mut Burst) {
        self.frames = 0;
        if self.ring.is_none() {
            return;
        }
        let mut result = self.fetch(want.min(BURST));
        let mut at = 0;
        while self.frames < want.min(BURST) {
            match self.next(at, burst) {
                Ok(Next::Frame(count)) => {
                    if let Some(place) = self.lent.get_mut(self.frames) {
                        *place = count;
                    }
                    self.frames += 1;
                    at += usize::from(count);
                }
                // Only the oldest can be taken out: behind others it waits for the next burst.
                Ok(Next::Malformed(count)) => {
                    if self.frames == 0 {
                        self.recycle(usize::from(count));
                        self.malformed += 1;
                        // Rare, and no burst that would be given back.
                        fence(Ordering::SeqCst);
                        self.notify();
                    }
                    break;
                }
                Ok(Next::Later) => break,
                Err(fault) => {
                    result = Err(fault);
                    break;
                }
            }
        }
        // Frames before the fault go first; then it is found again.
        if let Err(fault) = result
            && self.frames == 0
        {
            self.fail(fault);
        }
    }

    fn release(&mut self, _turn: &mut Turn<'_>, taken: usize) {
        let lent = self.lent.get(..taken.min(self.frames)).unwrap_or_default();
        let count = lent.iter().copied().map(usize::from).sum();
        self.frames = 0;
        if count > 0 {
            self.recycle(count);
        }
    }

    fn notify(&mut self) {
        if self.ring.as_mut().is_some_and(DriverRing::asks)
            && let Some(kick) = &mut self.kick
        {
            kick.ring();
        }
    }

    fn stop(&mut self, turn: &mut Turn<'_>) -> bool {
        if !self.call.stop(turn.io) {
            return false;
        }
        self.ring = None;
        true
    }

    fn source(&self) -> Source {
        Source::Polled
    }

    fn pending(&self) -> bool {
        false
    }

    fn doze(&mut self) -> Doze {
        let Some(ring) = &mut self.ring else { return Doze::Sleep };
        ring.want_calls(true);
        let before = self.arrived.len();
        // A part of a frame waits for its rest, not for us.
        match self.fetch(before + 1) {
            Ok(()) if self.arrived.len() > before => Doze::Stay,
            Ok(()) => self.call.doze(),
            // It is found, and named, in the next turn.
            Err(_) => Doze::Stay,
        }
    }

    fn rise(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.want_calls(false);
        }
    }

    fn drops(&mut self) -> Option<(DropReason, u64)> {
        let n = std::mem::take(&mut self.malformed);
        (n > 0).then_some((DropReason::Malformed, n))
    }
}
