//! Buffers that change hands instead of being copied: a transmit slot gets the buffer of a frame that a receive ring of the same region has lent, and
//! that ring, when the slot is given back, the one that stood there.

use super::abi::{MAX_FRAGS, NS_BUF_CHANGED, NS_MOREFRAG, Slot};
use super::ring::Ring;
use crate::burst::{Burst, Frame, Seg};
use crate::wire::vnet_hdr::VnetHdr;

/// The whole of a slot, header and frame, where it lies so that its buffer could be sent as it is.
#[inline]
pub(super) fn movable(header: usize, burst: &Burst, frame: &Frame) -> Option<Seg> {
    let &[seg] = burst.segs(frame) else { return None };
    if seg.len() != frame.len() {
        return None;
    }
    fronted(header, &seg, frame)
}

/// The first run of a frame with the header in front of it, if that is the one that the frame has.
#[inline]
fn fronted(header: usize, seg: &Seg, frame: &Frame) -> Option<Seg> {
    if header == 0 {
        return Some(*seg);
    }
    let whole = seg.with_front(header)?;
    let mut front = [0; VnetHdr::LEN];
    (whole.copy_first(&mut front) && front == frame.hdr.encode()).then_some(whole)
}

/// The buffer of a lent run, and the one of the `at`th slot, which could stand for each other.
#[inline]
fn both(ring: &Ring, at: u32, whole: &Seg) -> Option<(u32, u32)> {
    let Slot { buf_idx: mine, .. } = ring.slot(at);
    // The kernel never gives out the first two buffers, and no buffer twice.
    if mine < 2 || ring.buffer(mine).is_none() {
        return None;
    }
    let lent = ring.exchange()?.buffer(whole).filter(|lent| *lent != mine)?;
    Some((lent, mine))
}

/// Puts the buffer of a lent run into a slot, and the slot's into the receive ring that lent it, when that is given back.
#[inline]
pub(super) fn swap(ring: &mut Ring, at: u32, whole: &Seg) -> bool {
    let Some((lent, mine)) = both(ring, at, whole) else { return false };
    if !ring.exchange().is_some_and(|region| region.give(lent, mine)) {
        return false;
    }
    ring.put(at, lent, whole.len() as u16, NS_BUF_CHANGED);
    true
}

/// The same for a frame of several slots: all of its buffers or none. How many slots, if they were moved.
#[inline(never)]
pub(super) fn swap_all(
    ring: &mut Ring,
    header: usize,
    at: u32,
    burst: &Burst,
    frame: &Frame,
    free: u32,
) -> Option<u32> {
    let segs = burst.segs(frame);
    let whole = segs.iter().map(Seg::len).sum::<usize>() == frame.len();
    // Many short runs are copied into the fewest slots: some devices take few for a frame.
    let fewest = (header + frame.len()).div_ceil(ring.buffer_size().max(1));
    if !whole
        || segs.len() > fewest + 1
        || segs.len() < 2
        || segs.len() > MAX_FRAGS
        || segs.len() > free as usize
    {
        return None;
    }
    let mut given = [(0, 0); MAX_FRAGS];
    let mut count = 0;
    for (seg, place) in segs.iter().zip(&mut given) {
        let run = if count == 0 { fronted(header, seg, frame) } else { Some(*seg) };
        let swapped = run.and_then(|run| both(ring, at + count, &run));
        let region = ring.exchange()?;
        let Some((lent, _)) = swapped.filter(|(lent, mine)| region.give(*lent, *mine)) else {
            // One that is elsewhere, or has gone before: those that were given stay where they are.
            for (lent, _) in given.iter().take(count as usize) {
                region.take(*lent);
            }
            return None;
        };
        *place = (lent, run.map_or(0, |run| run.len() as u16));
        count += 1;
    }
    for (n, (lent, len)) in (0..count).zip(given) {
        let more = if n + 1 < count { NS_MOREFRAG } else { 0 };
        ring.put(at + n, lent, len, NS_BUF_CHANGED | more);
    }
    Some(count)
}
