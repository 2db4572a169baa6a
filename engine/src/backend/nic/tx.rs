//! To the guest: one copy into the buffers of its receive ring.

#![allow(unsafe_code)] // writes guest memory

use super::copy::{Writer, copy};
use super::open::Shared;
use super::options::Features;
use super::rx::notify;
use crate::burst::{Burst, Frame, Mask};
use crate::mem::guest::GuestMemory;
use crate::port::counters::{DropReason, PortCounters};
use crate::port::{Caps, Doze, Turn, TxQueue};
use crate::uring::{Bell, FileId};
use crate::virtq::inflight::{InflightRing, publish};
use crate::virtq::{Access, CHAINS, Chain, DeviceRing, Found, RingConfig, RingFault};
use crate::wire::vnet_hdr::VnetHdr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// The transmitting half of a nic's queue pair.
pub(super) struct NicTx<R> {
    ring: Option<R>,
    /// What the guest takes now.
    pub(super) features: Features,
    /// Chains that were looked at and not yet filled: what they say is read once.
    found: Found,
    /// Entries of the ring.
    size: u16,
    frames: u64,
    bytes: u64,
    too_long: u64,
    /// Frames for a ring that does not run.
    stopped: u64,
    /// Chains that there were when a frame needed more.
    starved: usize,
    kick: Option<Arc<OwnedFd>>,
    /// The kick as the worker watches it.
    file: Option<FileId>,
    call: Option<Bell>,
    inflight: Option<InflightRing>,
    shared: Arc<Shared>,
    memory: Option<Arc<GuestMemory>>,
}

/// What became of a frame.
enum Put {
    /// It took this many chains.
    Done(usize),
    /// The buffers found do not suffice.
    Short,
    /// No buffer of this guest can ever hold it.
    Never,
}

impl<R: DeviceRing> NicTx<R> {
    pub(super) fn new(ring: Option<R>, features: Features, config: &RingConfig, shared: Arc<Shared>) -> Self {
        let mut this = Self::absent(shared);
        this.ring = ring;
        this.features = features;
        this.size = config.size;
        this.kick = config.kick.clone();
        this.call = config.call.as_ref().map(Bell::new);
        this.inflight = config.inflight.clone();
        this.memory = Some(config.memory.clone());
        this
    }

    /// A half whose ring does not run: frames for it are dropped by name.
    pub(super) fn absent(shared: Arc<Shared>) -> Self {
        Self {
            ring: None,
            features: Features::of(0),
            found: Found::new(),
            size: 0,
            frames: 0,
            bytes: 0,
            too_long: 0,
            stopped: 0,
            starved: 0,
            kick: None,
            file: None,
            call: None,
            inflight: None,
            shared,
            memory: None,
        }
    }
}

impl<R: DeviceRing> NicTx<R> {
    /// Looks for chains until there are `want`.
    #[inline]
    fn look(&mut self, want: usize) -> Result<(), RingFault> {
        let held = self.found.chains().len();
        match &mut self.ring {
            Some(ring) if held < want => ring.look(want - held, Access::Write, &mut self.found),
            _ => Ok(()),
        }
    }

    /// Gives the frames from the `skip`th selected one on to as many chains each as it needs; how many went.
    #[inline(never)]
    fn put_rest(&mut self, burst: &Burst, mask: Mask, skip: usize) -> usize {
        let mut taken = 0;
        for frame in mask.iter().skip(skip).filter_map(|i| burst.frames().get(i)) {
            // All that there is: a frame of 64 KiB takes dozens of chains.
            let looked = self.look(CHAINS);
            let Some(ring) = &mut self.ring else { break };
            match put_any(&self.found, &self.features, burst, frame) {
                Put::Done(chains) => {
                    let mut left = self.features.header + frame.len();
                    for chain in self.found.chains().iter().take(chains) {
                        let written = left.min(chain.len as usize);
                        left -= written;
                        ring.give(chain, written as u32);
                    }
                    self.log(chains);
                    self.found.drop_front(chains);
                    self.frames += u64::from(frame.weight);
                    self.bytes += frame.len() as u64;
                }
                Put::Short if looked.is_err() => {
                    let Err(fault) = looked else { break };
                    self.fail(fault);
                    break; // from the next look on they are dropped by name
                }
                // The ring is as full of buffers as it can be: it will never hold this frame.
                Put::Short if self.found.chains().len() >= CHAINS.min(usize::from(self.size)) => {
                    self.too_long += u64::from(frame.weight);
                }
                Put::Short => {
                    self.starved = self.found.chains().len();
                    break;
                }
                Put::Never => {
                    self.too_long += u64::from(frame.weight);
                }
            }
            taken += 1;
        }
        taken
    }

