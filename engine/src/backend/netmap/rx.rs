//! Receiving: frames are lent where the kernel put them.

#![allow(unsafe_code)] // lends buffers of the region

use super::Shared;
use super::abi::{MAX_FRAGS, NS_BUF_CHANGED, NS_MOREFRAG, Slot};
use super::driver::Way;
use super::ring::Ring;
use crate::burst::{BURST, Burst, Seg};
use crate::port::counters::DropReason;
use crate::port::{RxQueue, Source, Turn};
use crate::wire::vnet_hdr::VnetHdr;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Bytes of an Ethernet header.
const ETH_HEADER: usize = 14;

/// The receiving half of a queue: the rings of one file, nearly always one.
pub(super) struct NetmapRx {
    shared: Arc<Shared>,
    rings: Box<[Ring]>,
    /// The ring that the last burst came from.
    at: usize,
    /// Slots of each frame of the last burst.
    lent: [u8; BURST],
    frames: usize,
    /// Slots that are the kernel's again and that it has not seen.
    owed: u32,
    /// There may be more.
    more: bool,
    malformed: u64,
    trouble: i32,
}

/// What stands at a place.
enum Next {
    /// A frame of so many slots, which is in the burst now.
    Frame(u32),
    /// So many slots that are no frame.
    Malformed(u32),
    /// A burst that is full, or a frame of which the rest is to come.
    Later,
}

impl NetmapRx {
    pub(super) fn new(shared: Arc<Shared>, rings: Vec<Ring>) -> Self {
        Self {
            shared,
            rings: rings.into(),
            at: 0,
            lent: [0; BURST],
            frames: 0,
            owed: 0,
            more: false,
            malformed: 0,
            trouble: 0,
        }
    }

    /// Shows the kernel what is its own again, and takes in what came. Nothing is lent meanwhile.
    #[inline]
    fn sync(&mut self) {
        self.trouble = match self.shared.sync(Way::Rx) {
            Ok(()) => 0,
            Err(errno) => errno as i32,
        };
        self.owed = 0;
        self.rings.iter_mut().for_each(Ring::resume);
    }

    /// Whether the kernel is asked before the next burst: there is nothing, or a quarter of the ring is owed to it. Waiting for the file has taken in
    /// what came, so that a burst is one call.
    #[inline]
    fn is_due(&self, ring: usize) -> bool {
        self.rings.get(ring).is_some_and(|ring| ring.ours() == Some(0) || self.owed > ring.most() / 4)
    }

    /// Lends frames of the first ring that has some, from `first` on.
    #[inline]
    fn lend_first(&mut self, first: usize, want: usize, burst: &mut Burst) {
        for at in (first..self.rings.len()).chain(0..first) {
            self.at = at;
            self.lend(at, want, burst);
            if self.frames > 0 || self.more {
                return;
            }
        }
    }

    /// Lends frames of one ring.
    fn lend(&mut self, at: usize, want: usize, burst: &mut Burst) {
        let Some(ring) = self.rings.get_mut(at) else { return };
        let Some(there) = ring.ours() else {
            // The kernel stands outside of the ring: nothing in it can be trusted.
            self.trouble = libc::EPROTO;
            return;
        };
        let mut slot = 0;
        while self.frames < want && slot < there {
            match next(ring, self.shared.header, slot, there, burst) {
                Next::Frame(count) => {
                    if let Some(place) = self.lent.get_mut(self.frames) {
                        *place = count as u8;
                    }
                    self.frames += 1;
                    slot += count;
                }
                // Only the oldest can be taken out: behind others it waits for the next burst.
                Next::Malformed(count) => {
                    if self.frames > 0 {
                        break;
                    }
                    self.malformed += 1;
                    self.more = true;
                    give_back(ring, count);
                    self.owed += count;
                    break;
                }
                Next::Later => break,
            }
        }
    }
}

/// The first `count` slots are the kernel's again; a buffer that changed hands is replaced by the one that came for it.
#[inline]
fn give_back(ring: &mut Ring, count: u32) {
    if ring.exchange().is_some() {
        for n in 0..count {
            let Slot { buf_idx, len, flags, .. } = ring.slot(n);
            if let Some(other) = ring.exchange().and_then(|region| region.take(buf_idx)) {
                ring.put(n, other, len, flags | NS_BUF_CHANGED);
            }
        }
    }
    ring.advance(count);
    ring.publish(false);
}

/// The bytes of a slot, if they lie in a buffer.
#[inline]
fn part(ring: &Ring, slot: &Slot) -> Option<Seg> {
    if usize::from(slot.len) > ring.buffer_size() {
        return None;
    }
    let start = ring.buffer(slot.buf_idx)?;
    // SAFETY: as many bytes as the buffer has at most, and it lies in the region, which the ring keeps mapped. The slot is ours until it is given back.
    Some(unsafe { Seg::new(start, u32::from(slot.len)) })
}

