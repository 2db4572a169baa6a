//! Chains that the device has looked at: where their bytes are, before it takes them.

use crate::burst::Seg;
use crate::prefetch;

/// Chains of one look at most.
pub const CHAINS: usize = 64;

/// Places for them: those that were taken are moved out of the way only now and then.
const PLACES: usize = 2 * CHAINS;

/// Segments of one chain at most: the longest that a driver may make (virtio 1.3, 2.7.5.3.1 bounds it by the ring, which we
/// do not trust); QEMU's bound is the same.
pub const CHAIN_SEGMENTS: usize = 1024;

/// Segments of one look at most. Chains name theirs by 16-bit numbers.
const SEGMENTS: usize = 2 * CHAIN_SEGMENTS;
const _: () = assert!(SEGMENTS <= 1 << 16 && CHAINS <= SEGMENTS);

/// Begins to load the lines of a small frame at the front of a buffer, also those that are only read as if to write: a line that both processors
/// have costs 24 cycles when it is written, one that is taken at once costs nothing, and guests use their buffers for both in turn (measured with
/// DPDK as a guest that forwards: 84 cycles a frame without, 70 with it).
#[inline]
pub(super) fn expect(buffer: *const u8) {
    prefetch::write_at(buffer);
    prefetch::write_at(buffer.wrapping_add(64));
}

/// One chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// What names it to the driver: head index (split), buffer id (packed).
    pub id: u16,
    /// Ring slots that it takes: 1 (split), its descriptors in the ring (packed).
    pub slots: u16,
    /// Index of its first segment.
    first: u16,
    /// Number of segments.
    count: u16,
    /// Bytes of all segments.
    pub len: u32,
}

/// The chains of one look, oldest first. Allocated once a ring.
#[derive(Debug)]
pub struct Found {
    chains: Box<[Chain; PLACES]>,
    /// Those that were not taken: from `at` to `len`.
    at: usize,
    len: usize,
    segs: Box<[Seg; SEGMENTS]>,
    used: usize,
    /// Ring slots of all chains.
    slots: u32,
    /// Readable segments of the last chain of several.
    readable: usize,
}

// SAFETY: it only names memory that its ring's `GuestMemory` keeps mapped.
#[allow(unsafe_code)]
unsafe impl Send for Found {}

impl Default for Found {
    fn default() -> Self {
        Self::new()
    }
}

impl Found {
    /// No chain; the only allocation.
    #[must_use]
    pub fn new() -> Self {
        let none = Chain { id: 0, slots: 0, first: 0, count: 0, len: 0 };
        Self {
            chains: Box::new([none; PLACES]),
            at: 0,
            len: 0,
            segs: Box::new([Seg::EMPTY; SEGMENTS]),
            used: 0,
            slots: 0,
            readable: 0,
        }
    }

    /// Forgets all chains.
    #[inline]
    pub const fn clear(&mut self) {
        self.at = 0;
        self.len = 0;
        self.used = 0;
        self.slots = 0;
    }

    /// Forgets the `n` oldest chains, which have been taken.
    #[inline]
    pub fn drop_front(&mut self, n: usize) {
        if n >= self.len - self.at {
            self.clear();
        } else {
            let gone: u32 = self.chains().iter().take(n).map(|chain| u32::from(chain.slots)).sum();
            self.slots -= gone;
            self.at += n;
        }
    }

    /// Makes room for `want` chains behind those that there are, as far as there can be.
    #[inline]
    pub(super) fn reserve(&mut self, want: usize) {
        if self.at > 0 && (self.len + want > PLACES || self.used + CHAIN_SEGMENTS > SEGMENTS) {
            self.move_up();
        }
    }

    /// Moves all chains to the front: after many were taken, not after each. Segments lie in the order of their chains.
    #[inline(never)]
    fn move_up(&mut self) {
        let Some(first) = self.chains().first().map(|chain| chain.first) else { return self.clear() };
        self.chains.copy_within(self.at..self.len, 0);
        self.len -= std::mem::take(&mut self.at);
        for chain in self.chains.iter_mut().take(self.len) {
            chain.first -= first;
        }
        self.segs.copy_within(usize::from(first)..self.used, 0);
        self.used -= usize::from(first);
    }

