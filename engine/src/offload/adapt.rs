//! The stage itself: which frame needs what, and what became of each.

use super::coalesce::Coalescer;
use super::complete::complete;
use super::heads::Heads;
use super::out::{Out, Put};
use super::pieces::Pieces;
use super::segment::{MAX_SEGMENTS, Segmenter};
use crate::burst::{Burst, Frame, Mask, Seg};
use crate::port::Caps;
use crate::port::counters::DropReason;
use crate::wire::headers::MAX_HEADERS;
use crate::wire::vnet_hdr::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4, VnetHdr};

/// Bytes of heads that a worker makes between two calls of [`Offload::reset`]. Most heads take one cache line, so
/// this is some 16,000 frames. Too low: the worker submits in the middle of a turn. Too high: memory for nothing,
/// though not cache, since heads are used from the start again after each reset.
const HEADS: usize = 1 << 20;
const _: () = assert!(MAX_SEGMENTS * MAX_HEADERS <= HEADS, "one frame's heads must fit an empty arena");

/// What became of the frames given to [`Offload::adapt`]. Each is counted once, by its weight: taken, dropped, or left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adapted {
    /// Frames taken, as they came: a large one counts once, each of a coalesced one counts.
    pub frames: u64,
    /// Bytes of the frames taken, as they came.
    pub bytes: u64,
    /// Frames dropped, by reason; a count may be 0. `tx-full` here is the rest of a frame of which pieces went.
    pub drops: [(DropReason, u64); 2],
    /// Frames of which nothing went: the receiver is full, or there was no room for heads. They are still the
    /// caller's, who keeps them, gives them again, or drops them by name.
    pub left: Mask,
    /// Some frames are left for want of heads: submit, call [`Offload::reset`], then adapt `left` again.
    pub out_of_heads: bool,
    /// Some frames joined others.
    pub joined: bool,
}

/// The offload stage of one worker. All memory is allocated by [`Offload::new`].
#[derive(Debug)]
pub struct Offload {
    heads: Heads,
    pieces: Pieces,
    coalescer: Coalescer,
    out: Out,
}

/// Why no more frames are looked at.
enum Stop {
    Full,
    NoHeads,
}

impl Default for Offload {
    fn default() -> Self {
        Self::new()
    }
}

impl Offload {
    /// A stage with room for a turn's heads.
    #[must_use]
    pub fn new() -> Self {
        Self { heads: Heads::new(HEADS), pieces: Pieces::new(), coalescer: Coalescer::new(), out: Out::new() }
    }

    /// Whether `frame` can go to a receiver with these `caps` as it is, and could not be coalesced either.
    ///
    /// [`F_DATA_VALID`](crate::wire::vnet_hdr::F_DATA_VALID) alone is no work: a receiver that was not promised
    /// checksums does not show the flag.
    #[must_use]
    #[inline]
    pub fn fits(frame: &Frame, caps: &Caps) -> bool {
        ready(&frame.hdr, caps) && !(caps.coalesce && frame.hdr.gso_type == GSO_NONE)
    }

    /// Whether the selected frames can all go to a receiver with these `caps` as they are, with nothing to coalesce.
    #[must_use]
    #[inline]
    pub fn fits_all(burst: &Burst, mask: Mask, caps: &Caps) -> bool {
        if !caps.coalesce && !burst.has_offloads() {
            return true;
        }
        let (mut ready_all, mut small) = (true, 0);
        for frame in mask.iter().filter_map(|i| burst.frames().get(i)) {
            ready_all &= ready(&frame.hdr, caps);
            small += usize::from(frame.hdr.gso_type == GSO_NONE);
        }
        ready_all && (!caps.coalesce || small < 2)
    }

    /// Adapts the selected frames for `caps` and gives them to `sink`, in order but for frames that join an earlier
    /// one of their flow. `sink` gets a burst and a selection of its frames, returns how many of the selection it took
    /// (a prefix), and is called as often as needed; once it takes less than it was given it is not called again.
    ///
    /// Heads that the adapted frames point to stay valid until [`Offload::reset`].
    #[must_use]
    pub fn adapt(
        &mut self,
        burst: &Burst,
        mask: Mask,
        caps: &Caps,
        mut sink: impl FnMut(&Burst, Mask) -> usize,
    ) -> Adapted {
        let mask = Mask(mask.0 & burst.all().0);
        let runs = self.plan(burst, mask, caps);
        if !runs && mask.iter().filter_map(|i| burst.frames().get(i)).all(|f| ready(&f.hdr, caps)) {
            let took = if mask.is_empty() { 0 } else { sink(burst, mask) };
            let taken = mask.iter().take(took).fold(0, |taken, i| taken | 1 << i);
            return Adapted::count(burst, mask, taken, taken, 0);
        }
        self.out.start();
        let (mut bad, mut out_of_heads) = (0, false);
        for i in mask.iter() {
            let Some(frame) = burst.frames().get(i) else { break };
            match self.one(burst, i, frame, caps, &mut sink) {
                Ok(true) => {}
                Ok(false) => bad |= 1 << i,
                Err(stop) => {
                    out_of_heads = matches!(stop, Stop::NoHeads);
                    break;
                }
            }
        }
        self.out.flush(&mut sink);
        let counted = Adapted::count(burst, mask, self.out.taken, self.out.begun, bad);
        Adapted { out_of_heads, joined: runs, ..counted }
    }

