//! The driver's side of a split ring, written once: after that only the available index changes.

#![allow(unsafe_code)] // ring memory that the device writes: every access is one raw load or store

use super::{Format, Place};
use engine::virtq::{DriverSeg, RingConfig, RingFault};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering, fence};

/// The device writes to a buffer (virtio 1.3, 2.7.5).
const WRITE: u16 = 2;
/// In the flags of either ring: no notification wanted.
const NO_NOTIFY: u16 = 1;

/// The parts of a ring, and both indices as they were last seen or shown.
#[derive(Debug)]
pub(in super::super) struct Split {
    desc: NonNull<u64>,
    avail: NonNull<u16>,
    used: NonNull<u16>,
    size: u32,
    seen: u16,
    shown: u16,
}

impl Split {
    fn word(&self, base: NonNull<u16>, at: usize) -> &AtomicU16 {
        // SAFETY: callers stay within the part, which has room for a ring of this size and stays mapped as long as its buffers.
        unsafe { base.add(at).cast::<AtomicU16>().as_ref() }
    }

    /// The index that stands for a place.
    #[inline]
    fn index(&self, at: Place) -> u16 {
        at.lap.wrapping_mul(self.size).wrapping_add(at.slot) as u16
    }

    /// The used entry in `slot`, below the size.
    #[inline]
    fn used(&self, slot: usize) -> (u32, u32) {
        // SAFETY: entries are 8 bytes from the 4th on, aligned to 4. Volatile: what was checked is what is used.
        unsafe {
            let words = self.used.add(2).cast::<u32>().add(slot * 2);
            (words.read_volatile(), words.add(1).read_volatile())
        }
    }

    /// Entries that are used from `at` on. The index is read only when what was seen of it is worked off.
    #[inline]
    fn known(&mut self, at: Place, under_way: u32) -> Result<usize, RingFault> {
        let from = self.index(at);
        if self.seen == from {
            let to = self.word(self.used, 1).load(Ordering::Acquire);
            if u32::from(to.wrapping_sub(from)) > under_way {
                return Err(RingFault::Jump { from, to, size: self.size as u16 });
            }
            self.seen = to;
        }
        Ok(usize::from(self.seen.wrapping_sub(from)))
    }
}

impl Format for Split {
    fn new(config: &RingConfig) -> Result<Self, RingFault> {
        if !config.size.is_power_of_two() || config.size > 32768 {
            return Err(RingFault::Size(config.size));
        }
        let (desc, avail, used) = (config.desc.cast(), config.avail.cast(), config.used.cast());
        let this = Self { desc, avail, used, size: u32::from(config.size), seen: 0, shown: 0 };
        this.word(avail, 0).store(NO_NOTIFY, Ordering::Relaxed); // nobody waits for a call
        Ok(this)
    }

    fn place(&mut self, slot: u32, token: u16, seg: DriverSeg, writable: bool) {
        let flags = if writable { WRITE } else { 0 };
        // SAFETY: tokens and slots are below the size; the device reads neither before they are offered.
        unsafe {
            let desc = self.desc.add(usize::from(token) * 2);
            desc.write_volatile(seg.addr);
            desc.add(1).write_volatile(u64::from(seg.len) | u64::from(flags) << 32);
        }
        self.word(self.avail, 2 + slot as usize).store(token, Ordering::Relaxed);
    }

    #[inline]
    fn run(
        &mut self,
        at: Place,
        expected: &[u16],
        under_way: u32,
        mut back: impl FnMut(u16, u32),
    ) -> Result<usize, RingFault> {
        let known = self.known(at, under_way)?;
        for (n, token) in expected.iter().copied().take(known).enumerate() {
            let (id, len) = self.used(at.slot as usize + n);
            if id != u32::from(token) {
                return Ok(n);
            }
            back(token, len);
        }
        Ok(known.min(expected.len()))
    }

    fn entry(&mut self, at: Place, under_way: u32) -> Result<Option<(u32, u32)>, RingFault> {
        Ok((self.known(at, under_way)? > 0).then(|| self.used(at.slot as usize)))
    }

    #[inline]
    fn offer(&mut self, from: Place, count: u32) {
        self.shown = self.index(from).wrapping_add(count as u16);
    }

    #[inline]
    fn show(&mut self) {
        self.word(self.avail, 1).store(self.shown, Ordering::Release);
    }

    fn asks(&self) -> bool {
        // The device asks for kicks, fences, and looks at the index; we showed the index, fence, and look whether it asks.
        fence(Ordering::SeqCst);
        self.word(self.used, 0).load(Ordering::Relaxed) & NO_NOTIFY == 0
    }
}
