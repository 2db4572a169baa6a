//! A ring of bundles from one worker to another: single producer, single consumer, no shared index.
//!
//! Each cache line has its own word that says whether it is in use, so a transfer touches the lines of the bundle and
//! no other: one for up to [`FIRST`] frames, two or three for more. The producer looks at that word before it writes, the
//! consumer before it reads; neither reads what the other one counts.

use super::frame::{BUNDLE, Bundle};
use crate::sync::{AtomicU32, Ordering};
use std::sync::Arc;

/// Words of a cache line.
const WORDS: usize = 16;

/// Words before the slots in the first line of a bundle, and in the others.
const HEAD: usize = 4;
const NEXT_HEAD: usize = 1;

/// Frames of a bundle that needs one line.
pub const FIRST: usize = WORDS - HEAD;

/// Frames in each further line.
const NEXT: usize = WORDS - NEXT_HEAD;

/// Lines of the longest bundle.
const LONGEST: usize = lines_of(BUNDLE);

/// One cache line. Word 0 is 0 while it is free. In the first line of a bundle it is then the bundle's length (bits 0 to
/// 7) and tag (16 to 31), and the owner and the name of the queue follow; in the other lines it is 1. Slots fill the rest.
#[derive(Debug)]
#[repr(align(64))]
struct Line([AtomicU32; WORDS]);

/// Lines of a bundle of `len` frames.
const fn lines_of(len: usize) -> usize {
    1 + len.saturating_sub(FIRST).div_ceil(NEXT)
}

/// The sending end.
#[derive(Debug)]
pub struct Sender {
    lines: Arc<[Line]>,
    at: usize,
}

/// The receiving end.
#[derive(Debug)]
pub struct Receiver {
    lines: Arc<[Line]>,
    at: usize,
}

/// A ring of `lines` cache lines (rounded up to a power of two, 4 at least), free at first.
#[must_use]
pub fn ring(lines: usize) -> (Sender, Receiver) {
    let line = |_| Line(std::array::from_fn(|_| AtomicU32::new(0)));
    let lines: Vec<_> = (0..lines.max(LONGEST).next_power_of_two()).map(line).collect();
    let lines: Arc<[Line]> = lines.into();
    (Sender { lines: lines.clone(), at: 0 }, Receiver { lines, at: 0 })
}

/// The line at a running number.
#[inline]
fn line(lines: &[Line], at: usize) -> Option<&[AtomicU32; WORDS]> {
    lines.get(at & (lines.len() - 1)).map(|line| &line.0)
}

#[inline]
fn put(words: &[AtomicU32], values: &[u32]) {
    words.iter().zip(values).for_each(|(word, value)| word.store(*value, Ordering::Relaxed));
}

#[inline]
fn get(words: &[AtomicU32], values: &mut [u32]) {
    words.iter().zip(values).for_each(|(word, value)| *value = word.load(Ordering::Relaxed));
}

impl Sender {
    /// Whether a bundle of any length may be refused.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.is_free(LONGEST - 1)
    }

    /// Whether the line `ahead` of the next one is free, and with it all before: they are freed in order.
    #[inline]
    fn is_free(&self, ahead: usize) -> bool {
        // Pairs with the release in `pop`: what is written next is not read any more.
        line(&self.lines, self.at.wrapping_add(ahead)).is_some_and(|l| l[0].load(Ordering::Acquire) == 0)
    }

    /// Sends what a bundle holds, with the name of a queue, and leaves it empty; false, changing nothing, when there is no
    /// room.
    #[inline]
    pub fn push(&mut self, queue: u64, bundle: &mut Bundle) -> bool {
        let tag = bundle.tag;
        let lines = lines_of(bundle.len());
        let (true, Some(first)) = (self.is_free(lines - 1), line(&self.lines, self.at)) else { return false };
        let (owner, slots) = bundle.take();
        if slots.is_empty() {
            return true;
        }
        let (mine, rest) = slots.split_at(slots.len().min(FIRST));
        for (i, part) in rest.chunks(NEXT).enumerate() {
            let Some(next) = line(&self.lines, self.at.wrapping_add(1 + i)) else { break };
            put(&next[NEXT_HEAD..], part);
            next[0].store(1, Ordering::Relaxed);
        }
        put(&first[1..HEAD], &[owner, queue as u32, (queue >> 32) as u32]);
        put(&first[HEAD..], mine);
        // All of the bundle is visible with its first word, the other lines too.
        first[0].store(slots.len() as u32 | u32::from(tag) << 16, Ordering::Release);
        self.at = self.at.wrapping_add(lines);
        true
    }
}

