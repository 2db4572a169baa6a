//! Who holds which chunk of a UMEM (the memory of AF_XDP sockets), and which are free.
//!
//! ```text
//!   free -> fill ring -> received -> lent --(given back)--> fill ring
//!                                     `--(moved)--> transmit ring -> completed -> free
//!   free -> transmit ring -> completed -> free
//! ```
//!
//! A frame that goes from one socket of a UMEM to another is moved, not copied: its chunk changes hands. A chunk that comes back in a turn is used again in
//! the next, since requests of this turn may still name its bytes. All of a UMEM belongs to one worker.

#![allow(unsafe_code)] // lends the arena's memory to the kernel

use super::arena::Part;
use crate::burst::Seg;
use crate::prefetch;
use af_xdp::{Area, Umem};
use crossbeam::queue::ArrayQueue;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// UMEMs that one worker can have.
pub const MAX_UMEMS: usize = 64;

/// Sockets of a UMEM that may end before its worker looks.
const ENDED: usize = 4096;

/// Chunks that are looked at in a turn for those of a socket that ended: a fraction of a microsecond. All of a UMEM at once took 16, in which every
/// port of the worker waited.
const STEP: usize = 512;

/// Who holds a chunk: nobody, or a half of a member (a socket).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder(u32);

impl Holder {
    const FREE: Self = Self(0);
    /// Nobody ever again: a socket that we cannot end has it.
    const LOST: Self = Self(1);

    const fn rx(member: u32) -> Self {
        Self(member << 2 | 2)
    }

    const fn tx(member: u32) -> Self {
        Self(member << 2 | 3)
    }

    const fn is_rx(self) -> bool {
        self.0 & 3 == 2
    }
}

/// How chunks of a UMEM are spread, for tests and for whoever wonders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Free, and those that are so from the next turn on.
    pub free: usize,
    /// In fill rings, receive rings, or lent.
    pub receiving: usize,
    /// In transmit rings, with the kernel, or in completion rings.
    pub sending: usize,
    /// With sockets that could not be ended.
    pub lost: usize,
}

/// The arena's memory as a UMEM's.
#[derive(Debug)]
pub struct Lent(pub Part);

// SAFETY: a part of the arena is mapped, writable and populated, belongs to its one owner, and nothing of ours makes a reference into it. Whoever makes a
// UMEM takes parts that are aligned to pages; `Umem::new` checks that.
unsafe impl Area for Lent {
    fn start(&self) -> NonNull<u8> {
        self.0.ptr()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// How many chunks of a UMEM are free, and lost, as of the last turn of its worker. Its sockets know how many they hold.
#[derive(Debug, Default)]
struct Level {
    free: AtomicU32,
    lost: AtomicU32,
}

/// Members that ended, and whether their chunks are ours again.
type Ended = Arc<ArrayQueue<(u32, bool)>>;

/// A UMEM as several threads see it: its memory, and the sockets that ended.
#[derive(Debug)]
pub struct SharedUmem {
    umem: Arc<Umem>,
    /// The books, until the first of its sockets takes them to the worker.
    books: ArrayQueue<Box<Chunks>>,
    ended: Ended,
    next: AtomicU32,
    level: Arc<Level>,
}

impl SharedUmem {
    /// All chunks are free.
    #[must_use]
    pub fn new(umem: Arc<Umem>) -> Arc<Self> {
        let ended = Arc::new(ArrayQueue::new(ENDED));
        let level = Arc::new(Level::default());
        let chunks = Chunks::new(&umem, ended.clone(), level.clone());
        let shared = Self { books: ArrayQueue::new(1), ended, next: AtomicU32::new(0), level, umem };
        // The queue is new and has a place.
        let _ = shared.books.push(Box::new(chunks));
        Arc::new(shared)
    }

    /// All chunks there are.
    #[must_use]
    pub fn chunks(&self) -> u32 {
        (self.umem.len() / self.umem.config().chunk as usize) as u32
    }

    /// Chunks that were free after the last turn of the worker.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.level.free.load(Ordering::Relaxed)
    }

    /// Chunks that a socket has which could not be ended.
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.level.lost.load(Ordering::Relaxed)
    }

