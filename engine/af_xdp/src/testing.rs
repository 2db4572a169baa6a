//! Rings without a kernel: pairs whose other end is driven by a test.

#![allow(unsafe_code)] // lays rings out in memory of its own, and plays the kernel on a UMEM

use crate::error::Error;
use crate::ring::{Completion, Desc, Fill, Offsets, Rx, Tx};
use crate::socket::Rings;
use crate::sys::Mapping;
use crate::umem::{Area, Metadata, Umem};
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;

/// Where a received frame begins in its chunk (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: u64 = 256;

const LAYOUT: Offsets = Offsets { producer: 0, consumer: 64, flags: 128, entries: 192 };

/// The other end of a socket's rings.
#[derive(Debug)]
pub struct Kernel {
    umem: Arc<Umem>,
    // As seen from the other end: what they produce is consumed here.
    fill: Completion,
    rx: Tx,
    tx: Rx,
    completion: Fill,
    /// Taken from the transmit ring, not yet completed.
    under_way: VecDeque<u64>,
    /// Entries of the fill ring that were used and are not given back yet, and whether it goes on so.
    used: u32,
    late: bool,
    flags: [NonNull<u32>; 2],
}

// SAFETY: addresses inside mappings that the rings keep.
unsafe impl Send for Kernel {}

/// Rings of `size` entries, and the end that plays the kernel over `umem`.
///
/// # Errors
/// No memory, or a size that is no power of two (EINVAL).
pub fn rings(umem: &Arc<Umem>, size: u32) -> Result<(Rings, Kernel), Error> {
    let memory = |entry: usize| Mapping::anonymous(LAYOUT.entries + entry * size as usize).map(Arc::new);
    let (fill, rx, tx, completion) = (memory(8)?, memory(16)?, memory(16)?, memory(8)?);
    let bad = || Error::code(crate::error::Step::Rings, libc::EINVAL);
    let flag = |map: &Mapping| map.at(LAYOUT.flags, 4).map(NonNull::cast).ok_or_else(bad);
    // SAFETY: the mappings are laid out so, zeroed, and nobody but these two ends knows them.
    unsafe {
        let ours = Rings {
            fill: Fill::new(&fill, LAYOUT, size).ok_or_else(bad)?,
            rx: Rx::new(&rx, LAYOUT, size).ok_or_else(bad)?,
            tx: Tx::new(&tx, LAYOUT, size).ok_or_else(bad)?,
            completion: Completion::new(&completion, LAYOUT, size).ok_or_else(bad)?,
        };
        let flags = [flag(&fill)?, flag(&tx)?];
        let theirs = Kernel {
            umem: umem.clone(),
            fill: Completion::new(&fill, LAYOUT, size).ok_or_else(bad)?,
            rx: Tx::new(&rx, LAYOUT, size).ok_or_else(bad)?,
            tx: Rx::new(&tx, LAYOUT, size).ok_or_else(bad)?,
            completion: Fill::new(&completion, LAYOUT, size).ok_or_else(bad)?,
            under_way: VecDeque::new(),
            used: 0,
            late: false,
            flags,
        };
        Ok((ours, theirs))
    }
}

impl Kernel {
    /// A frame arrives: in one chunk if it fits, else in several. False when the fill ring has not enough chunks, or the receive ring is full: the
    /// frame is lost.
    pub fn receive(&mut self, frame: &[u8]) -> bool {
        let room = u64::from(self.umem.config().chunk) - HEADROOM;
        let parts: Vec<&[u8]> = frame.chunks(room as usize).collect();
        let n = parts.len() as u32;
        let used = self.used;
        if self.fill.available(used + n) < used + n || self.rx.room(n) < n {
            return false;
        }
        for (i, part) in parts.iter().enumerate() {
            let addr = self.fill.get(used + i as u32) + HEADROOM;
            self.write(addr, part);
            let options = if i + 1 < parts.len() { Desc::CONTINUED } else { 0 };
            self.rx.push(Desc { addr, len: part.len() as u32, options });
        }
        self.use_fill(n);
        self.rx.publish();
        true
    }

    fn use_fill(&mut self, n: u32) {
        self.used += n;
        if !self.late {
            self.fill.release(std::mem::take(&mut self.used));
        }
    }

    /// Shows frames before the entries of the fill ring that they used are given back, as Linux does for a moment (`xsk_flush`); false gives back
    /// what is due.
    pub fn is_late(&mut self, late: bool) {
        self.late = late;
        self.use_fill(0);
    }

    /// A descriptor that no kernel would write, in exchange for a chunk.
    pub fn receive_raw(&mut self, desc: Desc) -> bool {
        let there = self.fill.available(self.used + 1) > self.used;
        if there {
            self.use_fill(1);
        }
        there && self.rx.push(desc) && self.rx.publish()
    }

