//! The driver's side of a packed ring: of each descriptor only the half is written that the device overwrites.

#![allow(unsafe_code)] // ring memory that the device writes: every access is one atomic load or store

use super::{Format, Place};
use engine::virtq::{DriverSeg, RingConfig, RingFault};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering, fence};

/// The device writes to a buffer (virtio 1.3, 2.8.5).
const WRITE: u64 = 2 << 48;
/// Flags of a descriptor: the driver's and the device's wrap counters (virtio 1.3, 2.8.1).
const AVAIL: u64 = 1 << 55;
const USED: u64 = 1 << 63;
/// The buffer id.
const ID: u64 = 0xffff << 32;
/// In the flags of an event suppression structure: no notification wanted.
const DISABLE: u16 = 1;

/// The descriptors, and what each of them says when it is offered, without the wrap counters.
#[derive(Debug)]
pub(in super::super) struct Packed {
    desc: NonNull<AtomicU64>,
    device: NonNull<AtomicU16>,
    words: Box<[u64]>,
    /// The first descriptor that was offered and not yet shown; it is written last, so that all show at once.
    first: Option<(u32, u64)>,
}

impl Packed {
    /// A half of the descriptor in `slot`, below the size.
    #[inline]
    fn half(&self, slot: usize, half: usize) -> &AtomicU64 {
        debug_assert!(slot < self.words.len());
        // SAFETY: the ring has room for its size, and stays mapped as long as its buffers.
        unsafe { self.desc.add(slot * 2 + half).as_ref() }
    }

    /// Length, id and flags of the descriptor in `slot`; what is read afterwards is at least as new.
    #[inline]
    fn word(&self, slot: usize) -> u64 {
        let word = self.half(slot, 1).load(Ordering::Acquire);
        if cfg!(target_arch = "x86_64") {
            return word;
        }
        // Elsewhere a load may see flags that were stored alone, and older bytes beside them.
        let flags = 0xffff << 48;
        word & flags | self.half(slot, 1).load(Ordering::Relaxed) & !flags
    }

    /// The wrap counters of a descriptor that the device has used in this lap.
    #[inline]
    fn used(at: Place) -> u64 {
        if at.lap.is_multiple_of(2) { AVAIL | USED } else { 0 }
    }
}

impl Format for Packed {
    fn new(config: &RingConfig) -> Result<Self, RingFault> {
        if config.size == 0 || config.size > 32768 {
            return Err(RingFault::Size(config.size));
        }
        let words = vec![0; usize::from(config.size)].into_boxed_slice();
        let device = config.used.cast::<AtomicU16>();
        let this = Self { desc: config.desc.cast(), device, words, first: None };
        // SAFETY: an event suppression structure has two words, and is mapped as long as the ring. Nobody waits for a call.
        unsafe { config.avail.cast::<AtomicU16>().add(1).as_ref() }.store(DISABLE, Ordering::Relaxed);
        Ok(this)
    }

    fn place(&mut self, slot: u32, token: u16, seg: DriverSeg, writable: bool) {
        self.half(slot as usize, 0).store(seg.addr, Ordering::Relaxed);
        let flags = if writable { WRITE } else { 0 };
        if let Some(word) = self.words.get_mut(slot as usize) {
            *word = u64::from(seg.len) | u64::from(token) << 32 | flags;
        }
    }

    #[inline]
    fn run(
        &mut self,
        at: Place,
        expected: &[u16],
        _under_way: u32,
        mut back: impl FnMut(u16, u32),
    ) -> Result<usize, RingFault> {
        let used = Self::used(at);
        for (n, token) in expected.iter().copied().enumerate() {
            let word = self.word(at.slot as usize + n);
            if word & (AVAIL | USED | ID) != used | u64::from(token) << 32 {
                return Ok(n);
            }
            back(token, word as u32);
        }
        Ok(expected.len())
    }

    fn entry(&mut self, at: Place, _under_way: u32) -> Result<Option<(u32, u32)>, RingFault> {
        let word = self.word(at.slot as usize);
        let there = word & (AVAIL | USED) == Self::used(at);
        Ok(there.then_some((((word & ID) >> 32) as u32, word as u32)))
    }

    #[inline]
    fn offer(&mut self, from: Place, count: u32) {
        let wrap = if from.lap.is_multiple_of(2) { AVAIL } else { USED };
        let slots = from.slot as usize..(from.slot + count) as usize;
        let mut words = self.words.get(slots).unwrap_or_default().iter().map(|word| word | wrap);
        let mut slot = from.slot as usize;
        if self.first.is_none() {
            self.first = words.next().map(|word| (from.slot, word));
            slot += 1;
        }
        for (n, word) in words.enumerate() {
            self.half(slot + n, 1).store(word, Ordering::Relaxed);
        }
    }

    #[inline]
    fn show(&mut self) {
        if let Some((slot, word)) = self.first.take() {
            self.half(slot as usize, 1).store(word, Ordering::Release);
        }
    }

    fn asks(&self) -> bool {
        // As for a split ring.
        fence(Ordering::SeqCst);
        // SAFETY: as in `new`.
        unsafe { self.device.add(1).as_ref() }.load(Ordering::Acquire) != DISABLE
    }
}
