//! The device's side of a split ring.

#![allow(unsafe_code)] // makes segments of checked guest memory

use super::super::notify::passed;
use super::super::{
    Access, CHAIN_SEGMENTS, CHAINS, Chain, DESC_INDIRECT, DESC_NEXT, DESC_WRITE, DeviceRing, F_EVENT_IDX,
    F_INDIRECT_DESC, Found, Position, RingConfig, RingFault,
};
use super::layout::{Desc, Layout, NO_NOTIFY, SHOW, TAKE};
use crate::burst::Seg;
use crate::mem::guest::GuestMemory;
use crate::virtq::found::{Building, expect};
use crate::virtq::index::Index;
use crate::virtq::indirect::indirect;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// The device's side of a split ring.
#[derive(Debug)]
pub struct SplitDevice {
    ring: Layout,
    memory: Arc<GuestMemory>,
    /// The region of the last buffer.
    hint: usize,
    /// The next available entry to take.
    next: Index,
    /// The available index as last read.
    seen: Index,
    /// The last plain chain's descriptor.
    last: u16,
    /// The used index, with what is not yet published.
    used: Index,
    /// The used index as the driver sees it, and as it was when the driver was last asked whether it wants to be told.
    shown: Index,
    told: Index,
    event_idx: bool,
    indirect: bool,
    log: Option<u64>,
}

// SAFETY: the ring's memory is mapped as long as `memory`, and this side of it has one owner.
unsafe impl Send for SplitDevice {}

impl SplitDevice {
    /// The bytes of one descriptor, checked.
    #[inline]
    fn seg(&mut self, desc: &Desc, access: Access) -> Result<Seg, RingFault> {
        if access != Access::Both && (desc.flags & DESC_WRITE != 0) != (access == Access::Write) {
            return Err(RingFault::Direction);
        }
        if desc.len == 0 {
            return Err(RingFault::Empty);
        }
        let Some(ptr) = self.memory.at(desc.addr, desc.len, &mut self.hint) else {
            return Err(RingFault::Address { addr: desc.addr, len: desc.len });
        };
        // SAFETY: the range lies in one mapped region; the memory outlives every use of the ring.
        Ok(unsafe { Seg::new(ptr, desc.len) })
    }

    /// A chain of several descriptors, or of an indirect table.
    fn chain(&mut self, head: u16, first: Desc, access: Access, found: &mut Found) -> Result<(), RingFault> {
        let mut built = found.begin();
        let mut desc = first;
        let mut at = head;
        for _ in 0..CHAIN_SEGMENTS {
            if desc.flags & DESC_INDIRECT != 0 {
                if desc.flags & DESC_NEXT != 0 || !self.indirect {
                    return Err(RingFault::Indirect);
                }
                self.table(&desc, access, found, &mut built)?;
                found.end(head, 1, &built);
                return Ok(());
            }
            if !built.goes_on(desc.flags & DESC_WRITE != 0) {
                return Err(RingFault::Direction);
            }
            if !found.grow(&mut built, self.seg(&desc, access)?) {
                return Err(RingFault::Chain);
            }
            if desc.flags & DESC_NEXT == 0 {
                found.end(head, 1, &built);
                return Ok(());
            }
            at = desc.next;
            if at > self.ring.mask {
                break;
            }
            desc = self.ring.desc(at);
        }
        if at > self.ring.mask {
            Err(RingFault::Descriptor(at, u32::from(self.size())))
        } else {
            Err(RingFault::Chain)
        }
    }

    /// The segments of an indirect table.
    fn table(
        &mut self,
        desc: &Desc,
        access: Access,
        found: &mut Found,
        built: &mut Building,
    ) -> Result<(), RingFault> {
        let count = desc.len / 16;
        if count == 0 || !desc.len.is_multiple_of(16) {
            return Err(RingFault::Indirect);
        }
        let Some(table) = self.memory.at(desc.addr, desc.len, &mut self.hint) else {
            return Err(RingFault::Address { addr: desc.addr, len: desc.len });
        };
        let mut at = 0u32;
        for _ in 0..CHAIN_SEGMENTS {
            // SAFETY: `at` is below the number of descriptors in the checked range.
            let (addr, rest) = unsafe { indirect(table, at) };
            let desc = Desc::of(addr, rest);
            if desc.flags & DESC_INDIRECT != 0 {
                return Err(RingFault::Indirect);
            }
            if !built.goes_on(desc.flags & DESC_WRITE != 0) {
                return Err(RingFault::Direction);
            }
            if !found.grow(built, self.seg(&desc, access)?) {
                return Err(RingFault::Chain);
            }
            if desc.flags & DESC_NEXT == 0 {
                return Ok(());
            }
            at = u32::from(desc.next);
            if at >= count {
                return Err(RingFault::Descriptor(desc.next, count));
            }
        }
        Err(RingFault::Chain)
    }

