//! A ring of frames that are kept for longer than a turn, side by side in memory of its own: single producer, single consumer.
//!
//! Filters that hold frames, and those whose frames come from or go to another thread, have one: the pool of a worker is for frames that are
//! soon gone. A record is a head (length, weight, virtio-net header) and the frame in one piece; one that does not fit before the end
//! of the memory begins at its start.
//!
//! ```text
//!  Writer: push, push, publish --head--> Reader: lend (read where they lie), took, done --tail--> room
//! ```

#![allow(unsafe_code)] // owns frame memory: what lies between tail and head is the reader's, the rest the writer's

use super::arena::{Arena, ArenaError, CACHE_LINE, Part};
use crate::burst::{Burst, Frame, Seg};
use crate::sync::{Arc, AtomicU64, Ordering, Padded};
use crate::wire::vnet_hdr::VnetHdr;
use std::ptr::NonNull;

/// Records begin at multiples of this.
const ALIGN: usize = 8;

/// What lies before a frame.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
struct Head {
    /// Bytes of the frame; [`SKIP`] where the next record begins at the start of the memory.
    len: u32,
    weight: u32,
    hdr: VnetHdr,
}

const HEAD: usize = size_of::<Head>();

/// Longer than any frame.
const SKIP: u32 = u32::MAX;

/// What both ends share. Positions only grow; a place is a position modulo the size.
#[derive(Debug)]
struct Shared {
    part: Part,
    size: usize,
    /// Where the next record will be, as far as the reader may know.
    head: Padded<AtomicU64>,
    /// The oldest record that is still needed.
    tail: Padded<AtomicU64>,
}

impl Shared {
    /// The address of a position.
    ///
    /// # Safety
    /// Only the end that the position belongs to may use it.
    const unsafe fn at(&self, position: u64) -> NonNull<u8> {
        // SAFETY: the part is `size` long, a power of two.
        unsafe { self.part.ptr().add((position as usize) & (self.size - 1)) }
    }

    /// Bytes from a position to the end of the memory.
    const fn straight(&self, position: u64) -> usize {
        self.size - ((position as usize) & (self.size - 1))
    }
}

/// The end that fills.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    /// Behind the last record, published or not.
    next: u64,
    /// The reader's tail, as last seen.
    tail: u64,
}

/// The end that empties.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    /// The oldest record that was not given back.
    tail: u64,
    /// The oldest record that was not taken.
    next: u64,
    /// The writer's head, as last seen.
    head: u64,
}

/// One record, read where it lies.
#[derive(Debug)]
pub struct Record<'r> {
    /// The frame's offload state.
    pub hdr: VnetHdr,
    /// Frames of the source that it stands for.
    pub weight: u32,
    /// The frame.
    pub bytes: &'r [u8],
}

/// A ring in `bytes` (rounded up to a power of two, at least a page) of the arena's memory, for frames of up to half of that.
///
/// # Errors
/// The arena's, when it cannot grow.
pub fn ring(arena: &std::sync::Arc<Arena>, bytes: usize) -> Result<(Writer, Reader), ArenaError> {
    let size = bytes.max(4096).next_power_of_two();
    let part = arena.take(size, CACHE_LINE)?;
    let [head, tail] = [0, 0].map(|n| Padded(AtomicU64::new(n)));
    let shared = Arc::new(Shared { part, size, head, tail });
    Ok((Writer { shared: shared.clone(), next: 0, tail: 0 }, Reader { shared, tail: 0, next: 0, head: 0 }))
}

/// Bytes of the ring that a frame of `len` bytes needs.
const fn need(len: usize) -> usize {
    (HEAD + len).next_multiple_of(ALIGN)
}

impl Writer {
    /// Appends a copy of a lent frame, not to be seen before [`Writer::publish`]. False, with nothing done, where there is no room.
    pub fn push(&mut self, burst: &Burst, frame: &Frame) -> bool {
        self.push_with(frame.hdr, frame.weight, frame.len(), |to| {
            burst.copy_out(frame, 0, to);
        })
    }

