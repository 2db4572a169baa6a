//! A bounded queue of pool copies for a receiver that cannot take frames now.

use super::counters::DropReason;
use crate::burst::{Burst, Frame, Mask};
use crate::mem::pool::{Pool, PoolFrame};
use std::collections::VecDeque;

/// Bytes that each frame of the bound may have on average: 256 frames or 4 MiB, whichever is reached first.
const BYTES_A_FRAME: usize = 16 << 10;

/// Frames that wait for one receiver, in order.
#[derive(Debug)]
pub struct Backlog {
    frames: VecDeque<PoolFrame>,
    max_frames: usize,
    max_bytes: usize,
    bytes: usize,
    arrivals: usize,
}

impl Backlog {
    /// An empty backlog for `frames` frames and 16 KiB of memory for each, which can take over one that held `before`.
    #[must_use]
    pub fn sized(frames: u32, before: u32, arrivals: usize) -> Self {
        let mut backlog = Self::new(frames as usize, frames as usize * BYTES_A_FRAME).with_arrivals(arrivals);
        backlog.frames.reserve_exact(frames.max(before) as usize + arrivals);
        backlog
    }

    /// An empty backlog with room for `max_frames` frames and `max_bytes` bytes; allocates its ring here.
    #[must_use]
    pub fn new(max_frames: usize, max_bytes: usize) -> Self {
        Self { frames: VecDeque::with_capacity(max_frames), max_frames, max_bytes, bytes: 0, arrivals: 0 }
    }

    /// Room for `frames` more that come in pool buffers of other workers, which their lanes bound already.
    #[must_use]
    pub fn with_arrivals(mut self, frames: usize) -> Self {
        self.frames.reserve_exact(self.max_frames + frames);
        self.arrivals = frames;
        self
    }

    /// Takes all frames of `old`, in order, even beyond the own bounds: making a backlog smaller loses nothing.
    /// Nothing is allocated where [`Backlog::sized`] knew of the old bound.
    pub fn take_over(&mut self, old: &mut Self) {
        self.frames.extend(old.frames.drain(..));
        self.bytes += std::mem::take(&mut old.bytes);
    }

    /// Frames waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Bytes waiting.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether a frame of `len` bytes fits.
    #[must_use]
    pub fn has_room(&self, len: usize) -> bool {
        self.frames.len() < self.max_frames && self.bytes + len <= self.max_bytes
    }

    /// The oldest frame.
    #[must_use]
    pub fn front(&self) -> Option<&PoolFrame> {
        self.frames.front()
    }

    /// Copies a frame to the end.
    ///
    /// # Errors
    /// [`DropReason::LegFull`] at either bound, [`DropReason::NoBuffer`] when the pool is empty.
    pub fn push(&mut self, pool: &mut Pool, burst: &Burst, frame: &Frame) -> Result<(), DropReason> {
        if !self.has_room(frame.len()) {
            return Err(DropReason::LegFull);
        }
        let copy = pool.copy(burst, frame).ok_or(DropReason::NoBuffer)?;
        self.bytes += frame.len();
        self.frames.push_back(copy);
        Ok(())
    }

    /// Moves a pool frame to the end; hands it back with the reason where there is no room.
    ///
    /// # Errors
    /// [`DropReason::LegFull`] at either bound.
    pub fn push_owned(&mut self, frame: PoolFrame) -> Result<(), (PoolFrame, DropReason)> {
        if self.frames.len() >= self.max_frames + self.arrivals {
            return Err((frame, DropReason::LegFull));
        }
        self.bytes += frame.len();
        self.frames.push_back(frame);
        Ok(())
    }

    /// Appends at most `want` frames, oldest first, to `burst`; they stay valid until [`Backlog::done`].
    pub fn lend(&self, want: usize, burst: &mut Burst) {
        for f in self.frames.iter().take(want) {
            if !burst.push(f.hdr(), &[f.seg()]) {
                return;
            }
            burst.weigh(f.weight());
        }
    }

    /// Of the oldest frames, those that `gone` selects have gone.
    pub fn done_selected(&mut self, pool: &mut Pool, gone: Mask) {
        for i in (0..64).rev().filter(|i| gone.has(*i)) {
            if let Some(frame) = self.frames.remove(i) {
                self.bytes -= frame.len();
                pool.give(frame);
            }
        }
    }

    /// The oldest `n` frames have gone.
    pub fn done(&mut self, pool: &mut Pool, n: usize) {
        for _ in 0..n {
            if let Some(f) = self.frames.pop_front() {
                self.bytes -= f.len();
                pool.give(f);
            }
        }
    }

    /// Gives all frames back; returns how many there were.
    pub fn clear(&mut self, pool: &mut Pool) -> usize {
        let n = self.frames.len();
        self.done(pool, n);
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::Seg;
    use crate::mem::arena::{Arena, ArenaConfig};
    use crate::mem::pool::PoolSize;
    use crate::wire::vnet_hdr::VnetHdr;
    use std::ptr::NonNull;

    #[allow(unsafe_code)]
    fn burst_of(bytes: &[u8]) -> Burst {
        let mut burst = Burst::new();
        // SAFETY: the tests keep `bytes` alive as long as the burst is read.
        let seg = unsafe { Seg::new(NonNull::from(&bytes[0]), bytes.len() as u32) };
        assert!(burst.push(VnetHdr::NONE, &[seg]));
        burst
    }

    fn pool() -> Pool {
        let arena = Arena::new(&ArenaConfig { initial: 1 << 20, step: 1 << 20, hugepages: false }).unwrap();
        Pool::set_of(1, PoolSize { small: 4, large: 2 }, &arena).unwrap().remove(0)
    }

    #[test]
    fn frames_leave_in_order_and_their_buffers_return() {
        let (mut pool, mut backlog) = (pool(), Backlog::new(4, 10_000));
        for mark in 1..=3u8 {
            let bytes = [mark; 60];
            let burst = burst_of(&bytes);
            backlog.push(&mut pool, &burst, &burst.frames()[0]).unwrap();
        }
        let mut lent = Burst::new();
        backlog.lend(2, &mut lent);
        assert_eq!(lent.len(), 2);
        let mut first = [0];
        lent.copy_out(&lent.frames()[1], 0, &mut first);
        assert_eq!(first, [2]);
        backlog.done(&mut pool, 2);
        assert_eq!((backlog.len(), backlog.bytes(), pool.out()), (1, 60, 1));
        assert_eq!(backlog.clear(&mut pool), 1);
        assert_eq!((backlog.bytes(), pool.out()), (0, 0));
    }

    #[test]
    fn both_bounds_and_an_empty_pool_are_named() {
        let mut pool = pool();
        let bytes = [0; 100];
        let burst = burst_of(&bytes);
        let frame = burst.frames()[0];
        let mut short = Backlog::new(1, 1000);
        short.push(&mut pool, &burst, &frame).unwrap();
        assert_eq!(short.push(&mut pool, &burst, &frame), Err(DropReason::LegFull));
        let mut narrow = Backlog::new(9, 150);
        narrow.push(&mut pool, &burst, &frame).unwrap();
        assert_eq!(narrow.push(&mut pool, &burst, &frame), Err(DropReason::LegFull));
        let mut wide = Backlog::new(9, 1000);
        wide.push(&mut pool, &burst, &frame).unwrap();
        wide.push(&mut pool, &burst, &frame).unwrap();
        assert_eq!(wide.push(&mut pool, &burst, &frame), Err(DropReason::NoBuffer));
        let kept = pool.out();
        assert_eq!(kept, 4);
    }
}
