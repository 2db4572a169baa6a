//! Where the parts of a packed ring lie, and how they are read and written.

#![allow(unsafe_code)] // ring memory that the other side writes: every access is one atomic load or store

use super::cursor::{Cursor, passed};
use crate::virtq::{RingConfig, RingFault};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering, fence};

/// Flag of a descriptor: equals the driver's wrap counter when it was made available.
pub(super) const AVAIL: u16 = 1 << 7;
/// Flag of a descriptor: equals the device's wrap counter when it was used.
pub(super) const USED: u16 = 1 << 15;

/// `flags` of an event suppression structure: notify always.
const ENABLE: u16 = 0;
/// Notify never.
const DISABLE: u16 = 1;
/// Notify when the named slot is passed.
const AT_SLOT: u16 = 2;

/// Bytes of a descriptor ring.
#[must_use]
pub const fn desc_bytes(size: u16) -> u64 {
    size as u64 * 16
}

/// Bytes of an event suppression structure.
pub const EVENT_BYTES: u64 = 4;

/// The second half of a descriptor, which is written and read as one: length, buffer id, flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    #[inline]
    pub(super) const fn new(len: u32, id: u16, flags: u16) -> Self {
        Self(len as u64 | (id as u64) << 32 | (flags as u64) << 48)
    }

    #[inline]
    pub(super) const fn len(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    pub(super) const fn id(self) -> u16 {
        (self.0 >> 32) as u16
    }

    #[inline]
    pub(super) const fn flags(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Whether the flags in `mask` are exactly `flags`.
    #[inline]
    pub(super) const fn is(self, mask: u16, flags: u16) -> bool {
        self.flags() & mask == flags
    }
}

/// The three parts of a ring whose memory is known to be there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    desc: NonNull<AtomicU64>,
    driver: NonNull<u16>,
    device: NonNull<u16>,
    pub(super) size: u16,
}

impl Layout {
    /// The parts that a configuration names.
    pub(super) fn of(config: &RingConfig) -> Result<Self, RingFault> {
        if config.size == 0 || config.size > 32768 {
            return Err(RingFault::Size(config.size));
        }
        config.aligned(16, 4, 4)?;
        for at in [config.position.avail, config.position.used] {
            if at >= config.size {
                return Err(RingFault::Position(at, config.size));
            }
        }
        let (desc, driver, device) = (config.desc.cast(), config.avail.cast(), config.used.cast());
        Ok(Self { desc, driver, device, size: config.size })
    }

    #[inline]
    fn half(&self, slot: u16, half: usize) -> &AtomicU64 {
        debug_assert!(slot < self.size);
        // SAFETY: cursors stay below the size, and the configuration said that the ring has room for it; both sides access
        // these words atomically.
        unsafe { self.desc.add(usize::from(slot) * 2 + half).as_ref() }
    }

    /// Address of the buffer in `slot`.
    #[inline]
    pub(super) fn addr(&self, slot: u16) -> u64 {
        self.half(slot, 0).load(Ordering::Relaxed)
    }

    /// The rest of the descriptor in `slot`; what is read afterwards is at least as new as its flags.
    #[inline]
    pub(super) fn word(&self, slot: u16) -> Word {
        let word = self.half(slot, 1).load(Ordering::Acquire);
        if cfg!(target_arch = "x86_64") {
            return Word(word);
        }
        // Elsewhere a load may see flags that were stored alone, and older bytes beside them.
        let rest = self.half(slot, 1).load(Ordering::Relaxed);
        Word(word & 0xffff << 48 | rest & !(0xffff << 48))
    }

    /// Takes the line of `slot` into the cache, to write it: what is looked at is marked used there. Any slot will do.
    #[inline]
    pub(super) fn prefetch_to_write(&self, slot: u16) {
        crate::prefetch::write_at(self.desc.as_ptr().cast::<u8>().wrapping_add(usize::from(slot) * 16));
    }

    /// Writes the address in `slot`.
    #[inline]
    pub(super) fn set_addr(&self, slot: u16, addr: u64) {
        self.half(slot, 0).store(addr, Ordering::Relaxed);
    }

    /// Writes the rest of a descriptor that the other side does not look at yet.
    #[inline]
    pub(super) fn set(&self, slot: u16, word: Word) {
        self.half(slot, 1).store(word.0, Ordering::Relaxed);
    }

    /// Writes the rest of a descriptor, and shows the other side all that was written before.
    #[inline]
    pub(super) fn show(&self, slot: u16, word: Word) {
        self.half(slot, 1).store(word.0, Ordering::Release);
    }

    /// The driver's event suppression structure: when it wants calls.
    pub(super) const fn driver_event(&self) -> Event<'_> {
        Event { words: self.driver, _ring: self }
    }

    /// The device's event suppression structure: when it wants kicks.
    pub(super) const fn device_event(&self) -> Event<'_> {
        Event { words: self.device, _ring: self }
    }
}

/// An event suppression structure (virtio 1.3, 2.8.14).
pub(super) struct Event<'r> {
    words: NonNull<u16>,
    _ring: &'r Layout,
}

impl Event<'_> {
    #[inline]
    const fn word(&self, index: usize) -> &AtomicU16 {
        // SAFETY: the structure has two words.
        unsafe { self.words.add(index).cast::<AtomicU16>().as_ref() }
    }

    /// Whether the reader of this side's notifications wants one after a move from `from` by `moved` slots. Both sides write,
    /// fence, and look: the caller has fenced.
    #[inline]
    pub(super) fn asks(&self, from: Cursor, moved: u32, size: u16) -> bool {
        match self.word(1).load(Ordering::Acquire) {
            ENABLE => true,
            AT_SLOT => passed(self.word(0).load(Ordering::Relaxed), from, moved, size),
            _ => false,
        }
    }

    /// Asks for notifications: for every one, or for one when `slot` is passed.
    pub(super) fn ask(&self, slot: Option<Cursor>) {
        match slot {
            Some(slot) => {
                self.word(0).store(slot.event(), Ordering::Relaxed);
                self.word(1).store(AT_SLOT, Ordering::Release);
            }
            None => self.word(1).store(ENABLE, Ordering::Release),
        }
        fence(Ordering::SeqCst);
    }

    /// Asks for none.
    pub(super) fn hush(&self) {
        self.word(1).store(DISABLE, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}
