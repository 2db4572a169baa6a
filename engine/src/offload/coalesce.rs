//! Coalescing: consecutive frames of a flow, within one burst, become one large frame.
//!
//! A *run* is a frame and those that joined it. It leaves at the place of its first frame; it ends where a frame of
//! its flow cannot join, so the order within each flow stays. Frames that join nothing stay what they are.

use super::BadOffload;
use super::flow::{Candidate, Class, LOOK, Takes};
use super::heads::Heads;
use super::pieces::Pieces;
use crate::burst::{BURST, Burst, Frame, Mask};
use crate::port::Caps;
use crate::wire::bytes::{part, put16};
use crate::wire::checksum::Sum;
use crate::wire::headers::{Net, Transport};
use crate::wire::ip::{V4_CHECK, V4_TOTAL_LEN, V6_PAYLOAD_LEN};
use crate::wire::l4::{CWR, FIN, PSH, TCP_CHECK, TCP_FLAGS, UDP_CHECK, UDP_LEN};
use crate::wire::vnet_hdr::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VnetHdr};

/// Datagrams in one UDP frame at most: Linux's `UDP_MAX_SEGMENTS` was 64 up to 6.8, and larger frames are refused.
const MAX_DATAGRAMS: u32 = 64;
/// Bytes of one IP packet at most.
const MAX_PACKET: usize = 65535;
/// Segments of a coalesced frame at most, far below what `writev` takes (`UIO_MAXIOV`, 1024).
const MAX_PARTS: usize = 256;
/// Chains of the flow table; a power of two.
const CHAINS: usize = 64;
/// Frames whose heads are loaded ahead: they come from another CPU, and one wait for each would cost more than reading them.
const AHEAD: usize = 8;
/// No run.
const NONE: u8 = u8::MAX;

/// A frame, those that joined it, and what the next one must be.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// The first frame's headers.
    head: Candidate,
    /// The next run in this chain of the flow table.
    chain: u8,
    open: bool,
    /// The first frame's checksum was found right.
    verified: bool,
    /// TCP flags that the last frame brought.
    flags: u16,
    next_seq: u32,
    next_id: u16,
    count: u32,
    /// Bytes of payload and segments so far.
    len: usize,
    parts: usize,
    /// The frames, as a mask of the burst.
    frames: u64,
}

/// The runs of one burst.
#[derive(Debug)]
pub(super) struct Coalescer {
    runs: Box<[Run; BURST]>,
    used: usize,
    /// The run of the last frame that had one.
    last: u8,
    /// First run of each chain of flows with one hash.
    chains: [u8; CHAINS],
    /// For each frame that starts a run of two or more, that run.
    starts: [u8; BURST],
    /// Frames that start such a run, and those that joined one.
    merged: u64,
    joined: u64,
}

impl Coalescer {
    /// No run yet; the only allocation it makes.
    pub(super) fn new() -> Self {
        let run = Run {
            head: Candidate::EMPTY,
            chain: NONE,
            open: false,
            verified: false,
            flags: 0,
            next_seq: 0,
            next_id: 0,
            count: 0,
            len: 0,
            parts: 0,
            frames: 0,
        };
        Self {
            runs: Box::new([run; BURST]),
            used: 0,
            last: NONE,
            chains: [NONE; CHAINS],
            starts: [NONE; BURST],
            merged: 0,
            joined: 0,
        }
    }

    /// What a receiver takes large; `None` when nothing may be coalesced toward it.
    pub(super) fn takes(caps: &Caps) -> Option<Takes> {
        let takes = Takes { tcp4: caps.tso4, tcp6: caps.tso6, ecn: caps.ecn, udp: caps.uso };
        (caps.coalesce && caps.csum && (takes.tcp4 || takes.tcp6 || takes.udp)).then_some(takes)
    }