    /// Appends a frame of `len` bytes that `fill` writes (what it leaves is undefined, but not somebody else's). As [`Writer::push`] otherwise.
    pub fn push_with(&mut self, hdr: VnetHdr, weight: u32, len: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        let need = need(len);
        let straight = self.shared.straight(self.next);
        let skip = if straight < need { straight } else { 0 };
        // A longer one might never find room in one piece.
        if need > self.shared.size / 2 || !self.has_room(skip + need) {
            return false;
        }
        if skip != 0 {
            let head = Head { len: SKIP, weight: 0, hdr: VnetHdr::NONE };
            // SAFETY: the position is the writer's, and there is room for the aligned word that says how to go on.
            unsafe { self.shared.at(self.next).cast::<u32>().write(head.len) };
            self.next += skip as u64;
        }
        let Ok(length) = u32::try_from(len) else { return false };
        // SAFETY: the room from `next` on is the writer's until it is published, aligned, in one piece, and initialised (mapped zeroed).
        let bytes = unsafe {
            let at = self.shared.at(self.next);
            at.cast::<Head>().write(Head { len: length, weight, hdr });
            std::slice::from_raw_parts_mut(at.add(HEAD).as_ptr(), len)
        };
        fill(bytes);
        self.next += need as u64;
        true
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        let fits = |next: u64, tail: u64, size: usize| next - tail + bytes as u64 <= size as u64;
        if !fits(self.next, self.tail, self.shared.size) {
            self.tail = self.shared.tail.0.load(Ordering::Acquire);
        }
        fits(self.next, self.tail, self.shared.size)
    }

    /// Lets the reader see what was appended.
    pub fn publish(&mut self) {
        self.shared.head.0.store(self.next, Ordering::Release);
    }

    /// Bytes that are in use, read or not.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        self.next - self.shared.tail.0.load(Ordering::Relaxed)
    }
}

impl Reader {
    /// Whether there is no record that was not taken.
    pub fn is_empty(&mut self) -> bool {
        if self.next == self.head {
            self.head = self.shared.head.0.load(Ordering::Acquire);
        }
        self.next == self.head
    }

    /// The record at a position before the head, and where the next one is.
    fn record(&self, mut at: u64) -> Option<(Record<'_>, u64)> {
        while at != self.head {
            // SAFETY: what lies between tail and head is the reader's, written before the head was published.
            let place = unsafe { self.shared.at(at) };
            // SAFETY: as above; a record, or the word that stands for one, is aligned.
            if unsafe { place.cast::<u32>().read() } == SKIP {
                at += self.shared.straight(at) as u64;
                continue;
            }
            // SAFETY: as above: a head, and behind it as many bytes as it says, which nobody changes until they are given back.
            let (head, bytes) = unsafe {
                let head = place.cast::<Head>().read();
                (head, std::slice::from_raw_parts(place.add(HEAD).as_ptr(), head.len as usize))
            };
            let Head { weight, hdr, len } = head;
            return Some((Record { hdr, weight, bytes }, at + need(len as usize) as u64));
        }
        None
    }

    /// The oldest record that was not taken.
    pub fn first(&mut self) -> Option<Record<'_>> {
        if self.is_empty() {
            return None;
        }
        self.record(self.next).map(|(record, _)| record)
    }

    /// Appends at most `want` of the oldest frames that were not taken to `burst`; they stay valid until [`Reader::done`].
    pub fn lend(&mut self, want: usize, burst: &mut Burst) {
        self.lend_while(want, burst, |_| true);
    }

    /// As [`Reader::lend`], up to the first one that `goes` refuses.
    pub fn lend_while(&mut self, want: usize, burst: &mut Burst, mut goes: impl FnMut(&Record<'_>) -> bool) {
        self.head = self.shared.head.0.load(Ordering::Acquire);
        let mut at = self.next;
        for _ in 0..want {
            let Some((record, next)) = self.record(at) else { return };
            if !goes(&record) {
                return;
            }
            let Record { hdr, weight, bytes } = record;
            // SAFETY: the bytes stay where they are, unchanged, until `done`.
            let seg = unsafe { Seg::new(NonNull::from(bytes).cast(), bytes.len() as u32) };
            if !burst.push(hdr, &[seg]) {
                return;
            }
            burst.weigh(weight);
            at = next;
        }
    }

    /// Shows the oldest `n` records that were not taken.
    pub fn look(&self, n: usize, mut each: impl FnMut(&Record<'_>)) {
        let mut at = self.next;
        for _ in 0..n {
            let Some((record, next)) = self.record(at) else { return };
            each(&record);
            at = next;
        }
    }

    /// The oldest `n` records are not lent again; they still lie there.
    pub fn took(&mut self, n: usize) {
        self.next = self.behind(self.next, n, self.head);
    }

    /// The oldest `n` records that were taken are needed no more.
    pub fn done(&mut self, n: usize) {
        self.tail = self.behind(self.tail, n, self.next);
        self.shared.tail.0.store(self.tail, Ordering::Release);
    }

    /// The oldest record is needed no more.
    pub fn pop(&mut self) {
        self.took(1);
        self.done(1);
    }

    /// The position `n` records behind `at`, at most `end`.
    fn behind(&self, mut at: u64, n: usize, end: u64) -> u64 {
        for _ in 0..n {
            match self.record(at) {
                Some((_, next)) if at != end => at = next,
                _ => break,
            }
        }
        at
    }
}

#[cfg(test)]
mod tests;
