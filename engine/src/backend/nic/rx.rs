//! From the guest: lends the frames of its transmit ring where they lie.

#![allow(unsafe_code)] // names guest memory

use super::later::Later;
use super::open::Shared;
use super::options::Features;
use crate::backend::signal::Signal;
use crate::burst::{BURST, Burst, MAX_FRAME, Seg};
use crate::mem::guest::GuestMemory;
use crate::port::counters::DropReason;
use crate::port::{Doze, RxQueue, Source, Turn};
use crate::uring::Bell;
use crate::virtq::inflight::{InflightRing, publish, show};
use crate::virtq::{Access, CHAINS, Chain, DeviceRing, Found, RingConfig};
use crate::wire::rarp;
use crate::wire::vnet_hdr::VnetHdr;
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes of an Ethernet header.
const ETH_HEADER: usize = 14;
/// Segments of a frame at most, header included, that are lent as they are.
const SEGS: usize = 64;

/// Buffers that may come back later have one segment of that many bytes at most: those that wait would else be most of a ring, or of a guest's memory.
const SMALL: usize = 2048;

/// The receiving half of a nic's queue pair.
pub(super) struct NicRx<R> {
    ring: Option<R>,
    features: Features,
    found: Found,
    /// Frames of the last burst: as many chains of `found`, from the first on.
    lent: usize,
    malformed: u64,
    later: Later,
    kick: Signal,
    call: Option<Bell>,
    inflight: Option<InflightRing>,
    shared: Arc<Shared>,
    /// A frame that announces the guest, and whether it is the one that is lent.
    rarp: [u8; rarp::LEN],
    announcing: bool,
    /// Keeps the memory of lent frames mapped.
    _memory: Option<Arc<GuestMemory>>,
}

impl<R: DeviceRing> NicRx<R> {
    pub(super) fn new(ring: Option<R>, features: Features, config: &RingConfig, shared: Arc<Shared>) -> Self {
        Self {
            ring,
            features,
            later: Later::new(config),
            kick: Signal::new(config.kick.as_ref()),
            call: config.call.as_ref().map(Bell::new),
            inflight: config.inflight.clone(),
            _memory: Some(config.memory.clone()),
            ..Self::absent(shared)
        }
    }

    /// A half whose ring does not run.
    pub(super) fn absent(shared: Arc<Shared>) -> Self {
        Self {
            ring: None,
            features: Features::of(0),
            found: Found::new(),
            lent: 0,
            malformed: 0,
            later: Later::default(),
            kick: Signal::default(),
            call: None,
            inflight: None,
            shared,
            rarp: [0; rarp::LEN],
            announcing: false,
            _memory: None,
        }
    }
}

impl<R: DeviceRing> NicRx<R> {
    /// Shows the driver the buffers that it was to get back later.
    #[inline(never)]
    fn give_rest(&mut self) {
        let Some(ring) = self.ring.as_mut().filter(|_| self.later.end()) else { return };
        if publish(ring, self.inflight.as_ref()) {
            notify(self.call.as_mut());
        }
    }

    /// The ring ends.
    fn end(&mut self) {
        self.give_rest();
        if let Some(ring) = self.ring.take() {
            self.shared.stop(ring.position());
        }
    }
}

impl<R> NicRx<R> {
    /// Lends the frame that announces the guest, alone.
    #[cold]
    fn announce(&mut self, burst: &mut Burst) {
        let Some(mac) = self.shared.announcement() else { return };
        self.rarp = rarp::frame(mac);
        let Some(at) = NonNull::new(self.rarp.as_mut_ptr()) else { return };
        // SAFETY: the frame is this queue's own and stays as it is until the burst is given back.
        let seg = unsafe { Seg::new(at, rarp::LEN as u32) };
        self.announcing = burst.push(VnetHdr::NONE, &[seg]);
    }
}

/// A frame of one segment: its header, and its bytes behind the header.
#[inline(always)]
fn plain(found: &Found, chain: &Chain, header: usize, offloads: bool) -> Option<(VnetHdr, Seg)> {
    let one = found.one(chain)?;
    let bytes = one.after(header as u32)?;
    if !(ETH_HEADER..=MAX_FRAME).contains(&bytes.len()) {
        return None;
    }
    // SAFETY: the chain's one segment is lent, and has a header and more.
    let hdr = unsafe { one.ptr().cast::<[u8; VnetHdr::LEN]>().read_unaligned() };
    Some((if offloads { VnetHdr::decode(&hdr) } else { VnetHdr::NONE }, bytes))
}

/// The frame of a chain: its header, and its segments behind the header. False when the burst is full, nothing for what is no frame.
#[inline(never)]
fn frame(found: &Found, chain: &Chain, header: usize, burst: &mut Burst) -> Option<bool> {
    let len = (chain.len as usize).checked_sub(header)?;
    if !(ETH_HEADER..=MAX_FRAME).contains(&len) {
        return None;
    }
    match found.segs(chain) {
        // Most drivers put the header into a descriptor of its own.
        [first, rest @ ..] if first.len() == header => {
            let mut bytes = [0; VnetHdr::LEN];
            first.copy_to(0, &mut bytes);
            Some(burst.push(VnetHdr::decode(&bytes), rest))
        }
        segs => scattered(segs, header, burst),
    }
}

