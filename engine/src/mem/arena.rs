//! The arena: all memory that frames, rings and pools are cut from. It starts small and grows by regions.

#![allow(unsafe_code)] // hands out parts of mapped memory

use super::map::{Backing, Mapping, round_up};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a cache line, as far as layout is concerned.
pub const CACHE_LINE: usize = 64;

/// How much memory the arena takes, and of what kind.
#[derive(Debug, Clone, Copy)]
pub struct ArenaConfig {
    /// Bytes of the first region, mapped at once.
    pub initial: usize,
    /// Bytes of each further region. Too small: many regions; too large: memory that nobody uses, and a long pause
    /// of control while it is populated (about 15 ms for 32 MiB).
    pub step: usize,
    /// Whether hugepages are tried first.
    pub hugepages: bool,
}

impl Default for ArenaConfig {
    fn default() -> Self {
        Self { initial: 64 << 20, step: 32 << 20, hugepages: true }
    }
}

/// Why no memory could be had.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// The kernel refused a mapping.
    #[error("cannot map {bytes} bytes for frame buffers: {errno}; free memory, or raise the memory limits")]
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A size or alignment that makes no sense (zero, or an alignment that is no power of two up to 2 MiB).
    #[error("cannot cut {bytes} bytes aligned to {align} from the arena: no such size")]
    Size {
        /// Bytes asked for.
        bytes: usize,
        /// Alignment asked for.
        align: usize,
    },
}

/// What the arena consists of at the moment; control warns by it and shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArenaReport {
    /// Bytes in hugepages.
    pub huge: usize,
    /// Bytes in ordinary pages.
    pub ordinary: usize,
    /// Bytes that could not be locked in memory.
    pub unlocked: usize,
    /// Bytes handed out.
    pub used: usize,
    /// Whether hugepages were wanted.
    pub wanted_huge: bool,
}

impl ArenaReport {
    /// The warning that a user should see once, if any.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        (self.wanted_huge && self.ordinary > 0).then(|| {
            format!(
                "frame buffers lie in ordinary memory ({} MiB): not enough free hugepages (see vm.nr_hugepages)",
                self.ordinary >> 20
            )
        })
    }
}

/// All memory of the engine. Control takes and gives parts; workers never come here.
#[derive(Debug)]
pub struct Arena {
    config: ArenaConfig,
    receiving: AtomicUsize,
    regions: Mutex<Vec<Region>>,
}

/// One mapping and its free runs (offset -> length, never adjacent).
#[derive(Debug)]
struct Region {
    map: Mapping,
    free: BTreeMap<usize, usize>,
    used: usize,
}

impl Arena {
    /// An arena with its first region mapped.
    ///
    /// # Errors
    /// [`ArenaError::Map`] when even ordinary memory is refused.
    pub fn new(config: &ArenaConfig) -> Result<Arc<Self>, ArenaError> {
        let first = Region::map(config.initial.max(1), config.hugepages)?;
        Ok(Arc::new(Self {
            config: *config,
            receiving: AtomicUsize::new(0),
            regions: Mutex::new(vec![first]),
        }))
    }

    /// Takes `bytes` bytes (rounded up to whole cache lines) aligned to `align`, from a new region if need be. The bytes
    /// may hold old contents.
    ///
    /// # Errors
    /// [`ArenaError::Size`] for an impossible request, [`ArenaError::Map`] when the arena cannot grow.
    pub fn take(self: &Arc<Self>, bytes: usize, align: usize) -> Result<Part, ArenaError> {
        if bytes == 0 || bytes > isize::MAX as usize / 2 || !align.is_power_of_two() || align > 2 << 20 {
            return Err(ArenaError::Size { bytes, align });
        }
        let bytes = round_up(bytes, CACHE_LINE); // parts of two workers share no line
        let mut regions = self.lock();
        for region in regions.iter_mut() {
            if let Some(ptr) = region.take(bytes, align) {
                return Ok(Part { arena: self.clone(), ptr, len: bytes });
            }
        }
        let mut region = Region::map(self.config.step.max(bytes + align), self.config.hugepages)?;
        let ptr = region.take(bytes, align).ok_or(ArenaError::Size { bytes, align })?;
        regions.push(region);
        Ok(Part { arena: self.clone(), ptr, len: bytes })
    }

    /// What the arena consists of now.
    #[must_use]
    pub fn report(&self) -> ArenaReport {
        let mut report = ArenaReport { wanted_huge: self.config.hugepages, ..ArenaReport::default() };
        for region in self.lock().iter() {
            let len = region.map.len();
            match region.map.backing() {
                Backing::Huge => report.huge += len,
                Backing::Ordinary => report.ordinary += len,
            }
            report.unlocked += if region.map.locked() { 0 } else { len };
            report.used += region.used;
        }
        report
    }

    /// Bytes in receive buffers of files, by which their owners choose how many the next file gets.
    #[must_use]
    pub fn receiving(&self) -> usize {
        self.receiving.load(Ordering::Relaxed)
    }

