//! Rings in ordinary memory, both sides in one process: for tests, benches and load tools.

#![allow(unsafe_code)] // reads and writes the memory that it made

use super::{Position, RingConfig, packed, split};
use crate::mem::arena::{Arena, ArenaConfig, ArenaError};
use crate::mem::guest::GuestMemory;
use std::ptr::NonNull;
use std::sync::Arc;

/// Where the memory of a [`Rig`] starts, as guest addresses.
pub const GUEST: u64 = 0x10_0000;

/// What a ring looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Split.
    Split,
    /// Packed.
    Packed,
}

/// A ring that was never used, with memory for buffers behind it.
#[derive(Debug)]
pub struct Rig {
    /// The ring; both sides are made from it.
    pub config: RingConfig,
    base: NonNull<u8>,
    bytes: usize,
    buffers: usize,
}

/// Where the three parts and the buffers lie, from the start of the memory.
fn offsets(format: Format, size: u16) -> [usize; 4] {
    let (desc, avail, used) = match format {
        Format::Split => (split::desc_bytes(size), split::avail_bytes(size), split::used_bytes(size)),
        Format::Packed => (packed::desc_bytes(size), packed::EVENT_BYTES, packed::EVENT_BYTES),
    };
    let mut at = [0; 4];
    for (i, bytes) in [desc, avail, used].into_iter().enumerate() {
        at[i + 1] = (at[i] + bytes as usize).next_multiple_of(64);
    }
    at
}

impl Rig {
    /// A ring of `size` and `buffers` bytes of memory for buffers.
    ///
    /// # Errors
    /// No memory.
    pub fn new(format: Format, size: u16, features: u64, buffers: usize) -> Result<Self, ArenaError> {
        let [desc, avail, used, start] = offsets(format, size);
        let bytes = start + buffers;
        let arena = Arena::new(&ArenaConfig { initial: bytes + 4096, step: 1 << 20, hugepages: false })?;
        let part = Arc::new(arena.take(bytes, 4096)?);
        let base = part.ptr();
        // SAFETY: all of it lies in the part, which is ours.
        let (desc, avail, used) = unsafe {
            base.write_bytes(0, bytes);
            (base.add(desc), base.add(avail), base.add(used))
        };
        let config = RingConfig {
            size,
            features,
            memory: Arc::new(GuestMemory::of_part(part, GUEST)),
            desc,
            avail,
            used,
            used_log: None,
            inflight: None,
            position: Position::START,
            kick: None,
            call: None,
            err: None,
        };
        Ok(Self { config, base, bytes, buffers: start })
    }

    /// Guest address of byte `at` of the buffers.
    #[must_use]
    pub const fn buffer(&self, at: usize) -> u64 {
        GUEST + (self.buffers + at) as u64
    }

    /// Guest address of the first byte behind the memory.
    #[must_use]
    pub const fn end(&self) -> u64 {
        GUEST + self.bytes as u64
    }

    /// Guest address of a pointer into the memory.
    #[must_use]
    pub fn guest(&self, ptr: *const u8) -> u64 {
        GUEST + (ptr as u64 - self.base.as_ptr() as u64)
    }

    /// Where a guest address lies: for at least `len` bytes, or nowhere.
    #[must_use]
    pub fn at(&self, guest: u64, len: usize) -> Option<NonNull<u8>> {
        let off = usize::try_from(guest.checked_sub(GUEST)?).ok()?;
        // SAFETY: inside of the part.
        (off <= self.bytes && len <= self.bytes - off).then(|| unsafe { self.base.add(off) })
    }

    /// Writes bytes to guest memory; beyond it, nothing.
    pub fn write(&self, guest: u64, bytes: &[u8]) {
        if let Some(to) = self.at(guest, bytes.len()) {
            // SAFETY: `at` says that there is room.
            unsafe { to.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
        }
    }

    /// Reads a number of guest memory; 0 beyond it.
    #[must_use]
    pub fn read_u16(&self, guest: u64) -> u16 {
        // SAFETY: `at` says that there are two bytes.
        self.at(guest, 2).map_or(0, |at| unsafe { at.cast::<u16>().as_ptr().read_unaligned() })
    }

    /// Writes a descriptor as it lies in the table, the ring or an indirect table at `table`: the last two words are `flags` and
    /// `next` (split), or buffer id and `flags` (packed).
    pub fn write_desc(&self, table: u64, i: u16, addr: u64, len: u32, words: [u16; 2]) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&words[0].to_le_bytes());
        bytes[14..].copy_from_slice(&words[1].to_le_bytes());
        self.write(table + u64::from(i) * 16, &bytes);
    }
}
