//! Frames into the chains of a receive ring: the one copy.

#![allow(unsafe_code)] // writes guest memory

use super::options::Features;
use crate::backend::copy::{Writer, copy, copy_headed};
use crate::burst::{Burst, Frame, HEAD, Head, Seg};
use crate::mem::guest::GuestMemory;
use crate::virtq::{Chain, DeviceRing, Found};
use crate::wire::vnet_hdr::VnetHdr;

/// What became of a frame.
pub(super) enum Put {
    /// It took this many chains.
    Done(usize),
    /// The buffers found do not suffice.
    Short,
    /// No buffer of this guest can ever hold it.
    Never,
}

/// Marks the buffers of chains in the dirty log.
#[cold]
pub(super) fn log(memory: &GuestMemory, found: &Found, count: usize) {
    for chain in found.chains().iter().take(count) {
        for seg in found.segs(chain) {
            if let Some(guest) = memory.guest_of(seg.ptr()) {
                memory.mark(guest, seg.len() as u64);
            }
        }
    }
}

/// Writes what stands before a frame in a buffer.
///
/// # Safety
/// `to` is writable guest memory of at least `header` bytes.
#[inline(always)]
unsafe fn put_header(to: *mut u8, header: usize, hdr: &VnetHdr) {
    // SAFETY: by the caller; the header has 10 or 12 bytes.
    unsafe {
        to.cast::<[u8; VnetHdr::LEN]>().write_unaligned(hdr.encode());
        if header > VnetHdr::LEN {
            to.add(VnetHdr::LEN).cast::<[u8; 2]>().write_unaligned([1, 0]); // num_buffers
        }
    }
}

/// The fast form: one chain of one segment that holds header and frame; the frame lies in one piece, or in two as a switch lends it.
#[inline(always)]
fn put_one(
    found: &Found,
    chain: &Chain,
    header: usize,
    burst: &Burst,
    frame: &Frame,
    head: Option<&Head>,
) -> bool {
    let Some(to) = found.one(chain) else { return false };
    let [from] = burst.segs(frame) else { return put_two(to, header, burst, frame, head) };
    if to.len() < header + from.len() {
        return false;
    }
    // SAFETY: the segment is writable guest memory of at least header + frame bytes (looked at with Access::Write); the frame
    // is lent, and its head, of which no more than the frame's length is used, is ours. A guest that lends itself its own buffers
    // gets what it asked for: raw copies, no references.
    unsafe {
        let to = to.ptr().cast_mut();
        put_header(to, header, &frame.hdr);
        let to = to.add(header);
        match head {
            Some(head) if from.len() >= HEAD => copy_headed(head, from.ptr(), to, from.len()),
            Some(head) => copy(head.as_ptr(), to, from.len()),
            None => copy(from.ptr(), to, from.len()),
        }
    }
    true
}

/// As [`put_one`], of a frame in two pieces.
#[inline(never)]
fn put_two(to: Seg, header: usize, burst: &Burst, frame: &Frame, head: Option<&Head>) -> bool {
    let [from, rest] = burst.segs(frame) else { return false };
    let len = from.len() + rest.len();
    if to.len() < header + len {
        return false;
    }
    // SAFETY: as `put_one`.
    unsafe {
        let to = to.ptr().cast_mut();
        put_header(to, header, &frame.hdr);
        let to = to.add(header);
        copy(from.ptr(), to, from.len());
        copy(rest.ptr(), to.add(from.len()), rest.len());
        if let Some(head) = head {
            // It may reach into the second piece.
            copy(head.as_ptr(), to, HEAD.min(len));
        }
    }
    true
}

/// What a run of the fast form moved.
#[derive(Default)]
pub(super) struct Run {
    pub(super) chains: usize,
    pub(super) frames: u64,
    pub(super) bytes: u64,
}

/// The fast form for as many frames as it fits, each in the next chain, which is used at once.
#[inline]
pub(super) fn put_run<'f, R: DeviceRing>(
    ring: &mut R,
    found: &Found,
    header: usize,
    burst: &Burst,
    frames: impl Iterator<Item = (&'f Frame, Option<&'f Head>)>,
) -> Run {
    let mut run = Run::default();
    ring.give_all(found.chains().iter().zip(frames).map_while(|(chain, (frame, head))| {
        if !put_one(found, chain, header, burst, frame, head) {
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
pub(super) fn put_any(
    found: &Found,
    features: &Features,
    burst: &Burst,
    frame: &Frame,
    head: Option<&Head>,
) -> Put {
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
    // Our own bytes: the header, and behind it the head that was decided on.
    let mut own = [0u8; 12 + HEAD];
    own[..VnetHdr::LEN].copy_from_slice(&frame.hdr.encode());
    own[VnetHdr::LEN..12].copy_from_slice(&(chains as u16).to_le_bytes());
    let mut skip = 0;
    if let Some(head) = head
        && let Some(place) = own.get_mut(features.header..).and_then(|rest| rest.first_chunk_mut())
    {
        *place = *head;
        skip = HEAD.min(frame.len());
    }
    let mut left = need;
    let mut source = burst.segs(frame).iter();
    let mut current = (own.as_ptr(), features.header + skip);
    for chain in found.chains().iter().take(chains) {
        let mut writer = Writer::new(found.segs(chain));
        while left > 0 {
            if current.1 == 0 {
                let Some(seg) = source.next() else { break };
                let rest = seg.slice(skip, seg.len());
                skip -= seg.len() - rest.len();
                current = (rest.ptr(), rest.len());
                continue;
            }
            // SAFETY: as `put_one`: writable guest memory, lent bytes or our own.
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