    /// Takes at most `most` frames from the transmit ring, without completing them. Each with the options of its first descriptor.
    pub fn transmit(&mut self, most: usize) -> Vec<(u32, Vec<u8>)> {
        let (mut frames, mut at) = (Vec::new(), 0);
        while frames.len() < most && self.tx.available(at + 1) > at {
            let (first, mut frame) = (self.tx.get(at).options, Vec::new());
            loop {
                let desc = self.tx.get(at);
                at += 1;
                frame.extend(self.read(desc.addr, desc.len as usize));
                self.under_way.push_back(desc.addr);
                if !desc.goes_on() || self.tx.available(at + 1) <= at {
                    break;
                }
            }
            frames.push((first, frame));
        }
        self.tx.release(at);
        frames
    }

    /// Takes at most `most` descriptors from the transmit ring without looking at their frames, nor completing them; how many.
    pub fn take(&mut self, most: usize) -> usize {
        let there = self.tx.available(u32::MAX).min(u32::try_from(most).unwrap_or(u32::MAX));
        self.under_way.extend((0..there).map(|i| self.tx.get(i).addr));
        self.tx.release(there);
        there as usize
    }

    /// Stamps the frame that is completed next, which has a request before it, if it asks for that; whether it does.
    pub fn stamp(&mut self, time: u64) -> bool {
        let Some(addr) = self.under_way.front().copied().filter(|addr| *addr >= Metadata::LEN as u64) else {
            return false;
        };
        let at = addr - Metadata::LEN as u64;
        let flags = self.read(at, 8).try_into().map_or(0, u64::from_ne_bytes);
        let asked = flags & u64::from(libc::XDP_TXMD_FLAGS_TIMESTAMP) != 0;
        if asked {
            self.write(at + 8, &time.to_ne_bytes());
        }
        asked
    }

    /// Completes what was transmitted, oldest first: at most `most` chunks; how many.
    pub fn complete(&mut self, most: usize) -> usize {
        let mut n = 0;
        while n < most && self.completion.room(1) > 0 {
            let Some(addr) = self.under_way.pop_front() else { break };
            self.completion.push(addr);
            n += 1;
        }
        self.completion.publish();
        n
    }

    /// The chunk that is completed next.
    #[must_use]
    pub fn complete_front(&self) -> Option<u64> {
        self.under_way.front().copied()
    }

    /// An address in the completion ring that was never sent.
    pub fn complete_raw(&mut self, addr: u64) {
        self.completion.push(addr);
        self.completion.publish();
    }

    /// Chunks that the other end has put into the fill ring and that were not used.
    pub fn filled(&mut self) -> u32 {
        self.fill.available(u32::MAX)
    }

    /// The `i`th of them.
    #[must_use]
    pub fn filled_at(&self, i: u32) -> u64 {
        self.fill.get(i)
    }