    /// Ring slots that the chains take.
    #[inline]
    pub(super) const fn slots(&self) -> u32 {
        self.slots
    }

    /// The chains.
    #[inline]
    #[must_use]
    pub fn chains(&self) -> &[Chain] {
        self.chains.get(self.at..self.len).unwrap_or_default()
    }

    /// The segments of a chain of this look.
    #[inline]
    #[must_use]
    pub fn segs(&self, chain: &Chain) -> &[Seg] {
        let first = usize::from(chain.first);
        self.segs.get(first..first + usize::from(chain.count)).unwrap_or_default()
    }

    /// The segment of a chain that has just one.
    #[inline]
    #[must_use]
    pub fn one(&self, chain: &Chain) -> Option<Seg> {
        if chain.count == 1 { self.segs.get(usize::from(chain.first)).copied() } else { None }
    }

    /// The segments of the oldest chain that the device reads, and those that it writes; for [`DeviceRing::look_both`] alone.
    ///
    /// [`DeviceRing::look_both`]: super::DeviceRing::look_both
    #[must_use]
    pub fn both(&self) -> (&[Seg], &[Seg]) {
        let segs = self.chains().first().map_or(&[][..], |chain| self.segs(chain));
        segs.split_at(self.readable.min(segs.len()))
    }

    /// Whether the longest chain would still fit.
    #[inline]
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.len < PLACES && self.used + CHAIN_SEGMENTS <= SEGMENTS
    }

    /// Appends up to `want` chains of one segment and one slot each: `each` names the id and bytes of the next one, or ends the run. How
    /// many there were.
    #[inline]
    pub(super) fn fill(&mut self, want: usize, mut each: impl FnMut(usize) -> Option<(u16, Seg)>) -> usize {
        let first = self.used;
        let chains = self.chains.get_mut(self.len..).unwrap_or_default();
        let segs = self.segs.get_mut(first..).unwrap_or_default();
        let mut n = 0;
        for (chain, place) in chains.iter_mut().zip(segs).take(want) {
            let Some((id, seg)) = each(n) else { break };
            *place = seg;
            *chain = Chain { id, slots: 1, first: (first + n) as u16, count: 1, len: seg.len() as u32 };
            n += 1;
        }
        self.used += n;
        self.len += n;
        self.slots += n as u32;
        n
    }

    /// Begins a chain of several segments.
    pub(super) const fn begin(&self) -> Building {
        Building { first: self.used, count: 0, len: 0, readable: 0 }
    }

    /// Appends a segment to a chain that is being built; false when it has too many or too many bytes.
    pub(super) fn grow(&mut self, chain: &mut Building, seg: Seg) -> bool {
        let Some(total) = chain.len.checked_add(seg.len() as u32) else { return false };
        if chain.count >= CHAIN_SEGMENTS {
            return false;
        }
        let Some(place) = self.segs.get_mut(chain.first + chain.count) else { return false };
        *place = seg;
        chain.count += 1;
        chain.len = total;
        true
    }

    /// Ends a chain that was being built.
    pub(super) fn end(&mut self, id: u16, slots: u16, built: &Building) {
        if let Some(chain) = self.chains.get_mut(self.len) {
            let (first, count) = (built.first as u16, built.count as u16);
            *chain = Chain { id, slots, first, count, len: built.len };
            self.used += built.count;
            self.slots += u32::from(slots);
            self.len += 1;
            self.readable = built.readable;
        }
    }
}

/// A chain that is being built.
#[derive(Debug)]
pub(super) struct Building {
    first: usize,
    count: usize,
    len: u32,
    readable: usize,
}

impl Building {
    /// Whether a segment of that direction may come next: what is read comes before what is written (virtio 1.3, 2.6.4.2).
    pub(super) const fn goes_on(&mut self, write: bool) -> bool {
        if write {
            return true;
        }
        self.readable += 1;
        self.readable > self.count
    }
}
