//! The indices of a ring: free-running counters, one written by the producer and one by the consumer.
//!
//! Each side keeps a copy of the other's index and looks at the shared word only when the copy does not promise enough: the word lies on a cache
//! line that the other side writes, and a look at it costs a transfer (50 to 300 nanoseconds between cores). The *watermark* says how much is
//! enough.

use crate::sync::{Arc, AtomicU32, Ordering};

/// A shared index.
pub trait Word {
    /// The value that the other side published, with all that it wrote before.
    fn acquire(&self) -> u32;
    /// Publishes a value, and all that was written before.
    fn release(&self, value: u32);
}

impl Word for Arc<AtomicU32> {
    fn acquire(&self) -> u32 {
        self.load(Ordering::Acquire)
    }

    fn release(&self, value: u32) {
        self.store(value, Ordering::Release);
    }
}

/// The producer's side of a ring of `size` entries, a power of two.
#[derive(Debug)]
pub struct Producer<W> {
    own: W,
    far: W,
    size: u32,
    /// Written, though perhaps not yet published.
    head: u32,
    published: u32,
    /// The consumer's index when last seen.
    seen: u32,
}

impl<W: Word> Producer<W> {
    /// The side that writes `own` and reads `far`, from where the ring stands.
    pub fn new(own: W, far: W, size: u32) -> Self {
        let (head, seen) = (own.acquire(), far.acquire());
        Self { own, far, size, head, published: head, seen }
    }

    /// Entries of the ring.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Entries that can be written now; looks at the far index only if fewer than `watermark` are known.
    #[inline]
    pub fn room(&mut self, watermark: u32) -> u32 {
        let known = self.free();
        if known >= watermark {
            return known;
        }
        self.seen = self.far.acquire();
        self.free()
    }

    /// A consumer that claims more than was produced finds the ring full: nothing is overwritten.
    const fn free(&self) -> u32 {
        self.size.saturating_sub(self.head.wrapping_sub(self.seen))
    }

    /// Where the next entry goes.
    #[inline]
    pub const fn slot(&self) -> u32 {
        self.head & (self.size - 1)
    }

    /// Where the entry lies that was written `back` entries ago, the last one 1.
    #[inline]
    pub const fn slot_before(&self, back: u32) -> u32 {
        self.head.wrapping_sub(back) & (self.size - 1)
    }

    /// The next entry is written.
    #[inline]
    pub const fn advance(&mut self) {
        self.head = self.head.wrapping_add(1);
    }

    /// Shows what was written to the consumer; whether there was anything.
    #[inline]
    pub fn publish(&mut self) -> bool {
        let news = self.head != self.published;
        if news {
            self.published = self.head;
            self.own.release(self.head);
        }
        news
    }

    /// Entries that the consumer has not taken, as of now.
    pub fn pending(&mut self) -> u32 {
        self.seen = self.far.acquire();
        self.head.wrapping_sub(self.seen).min(self.size)
    }
}

/// The consumer's side of a ring of `size` entries, a power of two.
#[derive(Debug)]
pub struct Consumer<W> {
    own: W,
    far: W,
    size: u32,
    /// Taken, though perhaps not yet given back.
    tail: u32,
    /// The producer's index when last seen.
    seen: u32,
}

impl<W: Word> Consumer<W> {
    /// The side that writes `own` and reads `far`, from where the ring stands.
    pub fn new(own: W, far: W, size: u32) -> Self {
        let (tail, seen) = (own.acquire(), far.acquire());
        Self { own, far, size, tail, seen }
    }

    /// Entries of the ring.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Entries that can be read now; looks at the far index only if fewer than `watermark` are known.
    #[inline]
    pub fn available(&mut self, watermark: u32) -> u32 {
        let known = self.filled();
        if known >= watermark {
            return known;
        }
        self.seen = self.far.acquire();
        self.filled()
    }

    /// A producer that claims more than the ring holds is not believed: nothing is there.
    const fn filled(&self) -> u32 {
        let filled = self.seen.wrapping_sub(self.tail);
        if filled > self.size { 0 } else { filled }
    }

    /// Where the `i`th entry lies that has not been given back.
    #[inline]
    pub const fn slot(&self, i: u32) -> u32 {
        self.tail.wrapping_add(i) & (self.size - 1)
    }

    /// Gives the oldest `n` entries back to the producer.
    #[inline]
    pub fn release(&mut self, n: u32) {
        if n > 0 {
            self.tail = self.tail.wrapping_add(n);
            self.own.release(self.tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(size: u32, at: u32) -> (Producer<Arc<AtomicU32>>, Consumer<Arc<AtomicU32>>) {
        let (p, c) = (Arc::new(AtomicU32::new(at)), Arc::new(AtomicU32::new(at)));
        (Producer::new(p.clone(), c.clone(), size), Consumer::new(c, p, size))
    }

    #[cfg(not(loom))]
    #[test]
    fn indices_wrap_and_the_ring_is_neither_overrun_nor_underrun() {
        let (mut producer, mut consumer) = pair(4, u32::MAX - 1);
        for round in 0..10 {
            assert_eq!(producer.room(4), 4, "round {round}");
            let slots: Vec<u32> = (0..3)
                .map(|_| {
                    let slot = producer.slot();
                    producer.advance();
                    slot
                })
                .collect();
            assert_eq!(consumer.available(1), 0, "not published");
            assert!(producer.publish() && !producer.publish());
            assert_eq!(consumer.available(1), 3);
            assert_eq!((0..3).map(|i| consumer.slot(i)).collect::<Vec<_>>(), slots);
            assert_eq!((producer.room(2), producer.pending()), (1, 3));
            consumer.release(3);
            assert_eq!(producer.room(1), 1, "what is known is enough");
        }
    }

    #[cfg(not(loom))]
    #[test]
    fn an_index_that_makes_no_sense_stops_the_ring() {
        let (p, c) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let mut producer = Producer::new(p.clone(), c.clone(), 8);
        c.store(5, Ordering::Relaxed);
        assert_eq!(producer.room(9), 0);
        let mut consumer = Consumer::new(c.clone(), p.clone(), 8);
        c.store(0, Ordering::Relaxed);
        p.store(100, Ordering::Relaxed);
        assert_eq!(consumer.available(1), 0);
    }

    /// What was written before an index was published is seen by who reads the index, on both ways.
    #[cfg(loom)]
    #[test]
    fn cursor_publishes_what_was_written() {
        use loom::cell::UnsafeCell;
        loom::model(|| {
            let cells: Arc<[UnsafeCell<u32>; 2]> = Arc::new([UnsafeCell::new(0), UnsafeCell::new(0)]);
            let (mut producer, mut consumer) = pair(2, u32::MAX);
            let theirs = cells.clone();
            let other = loom::thread::spawn(move || {
                let mut next = 1;
                while next <= 3 {
                    if consumer.available(1) == 0 {
                        loom::thread::yield_now();
                        continue;
                    }
                    // SAFETY: loom checks that nobody writes it meanwhile.
                    #[allow(unsafe_code)]
                    theirs[consumer.slot(0) as usize].with(|cell| assert_eq!(unsafe { *cell }, next));
                    consumer.release(1);
                    next += 1;
                }
            });
            for value in 1..=3 {
                while producer.room(1) == 0 {
                    loom::thread::yield_now();
                }
                // SAFETY: loom checks that nobody reads it meanwhile.
                #[allow(unsafe_code)]
                cells[producer.slot() as usize].with_mut(|cell| unsafe { *cell = value });
                producer.advance();
                producer.publish();
            }
            other.join().unwrap();
        });
    }
}
