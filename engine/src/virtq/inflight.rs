//! A ring's part of the in-flight region: memory that outlives us and tells the next back-end where a ring stands ("Vhost-user Protocol",
//! Inflight I/O tracking).
//!
//! Buffers are taken, used and shown within a turn, in the order in which they came, so none is ever in flight for the next back-end: its
//! entries stay zero, and the heads say how far the ring was used. A split ring has that in the guest's memory, too; a packed ring has not.

#![allow(unsafe_code)] // shares memory with the front-end

use super::{DeviceRing, Position};
use crate::mem::shared::SharedMap;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering, fence};

/// Bytes of a ring's head and of one entry.
pub const SPLIT: (u64, u64) = (16, 16);
/// As [`SPLIT`], of a packed ring.
pub const PACKED: (u64, u64) = (32, 32);
/// The layout's version.
const VERSION: u16 = 1;

/// Offsets of the head's fields: version and size, then how far the ring was used (split: one index; packed: two, of which the second
/// is the first as it was before the last buffers were shown, and their wrap counters).
const AT_VERSION: usize = 8;
const AT_SIZE: usize = 10;
const AT_SPLIT_USED: usize = 14;
const AT_USED: usize = 16;
const AT_OLD: usize = 18;
const AT_WRAP: usize = 20;
const AT_OLD_WRAP: usize = 21;

/// One ring's part.
#[derive(Debug, Clone)]
pub struct InflightRing {
    at: NonNull<u8>,
    packed: bool,
    /// Keeps it mapped.
    _map: Arc<SharedMap>,
}

// SAFETY: an address in a mapping that it holds; all access is by atomics.
unsafe impl Send for InflightRing {}
// SAFETY: as for `Send`.
unsafe impl Sync for InflightRing {}

impl InflightRing {
    /// The part of a ring of `size` at `offset` of the region; None when it is not inside, or misaligned.
    #[must_use]
    pub fn new(map: &Arc<SharedMap>, offset: u64, size: u16, packed: bool) -> Option<Self> {
        let (head, entry) = if packed { PACKED } else { SPLIT };
        let end = offset.checked_add(head + entry * u64::from(size))?;
        if end > map.size() as u64 {
            return None;
        }
        // SAFETY: the offset lies inside of the mapping.
        let at = unsafe { map.start().add(offset as usize) };
        at.cast::<u64>().is_aligned().then(|| Self { at, packed, _map: map.clone() })
    }

    fn word(&self, at: usize) -> &AtomicU16 {
        // SAFETY: fields of two bytes at even offsets of the head, in memory that self keeps mapped.
        unsafe { AtomicU16::from_ptr(self.at.add(at).cast().as_ptr()) }
    }

    fn byte(&self, at: usize) -> &AtomicU8 {
        // SAFETY: a field of the head, in memory that self keeps mapped.
        unsafe { AtomicU8::from_ptr(self.at.add(at).as_ptr()) }
    }

    /// Notes where a ring of `size` begins.
    pub fn begin(&self, size: u16, position: Position) {
        self.before(position);
        self.after(position);
        self.word(AT_SIZE).store(size, Ordering::Relaxed);
        self.word(AT_VERSION).store(VERSION, Ordering::Release);
    }

    /// Where a packed ring of `size` stood when it was last written here; None when it never was. `used` says whether the device had used
    /// the descriptor at a slot in the lap of that wrap counter.
    pub fn resume(&self, size: u16, used: impl FnOnce(u16, bool) -> bool) -> Option<Position> {
        let begun = self.word(AT_VERSION).load(Ordering::Acquire) == VERSION;
        if !self.packed || !begun || self.word(AT_SIZE).load(Ordering::Relaxed) != size {
            return None;
        }
        let new =
            (self.word(AT_USED).load(Ordering::Relaxed), self.byte(AT_WRAP).load(Ordering::Relaxed) != 0);
        let old =
            (self.word(AT_OLD).load(Ordering::Relaxed), self.byte(AT_OLD_WRAP).load(Ordering::Relaxed) != 0);
        // The first of the last buffers is shown last: either all of them were, or none.
        let (slot, wrap) = if new == old || used(old.0, old.1) { new } else { old };
        Some(Position { avail: slot, used: slot, avail_wrap: wrap, used_wrap: wrap })
    }