    /// As the kernel knows it.
    #[must_use]
    pub const fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    /// A new member.
    #[must_use]
    pub fn join(&self) -> Seat {
        // 30 bits: a thousand sockets a second for twelve days.
        let member = self.next.fetch_add(1, Ordering::Relaxed) & (u32::MAX >> 2);
        Seat { ended: self.ended.clone(), member, ours: true }
    }
}

/// Membership of a socket. To be dropped after its socket was closed: from then on the chunks that it held are free.
#[derive(Debug)]
pub struct Seat {
    ended: Ended,
    member: u32,
    ours: bool,
}

impl Seat {
    /// Its number.
    #[must_use]
    pub const fn member(&self) -> u32 {
        self.member
    }

    /// The socket lives on with somebody else: what it holds is lost.
    pub const fn give_up(&mut self) {
        self.ours = false;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Full only if the worker has not looked for thousands of sockets: their chunks stay unused then.
        let _ = self.ended.push((self.member, self.ours));
    }
}

/// The books of one UMEM, on the worker that owns it.
#[derive(Debug)]
pub struct Chunks {
    /// Address of the first byte.
    base: usize,
    len: usize,
    /// A chunk is `1 << shift` bytes.
    shift: u32,
    free: Vec<u32>,
    /// Free from the next turn on.
    later: Vec<u32>,
    holders: Box<[Holder]>,
    ended: Ended,
    /// A member that ended, whether its chunks are ours again, and the chunk to look at next.
    ending: Option<(u32, bool, usize)>,
    level: Arc<Level>,
    /// What it says of the free ones.
    shown: usize,
}

impl Chunks {
    fn new(umem: &Umem, ended: Ended, level: Arc<Level>) -> Self {
        let shift = umem.config().chunk.trailing_zeros();
        let count = (umem.len() >> shift) as u32;
        level.free.store(count, Ordering::Relaxed);
        Self {
            base: umem.start().as_ptr() as usize,
            len: umem.len(),
            shift,
            free: (0..count).rev().collect(),
            later: Vec::with_capacity(count as usize),
            holders: vec![Holder::FREE; count as usize].into(),
            ended,
            ending: None,
            level,
            shown: count as usize,
        }
    }

    /// Chunks that can be taken now.
    #[inline]
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// The offset in the UMEM of a chunk's first byte.
    #[inline]
    #[must_use]
    pub const fn addr(&self, chunk: u32) -> u64 {
        (chunk as u64) << self.shift
    }

    /// The chunk that an offset lies in, if there is one.
    #[inline]
    #[must_use]
    pub fn at(&self, addr: u64) -> Option<u32> {
        let chunk = addr >> self.shift;
        (chunk < self.holders.len() as u64).then_some(chunk as u32)
    }

    /// Begins to load who holds the chunk at an offset.
    #[inline]
    pub fn prefetch(&self, addr: u64) {
        prefetch::read_at(self.holders.as_ptr().wrapping_add((addr >> self.shift) as usize).cast());
    }

    /// Takes a free chunk for a member to receive into.
    #[inline]
    pub fn take_rx(&mut self, member: u32) -> Option<u32> {
        self.take(Holder::rx(member))
    }

    /// Takes a free chunk for a member to send from.
    #[inline]
    pub fn take_tx(&mut self, member: u32) -> Option<u32> {
        self.take(Holder::tx(member))
    }

    #[inline]
    fn take(&mut self, holder: Holder) -> Option<u32> {
        let chunk = self.free.pop()?;
        if let Some(place) = self.holders.get_mut(chunk as usize) {
            *place = holder;
        }
        Some(chunk)
    }

    /// Whether a member still holds a chunk that it received into: it was not moved.
    #[inline]
    #[must_use]
    pub fn is_rx(&self, chunk: u32, member: u32) -> bool {
        self.holders.get(chunk as usize).is_some_and(|holder| *holder == Holder::rx(member))
    }

    /// The offset of a lent run of bytes, if it lies in a chunk of this UMEM that somebody received into.
    #[inline]
    #[must_use]
    pub fn lent(&self, seg: &Seg) -> Option<u64> {
        let addr = (seg.ptr() as usize).wrapping_sub(self.base);
        let holder = self.holders.get(addr >> self.shift).filter(|_| addr < self.len)?;
        holder.is_rx().then_some(addr as u64)
    }