    /// Finds the runs among the selected frames of `burst`, after [`Coalescer::clear`]. True when there is one of two frames or more.
    pub(super) fn plan(&mut self, burst: &Burst, mask: Mask, takes: Takes) -> bool {
        let frames = burst.frames();
        let load = |frame: &Frame| burst.segs(frame).first().map_or((), |head| head.prefetch(LOOK));
        frames.iter().take(AHEAD).for_each(load);
        for i in mask.iter() {
            frames.iter().skip(i + AHEAD).take(1).for_each(load);
            if self.goes_on(burst, i) {
                continue;
            }
            // One run a frame at most, so there is always one left to read into.
            let (Some(frame), Some(slot)) = (burst.frames().get(i), self.runs.get_mut(self.used)) else {
                break;
            };
            match slot.head.read(burst, frame, takes) {
                Class::Outside => {}
                Class::Unknown => (self.chains, self.last) = ([NONE; CHAINS], NONE),
                class => self.place(burst, i, class),
            }
        }
        self.merged != 0
    }

    /// Forgets all runs.
    pub(super) fn clear(&mut self) {
        (self.used, self.last, self.merged, self.joined) = (0, NONE, 0, 0);
        self.chains = [NONE; CHAINS];
    }

    /// Adds frame `i` to the run of the frame before it, if it goes on with it by the bytes of its headers. In a bulk flow nearly all do, and
    /// are not taken apart.
    #[inline]
    fn goes_on(&mut self, burst: &Burst, i: usize) -> bool {
        let (old, free) = self.runs.split_at_mut(self.used);
        let (Some(run), Some(new)) = (old.get_mut(usize::from(self.last)), free.first_mut()) else {
            return false;
        };
        let Some(frame) = burst.frames().get(i).filter(|_| run.open && run.verified) else { return false };
        let [seg] = burst.segs(frame) else { return false };
        if !seg.copy_first(&mut new.head.head) {
            return false;
        }
        let right = run.head.precedes(&new.head.head, frame);
        if !right && !run.head.heads(&new.head.head, frame) {
            return false;
        }
        (new.head.at, new.head.hdr, new.head.len) = (run.head.at, run.head.hdr, run.head.len);
        let fits = run.follows(&new.head, 1) && (right || new.head.verified(burst, frame));
        if fits {
            run.take(&new.head, i, 1, Class::Joins);
            self.joined |= 1 << i;
        }
        fits
    }

    /// Puts frame `i`, whose headers were read into the next free run, where it belongs.
    fn place(&mut self, burst: &Burst, i: usize, class: Class) {
        let (old, free) = self.runs.split_at_mut(self.used);
        let (Some(new), Some(frame)) = (free.first_mut(), burst.frames().get(i)) else { return };
        let chain = new.head.hash as usize % CHAINS;
        let Some(first) = self.chains.get_mut(chain) else { return };
        let mut at = *first;
        while let Some(run) = old.get_mut(usize::from(at)) {
            if !run.head.same_flow(&new.head) {
                at = run.chain;
                continue;
            }
            if class != Class::Alone && run.open && run.may_take(&new.head, burst.segs(frame).len()) {
                let Some(first) = burst.frames().get(run.frames.trailing_zeros() as usize) else { return };
                run.verified = run.verified || run.head.verified(burst, first);
                if run.verified && new.head.verified(burst, frame) {
                    run.take(&new.head, i, burst.segs(frame).len(), class);
                    let start = run.frames.trailing_zeros() as usize;
                    self.joined |= 1 << i;
                    self.merged |= 1 << start;
                    self.last = at;
                    if let Some(s) = self.starts.get_mut(start) {
                        *s = at;
                    }
                    return;
                }
            }
            run.open = false;
            break;
        }
        if class == Class::Joins {
            new.begin(i, burst.segs(frame).len());
            new.chain = *first;
            (*first, self.last) = (self.used as u8, self.used as u8);
            self.used += 1;
        }
    }

    /// Whether frame `i` went into another's place.
    pub(super) const fn joined(&self, i: usize) -> bool {
        self.joined >> i & 1 == 1
    }

    /// The frames of the run that frame `i` starts, if it is of two or more.
    pub(super) fn run(&self, i: usize) -> Option<Mask> {
        if self.merged >> i & 1 == 0 {
            return None;
        }
        self.runs.get(usize::from(*self.starts.get(i)?)).map(|run| Mask(run.frames))
    }

