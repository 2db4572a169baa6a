//! The four rings. What we produce can only be produced to, what we consume only consumed.

#![allow(unsafe_code)] // entries and indices lie in memory shared with the kernel

use crate::cursor::{Consumer, Producer, Word};
use crate::sys::Mapping;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A frame, or a part of one, in a receive or transmit ring (`struct xdp_desc`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Desc {
    /// Offset of the first byte in the UMEM.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// [`Desc::CONTINUED`], [`Desc::METADATA`].
    pub options: u32,
}

impl Desc {
    /// The frame goes on in the next descriptor (`XDP_PKT_CONTD`).
    pub const CONTINUED: u32 = libc::XDP_PKT_CONTD;
    /// Metadata for the transmission lies before the frame (`XDP_TX_METADATA`).
    pub const METADATA: u32 = libc::XDP_TX_METADATA;

    /// Whether the frame goes on in the next descriptor.
    #[must_use]
    pub const fn goes_on(&self) -> bool {
        self.options & Self::CONTINUED != 0
    }
}

/// An index in shared memory.
pub(crate) struct Shared {
    word: NonNull<AtomicU32>,
    _memory: Arc<Mapping>,
}

// SAFETY: an atomic in memory that lives as long as `_memory`, which any thread may hold.
unsafe impl Send for Shared {}

impl Shared {
    /// The word at `offset`.
    ///
    /// # Safety
    /// Only atomics touch the word, on the other side too.
    pub(crate) unsafe fn new(memory: &Arc<Mapping>, offset: usize) -> Option<Self> {
        let word = memory.at(offset, size_of::<AtomicU32>())?.cast();
        Some(Self { word, _memory: memory.clone() })
    }

    fn get(&self) -> &AtomicU32 {
        // SAFETY: the constructor found the word inside the mapping, which is alive and aligned to pages; offsets of indices are those of the
        // kernel, aligned to cache lines.
        unsafe { self.word.as_ref() }
    }
}

impl Word for Shared {
    #[inline]
    fn acquire(&self) -> u32 {
        self.get().load(Ordering::Acquire)
    }

    #[inline]
    fn release(&self, value: u32) {
        self.get().store(value, Ordering::Release);
    }
}

/// Where the parts of a ring lie in its mapping (`struct xdp_ring_offset`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offsets {
    pub(crate) producer: usize,
    pub(crate) consumer: usize,
    pub(crate) flags: usize,
    pub(crate) entries: usize,
}

/// The entries of a ring and the kernel's flags.
struct Entries<T> {
    first: NonNull<T>,
    flags: Shared,
    /// Entries - 1.
    mask: u32,
}

// SAFETY: an address inside memory that lives as long as `flags` does; `T` is plain data.
unsafe impl<T: Send> Send for Entries<T> {}

impl<T: Copy> Entries<T> {
    #[inline]
    fn read(&self, slot: u32) -> T {
        // SAFETY: masked to the ring, which `ring` found inside the mapping. The other side writes an entry only before it publishes it.
        unsafe { self.first.add((slot & self.mask) as usize).read() }
    }

    #[inline]
    fn write(&self, slot: u32, entry: T) {
        // SAFETY: as `read`; the other side reads an entry only after it was published.
        unsafe { self.first.add((slot & self.mask) as usize).write(entry) }
    }