    /// Moves a chunk that somebody received into to a member's transmit ring.
    #[inline]
    pub fn move_tx(&mut self, addr: u64, member: u32) {
        if let Some(place) = self.holders.get_mut((addr >> self.shift) as usize) {
            *place = Holder::tx(member);
        }
    }

    /// A member's frame at `addr` was sent: its chunk is free from the next turn on. False when the member did not send it.
    #[inline]
    pub fn sent(&mut self, addr: u64, member: u32) -> bool {
        let chunk = addr >> self.shift;
        match self.holders.get_mut(chunk as usize) {
            Some(place) if *place == Holder::tx(member) => {
                *place = Holder::FREE;
                self.later.push(chunk as u32);
                true
            }
            _ => false,
        }
    }

    /// A chunk that a member received into has no place in its fill ring: it is free from the next turn on.
    #[cold]
    pub fn give_back(&mut self, chunk: u32) {
        if let Some(place) = self.holders.get_mut(chunk as usize) {
            *place = Holder::FREE;
            self.later.push(chunk);
        }
    }

    /// A chunk that was taken was not used.
    pub fn untake(&mut self, chunk: u32) {
        if let Some(place) = self.holders.get_mut(chunk as usize) {
            *place = Holder::FREE;
            self.free.push(chunk);
        }
    }

    /// The turn is over: nothing names what came back in it.
    #[inline]
    fn settle(&mut self) {
        if !self.later.is_empty() {
            self.free.append(&mut self.later);
        }
        let ended = || self.ended.pop().map(|(member, ours)| (member, ours, 0));
        if let Some((member, ours, from)) = self.ending.take().or_else(ended) {
            self.end(member, ours, from);
        }
        if self.free.len() != self.shown {
            self.shown = self.free.len();
            self.level.free.store(self.shown as u32, Ordering::Relaxed);
        }
    }

    /// Whether a member has ended, and not all that it held is back.
    fn is_ending(&self) -> bool {
        self.ending.is_some() || !self.ended.is_empty()
    }

    /// Takes back what a member held among the next chunks from `from` on. Nothing else changes hands of what it held: its socket is closed.
    #[cold]
    fn end(&mut self, member: u32, ours: bool, from: usize) {
        let next = from + STEP;
        self.ending = (next < self.holders.len()).then_some((member, ours, next));
        for (chunk, place) in self.holders.iter_mut().enumerate().take(next).skip(from) {
            if *place == Holder::rx(member) || *place == Holder::tx(member) {
                if ours {
                    *place = Holder::FREE;
                    self.free.push(chunk as u32);
                } else {
                    *place = Holder::LOST;
                    self.level.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Counts all chunks.
    #[must_use]
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for holder in &self.holders {
            match *holder {
                Holder::FREE => census.free += 1,
                Holder::LOST => census.lost += 1,
                holder if holder.is_rx() => census.receiving += 1,
                _ => census.sending += 1,
            }
        }
        census
    }
}

/// The UMEMs of one worker.
#[derive(Debug)]
#[allow(clippy::vec_box)] // boxed by control: unpacking would free memory on the worker
pub struct Umems(Vec<Box<Chunks>>);

impl Default for Umems {
    fn default() -> Self {
        Self(Vec::with_capacity(MAX_UMEMS))
    }
}

impl Umems {
    /// Takes the books of a UMEM in, where this is its first socket, and says under which number they are here. `None` when there is no place, or
    /// another worker has them.
    pub fn adopt(&mut self, shared: &SharedUmem) -> Option<usize> {
        if let Some(books) = shared.books.pop() {
            if self.0.len() == MAX_UMEMS {
                let _ = shared.books.push(books);
                return None;
            }
            self.0.push(books);
        }
        let base = shared.umem.start().as_ptr() as usize;
        self.0.iter().position(|books| books.base == base)
    }

    /// The books under a number that [`Umems::adopt`] gave.
    #[inline]
    #[must_use]
    pub fn get(&mut self, number: usize) -> Option<&mut Chunks> {
        self.0.get_mut(number).map(AsMut::as_mut)
    }

    /// The turn is over: nothing names chunks that came back in it.
    #[inline]
    pub fn settle(&mut self) {
        for books in &mut self.0 {
            books.settle();
        }
    }

    /// Whether turns have to go on until all that ended sockets held is back: a socket that is new may wait for it.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.0.iter().any(|books| books.is_ending())
    }
}

#[cfg(test)]
mod tests;
