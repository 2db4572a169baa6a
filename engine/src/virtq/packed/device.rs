//! The device's side of a packed ring.

#![allow(unsafe_code)] // makes segments of checked guest memory

use super::super::found::{Building, expect};
use super::super::{
    Access, CHAIN_SEGMENTS, CHAINS, Chain, DESC_INDIRECT, DESC_NEXT, DESC_WRITE, DeviceRing, F_EVENT_IDX,
    F_INDIRECT_DESC, Found, Position, RingConfig, RingFault,
};
use super::cursor::Cursor;
use super::layout::{AVAIL, EVENT_BYTES, Layout, USED, Word, desc_bytes};
use crate::burst::Seg;
use crate::mem::guest::GuestMemory;
use crate::virtq::indirect::indirect;
use std::sync::Arc;

/// Slots that are loaded ahead of those that are looked at: two lines.
const AHEAD: u16 = 8;

/// The device's side of a packed ring.
#[derive(Debug)]
pub struct PackedDevice {
    ring: Layout,
    memory: Arc<GuestMemory>,
    /// The region of the last buffer.
    hint: usize,
    /// Where the next used descriptor goes.
    used: Cursor,
    /// Slots from `used` to the next descriptor to take: constant, since a chain is taken and used in one step.
    gap: u16,
    /// Slots used and not yet published; the first one's descriptor is held back, so that all show at once.
    moved: u32,
    first: (u16, Word),
    /// Where what was shown since the driver was last asked begins, and its slots.
    shown: (Cursor, u32),
    /// Chains that are known to be there, and where the next one would be.
    known: usize,
    scanned: Cursor,
    event_idx: bool,
    indirect: bool,
    /// Guest addresses of the ring and of the device's event suppression, while writes to them are logged.
    log: Option<(u64, u64)>,
}

// SAFETY: the ring's memory is mapped as long as `memory`, and this side of it has one owner.
unsafe impl Send for PackedDevice {}

impl PackedDevice {
    /// The next descriptor to take.
    #[inline]
    const fn next(&self) -> Cursor {
        self.used.plus(self.gap, self.ring.size)
    }

    /// The bytes of one descriptor, checked.
    fn seg(&mut self, addr: u64, len: u32, flags: u16, access: Access) -> Result<Seg, RingFault> {
        if access != Access::Both && (flags & DESC_WRITE != 0) != (access == Access::Write) {
            return Err(RingFault::Direction);
        }
        if len == 0 {
            return Err(RingFault::Empty);
        }
        let ptr = self.memory.at(addr, len, &mut self.hint).ok_or(RingFault::Address { addr, len })?;
        // SAFETY: the range lies in one mapped region; the memory outlives every use of the ring.
        Ok(unsafe { Seg::new(ptr, len) })
    }

    /// Chains of one descriptor each from `at` on, up to `want` and up to the ring's end: how many there were. It stops at whatever
    /// is not plain.
    #[inline]
    fn plain(&mut self, at: Cursor, want: usize, access: Access, found: &mut Found) -> u16 {
        const MASK: u16 = AVAIL | USED | DESC_NEXT | DESC_INDIRECT | DESC_WRITE;
        // A buffer of another region than the last one ends the run: a lookup of all regions has no place in this loop.
        let (ring, region) = (self.ring, self.memory.range(self.hint));
        let flags = at.available() | if access == Access::Write { DESC_WRITE } else { 0 };
        let run = want.min(usize::from(ring.size - at.at()));
        ring.prefetch_to_write(at.at());
        ring.prefetch_to_write(at.at() + AHEAD / 2);
        found.fill(run, |i| {
            let slot = at.at() + i as u16;
            ring.prefetch_to_write(slot + AHEAD);
            let word = ring.word(slot);
            let (len, id) = (word.len(), word.id());
            if !word.is(MASK, flags) || len == 0 || id >= ring.size {
                return None;
            }
            let ptr = region.at(ring.addr(slot), len)?;
            expect(ptr.as_ptr());
            // SAFETY: as `seg`.
            Some((id, unsafe { Seg::new(ptr, len) }))
        }) as u16
    }