    /// Marks what was written to the oldest chains in the dirty log, if there is one.
    #[inline]
    fn log(&self, count: usize) {
        if let Some(memory) = self.memory.as_deref().filter(|memory| memory.logs()) {
            log(memory, &self.found, count);
        }
    }

    /// The ring makes no sense: it ends here.
    #[cold]
    fn fail(&mut self, fault: RingFault) {
        if let Some(ring) = self.ring.take() {
            self.shared.stop(ring.position());
        }
        self.found.clear();
        self.shared.fail(fault);
    }
}

/// Marks the buffers of chains in the dirty log.
#[cold]
fn log(memory: &GuestMemory, found: &Found, count: usize) {
    for chain in found.chains().iter().take(count) {
        for seg in found.segs(chain) {
            if let Some(guest) = memory.guest_of(seg.ptr()) {
                memory.mark(guest, seg.len() as u64);
            }
        }
    }
}

/// The fast form: one chain of one segment that holds header and frame.
#[inline(always)]
fn put_one(found: &Found, chain: &Chain, header: usize, burst: &Burst, frame: &Frame) -> bool {
    let ([to], [from]) = (found.segs(chain), burst.segs(frame)) else { return false };
    if to.len() < header + from.len() {
        return false;
    }
    // SAFETY: the segment is writable guest memory of at least header + frame bytes (looked at with Access::Write); the frame
    // is lent. A guest that lends itself its own buffers gets what it asked for: raw copies, no references.
    unsafe {
        let to = to.ptr().cast_mut();
        to.cast::<[u8; VnetHdr::LEN]>().write_unaligned(frame.hdr.encode());
        if header > VnetHdr::LEN {
            to.add(VnetHdr::LEN).cast::<[u8; 2]>().write_unaligned([1, 0]); // num_buffers
        }
        copy(from.ptr(), to.add(header), from.len());
    }
    true
}

/// What a run of the fast form moved.
#[derive(Default)]
struct Run {
    chains: usize,
    frames: u64,
    bytes: u64,
}

/// The fast form for as many frames as it fits, each in the next chain, which is used at once.
#[inline]
fn put_run<'f, R: DeviceRing>(
    ring: &mut R,
    found: &Found,
    header: usize,
    burst: &Burst,
    frames: impl Iterator<Item = &'f Frame>,
) -> Run {
    let mut run = Run::default();
    ring.give_all(found.chains().iter().zip(frames).map_while(|(chain, frame)| {
        if !put_one(found, chain, header, burst, frame) {
            return None;
        }
        run.chains += 1;
        run.frames += u64::from(frame.weight);
        run.bytes += u64::from(frame.len);
        Some((chain, header as u32 + frame.len))
    }));
    run
}