impl Receiver {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        line(&self.lines, self.at).is_none_or(|first| first[0].load(Ordering::Acquire) == 0)
    }

    /// Fills `bundle`, which should be empty, with the oldest one; the name of its queue.
    #[inline]
    pub fn pop(&mut self, bundle: &mut Bundle) -> Option<u64> {
        let first = line(&self.lines, self.at)?;
        let word = first[0].load(Ordering::Acquire);
        let len = (word & 0xff) as usize;
        if len == 0 {
            return None;
        }
        let mut head = [0; HEAD - 1];
        get(&first[1..HEAD], &mut head);
        let [owner, low, high] = head;
        (bundle.owner, bundle.tag, bundle.len) = (owner, (word >> 16) as u16, len as u16);
        let (mine, rest) = bundle.slots.get_mut(..len)?.split_at_mut(len.min(FIRST));
        get(&first[HEAD..], mine);
        // In order: a free line says that all before it are free.
        first[0].store(0, Ordering::Release);
        for (i, part) in rest.chunks_mut(NEXT).enumerate() {
            let next = line(&self.lines, self.at.wrapping_add(1 + i))?;
            get(&next[NEXT_HEAD..], part);
            next[0].store(0, Ordering::Release);
        }
        self.at = self.at.wrapping_add(lines_of(len));
        Some(u64::from(low) | u64::from(high) << 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(owner: u32, tag: u16, slots: std::ops::Range<u32>) -> Bundle {
        let mut bundle = Bundle::new(tag);
        assert!(slots.into_iter().all(|slot| bundle.push_slot(owner, slot)));
        bundle
    }

    fn push(to: &mut Sender, queue: u64, mut bundle: Bundle) -> bool {
        let len = bundle.len();
        let sent = to.push(queue, &mut bundle);
        assert_eq!(bundle.len(), if sent { 0 } else { len }, "what was not sent is still there");
        sent
    }

    fn pop(from: &mut Receiver) -> Option<(u64, u16, u32, Vec<u32>)> {
        let mut bundle = bundle(9, 9, 90..122);
        let queue = from.pop(&mut bundle)?;
        let tag = bundle.tag;
        let (owner, slots) = bundle.take();
        Some((queue, tag, owner, slots.to_vec()))
    }

    /// Two bundles, of two lines and of three, on their way through a ring that holds one of them at a time.
    #[cfg(loom)]
    #[test]
    fn each_bundle_arrives_once_and_whole() {
        loom::model(|| {
            let (mut to, mut from) = ring(4);
            let sender = loom::thread::spawn(move || {
                assert!(push(&mut to, 8, bundle(3, 1, 0..13)));
                push(&mut to, 9, bundle(4, 2, 5..33))
            });
            let mut got = Vec::new();
            got.extend(pop(&mut from));
            got.extend(pop(&mut from));
            let both = sender.join().unwrap();
            got.extend(std::iter::from_fn(|| pop(&mut from)));
            let all = [(8, 1, 3, (0..13).collect()), (9, 2, 4, (5..33).collect::<Vec<_>>())];
            assert_eq!(got, all[..1 + usize::from(both)]);
        });
    }

    #[cfg(not(loom))]
    mod plain {
        use super::*;
        use proptest::prelude::*;
        use std::collections::VecDeque;

        #[test]
        fn a_full_ring_hands_the_bundle_back() {
            let (mut to, mut from) = ring(8);
            assert!(from.is_empty() && !to.is_full());
            assert!(push(&mut to, 1, bundle(0, 0, 0..32)));
            assert!(push(&mut to, 2, bundle(0, 0, 0..32)));
            assert!(push(&mut to, 2, bundle(0, 0, 0..12)));
            assert!(to.is_full());
            assert!(!push(&mut to, 3, bundle(7, 6, 0..13)), "it takes two lines");
            assert!(push(&mut to, 4, bundle(0, 0, 0..12)), "one line is left");
            assert!(!push(&mut to, 5, bundle(0, 0, 0..1)));
            assert!(!from.is_empty());
            let order: Vec<_> = std::iter::from_fn(|| pop(&mut from)).map(|got| got.0).collect();
            assert_eq!(order, [1, 2, 2, 4]);
        }

        proptest! {
            /// Bundles of all lengths come out as they went in, with the ring as full as may be.
            #[test]
            fn what_goes_in_comes_out(ops in proptest::collection::vec((0u16..33, any::<u16>(), any::<bool>()), 1..300)) {
                let (mut to, mut from) = ring(8);
                let mut waiting = VecDeque::new();
                for (n, (len, tag, take)) in ops.into_iter().enumerate() {
                    let n = n as u64;
                    let all = tag.into()..u32::from(tag) + u32::from(len);
                    if push(&mut to, n, bundle(!n as u32, tag, all.clone())) && len != 0 {
                        waiting.push_back((n, tag, !n as u32, all.collect::<Vec<_>>()));
                    }
                    if take {
                        prop_assert_eq!(pop(&mut from), waiting.pop_front());
                    }
                }
                prop_assert!(std::iter::from_fn(|| pop(&mut from)).eq(waiting));
            }
        }

        fn run(n: u16) -> std::ops::Range<u32> {
            n.into()..u32::from(n + 1 + n % 32)
        }

        #[test]
        fn another_thread_sees_every_bundle_whole_and_in_order() {
            let (mut to, mut from) = ring(8);
            let sender = std::thread::spawn(move || {
                for n in 0..20_000u16 {
                    while !push(&mut to, n.into(), bundle(n.into(), n, run(n))) {
                        std::thread::yield_now();
                    }
                }
            });
            for n in 0..20_000u16 {
                let got = loop {
                    match pop(&mut from) {
                        Some(got) => break got,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(got, (n.into(), n, n.into(), run(n).collect()));
            }
            sender.join().unwrap();
        }
    }
}