    /// One chain of any form and at most `most` slots; the slots that it takes, 0 when there is none.
    #[inline(never)]
    fn chain(
        &mut self,
        mut at: Cursor,
        most: u16,
        access: Access,
        found: &mut Found,
    ) -> Result<u16, RingFault> {
        let mut built = found.begin();
        for slots in 1..=most.min(CHAIN_SEGMENTS as u16) {
            let word = self.ring.word(at.at());
            if !word.is(AVAIL | USED, at.available()) {
                return if slots == 1 { Ok(0) } else { Err(RingFault::Torn) };
            }
            let addr = self.ring.addr(at.at());
            let flags = word.flags();
            if flags & DESC_INDIRECT != 0 {
                if slots > 1 || flags & DESC_NEXT != 0 || !self.indirect {
                    return Err(RingFault::Indirect);
                }
                self.table(addr, word.len(), access, found, &mut built)?;
            } else {
                let seg = self.seg(addr, word.len(), flags, access)?;
                if !built.goes_on(flags & DESC_WRITE != 0) {
                    return Err(RingFault::Direction);
                }
                if !found.grow(&mut built, seg) {
                    return Err(RingFault::Chain);
                }
            }
            if flags & DESC_NEXT == 0 {
                if word.id() >= self.ring.size {
                    return Err(RingFault::Descriptor(word.id(), u32::from(self.ring.size)));
                }
                found.end(word.id(), slots, &built);
                return Ok(slots);
            }
            at.advance(1, self.ring.size);
        }
        Err(RingFault::Chain)
    }

    /// The segments of an indirect table: all its descriptors, in order (virtio 1.3, 2.8.7).
    fn table(
        &mut self,
        addr: u64,
        len: u32,
        access: Access,
        found: &mut Found,
        built: &mut Building,
    ) -> Result<(), RingFault> {
        if len == 0 || !len.is_multiple_of(16) {
            return Err(RingFault::Indirect);
        }
        let Some(table) = self.memory.at(addr, len, &mut self.hint) else {
            return Err(RingFault::Address { addr, len });
        };
        for at in 0..len / 16 {
            // SAFETY: `at` is below the number of descriptors in the checked range.
            let (addr, rest) = unsafe { indirect(table, at) };
            let word = Word(rest);
            if word.flags() & DESC_INDIRECT != 0 {
                return Err(RingFault::Indirect);
            }
            let seg = self.seg(addr, word.len(), word.flags(), access)?;
            if !built.goes_on(word.flags() & DESC_WRITE != 0) {
                return Err(RingFault::Direction);
            }
            if !found.grow(built, seg) {
                return Err(RingFault::Chain);
            }
        }
        Ok(())
    }

    /// Marks what the device writes of the ring as dirty.
    #[cold]
    fn log_used(&self) {
        if let Some((ring, event)) = self.log {
            self.memory.mark(ring, desc_bytes(self.ring.size));
            self.memory.mark(event, EVENT_BYTES);
        }
    }

    /// Counts chains from where the last count ended, until `want` are known.
    #[inline]
    fn scan(&mut self, want: usize) {
        if self.known == 0 {
            self.scanned = self.next();
        }
        let ring = self.ring;
        let end = self.next().plus(ring.size, ring.size);
        let (mut at, mut after, mut known) = (self.scanned, self.scanned, self.known);
        while known < want && at != end {
            // A run of descriptors that end a chain, as far as the ring's end.
            let most = usize::from(ring.size - at.at()).min(end.since(at, ring.size) as usize);
            let (from, flags) = (at.at(), at.available());
            let ends = |i: &usize| ring.word(from + *i as u16).is(AVAIL | USED | DESC_NEXT, flags);
            let run = (0..most.min(want - known)).take_while(ends).count();
            if run > 0 {
                known += run;
                at.advance(run as u16, ring.size);
                after = at;
                continue;
            }
            let word = ring.word(at.at());
            if !word.is(AVAIL | USED, flags) {
                break;
            }
            at.advance(1, ring.size);
            if word.flags() & DESC_NEXT == 0 {
                known += 1;
                after = at;
            }
        }
        (self.scanned, self.known) = (after, known);
    }
}

impl DeviceRing for PackedDevice {
    fn new(config: &RingConfig) -> Result<Self, RingFault> {
        let ring = Layout::of(config)?;
        let Position { avail, used, avail_wrap, used_wrap } = config.position;
        let (next, used) = (Cursor::new(avail, avail_wrap), Cursor::new(used, used_wrap));
        let gap = next.since(used, ring.size);
        if gap > u32::from(ring.size) {
            return Err(RingFault::Position(avail, ring.size));
        }
        // Front-ends say where the used ring is, which here is the device's event suppression: the ring has to be found.
        let log = config.used_log.is_some();
        let at = |part: std::ptr::NonNull<u8>| config.memory.guest_of(part.as_ptr()).filter(|_| log);
        let this = Self {
            ring,
            memory: config.memory.clone(),
            hint: 0,
            used,
            gap: gap as u16,
            moved: 0,
            first: (0, Word(0)),
            shown: (used, 0),
            known: 0,
            scanned: next,
            event_idx: config.features & F_EVENT_IDX != 0,
            indirect: config.features & F_INDIRECT_DESC != 0,
            log: at(config.desc).zip(at(config.used)),
        };
        this.ring.device_event().hush();
        Ok(this)
    }