    #[inline]
    fn needs_wakeup(&self) -> bool {
        self.flags.get().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// The parts of a ring of `size` entries in `memory`: producer's index, consumer's index, entries.
///
/// # Safety
/// The mapping is a ring of this layout, and the other side keeps to its protocol.
unsafe fn parts<T>(memory: &Arc<Mapping>, at: Offsets, size: u32) -> Option<(Shared, Shared, Entries<T>)> {
    let first = memory.at(at.entries, size as usize * size_of::<T>())?.cast();
    // SAFETY: the caller's word for all three.
    let (producer, consumer, flags) = unsafe {
        (Shared::new(memory, at.producer)?, Shared::new(memory, at.consumer)?, Shared::new(memory, at.flags)?)
    };
    size.is_power_of_two().then(|| (producer, consumer, Entries { first, flags, mask: size - 1 }))
}

struct Produced<T> {
    cursor: Producer<Shared>,
    entries: Entries<T>,
}

impl<T: Copy> Produced<T> {
    /// # Safety
    /// As [`parts`].
    unsafe fn new(memory: &Arc<Mapping>, at: Offsets, size: u32) -> Option<Self> {
        // SAFETY: the caller's word.
        let (producer, consumer, entries) = unsafe { parts(memory, at, size)? };
        Some(Self { cursor: Producer::new(producer, consumer, size), entries })
    }

    #[inline]
    fn push(&mut self, entry: T) -> bool {
        if self.cursor.room(1) == 0 {
            return false;
        }
        self.entries.write(self.cursor.slot(), entry);
        self.cursor.advance();
        true
    }
}

struct Consumed<T> {
    cursor: Consumer<Shared>,
    entries: Entries<T>,
}

impl<T: Copy> Consumed<T> {
    /// # Safety
    /// As [`parts`].
    unsafe fn new(memory: &Arc<Mapping>, at: Offsets, size: u32) -> Option<Self> {
        // SAFETY: the caller's word.
        let (producer, consumer, entries) = unsafe { parts(memory, at, size)? };
        Some(Self { cursor: Consumer::new(consumer, producer, size), entries })
    }
}

/// Chunks that we give to the kernel to receive into.
pub struct Fill(Produced<u64>);

/// Frames that the kernel received.
pub struct Rx(Consumed<Desc>);

/// Frames that we give to the kernel to send.
pub struct Tx(Produced<Desc>);

/// Frames that the kernel has sent, by their address.
pub struct Completion(Consumed<u64>);

impl Fill {
    /// # Safety
    /// As [`parts`].
    pub(crate) unsafe fn new(memory: &Arc<Mapping>, at: Offsets, size: u32) -> Option<Self> {
        // SAFETY: the caller's word.
        unsafe { Produced::new(memory, at, size) }.map(Self)
    }

    /// Entries that can be written now; the kernel's index is looked at only if fewer than `want` are known.
    #[inline]
    pub fn room(&mut self, want: u32) -> u32 {
        self.0.cursor.room(want)
    }

    /// Writes the address of a chunk; false when the ring is full. The kernel sees it with [`Fill::publish`].
    #[inline]
    pub fn push(&mut self, addr: u64) -> bool {
        self.0.push(addr)
    }

    /// Shows what was written to the kernel; whether there was anything.
    #[inline]
    pub fn publish(&mut self) -> bool {
        self.0.cursor.publish()
    }

    /// Whether the kernel waits for a call before it looks at the ring ([`crate::Socket::receive`]).
    #[inline]
    #[must_use]
    pub fn needs_wakeup(&self) -> bool {
        self.0.entries.needs_wakeup()
    }

    /// Chunks in the ring now.
    pub fn pending(&mut self) -> u32 {
        self.0.cursor.pending()
    }
}

impl Rx {
    /// # Safety
    /// As [`parts`].
    pub(crate) unsafe fn new(memory: &Arc<Mapping>, at: Offsets, size: u32) -> Option<Self> {
        // SAFETY: the caller's word.
        unsafe { Consumed::new(memory, at, size) }.map(Self)
    }

    /// Descriptors that can be read now; the kernel's index is looked at only if fewer than `want` are known.
    #[inline]
    pub fn available(&mut self, want: u32) -> u32 {
        self.0.cursor.available(want)
    }

    /// The `i`th descriptor that was not released, `i` below [`Rx::available`].
    #[inline]
    #[must_use]
    pub fn get(&self, i: u32) -> Desc {
        self.0.entries.read(self.0.cursor.slot(i))
    }

    /// The oldest `n` descriptors are the kernel's again (their chunks are not: those go to a [`Fill`] ring).
    #[inline]
    pub fn release(&mut self, n: u32) {
        self.0.cursor.release(n);
    }
}

impl Tx {
    /// # Safety
    /// As [`parts`].
    pub(crate) unsafe fn new(memory: &Arc<Mapping>, at: Offsets, size: u32) -> Option<Self> {
        // SAFETY: the caller's word.
        unsafe { Produced::new(memory, at, size) }.map(Self)
    }

    /// Entries that can be written now; the kernel's index is looked at only if fewer than `want` are known.
    #[inline]
    pub fn room(&mut self, want: u32) -> u32 {
        self.0.cursor.room(want)
    }

    /// Writes a descriptor; false when the ring is full. The kernel sees it with [`Tx::publish`].
    #[inline]
    pub fn push(&mut self, desc: Desc) -> bool {
        self.0.push(desc)
    }

    /// Shows what was written to the kernel; whether there was anything.
    #[inline]
    pub fn publish(&mut self) -> bool {
        self.0.cursor.publish()
    }

    /// Whether the kernel waits for a call before it looks at the ring ([`crate::Socket::send`]).
    #[inline]
    #[must_use]
    pub fn needs_wakeup(&self) -> bool {
        self.0.entries.needs_wakeup()
    }

    /// Descriptors that the kernel has not taken yet.
    pub fn pending(&mut self) -> u32 {
        self.0.cursor.pending()
    }

    /// The descriptor that was written `back` descriptors ago, the last one 1: of those that the kernel has not taken, and those that it
    /// took, until the ring has come round.
    #[inline]
    #[must_use]
    pub fn written(&self, back: u32) -> Desc {
        self.0.entries.read(self.0.cursor.slot_before(back))
    }

    /// Entries of the ring.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.0.cursor.size()
    }
}

impl Completion {
    /// # Safety
    /// As [`parts`].
    pub(crate) unsafe fn new(memory: &Arc<Mapping>, at: Offsets, size: u32) -> Option<Self> {
        // SAFETY: the caller's word.
        unsafe { Consumed::new(memory, at, size) }.map(Self)
    }

    /// Addresses that can be read now; the kernel's index is looked at only if fewer than `want` are known.
    #[inline]
    pub fn available(&mut self, want: u32) -> u32 {
        self.0.cursor.available(want)
    }

    /// The `i`th address that was not released, `i` below [`Completion::available`].
    #[inline]
    #[must_use]
    pub fn get(&self, i: u32) -> u64 {
        self.0.entries.read(self.0.cursor.slot(i))
    }

    /// The oldest `n` entries are the kernel's again.
    #[inline]
    pub fn release(&mut self, n: u32) {
        self.0.cursor.release(n);
    }
}

impl fmt::Debug for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fill").finish_non_exhaustive()
    }
}

impl fmt::Debug for Rx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rx").finish_non_exhaustive()
    }
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").finish_non_exhaustive()
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").finish_non_exhaustive()
    }
}
