//! A guest's memory, as its VMM shares it: a table of regions, each a mapped file.
//!
//! A table never changes. Adding or removing a region makes another that shares the mappings, and rings move to it; the
//! last table that holds a mapping unmaps it. Nothing here makes a reference to guest memory: the guest writes it at any
//! time, so all access is by pointer and validated length.

#![allow(unsafe_code)] // pointers into mapped memory

use super::arena::Part;
use super::dirty::DirtyLog;
use super::map::Mapping;
use super::shared::{SharedError, SharedMap};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// Regions that one table has at most (`VHOST_USER_MAX_RAM_SLOTS`, what a VMM offers its guest).
pub const MAX_REGIONS: usize = 509;

/// Where a region lies, as the VMM describes it. Bytes all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Guest physical address.
    pub guest: u64,
    /// Address in the VMM, by which it names rings.
    pub user: u64,
    /// Size.
    pub size: u64,
    /// Where it begins in its file.
    pub offset: u64,
}

/// Why a memory table cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// More regions than any VMM has.
    #[error("{0} memory regions, at most {MAX_REGIONS} are possible")]
    Count(usize),
    /// Empty, or beyond the end of addresses.
    #[error("memory region of {size} bytes at {guest:#x} (in the VMM {user:#x}) is empty or wraps around")]
    Range {
        /// Guest address.
        guest: u64,
        /// Address in the VMM.
        user: u64,
        /// Bytes.
        size: u64,
    },
    /// Two regions share addresses.
    #[error("memory regions at {0:#x} and {1:#x} overlap")]
    Overlap(u64, u64),
    /// The file behind a region.
    #[error("memory region at {guest:#x} {error}{}", remedy(.error))]
    Map {
        /// Guest address.
        guest: u64,
        /// What is wrong.
        error: SharedError,
    },
    /// No region is just there.
    #[error("no memory region of {size} bytes at {guest:#x} (in the VMM {user:#x}) to remove")]
    Absent {
        /// Guest address.
        guest: u64,
        /// Address in the VMM.
        user: u64,
        /// Bytes.
        size: u64,
    },
}

/// What to do about a region that is not shared.
const fn remedy(error: &SharedError) -> &'static str {
    match error {
        SharedError::NotMemory | SharedError::Map(_) => {
            "; guest memory has to be shared, as with memory-backend-memfd,share=on"
        }
        _ => "",
    }
}

/// A region as a lookup sees it: half a cache line.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    guest: u64,
    size: u64,
    host: NonNull<u8>,
    user: u64,
}

impl Range {
    /// No byte.
    const EMPTY: Self = Self { guest: 0, size: 0, host: NonNull::dangling(), user: 0 };

    /// As [`GuestMemory::at`], in this region only.
    #[inline]
    #[must_use]
    pub fn at(&self, guest: u64, len: u32) -> Option<NonNull<u8>> {
        Self::inside(self.host, guest.wrapping_sub(self.guest), self.size, u64::from(len))
    }

    #[inline]
    fn inside(host: NonNull<u8>, offset: u64, size: u64, len: u64) -> Option<NonNull<u8>> {
        // SAFETY: the offset is less than the size of the mapping at `host`.
        (offset < size && len <= size - offset).then(|| unsafe { host.add(offset as usize) })
    }
}

/// What keeps a region's memory mapped.
#[derive(Debug, Clone)]
enum Hold {
    Shared(Arc<SharedMap>),
    Part {
        _part: Arc<Part>,
    },
    Own {
        _map: Arc<Mapping>,
    },
    #[cfg(test)]
    Other,
}

/// A guest's memory.
#[derive(Debug)]
pub struct GuestMemory {
    /// Sorted by guest address.
    ranges: Box<[Range]>,
    holds: Box<[Hold]>,
    log: Option<Arc<DirtyLog>>,
}

