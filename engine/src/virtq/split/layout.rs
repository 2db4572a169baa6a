//! Where the parts of a split ring lie, and how they are read and written.

#![allow(unsafe_code)] // ring memory that the other side writes: every access is one raw load or store

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// `flags` of either ring: no notification wanted.
pub(super) const NO_NOTIFY: u16 = 1;

/// A descriptor as it lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Desc {
    pub addr: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

impl Desc {
    /// From the two halves of a descriptor.
    #[inline]
    pub(crate) const fn of(addr: u64, rest: u64) -> Self {
        Self { addr, len: rest as u32, flags: (rest >> 32) as u16, next: (rest >> 48) as u16 }
    }
}

/// Bytes of a descriptor table.
#[must_use]
pub const fn desc_bytes(size: u16) -> u64 {
    size as u64 * 16
}

/// Bytes of an available ring, used-event word included.
#[must_use]
pub const fn avail_bytes(size: u16) -> u64 {
    6 + size as u64 * 2
}

/// Bytes of a used ring, available-event word included.
#[must_use]
pub const fn used_bytes(size: u16) -> u64 {
    6 + size as u64 * 8
}

/// The three parts of a ring whose memory is known to be there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub desc: NonNull<Desc>,
    avail: NonNull<u16>,
    used: NonNull<u16>,
    pub mask: u16,
}

impl Layout {
    /// # Safety
    /// The parts must have room for a ring of `mask + 1` entries, a power of two, be aligned to 16, 2 and 4 bytes, and stay mapped.
    pub(crate) const unsafe fn new(
        desc: NonNull<u8>,
        avail: NonNull<u8>,
        used: NonNull<u8>,
        mask: u16,
    ) -> Self {
        Self { desc: desc.cast(), avail: avail.cast(), used: used.cast(), mask }
    }

    #[inline]
    const fn word(&self, base: NonNull<u16>, index: usize) -> &AtomicU16 {
        // SAFETY: callers stay inside the part; both sides access these words atomically.
        unsafe { base.add(index).cast::<AtomicU16>().as_ref() }
    }

    /// Begins to load a descriptor.
    #[inline]
    pub(crate) fn prefetch_desc(&self, index: u16) {
        // SAFETY: masked, so inside the table; nothing is read.
        crate::prefetch::read(unsafe {
            self.desc.add(usize::from(index & self.mask)).cast::<AtomicU16>().as_ref()
        });
    }

    /// Flags of the available ring.
    #[inline]
    pub(crate) const fn avail_flags(&self) -> &AtomicU16 {
        self.word(self.avail, 0)
    }

    /// Index of the available ring.
    #[inline]
    pub(crate) const fn avail_idx(&self) -> &AtomicU16 {
        self.word(self.avail, 1)
    }

    /// Entry `i` (modulo the size) of the available ring.
    #[inline]
    pub(crate) const fn avail_entry(&self, i: u16) -> &AtomicU16 {
        self.word(self.avail, 2 + (i & self.mask) as usize)
    }

    /// The driver's event word, behind the available ring.
    #[inline]
    pub(crate) const fn used_event(&self) -> &AtomicU16 {
        self.word(self.avail, 3 + self.mask as usize)
    }

    /// Flags of the used ring.
    #[inline]
    pub(crate) const fn used_flags(&self) -> &AtomicU16 {
        self.word(self.used, 0)
    }

    /// Index of the used ring.
    #[inline]
    pub(crate) const fn used_idx(&self) -> &AtomicU16 {
        self.word(self.used, 1)
    }

    /// The device's event word, behind the used ring.
    #[inline]
    pub(crate) const fn avail_event(&self) -> &AtomicU16 {
        self.word(self.used, 2 + 4 * (self.mask as usize + 1))
    }

    /// Entry `i` (modulo the size) of the used ring.
    #[inline]
    const fn entry(&self, i: u16) -> NonNull<u64> {
        // SAFETY: the masked index lies in the used ring; entries are 8 bytes, 4 bytes behind its start.
        unsafe { self.used.add(2).cast::<u64>().add((i & self.mask) as usize) }
    }

    /// Writes entry `i` (modulo the size) of the used ring.
    #[inline]
    pub(crate) const fn set_used(&self, i: u16, id: u16, len: u32) {
        // SAFETY: `entry` lies in the ring, and is aligned to 4 bytes.
        unsafe { self.entry(i).as_ptr().write_unaligned(id as u64 | (len as u64) << 32) }
    }

    /// Entry `i` (modulo the size) of the used ring: id and length.
    #[inline]
    pub(crate) fn used(&self, i: u16) -> (u32, u32) {
        let words = self.entry(i).cast::<u32>().as_ptr();
        // SAFETY: as `set_used`. Volatile: what was checked is what is used.
        unsafe { (words.read_volatile(), words.add(1).read_volatile()) }
    }

    /// Descriptor `i`, which is below the size.
    #[inline]
    pub(crate) fn desc(&self, i: u16) -> Desc {
        // SAFETY: masked, so inside the table. Volatile: what was checked is what is used.
        let (addr, rest) = unsafe {
            let words = self.desc.cast::<u64>().add((i & self.mask) as usize * 2).as_ptr();
            (words.read_volatile(), words.add(1).read_volatile())
        };
        Desc::of(addr, rest)
    }

    /// Writes descriptor `i`.
    #[inline]
    pub(crate) fn set_desc(&self, i: u16, desc: Desc) {
        // In two words, as it is read: a load of what two stores wrote would wait for both.
        let rest = u64::from(desc.len) | u64::from(desc.flags) << 32 | u64::from(desc.next) << 48;
        // SAFETY: as `desc`.
        unsafe {
            let words = self.desc.cast::<u64>().add((i & self.mask) as usize * 2).as_ptr();
            words.write_volatile(desc.addr);
            words.add(1).write_volatile(rest);
        }
    }
}

/// Loads that pair with the other side's release.
pub(crate) const TAKE: Ordering = Ordering::Acquire;
/// Stores that show what was written before.
pub(crate) const SHOW: Ordering = Ordering::Release;