    #[inline]
    fn available(&mut self, want: usize) -> Result<usize, RingFault> {
        if self.known < want {
            self.scan(want);
        }
        Ok(self.known)
    }

    fn reaches(&mut self, slots: u16) -> bool {
        let last = self.next().plus(slots.clamp(1, self.ring.size) - 1, self.ring.size);
        self.ring.word(last.at()).is(AVAIL | USED, last.available())
    }

    #[inline]
    fn is_empty(&mut self) -> bool {
        // A chain that has no end is not counted, but it is there.
        let next = self.next();
        // As `expect`: what is found here is marked used here.
        self.ring.prefetch_to_write(next.at());
        self.known == 0 && !self.ring.word(next.at()).is(AVAIL | USED, next.available())
    }

    fn look(&mut self, want: usize, access: Access, found: &mut Found) -> Result<(), RingFault> {
        let held = found.chains().len();
        let end = held + want.min(CHAINS - held);
        found.reserve(end - held);
        let looked = found.slots().min(u32::from(self.ring.size)) as u16;
        let mut at = self.next().plus(looked, self.ring.size);
        // Slots that can still be looked at: a driver that makes more available overwrites its own.
        let mut left = self.ring.size - looked;
        loop {
            let n = self.plain(at, (end - found.chains().len()).min(usize::from(left)), access, found);
            at.advance(n, self.ring.size);
            left -= n;
            if found.chains().len() >= end || left == 0 {
                return Ok(());
            }
            if at.at() == 0 && n > 0 {
                continue; // the ring's end, not the end of what is plain
            }
            if !found.has_room() {
                return Ok(());
            }
            let slots = self.chain(at, left, access, found)?;
            if slots == 0 {
                return Ok(());
            }
            at.advance(slots, self.ring.size);
            left -= slots;
        }
    }

    fn look_both(&mut self, found: &mut Found) -> Result<bool, RingFault> {
        found.clear();
        Ok(self.chain(self.next(), self.ring.size, Access::Both, found)? > 0)
    }

    #[inline]
    fn give(&mut self, chain: &Chain, written: u32) {
        self.give_all(std::iter::once((chain, written)));
    }

    #[inline]
    fn give_all<'c>(&mut self, chains: impl Iterator<Item = (&'c Chain, u32)>) {
        // The ring's memory could be this value as far as the compiler knows: what changes is kept outside of it.
        let (ring, mut used, mut moved, mut count) = (self.ring, self.used, self.moved, 0);
        let mut flags = used.used();
        for (chain, written) in chains {
            let word = Word::new(written, chain.id, flags | if written > 0 { DESC_WRITE } else { 0 });
            if moved == 0 {
                self.first = (used.at(), word);
            } else {
                ring.set(used.at(), word);
            }
            moved += u32::from(chain.slots);
            if used.moves_round(chain.slots, ring.size) {
                flags = used.used();
            }
            count += 1;
        }
        (self.used, self.moved) = (used, moved);
        self.known = self.known.saturating_sub(count);
    }

    #[inline]
    fn show(&mut self) {
        if self.moved == 0 {
            return;
        }
        let moved = std::mem::take(&mut self.moved);
        let (slot, word) = self.first;
        self.ring.show(slot, word);
        if self.log.is_some() {
            self.log_used();
        }
        if self.shown.1 == 0 {
            self.shown.0 = Cursor::new(slot, word.flags() & USED != 0);
        }
        self.shown.1 += moved;
    }

    #[inline]
    fn asks(&mut self) -> bool {
        let (from, moved) = self.shown;
        if moved == 0 {
            return false;
        }
        self.shown.1 = 0;
        self.ring.driver_event().asks(from, moved, self.ring.size)
    }

    fn want_kicks(&mut self, on: bool) {
        if !on {
            self.ring.device_event().hush();
        } else if self.event_idx {
            // What is there already brings no kick.
            self.scan(usize::MAX);
            self.ring.device_event().ask(Some(self.scanned));
        } else {
            self.ring.device_event().ask(None);
        }
        if self.log.is_some() {
            self.log_used();
        }
    }

    fn position(&self) -> Position {
        let next = self.next();
        Position {
            avail: next.at(),
            used: self.used.at(),
            avail_wrap: next.wrap(),
            used_wrap: self.used.wrap(),
        }
    }
}
