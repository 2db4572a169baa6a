//! A ring of frames from one worker to another: single producer, single consumer, by the burst.
//!
//! What crosses are the numbers of pool buffers, four to a word. One bit of a burst's first word says which lap of the
//! ring it belongs to, so the consumer needs no index of the producer's. It writes no line either: how far it has read it
//! says once in a quarter of the ring. A burst of up to 24 frames thus moves one cache line, a longer one two.

use super::PoolFrame;
use crate::sync::{Arc, AtomicU64, Ordering, Padded};

/// Frames in one burst at most.
pub const LINK_BURST: usize = 32;

/// Words of a cache line, and numbers in a word.
const WORDS: usize = 8;
pub(super) const IN_WORD: usize = 4;

/// Words before the numbers in the first line of a burst, and in the second.
const HEAD: usize = 2;
const NEXT_HEAD: usize = 1;

/// Frames of a burst that needs one line.
pub(super) const FIRST: usize = (WORDS - HEAD) * IN_WORD;

/// Lines of the longest burst.
const LONGEST: u64 = 2;

const _: () = assert!(LINK_BURST <= FIRST + (WORDS - NEXT_HEAD) * IN_WORD);

/// The lap's bit in the first word of every line. In the first line of a burst the word also holds the burst's length (bits
/// 0 to 7), its tag (16 to 31) and the number of the frames' pool (32 to 63); word 1 is the queue's name.
const LAP: u64 = 1 << 8;

/// Lines that the consumer asks for ahead, once a burst is there: the producer is ahead then. One line ahead comes late, four
/// are taken from under the producer's hands. With two, a frame costs 12.8 instead of 21 cycles at bulk 8, 7.0 instead of
/// 8.9 at bulk 32 (near CPUs; far ones 38 instead of 75).
const AHEAD: u64 = 2;

/// Begins to load a line.
#[inline]
#[allow(unsafe_code)]
fn prefetch(line: &[AtomicU64; WORDS]) {
    // SAFETY: a prefetch has no effect but on caches.
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(loom))))]
    let _ = line;
}

/// One cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Line([AtomicU64; WORDS]);

#[derive(Debug)]
struct Shared {
    lines: Box<[Line]>,
    /// Lines that the consumer has read, as far as it has said.
    read: Padded<AtomicU64>,
}

impl Shared {
    /// The line with a running number.
    #[inline]
    fn line(&self, at: u64) -> Option<&[AtomicU64; WORDS]> {
        self.lines.get(at as usize & (self.lines.len() - 1)).map(|line| &line.0)
    }

    /// The lap's bit for the line with a running number: set in the first lap, as fresh lines are zero.
    #[inline]
    const fn lap(&self, at: u64) -> u64 {
        if at & self.lines.len() as u64 == 0 { LAP } else { 0 }
    }
}

/// The sending end.
#[derive(Debug)]
pub struct Sender {
    shared: Arc<Shared>,
    /// The pool of all frames that go in.
    owner: u32,
    /// Running number of the next line.
    at: u64,
    /// The first that must not be written, when last looked.
    end: u64,
}

/// The receiving end.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    /// Running number of the next line.
    at: u64,
    /// What the producer knows of it.
    told: u64,
}

/// A burst that came over a ring.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) queue: u64,
    pub(super) tag: u16,
    pub(super) owner: u32,
    len: usize,
    words: [u64; LINK_BURST / IN_WORD],
}

impl Received {
    /// Frames in it.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The buffers, in order, by fours; after the last one come zeros.
    #[inline]
    pub(super) fn slots(&self) -> impl Iterator<Item = [u16; IN_WORD]> {
        let words = self.words.iter().take(self.len.div_ceil(IN_WORD));
        words.map(|word| std::array::from_fn(|i| (word >> (16 * i)) as u16))
    }
}

/// A ring of `lines` cache lines (rounded up to a power of two, 8 at least) for buffers of the pool `owner`.
pub(super) fn ring(owner: u32, lines: usize) -> (Sender, Receiver) {
    let lines = lines.max(8).next_power_of_two();
    let line = |_| Line(std::array::from_fn(|_| AtomicU64::new(0)));
    let shared = Arc::new(Shared { lines: (0..lines).map(line).collect(), read: Padded(AtomicU64::new(0)) });
    (Sender { shared: shared.clone(), owner, at: 0, end: lines as u64 }, Receiver { shared, at: 0, told: 0 })
}