    /// Entries of the ring.
    #[inline]
    const fn size(&self) -> u16 {
        self.ring.mask + 1 // at most 32768
    }

    /// Reads the available index; how many chains are untaken. An index that moved back, or further than the ring holds, is refused and
    /// forgotten, so that the next look refuses it again.
    #[inline]
    fn refresh(&mut self) -> Result<u16, RingFault> {
        let to = Index::new(self.ring.avail_idx().load(TAKE));
        let (known, count) = (self.seen.since(self.next), to.since(self.next));
        if count > self.size() || count < known {
            return Err(RingFault::Jump { from: self.seen.get(), to: to.get(), size: self.size() });
        }
        self.seen = to;
        Ok(count)
    }

    /// Appends chains of one descriptor each, of the `n` from the entry `from` on, up to the first that is not plain: how many there
    /// were. No load waits for that of another chain, so the loads of many are under way at once.
    #[inline]
    fn plain(&mut self, from: u16, n: usize, access: Access, found: &mut Found) -> usize {
        // A buffer of another region than the last one ends the run: a lookup of all regions has no place in this loop.
        let (ring, region, mut last) = (self.ring, self.memory.range(self.hint), self.last);
        let flags = if access == Access::Write { DESC_WRITE } else { 0 };
        let n = found.fill(n, |i| {
            let head = ring.avail_entry(from.wrapping_add(i as u16)).load(Ordering::Relaxed);
            let desc = ring.desc(head); // masked there, checked here
            let plain = desc.flags & (DESC_NEXT | DESC_INDIRECT | DESC_WRITE) == flags;
            if !plain || desc.len == 0 || head > ring.mask {
                return None;
            }
            let ptr = region.at(desc.addr, desc.len)?;
            last = head;
            expect(ptr.as_ptr());
            // SAFETY: as `seg`.
            Some((head, unsafe { Seg::new(ptr, desc.len) }))
        });
        self.last = last;
        n
    }

    /// Appends a chain of any form.
    #[inline(never)]
    fn any(&mut self, entry: u16, access: Access, found: &mut Found) -> Result<(), RingFault> {
        let head = self.ring.avail_entry(entry).load(Ordering::Relaxed);
        if head > self.ring.mask {
            return Err(RingFault::Descriptor(head, u32::from(self.size())));
        }
        self.chain(head, self.ring.desc(head), access, found)
    }
}

impl DeviceRing for SplitDevice {
    fn new(config: &RingConfig) -> Result<Self, RingFault> {
        if !config.size.is_power_of_two() || config.size > 32768 {
            return Err(RingFault::Size(config.size));
        }
        config.aligned(16, 2, 4)?;
        // SAFETY: a ring's configuration says that its parts have room for its size, and holds the memory mapped.
        let ring = unsafe { Layout::new(config.desc, config.avail, config.used, config.size - 1) };
        let Position { avail, used, .. } = config.position;
        let mut this = Self {
            ring,
            memory: config.memory.clone(),
            hint: 0,
            next: Index::new(avail),
            seen: Index::new(avail),
            last: 0,
            used: Index::new(used),
            shown: Index::new(used),
            told: Index::new(used),
            event_idx: config.features & F_EVENT_IDX != 0,
            indirect: config.features & F_INDIRECT_DESC != 0,
            log: config.used_log,
        };
        this.want_kicks(false);
        Ok(this)
    }

    #[inline]
    fn available(&mut self, want: usize) -> Result<usize, RingFault> {
        let known = self.seen.since(self.next);
        // The line of the index is read only when what is known does not suffice.
        if usize::from(known) >= want {
            return Ok(usize::from(known));
        }
        self.refresh().map(usize::from)
    }

