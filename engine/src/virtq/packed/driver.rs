//! The driver's side of a packed ring.

#![allow(unsafe_code)] // may be sent to the thread that runs it

use super::cursor::Cursor;
use super::layout::{AVAIL, Layout, USED, Word};
use crate::mem::guest::GuestMemory;
use crate::virtq::ids::{Ids, writable};
use crate::virtq::{
    DESC_INDIRECT, DESC_NEXT, DESC_WRITE, DriverRing, DriverSeg, F_EVENT_IDX, F_IN_ORDER, Position,
    RingConfig, RingFault,
};
use std::sync::Arc;

/// The driver's side of a packed ring. It makes no indirect tables.
#[derive(Debug)]
pub struct PackedDriver {
    ring: Layout,
    /// Where the next buffer goes.
    next: Cursor,
    /// Where the device's next used descriptor will be.
    done: Cursor,
    free: u32,
    /// Slots added and not yet published; the first one's descriptor is held back, so that all show at once.
    added: u32,
    first: (u16, Word),
    /// Where what was shown since the device was last asked begins, and its slots.
    shown: (Cursor, u32),
    ids: Ids,
    event_idx: bool,
    /// Keeps the ring mapped.
    _memory: Arc<GuestMemory>,
}

// SAFETY: the ring's memory is mapped as long as `_memory`, and this side of it has one owner.
unsafe impl Send for PackedDriver {}

impl DriverRing for PackedDriver {
    fn new(config: &RingConfig) -> Result<Self, RingFault> {
        let ring = Layout::of(config)?;
        let Position { avail, used, avail_wrap, used_wrap } = config.position;
        let next = Cursor::new(avail, avail_wrap);
        for slot in 0..ring.size {
            // As the device left it: behind us in this round, before us in the last.
            let at = Cursor::new(slot, if slot < avail { avail_wrap } else { !avail_wrap });
            ring.set_addr(slot, 0);
            ring.set(slot, Word::new(0, 0, at.used()));
        }
        let this = Self {
            ring,
            next,
            done: Cursor::new(used, used_wrap),
            free: u32::from(ring.size),
            added: 0,
            first: (0, Word(0)),
            shown: (next, 0),
            ids: Ids::new(ring.size, config.features & F_IN_ORDER != 0),
            event_idx: config.features & F_EVENT_IDX != 0,
            _memory: config.memory.clone(),
        };
        this.ring.driver_event().hush();
        Ok(this)
    }

    #[inline]
    fn room(&self) -> usize {
        self.free as usize
    }

    #[inline]
    fn add(&mut self, segs: &[DriverSeg], readable: usize, token: u32) -> bool {
        let count = segs.len();
        if count == 0 || count > self.free as usize {
            return false;
        }
        let id = self.ids.begin(token, count as u16, || writable(segs, readable));
        for (i, seg) in segs.iter().enumerate() {
            let mut flags = self.next.available();
            if i + 1 < count {
                flags |= DESC_NEXT;
            }
            if i >= readable {
                flags |= DESC_WRITE;
            }
            self.put(seg, id, flags);
        }
        self.free -= count as u32;
        true
    }

    fn add_table(&mut self, table: DriverSeg, writable: u32, token: u32) -> bool {
        if self.free == 0 {
            return false;
        }
        let id = self.ids.begin(token, 1, || writable);
        self.put(&table, id, self.next.available() | DESC_INDIRECT);
        self.free -= 1;
        true
    }

    #[inline]
    fn show(&mut self) {
        if self.added == 0 {
            return;
        }
        let added = std::mem::take(&mut self.added);
        let (slot, word) = self.first;
        self.ring.show(slot, word);
        if self.shown.1 == 0 {
            self.shown.0 = Cursor::new(slot, word.flags() & AVAIL != 0);
        }
        self.shown.1 += added;
    }

    #[inline]
    fn asks(&mut self) -> bool {
        let (from, added) = self.shown;
        if added == 0 {
            return false;
        }
        self.shown.1 = 0;
        self.ring.device_event().asks(from, added, self.ring.size)
    }

    #[inline]
    fn used(&mut self) -> Result<Option<(u32, u32)>, RingFault> {
        let (buffer, written) = if self.ids.in_order() {
            if !self.ids.in_batch() {
                let Some(word) = self.used_word() else { return Ok(None) };
                self.ids.begin_batch(u32::from(word.id()), word.len())?;
            }
            self.ids.end_oldest(false)?
        } else {
            let Some(word) = self.used_word() else { return Ok(None) };
            (self.ids.end(u32::from(word.id()), false)?, word.len())
        };
        self.done.advance(buffer.count, self.ring.size);
        self.free += u32::from(buffer.count);
        Ok(Some((buffer.token, written)))
    }

    fn want_calls(&mut self, on: bool) {
        if on {
            self.ring.driver_event().ask(self.event_idx.then_some(self.done));
        } else {
            self.ring.driver_event().hush();
        }
    }
}

impl PackedDriver {
    /// Writes the next descriptor.
    #[inline]
    fn put(&mut self, seg: &DriverSeg, id: u16, flags: u16) {
        let word = Word::new(seg.len, id, flags);
        self.ring.set_addr(self.next.at(), seg.addr);
        if self.added == 0 {
            self.first = (self.next.at(), word);
        } else {
            self.ring.set(self.next.at(), word);
        }
        self.added += 1;
        self.next.advance(1, self.ring.size);
    }

    /// The used descriptor that is next, if it is there.
    #[inline]
    fn used_word(&self) -> Option<Word> {
        let word = self.ring.word(self.done.at());
        word.is(AVAIL | USED, self.done.used()).then_some(word)
    }
}