/// A frame whose header ends in the middle of a segment.
#[cold]
fn scattered(segs: &[Seg], header: usize, burst: &mut Burst) -> Option<bool> {
    let mut bytes = [0; 12];
    let (mut done, mut count) = (0, 0);
    let mut body = [Seg::EMPTY; SEGS];
    for seg in segs {
        let taken = seg.copy_to(0, bytes.get_mut(done..header)?);
        done += taken;
        let rest = seg.slice(taken, seg.len());
        if !rest.is_empty() {
            *body.get_mut(count)? = rest;
            count += 1;
        }
    }
    let short: &[u8; VnetHdr::LEN] = bytes.first_chunk()?;
    Some(burst.push(VnetHdr::decode(short), body.get(..count)?))
}

impl<R: DeviceRing> RxQueue for NicRx<R> {
    fn start(&mut self, turn: &mut Turn<'_>) {
        self.kick.start(turn.io);
    }

    #[inline]
    fn is_empty(&mut self) -> bool {
        if self.later.is_due() {
            self.give_rest();
        }
        self.found.chains().is_empty()
            && self.ring.as_mut().is_none_or(DeviceRing::is_empty)
            && !self.shared.announces()
    }

    fn peek(&mut self) -> usize {
        if self.shared.announces() {
            return 1;
        }
        let Some(ring) = &mut self.ring else { return 0 };
        let held = self.found.chains().len();
        if held < BURST {
            // What makes no sense is met again when it is taken.
            let looked = ring.look(BURST - held, Access::Read, &mut self.found);
            return self.found.chains().len().max(usize::from(looked.is_err()));
        }
        held
    }

    fn rx(&mut self, _turn: &mut Turn<'_>, want: usize, burst: &mut Burst) {
        self.lent = 0;
        if self.shared.announces() && want > 0 {
            return self.announce(burst);
        }
        let Some(ring) = &mut self.ring else { return };
        if self.found.chains().is_empty()
            && let Err(fault) = ring.look(want.min(CHAINS), Access::Read, &mut self.found)
            && self.found.chains().is_empty()
        {
            self.shared.fail(fault);
            self.end();
            return;
        }
        let header = self.features.header;
        let offloads = self.features.offloads;
        loop {
            let next =
                self.found.chains().get(self.lent..want.min(self.found.chains().len())).unwrap_or_default();
            self.lent += burst.fill(next.iter(), |chain| plain(&self.found, chain, header, offloads));
            // What is not plain, if the burst has room.
            let Some(chain) = self.found.chains().get(self.lent).filter(|_| self.lent < want) else { break };
            match frame(&self.found, chain, header, burst) {
                Some(true) => self.lent += 1,
                Some(false) => break,
                // Only the oldest can be taken out: behind others it waits for the next burst.
                None if self.lent > 0 => break,
                None => {
                    ring.give(chain, 0);
                    self.found.drop_front(1);
                    self.malformed += 1;
                    self.later.end();
                    if publish(ring, self.inflight.as_ref()) {
                        notify(self.call.as_mut());
                    }
                    break;
                }
            }
        }
        if !offloads && burst.has_offloads() {
            for frame in burst.frames_mut() {
                frame.hdr = VnetHdr::NONE;
            }
        }
    }

    fn release(&mut self, _turn: &mut Turn<'_>, taken: usize) {
        if std::mem::take(&mut self.announcing) {
            if taken > 0 {
                self.shared.announced();
            }
            return;
        }
        let Some(ring) = &mut self.ring else { return };
        let taken = taken.min(std::mem::take(&mut self.lent));
        if taken == 0 {
            return;
        }
        let last = self.found.chains().get(taken - 1);
        let small = last.is_some_and(|chain| self.found.one(chain).is_some_and(|seg| seg.len() <= SMALL));
        ring.give_all(self.found.chains().iter().take(taken).map(|chain| (chain, 0)));
        self.found.drop_front(taken);
        if small {
            self.later.show(ring, self.inflight.as_ref());
        } else {
            self.later.end();
            show(ring, self.inflight.as_ref());
        }
    }

    fn notify(&mut self) {
        if self.ring.as_mut().is_some_and(DeviceRing::asks) {
            notify(self.call.as_mut());
        }
    }

    fn stop(&mut self, turn: &mut Turn<'_>) -> bool {
        if !self.kick.stop(turn.io) {
            return false;
        }
        self.end();
        true
    }

    fn source(&self) -> Source {
        Source::Polled
    }

    fn pending(&self) -> bool {
        false
    }

    fn doze(&mut self) -> Doze {
        if self.shared.announces() {
            return Doze::Stay;
        }
        self.give_rest();
        let Some(ring) = &mut self.ring else { return Doze::Sleep };
        ring.want_kicks(true);
        match ring.available(1) {
            // Nothing, or a chain without an end, which nobody waits for.
            Ok(0) => self.kick.doze(),
            // A fault is found, and named, in the next turn.
            _ => Doze::Stay,
        }
    }

    fn rise(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.want_kicks(false);
        }
    }

    fn drops(&mut self) -> Option<(DropReason, u64)> {
        let n = std::mem::take(&mut self.malformed);
        (n > 0).then_some((DropReason::Malformed, n))
    }
}

/// Tells the driver.
#[inline]
pub(super) fn notify(call: Option<&mut Bell>) {
    if let Some(call) = call {
        call.ring();
    }
}