    /// Puts the coalesced frame that starts with frame `i` together in `out`.
    ///
    /// # Errors
    /// [`BadOffload`] when no such run exists, or `heads` has no room for its head.
    pub(super) fn merge(
        &mut self,
        burst: &Burst,
        i: usize,
        heads: &mut Heads,
        out: &mut Pieces,
    ) -> Result<VnetHdr, BadOffload> {
        let start = self.starts.get(i).ok_or(BadOffload)?;
        let run = self.runs.get_mut(usize::from(*start)).ok_or(BadOffload)?;
        let hdr = run.header();
        let payload = run.head.at.payload;
        out.start(heads.push(part(&run.head.head, 0, payload)).ok_or(BadOffload)?);
        for i in Mask(run.frames).iter() {
            let frame = burst.frames().get(i).ok_or(BadOffload)?;
            burst.parts(frame, payload, frame.len() - payload, |seg| out.add(seg));
        }
        Ok(hdr)
    }
}

impl Run {
    /// Starts with frame `i` of the burst, whose headers are in place.
    fn begin(&mut self, i: usize, parts: usize) {
        let head = &self.head;
        (self.open, self.verified, self.count, self.flags) = (true, false, 1, 0);
        (self.len, self.parts, self.frames) = (head.len, parts, 1 << i);
        self.next_seq = head.seq().wrapping_add(head.len as u32);
        self.next_id = head.id().wrapping_add(1);
    }

    /// Whether `next`, of the same flow, continues this run.
    fn may_take(&self, next: &Candidate, parts: usize) -> bool {
        self.follows(next, parts) && self.head.alike(next)
    }

    /// Whether `next` comes next by what counts up, and there is room for it.
    fn follows(&self, next: &Candidate, parts: usize) -> bool {
        let follows = match self.head.at.transport {
            Transport::Tcp => next.seq() == self.next_seq,
            _ => self.count < MAX_DATAGRAMS,
        };
        follows
            && (self.head.at.net != Net::V4 || next.id() == self.next_id)
            && next.len <= self.head.len
            && self.head.at.payload - self.head.at.l3 + self.len + next.len <= MAX_PACKET
            && self.parts + parts < MAX_PARTS
    }

    /// Takes in frame `i`.
    fn take(&mut self, next: &Candidate, i: usize, parts: usize, class: Class) {
        self.frames |= 1 << i;
        self.count += 1;
        self.len += next.len;
        self.parts += parts;
        self.next_seq = self.next_seq.wrapping_add(next.len as u32);
        self.next_id = self.next_id.wrapping_add(1);
        // A shorter one is the last; so is one with PSH or FIN, which segmentation puts on the last only.
        self.open = class == Class::Joins && next.len == self.head.len;
        if self.head.at.transport == Transport::Tcp {
            self.flags = next.flags() & (PSH | FIN);
        }
    }

    /// Rewrites the first frame's headers for the whole run, and returns the virtio-net header.
    fn header(&mut self) -> VnetHdr {
        let at = self.head.at;
        let packet = at.payload - at.l4 + self.len;
        let flags = self.head.flags();
        let head = &mut self.head.head;
        if at.net == Net::V4 {
            put16(head, at.l3 + V4_TOTAL_LEN, (at.l4 - at.l3 + packet) as u16);
            put16(head, at.l3 + V4_CHECK, 0);
            let check = Sum::of(part(head, at.l3, at.l4)).checksum();
            put16(head, at.l3 + V4_CHECK, check);
        } else {
            put16(head, at.l3 + V6_PAYLOAD_LEN, packet as u16);
        }
        let pseudo = at.pseudo(head, packet).fold();
        let gso_type = if at.transport == Transport::Tcp {
            put16(head, at.l4 + TCP_FLAGS, flags | self.flags);
            put16(head, at.l4 + TCP_CHECK, pseudo);
            let ecn = if flags & CWR != 0 { GSO_ECN } else { 0 };
            ecn | if at.net == Net::V4 { GSO_TCPV4 } else { GSO_TCPV6 }
        } else {
            put16(head, at.l4 + UDP_LEN, packet as u16);
            put16(head, at.l4 + UDP_CHECK, pseudo);
            GSO_UDP_L4
        };
        VnetHdr { gso_type, gso_size: self.head.len as u16, hdr_len: at.payload as u16, ..at.partial() }
    }
}

#[cfg(test)]
mod tests;