// SAFETY: the pointers name mappings that `holds` keeps; they belong to the process, and all access is raw.
unsafe impl Send for GuestMemory {}
// SAFETY: as above; a table does not change.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// Maps regions.
    ///
    /// # Errors
    /// Too many of them, one that is empty or wraps around, two that overlap, a file that is too short or not shared.
    pub fn new(regions: &[(Region, OwnedFd)]) -> Result<Self, MemoryError> {
        if regions.len() > MAX_REGIONS {
            return Err(MemoryError::Count(regions.len()));
        }
        let mut parts = Vec::with_capacity(regions.len());
        // All addresses are judged before the first file is mapped.
        for (region, _) in regions {
            check(region)?;
        }
        for (at, (region, _)) in regions.iter().enumerate() {
            regions.iter().take(at).try_for_each(|(other, _)| disjoint(other, region))?;
        }
        for (region, fd) in regions {
            parts.push(mapped(region, fd)?);
        }
        Ok(Self::of(parts, None))
    }

    /// A part of the arena as guest memory: what a driver of our own, or a test, shares with nobody else.
    #[must_use]
    pub fn of_part(part: Arc<Part>, guest: u64) -> Self {
        let range =
            Range { guest, size: part.len() as u64, host: part.ptr(), user: part.ptr().as_ptr() as u64 };
        Self::of(vec![(range, Hold::Part { _part: part })], None)
    }

    /// A mapping of our own as guest memory, by the same addresses in the guest and in its VMM: what a driver of ours shares
    /// with somebody else's device.
    #[must_use]
    pub fn of_mapping(map: Arc<Mapping>, guest: u64) -> Self {
        let range = Range { guest, size: map.len() as u64, host: map.base(), user: guest };
        Self::of(vec![(range, Hold::Own { _map: map })], None)
    }

    /// Memory of this process that somebody else keeps mapped: what a device that a test plays was told of.
    #[cfg(test)]
    pub(crate) fn of_others(host: NonNull<u8>, guest: u64, size: u64) -> Self {
        Self::of(vec![(Range { guest, size, host, user: guest }, Hold::Other)], None)
    }

    /// This table and one region more.
    ///
    /// # Errors
    /// As [`GuestMemory::new`].
    pub fn with_region(&self, region: &Region, fd: &OwnedFd) -> Result<Self, MemoryError> {
        if self.ranges.len() >= MAX_REGIONS {
            return Err(MemoryError::Count(self.ranges.len() + 1));
        }
        check(region)?;
        self.regions().try_for_each(|other| disjoint(&other, region))?;
        let mut parts = self.parts();
        parts.push(mapped(region, fd)?);
        Ok(Self::of(parts, self.log.clone()))
    }

    /// This table without a region, which is named by its addresses and size; the offset is not looked at.
    ///
    /// # Errors
    /// There is none just there.
    pub fn without_region(&self, region: &Region) -> Result<Self, MemoryError> {
        let Region { guest, user, size, .. } = *region;
        let mut parts = self.parts();
        let same = |range: &Range| range.guest == guest && range.user == user && range.size == size;
        let at = parts.iter().position(|(range, _)| same(range));
        parts.remove(at.ok_or(MemoryError::Absent { guest, user, size })?);
        Ok(Self::of(parts, self.log.clone()))
    }

    /// This table, with writes logged or not.
    #[must_use]
    pub fn with_log(&self, log: Option<Arc<DirtyLog>>) -> Self {
        Self { ranges: self.ranges.clone(), holds: self.holds.clone(), log }
    }

    fn of(mut parts: Vec<(Range, Hold)>, log: Option<Arc<DirtyLog>>) -> Self {
        parts.sort_by_key(|(range, _)| range.guest);
        let (ranges, holds): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        Self { ranges: ranges.into(), holds: holds.into(), log }
    }

    fn parts(&self) -> Vec<(Range, Hold)> {
        self.ranges.iter().copied().zip(self.holds.iter().cloned()).collect()
    }

    /// The regions, sorted by guest address. Offsets are not kept: they read as 0.
    pub fn regions(&self) -> impl Iterator<Item = Region> {
        self.ranges.iter().map(|&Range { guest, size, user, .. }| Region { guest, user, size, offset: 0 })
    }

    /// The region of a caller's last hit.
    #[inline]
    #[must_use]
    pub fn range(&self, hint: usize) -> Range {
        self.ranges.get(hint).copied().unwrap_or(Range::EMPTY)
    }

    /// Where `len` bytes at a guest address lie, if one region has them all. `hint` is the caller's own: the region of
    /// its last hit, which is tried first.
    #[inline]
    #[must_use]
    pub fn at(&self, guest: u64, len: u32, hint: &mut usize) -> Option<NonNull<u8>> {
        match self.ranges.get(*hint).and_then(|range| range.at(guest, len)) {
            None => self.search(guest, len, hint),
            found => found,
        }
    }

    #[inline(never)]
    fn search(&self, guest: u64, len: u32, hint: &mut usize) -> Option<NonNull<u8>> {
        let at = self.ranges.partition_point(|range| range.guest <= guest).checked_sub(1)?;
        let found = self.ranges.get(at)?.at(guest, len)?;
        *hint = at;
        Some(found)
    }

    /// Where `len` bytes at an address of the VMM lie, if one region has them all: for rings.
    #[must_use]
    pub fn at_user(&self, user: u64, len: u64) -> Option<NonNull<u8>> {
        self.ranges
            .iter()
            .find_map(|range| Range::inside(range.host, user.wrapping_sub(range.user), range.size, len))
    }

    /// The 16-bit little-endian word at an address of the VMM, which has to be even: for ring indices.
    #[must_use]
    pub fn u16_at_user(&self, user: u64) -> Option<u16> {
        let word = self.at_user(user, 2)?.cast::<u16>();
        // SAFETY: both bytes lie in a mapping that self keeps, aligned; the guest changes them atomically.
        let load = || unsafe { AtomicU16::from_ptr(word.as_ptr()) }.load(Ordering::Acquire);
        word.is_aligned().then(|| u16::from_le(load()))
    }

    /// Reads the 16-bit little-endian word at offset `at` of each of `count` entries of `stride` bytes, which begin at an address of the VMM;
    /// both even: for rings. 0 beyond the last one. None where they do not lie in one region, or the words are misaligned.
    pub fn words_at_user(&self, user: u64, count: u16, stride: u64, at: u64) -> Option<impl Fn(u16) -> u16> {
        let (first, len) = (user.checked_add(at)?, (stride * u64::from(count)).checked_sub(at)?);
        let first = self.at_user(first, len)?.cast::<u16>();
        let fits = first.is_aligned() && stride.is_multiple_of(2) && at + 2 <= stride;
        fits.then_some(move |i: u16| {
            if i >= count {
                return 0;
            }
            // SAFETY: entry i of count lies inside of the range that was looked up, in a mapping that self keeps, and this closure borrows
            // self; aligned; the guest changes the word atomically.
            let word =
                unsafe { AtomicU16::from_ptr(first.as_ptr().byte_add(usize::from(i) * stride as usize)) };
            u16::from_le(word.load(Ordering::Acquire))
        })
    }

    /// The guest address of a pointer into this memory.
    #[must_use]
    pub fn guest_of(&self, ptr: *const u8) -> Option<u64> {
        self.ranges.iter().find_map(|range| {
            let offset = (ptr as u64).wrapping_sub(range.host.as_ptr() as u64);
            (offset < range.size).then(|| range.guest + offset)
        })
    }

    /// Whether writes are to be marked.
    #[inline]
    #[must_use]
    pub const fn logs(&self) -> bool {
        self.log.is_some()
    }

    /// Marks a range of guest addresses as written; call it when the bytes are. Does nothing without a log.
    #[inline]
    pub fn mark(&self, guest: u64, len: u64) {
        if let Some(log) = &self.log {
            log.mark(guest, len);
        }
    }

    /// Whether some of this memory (or of its log) was taken away under us; zero memory stands in for it.
    #[must_use]
    pub fn lost(&self) -> bool {
        let lost = |hold: &Hold| matches!(hold, Hold::Shared(map) if map.lost());
        self.holds.iter().any(lost) || self.log.as_ref().is_some_and(|log| log.lost())
    }
}

fn check(&Region { guest, user, size, .. }: &Region) -> Result<(), MemoryError> {
    let fits = size > 0 && guest.checked_add(size).is_some() && user.checked_add(size).is_some();
    fits.then_some(()).ok_or(MemoryError::Range { guest, user, size })
}

fn disjoint(a: &Region, b: &Region) -> Result<(), MemoryError> {
    // Both were checked: no sum wraps around.
    let apart = |a: u64, a_size: u64, b: u64, b_size: u64| a + a_size <= b || b + b_size <= a;
    let fine = apart(a.guest, a.size, b.guest, b.size) && apart(a.user, a.size, b.user, b.size);
    fine.then_some(()).ok_or(MemoryError::Overlap(a.guest, b.guest))
}

fn mapped(region: &Region, fd: &OwnedFd) -> Result<(Range, Hold), MemoryError> {
    let map = SharedMap::new(fd, region.offset, region.size)
        .map_err(|error| MemoryError::Map { guest: region.guest, error })?;
    let range = Range { guest: region.guest, size: region.size, host: map.start(), user: region.user };
    Ok((range, Hold::Shared(Arc::new(map))))
}

#[cfg(test)]
mod tests;