    /// Asks for wake-ups of the fill ring and of the transmit ring.
    pub fn want_wakeups(&mut self, fill: bool, tx: bool) {
        for (flag, want) in self.flags.iter().zip([fill, tx]) {
            // SAFETY: an aligned word inside a mapping that the rings keep; the other end reads it atomically.
            unsafe { std::sync::atomic::AtomicU32::from_ptr(flag.as_ptr()) }
                .store(want.into(), std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn bytes(&self, addr: u64, len: usize) -> NonNull<u8> {
        let end = addr as usize + len;
        assert!(end <= self.umem.len(), "an address inside the UMEM");
        // SAFETY: checked to lie inside.
        unsafe { self.umem.start().add(addr as usize) }
    }

    fn write(&self, addr: u64, bytes: &[u8]) {
        let to = self.bytes(addr, bytes.len());
        // SAFETY: inside the UMEM, in a chunk that the other end gave away.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) }
    }

    fn read(&self, addr: u64, len: usize) -> Vec<u8> {
        let (from, mut bytes) = (self.bytes(addr, len), vec![0; len]);
        // SAFETY: inside the UMEM, in a chunk that the other end gave away.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), bytes.as_mut_ptr(), len) }
        bytes
    }
}

/// Memory of a test for a UMEM.
#[derive(Debug)]
pub struct TestArea(Mapping, usize);

impl TestArea {
    /// Zeroed memory.
    ///
    /// # Errors
    /// No memory.
    pub fn new(len: usize) -> Result<Self, Error> {
        Ok(Self(Mapping::anonymous(len)?, len))
    }
}

// SAFETY: a mapping of this length, aligned to pages, that nobody else knows.
unsafe impl Area for TestArea {
    fn start(&self) -> NonNull<u8> {
        self.0.at(0, self.1).unwrap_or(NonNull::dangling())
    }

    fn len(&self) -> usize {
        self.1
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::umem::UmemConfig;
    use proptest::prelude::*;

    fn umem(chunks: usize) -> Arc<Umem> {
        Umem::new(Box::new(TestArea::new(chunks * 4096).unwrap()), UmemConfig::default()).unwrap()
    }

    #[test]
    fn a_umem_must_be_aligned_and_have_a_chunk_of_a_size_that_the_kernel_knows() {
        for (len, chunk, good) in [
            (4096, 4096, true),
            (4096, 2048, true),
            (2048, 4096, false),
            (8192, 1024, false),
            (8192, 3000, false),
        ] {
            let config = UmemConfig { chunk, ..UmemConfig::default() };
            assert_eq!(
                Umem::new(Box::new(TestArea::new(len).unwrap()), config).is_ok(),
                good,
                "{len} {chunk}"
            );
        }
        assert!(rings(&umem(1), 3).is_err(), "no power of two");
    }

    #[test]
    fn a_stamp_comes_back_where_it_was_asked_for_and_made() {
        let umem = umem(1);
        let (mut ours, mut kernel) = rings(&umem, 4).unwrap();
        let checksum = Metadata::checksum(34, 6);
        for (request, makes, want) in [
            (Metadata::timestamp(), true, Some(77)),
            (Metadata::timestamp(), false, None),
            (checksum.and_timestamp(), true, Some(77)),
            (checksum.and_timestamp(), false, None),
            (checksum, true, None),
        ] {
            // SAFETY: inside the UMEM's one chunk, which is ours until the frame is in the ring.
            let frame = unsafe { umem.start().add(64) };
            // SAFETY: there are 64 bytes before the frame.
            unsafe { request.write_before(frame) };
            assert!(ours.tx.push(Desc { addr: 64, len: 60, options: Desc::METADATA }));
            ours.tx.publish();
            assert_eq!(kernel.transmit(1)[0].0, Desc::METADATA);
            // A driver without a clock leaves the request as it is.
            assert_eq!(makes && kernel.stamp(77), want.is_some());
            assert_eq!((kernel.complete(1), ours.completion.available(1)), (1, 1));
            ours.completion.release(1);
            // SAFETY: the frame has come back.
            assert_eq!(unsafe { request.stamp(frame) }, want, "{request:?}");
        }
    }

    proptest! {
        /// Whatever the two ends do in whatever order: frames and chunks come out as they went in, and a full ring refuses.
        #[test]
        fn both_ends_see_the_same(ops in proptest::collection::vec((0u8..7, 1usize..6000), 0..300)) {
            const SIZE: u32 = 8;
            let umem = umem(64);
            let (mut ours, mut kernel) = rings(&umem, SIZE).unwrap();
            let (mut free, mut held): (Vec<u64>, Vec<u64>) = ((0..64).map(|i| i * 4096).collect(), Vec::new());
            let (mut filled, mut received): (VecDeque<u64>, VecDeque<Vec<u8>>) = Default::default();
            let (mut queued, mut sent): (VecDeque<u64>, VecDeque<u64>) = Default::default();
            for (op, n) in ops {
                match op {
                    0 if !free.is_empty() => {
                        let fits = filled.len() < SIZE as usize;
                        let addr = *free.last().unwrap();
                        prop_assert_eq!(ours.fill.push(addr), fits);
                        if fits { filled.push_back(free.pop().unwrap()); }
                        ours.fill.publish();
                    }
                    1 => {
                        let frame: Vec<u8> = (0..n).map(|i| (i * 31 + n) as u8).collect();
                        let parts = n.div_ceil(3840);
                        let under_way: usize = received.iter().map(|f| f.len().div_ceil(3840)).sum();
                        let fits = filled.len() >= parts && under_way + parts <= SIZE as usize;
                        prop_assert_eq!(kernel.receive(&frame), fits);
                        if fits { filled.drain(..parts); received.push_back(frame); }
                    }
                    2 => {
                        let there = ours.rx.available(SIZE);
                        let parts: usize = received.iter().map(|f| f.len().div_ceil(3840)).sum();
                        prop_assert_eq!(there as usize, parts);
                        if let Some(want) = received.pop_front() {
                            let (mut got, mut at) = (Vec::new(), 0);
                            loop {
                                let desc = ours.rx.get(at);
                                got.extend(kernel.read(desc.addr, desc.len as usize));
                                held.push(desc.addr & !4095);
                                at += 1;
                                if !desc.goes_on() { break; }
                            }
                            ours.rx.release(at);
                            prop_assert!(got == want);
                        }
                    }
                    3 if !held.is_empty() => {
                        let addr = *held.last().unwrap();
                        let fits = queued.len() < SIZE as usize;
                        prop_assert_eq!(ours.tx.push(Desc { addr, len: 64, options: 0 }), fits);
                        if fits { held.pop(); queued.push_back(addr); }
                        ours.tx.publish();
                    }
                    4 => {
                        let got = kernel.transmit(n % 4).len();
                        prop_assert_eq!(got, queued.len().min(n % 4));
                        sent.extend(queued.drain(..got));
                    }
                    5 => { kernel.complete(n % 4); }
                    _ => {
                        let done = ours.completion.available(SIZE);
                        for i in 0..done {
                            let addr = ours.completion.get(i);
                            prop_assert_eq!(Some(addr), sent.pop_front());
                            free.push(addr);
                        }
                        ours.completion.release(done);
                    }
                }
                prop_assert_eq!(ours.tx.pending() as usize, queued.len());
                prop_assert_eq!(ours.fill.pending() as usize, filled.len());
            }
        }
    }
}