/// Gives a frame to the first chains of `found`.
#[cold]
fn put_any(found: &Found, features: &Features, burst: &Burst, frame: &Frame) -> Put {
    let need = features.header + frame.len();
    let mut chains = 0;
    let mut room = 0;
    for chain in found.chains() {
        chains += 1;
        room += chain.len as usize;
        if room >= need || !features.mergeable {
            break;
        }
    }
    if room < need {
        return if !features.mergeable && chains == 1 { Put::Never } else { Put::Short };
    }
    let mut head = [0u8; 12];
    head[..VnetHdr::LEN].copy_from_slice(&frame.hdr.encode());
    head[10..].copy_from_slice(&(chains as u16).to_le_bytes());
    let mut left = need;
    let mut source = burst.segs(frame).iter();
    let mut current = (head.as_ptr(), features.header);
    for chain in found.chains().iter().take(chains) {
        let mut writer = Writer::new(found.segs(chain));
        while left > 0 {
            if current.1 == 0 {
                let Some(seg) = source.next() else { break };
                current = (seg.ptr(), seg.len());
                continue;
            }
            // SAFETY: as `put_one`: writable guest memory, lent bytes or our own header.
            let n = unsafe { writer.put(current.0, current.1) };
            // SAFETY: n is at most what was left of the run.
            current = (unsafe { current.0.add(n) }, current.1 - n);
            left -= n;
            if current.1 > 0 {
                break; // the chain is full
            }
        }
    }
    Put::Done(chains)
}

impl<R: DeviceRing> TxQueue for NicTx<R> {
    fn start(&mut self, turn: &mut Turn<'_>) {
        // As for the other half: without it a full ring is looked at by timer.
        self.file = self.kick.as_ref().and_then(|kick| turn.io.watch(kick.as_fd()).ok());
    }

    fn caps(&self) -> Caps {
        self.features.caps
    }

    #[inline]
    fn room(&mut self, _turn: &mut Turn<'_>, want: usize) -> usize {
        if self.ring.is_none() {
            return usize::MAX;
        }
        match (self.look(want.min(CHAINS)), self.found.chains().len()) {
            (Err(fault), 0) => {
                self.fail(fault);
                usize::MAX
            }
            // What lies behind a fault is looked at again when the chains before it are filled.
            (_, n) => n,
        }
    }

    fn tx(&mut self, _turn: &mut Turn<'_>, burst: &Burst, mask: Mask) -> usize {
        let Some(ring) = &mut self.ring else {
            let frames = mask.iter().filter_map(|i| burst.frames().get(i));
            self.stopped += frames.map(|frame| u64::from(frame.weight)).sum::<u64>();
            return mask.count();
        };
        self.starved = 0;
        if self.found.chains().len() < mask.count() {
            // Segments of a large frame are more than were asked for. A fault is met again below.
            let _ = ring.look(mask.count() - self.found.chains().len(), Access::Write, &mut self.found);
        }
        let header = self.features.header;
        let lent = burst.frames();
        let run = if mask == burst.all() {
            put_run(ring, &self.found, header, burst, lent.iter())
        } else {
            put_run(ring, &self.found, header, burst, mask.iter().filter_map(|i| lent.get(i)))
        };
        self.frames += run.frames;
        self.bytes += run.bytes;
        self.log(run.chains);
        self.found.drop_front(run.chains);
        if run.chains == mask.count() {
            return run.chains;
        }
        run.chains + self.put_rest(burst, mask, run.chains)
    }

    fn flush(&mut self, _turn: &mut Turn<'_>) {
        if let Some(ring) = &mut self.ring
            && publish(ring, self.inflight.as_ref())
        {
            notify(self.call.as_mut());
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

    fn doze(&mut self) -> Doze {
        let Some(ring) = &mut self.ring else { return Doze::Stay };
        ring.want_kicks(true);
        match ring.available(self.starved + 1) {
            Ok(n) if n > self.starved => Doze::Stay,
            Ok(_) if self.file.is_some() => Doze::Sleep,
            Ok(_) => Doze::Nap,
            // A fault is found, and named, in the next turn.
            Err(_) => Doze::Stay,
        }
    }

    fn rise(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.want_kicks(false);
        }
    }

    fn stop(&mut self, turn: &mut Turn<'_>) -> bool {
        if let Some(file) = self.file {
            if !turn.io.close(file) {
                return false;
            }
            turn.io.remove(file);
            self.file = None;
        }
        if let Some(ring) = self.ring.take() {
            self.shared.stop(ring.position());
        }
        true
    }
}