    /// Lends first bytes of frames that were made elsewhere, until [`Offload::reset`]; `None` when there is no room.
    pub fn lend(&mut self, heads: &[u8]) -> Option<Seg> {
        self.heads.lend(heads)
    }

    /// Forgets all heads. Call it when nothing that `sink` was given is still to be read: after the turn's submission.
    pub const fn reset(&mut self) {
        self.heads.reset();
    }

    /// Finds what can be coalesced.
    fn plan(&mut self, burst: &Burst, mask: Mask, caps: &Caps) -> bool {
        self.coalescer.clear();
        let takes = if mask.count() > 1 { Coalescer::takes(caps) } else { None };
        takes.is_some_and(|takes| self.coalescer.plan(burst, mask, takes))
    }

    /// Adapts one frame, or the run that it starts. False: it is dropped, since it cannot be done.
    fn one(
        &mut self,
        burst: &Burst,
        i: usize,
        frame: &Frame,
        caps: &Caps,
        sink: &mut impl FnMut(&Burst, Mask) -> usize,
    ) -> Result<bool, Stop> {
        let Self { heads, pieces, coalescer, out } = self;
        let mut put = |hdr, segs: &_, from, last| {
            let weight = if last { weight(burst, from) } else { 0 };
            match out.put(hdr, segs, from, last, weight, sink) {
                Put::Done => Ok(true),
                Put::TooLong => Ok(false),
                Put::Full => Err(Stop::Full),
            }
        };
        if coalescer.joined(i) {
            return Ok(true);
        }
        let run = coalescer.run(i);
        if run.is_none() && ready(&frame.hdr, caps) {
            return put(frame.hdr, burst.segs(frame), 1 << i, true);
        }
        if run.is_none() && frame.hdr.gso_type != GSO_NONE {
            let Ok(mut large) = Segmenter::new(burst, frame, caps.csum) else { return Ok(false) };
            if !heads.has_room(large.left(), large.head_len()) {
                return Err(Stop::NoHeads);
            }
            while let Some(hdr) = large.next(heads, pieces) {
                if !put(hdr, pieces.segs(), 1 << i, large.left() == 0)? {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        if !heads.has_room(1, MAX_HEADERS) {
            return Err(Stop::NoHeads);
        }
        let (made, from) = match run {
            Some(run) => (coalescer.merge(burst, i, heads, pieces), run.0),
            None => (complete(burst, frame, heads, pieces), 1 << i),
        };
        match made {
            Ok(hdr) => put(hdr, pieces.segs(), from, true),
            Err(_) => Ok(false),
        }
    }
}

impl Adapted {
    /// Counts each frame once. `taken` went whole, of `begun` some piece went, `bad` cannot be done.
    fn count(burst: &Burst, mask: Mask, taken: u64, begun: u64, bad: u64) -> Self {
        let torn = begun & !taken & !bad;
        let bytes = Mask(taken).iter().filter_map(|i| burst.frames().get(i)).map(|f| f.len() as u64).sum();
        let frames = |mask| u64::from(weight(burst, mask));
        Self {
            frames: frames(taken),
            bytes,
            drops: [(DropReason::BadOffload, frames(bad)), (DropReason::TxFull, frames(torn))],
            left: Mask(mask.0 & !(taken | torn | bad)),
            out_of_heads: false,
            joined: false,
        }
    }
}

/// Frames that those of `mask` stand for.
fn weight(burst: &Burst, mask: u64) -> u32 {
    Mask(mask).iter().filter_map(|i| burst.frames().get(i)).map(|f| f.weight).sum()
}

/// Whether a receiver with these `caps` takes a frame with this header as it is.
#[inline]
const fn ready(hdr: &VnetHdr, caps: &Caps) -> bool {
    let csum = caps.csum || !hdr.needs_csum();
    match hdr.gso_type {
        GSO_NONE => csum,
        GSO_TCPV4 => csum && caps.tso4,
        GSO_TCPV6 => csum && caps.tso6,
        GSO_UDP => csum && caps.ufo,
        GSO_UDP_L4 => csum && caps.uso,
        _ => match (hdr.gso(), hdr.gso_type & GSO_ECN != 0) {
            (GSO_TCPV4, true) => csum && caps.tso4 && caps.ecn,
            (GSO_TCPV6, true) => csum && caps.tso6 && caps.ecn,
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests;