    fn before(&self, Position { used, used_wrap, .. }: Position) {
        if self.packed {
            self.word(AT_USED).store(used, Ordering::Relaxed);
            self.byte(AT_WRAP).store(u8::from(used_wrap), Ordering::Relaxed);
            fence(Ordering::Release);
        }
    }

    fn after(&self, Position { used, used_wrap, .. }: Position) {
        if self.packed {
            fence(Ordering::Release);
            self.word(AT_OLD).store(used, Ordering::Relaxed);
            self.byte(AT_OLD_WRAP).store(u8::from(used_wrap), Ordering::Relaxed);
        } else {
            self.word(AT_SPLIT_USED).store(used, Ordering::Release);
        }
    }
}

/// [`DeviceRing::show`], noted in the ring's part of the in-flight region where there is one.
#[inline]
pub fn show<R: DeviceRing>(ring: &mut R, inflight: Option<&InflightRing>) {
    match inflight {
        None => ring.show(),
        Some(inflight) => note(ring, inflight),
    }
}

/// As [`show`]; true when the driver asked to be told.
pub fn publish<R: DeviceRing>(ring: &mut R, inflight: Option<&InflightRing>) -> bool {
    show(ring, inflight);
    fence(Ordering::SeqCst);
    ring.asks()
}

#[inline(never)]
fn note<R: DeviceRing>(ring: &mut R, inflight: &InflightRing) {
    // What was given moves the used side only; the other one does not matter here.
    let position = ring.position();
    inflight.before(position);
    ring.show();
    inflight.after(position);
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    fn region(bytes: u64) -> Arc<SharedMap> {
        let fd = memfd_create("inflight", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&fd, bytes as i64).unwrap();
        Arc::new(SharedMap::new(&fd, 0, bytes).unwrap())
    }

    fn stands(slot: u16, wrap: bool) -> Position {
        Position { avail: slot, used: slot, avail_wrap: wrap, used_wrap: wrap }
    }

    #[test]
    fn a_packed_ring_goes_on_before_or_behind_the_last_buffers() {
        let map = region(4096);
        let ring = InflightRing::new(&map, 64, 8, true).unwrap();
        let never = |_, _| unreachable!();
        assert_eq!(ring.resume(8, never), None, "nobody wrote there");
        ring.begin(8, stands(3, true));
        assert_eq!(ring.resume(8, never), Some(stands(3, true)));
        assert_eq!(ring.resume(16, never), None, "another ring");
        ring.before(stands(1, false));
        assert_eq!(ring.resume(8, |slot, wrap| (slot, wrap) != (3, true)), Some(stands(3, true)));
        assert_eq!(ring.resume(8, |slot, wrap| (slot, wrap) == (3, true)), Some(stands(1, false)));
        ring.after(stands(1, false));
        assert_eq!(ring.resume(8, never), Some(stands(1, false)));
    }

    #[test]
    fn a_split_ring_shows_its_index_and_goes_on_from_its_own() {
        let map = region(4096);
        let ring = InflightRing::new(&map, 0, 8, false).unwrap();
        ring.begin(8, stands(3, true));
        ring.after(stands(70, true));
        assert_eq!(ring.word(AT_SPLIT_USED).load(Ordering::Relaxed), 70);
        assert_eq!(ring.resume(8, |_, _| true), None);
    }

    #[test]
    fn a_part_lies_inside_of_the_region() {
        let map = region(4096);
        assert!(InflightRing::new(&map, 4096 - 32 * 9, 8, true).is_some());
        for (offset, size) in [(4096 - 32 * 9 + 64, 8), (0, 200), (u64::MAX, 8), (4, 8)] {
            assert!(InflightRing::new(&map, offset, size, true).is_none(), "{offset} {size}");
        }
    }
}