    fn reaches(&mut self, slots: u16) -> bool {
        // An index that jumped is found when chains are looked at.
        self.available(usize::from(slots)).is_ok_and(|there| there >= usize::from(slots))
    }

    #[inline]
    fn is_empty(&mut self) -> bool {
        matches!(self.available(1), Ok(0))
    }

    fn look(&mut self, want: usize, access: Access, found: &mut Found) -> Result<(), RingFault> {
        let held = found.chains().len();
        let want = want.min(CHAINS - held);
        found.reserve(want);
        // What was known before the index jumped is still good.
        let (there, jump) = match self.available(held + want) {
            Ok(there) => (there, None),
            Err(jump) => (usize::from(self.seen.since(self.next)), Some(jump)),
        };
        let n = there.saturating_sub(held).min(want);
        if n > 0 {
            // Most drivers take the next one: then it comes together with the entry that names it, and not after it.
            self.ring.prefetch_desc(self.last.wrapping_add(1));
        }
        let from = self.next.plus(held as u16).get();
        let mut done = 0;
        while done < n {
            done += self.plain(from.wrapping_add(done as u16), n - done, access, found);
            if done < n {
                if !found.has_room() {
                    return Ok(());
                }
                self.any(from.wrapping_add(done as u16), access, found)?;
                done += 1;
            }
        }
        jump.map_or(Ok(()), Err)
    }

    fn look_both(&mut self, found: &mut Found) -> Result<bool, RingFault> {
        found.clear();
        if self.available(1)? == 0 {
            return Ok(false);
        }
        self.any(self.next.get(), Access::Both, found)?;
        Ok(true)
    }

    #[inline]
    fn give(&mut self, chain: &Chain, written: u32) {
        self.give_all(std::iter::once((chain, written)));
    }

    #[inline]
    fn give_all<'c>(&mut self, chains: impl Iterator<Item = (&'c Chain, u32)>) {
        // The ring's memory could be this value as far as the compiler knows: what changes is kept outside of it.
        let (ring, from) = (self.ring, self.used);
        let mut used = from;
        for (chain, written) in chains {
            ring.set_used(used.get(), chain.id, written);
            used = used.plus(1);
        }
        self.used = used;
        self.next = self.next.plus(used.since(from));
    }

    #[inline]
    fn show(&mut self) {
        self.show_to(self.used);
    }

    #[inline]
    fn show_but(&mut self, most: u16) -> u16 {
        let wait = if self.asked(self.used) { 0 } else { self.used.since(self.shown).min(most) };
        self.show_to(self.used.minus(wait));
        wait
    }

    #[inline]
    fn asks(&mut self) -> bool {
        let asked = self.asked(self.shown);
        self.told = self.shown;
        asked
    }

    fn want_kicks(&mut self, on: bool) {
        if self.event_idx {
            // Switched off by not moving: the index passes it at most once in 65536 buffers.
            if on {
                self.ring.avail_event().store(self.seen.get(), Ordering::Relaxed);
            }
        } else {
            self.ring.used_flags().store(if on { 0 } else { NO_NOTIFY }, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }

    fn position(&self) -> Position {
        Position { avail: self.next.get(), used: self.used.get(), ..Position::START }
    }
}

impl SplitDevice {
    /// Shows the driver what was used before `to`.
    #[inline]
    fn show_to(&mut self, to: Index) {
        if to == self.shown {
            return;
        }
        self.ring.used_idx().store(to.get(), SHOW);
        self.shown = to;
        if self.log.is_some() {
            self.log_used();
        }
    }

    /// Whether the driver asks to be told of what was used before `to` and after it was last told.
    #[inline]
    fn asked(&self, to: Index) -> bool {
        if to == self.told {
            false
        } else if self.event_idx {
            passed(self.ring.used_event().load(Ordering::Relaxed), to.get(), self.told.get())
        } else {
            self.ring.avail_flags().load(Ordering::Relaxed) & NO_NOTIFY == 0
        }
    }

    /// Marks the used ring's pages as dirty.
    #[cold]
    fn log_used(&self) {
        if let Some(at) = self.log {
            self.memory.mark(at, super::used_bytes(self.size()));
        }
    }
}