    /// Counts receive buffers in.
    pub(crate) fn add_receiving(&self, bytes: usize) {
        self.receiving.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts receive buffers out.
    pub(crate) fn sub_receiving(&self, bytes: usize) {
        self.receiving.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn give(&self, ptr: NonNull<u8>, len: usize) {
        let mut regions = self.lock();
        let Some(at) = regions.iter().position(|r| r.holds(ptr)) else { return };
        regions[at].give(ptr, len);
        // One empty region stays as a spare, so that a port that comes and goes does not map memory each time.
        let spare = regions.iter().skip(1).filter(|r| r.used == 0).count();
        if at > 0 && regions[at].used == 0 && spare > 1 {
            regions.remove(at);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Region>> {
        // The list is consistent at every point where a panic could strike.
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Region {
    fn map(bytes: usize, huge: bool) -> Result<Self, ArenaError> {
        let map = Mapping::private(bytes, huge).map_err(|errno| ArenaError::Map { bytes, errno })?;
        let free = BTreeMap::from([(0, map.len())]);
        Ok(Self { map, free, used: 0 })
    }

    fn holds(&self, ptr: NonNull<u8>) -> bool {
        let base = self.map.base().as_ptr() as usize;
        (base..base + self.map.len()).contains(&(ptr.as_ptr() as usize))
    }

    /// First fit; what alignment leaves in front stays free.
    fn take(&mut self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let base = self.map.base().as_ptr() as usize;
        let (offset, len, from) = self.free.iter().find_map(|(&offset, &len)| {
            let from = round_up(base + offset, align) - base;
            (from + bytes <= offset + len).then_some((offset, len, from))
        })?;
        self.free.remove(&offset);
        if from > offset {
            self.free.insert(offset, from - offset);
        }
        if offset + len > from + bytes {
            self.free.insert(from + bytes, offset + len - from - bytes);
        }
        self.used += bytes;
        // SAFETY: from + bytes <= the mapping's length, as the run that was found lies inside it.
        Some(unsafe { self.map.base().add(from) })
    }

    fn give(&mut self, ptr: NonNull<u8>, len: usize) {
        let mut from = ptr.as_ptr() as usize - self.map.base().as_ptr() as usize;
        let mut run = len;
        if let Some((&before, &size)) = self.free.range(..from).next_back()
            && before + size == from
        {
            self.free.remove(&before);
            (from, run) = (before, run + size);
        }
        if let Some(after) = self.free.remove(&(from + run)) {
            run += after;
        }
        self.free.insert(from, run);
        self.used -= len;
    }
}

/// A run of the arena's memory. Goes back when dropped; keeps the arena alive until then.
#[derive(Debug)]
pub struct Part {
    arena: Arc<Arena>,
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: a part is exclusive: its bytes are reached through its one owner only.
unsafe impl Send for Part {}
// SAFETY: a shared reference yields an address, not access.
unsafe impl Sync for Part {}

impl Part {
    /// First byte, aligned as asked.
    #[must_use]
    pub const fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no byte (never).
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The arena it came from.
    #[must_use]
    pub const fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.arena.give(self.ptr, self.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: ArenaConfig = ArenaConfig { initial: 1 << 20, step: 1 << 20, hugepages: false };

    #[test]
    fn arena_grows_by_regions_and_keeps_one_spare() {
        let arena = Arena::new(&SMALL).unwrap();
        let parts: Vec<_> = (0..8).map(|_| arena.take(600 << 10, 64).unwrap()).collect();
        assert_eq!(arena.report().ordinary, 8 << 20);
        drop(parts);
        let report = arena.report();
        assert_eq!((report.ordinary, report.used), (2 << 20, 0));
    }

    #[test]
    fn a_part_larger_than_the_step_gets_a_region_of_its_own() {
        let arena = Arena::new(&SMALL).unwrap();
        let part = arena.take(5 << 20, 4096).unwrap();
        assert_eq!(part.len(), 5 << 20);
        assert_eq!(part.ptr().as_ptr() as usize % 4096, 0);
    }

    #[test]
    fn impossible_requests_are_refused() {
        let arena = Arena::new(&SMALL).unwrap();
        assert!(matches!(arena.take(0, 64), Err(ArenaError::Size { .. })));
        assert!(matches!(arena.take(64, 3), Err(ArenaError::Size { .. })));
        assert!(matches!(arena.take(usize::MAX, 64), Err(ArenaError::Size { .. })));
    }

    #[test]
    fn ordinary_memory_is_warned_about_only_where_hugepages_were_wanted() {
        let report = ArenaReport { ordinary: 64 << 20, wanted_huge: true, ..ArenaReport::default() };
        assert!(report.warning().unwrap().contains("64 MiB"));
        assert!(ArenaReport { wanted_huge: false, ..report }.warning().is_none());
    }

    proptest! {
        #[test]
        fn parts_never_overlap_and_all_comes_back(ops in proptest::collection::vec((1usize..100_000, 0u32..13, any::<bool>()), 1..60)) {
            let arena = Arena::new(&SMALL).unwrap();
            let mut held: Vec<Part> = Vec::new();
            for (bytes, align, give) in ops {
                if give && !held.is_empty() {
                    held.swap_remove(bytes % held.len());
                } else {
                    let part = arena.take(bytes, 1 << align).unwrap();
                    let (a, n) = (part.ptr().as_ptr() as usize, part.len());
                    prop_assert_eq!(a % (1 << align), 0);
                    for other in &held {
                        let (b, m) = (other.ptr().as_ptr() as usize, other.len());
                        prop_assert!(a + n <= b || b + m <= a);
                    }
                    held.push(part);
                }
            }
            prop_assert_eq!(arena.report().used, held.iter().map(Part::len).sum::<usize>());
            drop(held);
            prop_assert_eq!(arena.report().used, 0);
            let regions = arena.lock();
            prop_assert!(regions.iter().all(|r| r.free.len() == 1));
        }
    }
}