/// Packs numbers into the words of a line, as many as there are and fit; how many.
#[inline]
fn pack(words: &[AtomicU64], slots: &mut impl Iterator<Item = u16>) -> usize {
    let mut count = 0;
    for place in words {
        let (mut word, mut n) = (0, 0);
        while n < IN_WORD
            && let Some(slot) = slots.next()
        {
            word |= u64::from(slot) << (16 * n);
            n += 1;
        }
        place.store(word, Ordering::Relaxed);
        count += n;
        if n < IN_WORD {
            break;
        }
    }
    count
}

impl Sender {
    /// Whether a burst of any length would be refused.
    #[inline]
    #[must_use]
    pub fn is_full(&mut self) -> bool {
        if self.end.wrapping_sub(self.at) < LONGEST {
            // Pairs with the release in `pop`: what is written next is not read any more.
            let read = self.shared.read.0.load(Ordering::Acquire);
            self.end = read.wrapping_add(self.shared.lines.len() as u64);
        }
        self.end.wrapping_sub(self.at) < LONGEST
    }

    /// Sends the first frames, [`LINK_BURST`] at most, with the name of a queue and a tag for it. Returns how many went, and
    /// the first that is of another pool: it stays here. Takes no frame when the ring is full.
    #[inline]
    pub fn send(
        &mut self,
        to: (u64, u16),
        mut frames: impl Iterator<Item = PoolFrame>,
    ) -> (usize, Option<PoolFrame>) {
        let (mine, mut strange) = (self.owner, None);
        let slots = std::iter::from_fn(|| {
            let frame = frames.next()?;
            let (owner, slot) = frame.name();
            if owner == mine {
                return Some(slot);
            }
            strange = Some(frame);
            None
        });
        (self.push(to, slots), strange)
    }

    /// Sends the first [`LINK_BURST`] of these buffers; how many.
    #[inline]
    fn push(&mut self, (queue, tag): (u64, u16), mut slots: impl Iterator<Item = u16>) -> usize {
        if self.is_full() {
            return 0;
        }
        let Some(first) = self.shared.line(self.at) else { return 0 };
        let mut len = pack(&first[HEAD..], &mut slots);
        let mut after = self.at + 1;
        if len == FIRST
            && let Some(next) = self.shared.line(after)
        {
            const REST: usize = (LINK_BURST - FIRST) / IN_WORD;
            let more = pack(&next[NEXT_HEAD..NEXT_HEAD + REST], &mut slots);
            if more != 0 {
                // Or the number in it would be taken for a first word in the next lap.
                next[0].store(self.shared.lap(after), Ordering::Relaxed);
                len += more;
                after += 1;
            }
        }
        if len == 0 {
            return 0;
        }
        first[1].store(queue, Ordering::Relaxed);
        let word = len as u64 | self.shared.lap(self.at) | u64::from(tag) << 16 | u64::from(self.owner) << 32;
        // All of the burst is visible with its first word.
        first[0].store(word, Ordering::Release);
        self.at = after;
        len
    }
}

impl Receiver {
    /// The first word of the next burst, if there is one.
    #[inline]
    fn next(&self) -> Option<u64> {
        let word = self.shared.line(self.at)?[0].load(Ordering::Acquire);
        (word & LAP == self.shared.lap(self.at)).then_some(word)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.next().is_none()
    }

    /// Takes the oldest burst.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Received> {
        let word = self.next()?;
        let first = self.shared.line(self.at)?;
        if let Some(line) = self.shared.line(self.at + AHEAD) {
            prefetch(line);
        }
        let mut words = [0; LINK_BURST / IN_WORD];
        let (mine, rest) = words.split_at_mut(WORDS - HEAD);
        mine.iter_mut().zip(&first[HEAD..]).for_each(|(to, from)| *to = from.load(Ordering::Relaxed));
        let len = (word & 0xff) as usize;
        let mut after = self.at + 1;
        if len > FIRST {
            let next = self.shared.line(after)?;
            rest.iter_mut().zip(&next[NEXT_HEAD..]).for_each(|(to, from)| *to = from.load(Ordering::Relaxed));
            after += 1;
        }
        let queue = first[1].load(Ordering::Relaxed);
        self.at = after;
        if after - self.told >= self.shared.lines.len() as u64 / 4 {
            self.told = after;
            self.shared.read.0.store(after, Ordering::Release);
        }
        Some(Received { queue, tag: (word >> 16) as u16, owner: (word >> 32) as u32, len, words })
    }
}

#[cfg(test)]
mod tests;