/// Appends the frame whose first slot is the `at`th of `there`.
#[inline]
fn next(ring: &Ring, header: usize, at: u32, there: u32, burst: &mut Burst) -> Next {
    let slot = ring.slot(at);
    if slot.flags & NS_MOREFRAG != 0 {
        return several(ring, header, at, there, burst);
    }
    let Some(run) = part(ring, &slot).filter(|run| run.len() >= header + ETH_HEADER) else {
        return Next::Malformed(1);
    };
    let (hdr, frame) = if header == 0 { (VnetHdr::NONE, run) } else { (vnet(&run), run.behind(header)) };
    if burst.push_one(hdr, frame) { Next::Frame(1) } else { Next::Later }
}

/// The virtio-net header at the front; `run` has as many bytes.
#[inline]
fn vnet(run: &Seg) -> VnetHdr {
    let mut bytes = [0; VnetHdr::LEN];
    run.copy_first(&mut bytes);
    VnetHdr::decode(&bytes)
}

/// A frame of several slots.
#[inline(never)]
fn several(ring: &Ring, header: usize, at: u32, there: u32, burst: &mut Burst) -> Next {
    let (mut segs, mut count, mut used, mut sane) = ([Seg::EMPTY; MAX_FRAGS], 0, 0, true);
    let mut hdr = VnetHdr::NONE;
    loop {
        if at + count >= there {
            // The kernel shows whole frames; one that fills the ring without an end is none.
            return if there < ring.most() || at > 0 { Next::Later } else { Next::Malformed(count) };
        }
        let slot = ring.slot(at + count);
        match (part(ring, &slot), segs.get_mut(used)) {
            // Its header lies in the first slot, which may hold nothing else.
            (Some(run), Some(place)) if count == 0 && header > 0 => {
                sane = run.len() >= header;
                if sane {
                    hdr = vnet(&run);
                    *place = run.behind(header);
                    used += usize::from(!place.is_empty());
                }
            }
            (Some(run), Some(place)) => {
                *place = run;
                used += usize::from(!run.is_empty());
            }
            _ => sane = false,
        }
        count += 1;
        if slot.flags & NS_MOREFRAG == 0 || count as usize >= MAX_FRAGS {
            sane &= slot.flags & NS_MOREFRAG == 0;
            break;
        }
    }
    let parts = segs.get(..used).filter(|_| sane).unwrap_or_default();
    if parts.iter().map(Seg::len).sum::<usize>() < ETH_HEADER {
        return Next::Malformed(count);
    }
    if burst.push(hdr, parts) { Next::Frame(count) } else { Next::Later }
}

impl RxQueue for NetmapRx {
    fn start(&mut self, turn: &mut Turn<'_>) {
        match turn.io.watch(self.shared.fd.as_fd()) {
            Ok(id) => self.shared.file.set(Some(id)),
            Err(error) => self.trouble = error.errno() as i32,
        }
        self.more = true;
    }

    fn rx(&mut self, _turn: &mut Turn<'_>, want: usize, burst: &mut Burst) {
        (self.frames, self.more) = (0, false);
        if self.shared.file.get().is_none() {
            return;
        }
        let (want, rings) = (want.min(BURST), self.rings.len());
        // From another ring each time.
        let first = if self.at + 1 < rings { self.at + 1 } else { 0 };
        let due = self.is_due(first);
        if due {
            self.sync();
        }
        self.lend_first(first, want, burst);
        if !(due || self.more || self.frames > 0) {
            // A frame of which the rest may have come, or other rings that have nothing.
            self.sync();
            self.lend_first(first, want, burst);
        }
        self.more |= self.frames > 0;
    }

    fn release(&mut self, _turn: &mut Turn<'_>, taken: usize) {
        let lent = self.lent.get(..taken.min(self.frames)).unwrap_or_default();
        let count: u32 = lent.iter().copied().map(u32::from).sum();
        self.frames = 0;
        if let Some(ring) = self.rings.get_mut(self.at).filter(|_| count > 0) {
            give_back(ring, count);
            self.owed += count;
        }
    }

    fn notify(&mut self) {}

    fn stop(&mut self, turn: &mut Turn<'_>) -> bool {
        self.frames = 0;
        self.shared.file.close(turn.io)
    }

    fn source(&self) -> Source {
        self.shared.file.source()
    }

    fn pending(&self) -> bool {
        self.more
    }

    fn drops(&mut self) -> Option<(DropReason, u64)> {
        let n = std::mem::take(&mut self.malformed);
        (n > 0).then_some((DropReason::Malformed, n))
    }

    fn trouble(&self) -> i32 {
        self.trouble
    }
}
