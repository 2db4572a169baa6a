//! The driver's side of a split ring.

#![allow(unsafe_code)] // takes the parts of a ring as its configuration names them

use super::super::notify::passed;
use super::layout::{Desc, Layout, NO_NOTIFY, SHOW, TAKE};
use crate::mem::guest::GuestMemory;
use crate::virtq::ids::{Buffer, Ids, writable};
use crate::virtq::index::Index;
use crate::virtq::{
    DESC_INDIRECT, DESC_NEXT, DESC_WRITE, DriverRing, DriverSeg, F_EVENT_IDX, F_IN_ORDER, Position,
    RingConfig, RingFault,
};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// The driver's side of a split ring. It makes no indirect tables.
#[derive(Debug)]
pub struct SplitDriver {
    ring: Layout,
    /// The available index, with what is not yet published.
    next: Index,
    /// The available index as the device sees it, and as it was when the device was last asked whether it wants a kick.
    shown: Index,
    told: Index,
    /// The used index up to which buffers came back.
    done: Index,
    /// The used index as last read.
    seen: Index,
    /// Buffers under way.
    under_way: u32,
    free: u32,
    ids: Ids,
    event_idx: bool,
    /// Keeps the ring mapped.
    _memory: Arc<GuestMemory>,
}

// SAFETY: the ring's memory is mapped as long as `_memory`, and this side of the ring has one owner.
unsafe impl Send for SplitDriver {}

impl SplitDriver {
    /// The used element that is next, if there is one.
    #[inline]
    fn element(&mut self) -> Result<Option<(u32, u32)>, RingFault> {
        if self.done == self.seen {
            let to = Index::new(self.ring.used_idx().load(TAKE));
            if to == self.done {
                return Ok(None);
            }
            if u32::from(to.since(self.done)) > self.under_way {
                let (from, to) = (self.done.get(), to.get());
                return Err(RingFault::Jump { from, to, size: self.ring.mask + 1 });
            }
            self.seen = to;
        }
        Ok(Some(self.ring.used(self.done.get())))
    }

    /// Writes the next available entry.
    #[inline]
    fn make_available(&mut self, head: u16) {
        self.ring.avail_entry(self.next.get()).store(head, Ordering::Relaxed);
        self.next = self.next.plus(1);
        self.under_way += 1;
    }

    /// The next buffer where one element may stand for several.
    fn next_in_order(&mut self) -> Result<Option<(Buffer, u32)>, RingFault> {
        let Some((id, len)) = self.element()? else { return Ok(None) };
        if !self.ids.in_batch() {
            self.ids.begin_batch(id, len)?;
        }
        self.ids.end_oldest(true).map(Some)
    }
}

impl DriverRing for SplitDriver {
    fn new(config: &RingConfig) -> Result<Self, RingFault> {
        if !config.size.is_power_of_two() || config.size > 32768 {
            return Err(RingFault::Size(config.size));
        }
        config.aligned(16, 2, 4)?;
        // SAFETY: a ring's configuration says that its parts have room for its size, and holds the memory mapped.
        let ring = unsafe { Layout::new(config.desc, config.avail, config.used, config.size - 1) };
        let Position { avail, used, .. } = config.position;
        ring.avail_idx().store(avail, SHOW);
        ring.used_idx().store(used, SHOW);
        let mut this = Self {
            ring,
            next: Index::new(avail),
            shown: Index::new(avail),
            told: Index::new(avail),
            done: Index::new(used),
            seen: Index::new(used),
            under_way: 0,
            free: u32::from(config.size),
            ids: Ids::new(config.size, config.features & F_IN_ORDER != 0),
            event_idx: config.features & F_EVENT_IDX != 0,
            _memory: config.memory.clone(),
        };
        this.want_calls(false);
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
        let head = self.ids.begin(token, count as u16, || writable(segs, readable));
        let mut id = head;
        for (i, seg) in segs.iter().enumerate() {
            let mut flags = if i >= readable { DESC_WRITE } else { 0 };
            let mut next = 0;
            if i + 1 < count {
                flags |= DESC_NEXT;
                next = self.ids.extend(id);
            }
            self.ring.set_desc(id, Desc { addr: seg.addr, len: seg.len, flags, next });
            id = next;
        }
        self.free -= count as u32;
        self.make_available(head);
        true
    }

    fn add_table(&mut self, table: DriverSeg, writable: u32, token: u32) -> bool {
        if self.free == 0 {
            return false;
        }
        let head = self.ids.begin(token, 1, || writable);
        self.ring.set_desc(head, Desc { addr: table.addr, len: table.len, flags: DESC_INDIRECT, next: 0 });
        self.free -= 1;
        self.make_available(head);
        true
    }

    #[inline]
    fn show(&mut self) {
        if self.next != self.shown {
            self.ring.avail_idx().store(self.next.get(), SHOW);
            self.shown = self.next;
        }
    }

    #[inline]
    fn asks(&mut self) -> bool {
        if self.shown == self.told {
            return false;
        }
        let old = std::mem::replace(&mut self.told, self.shown);
        if self.event_idx {
            passed(self.ring.avail_event().load(Ordering::Relaxed), self.shown.get(), old.get())
        } else {
            self.ring.used_flags().load(Ordering::Relaxed) & NO_NOTIFY == 0
        }
    }

    #[inline]
    fn used(&mut self) -> Result<Option<(u32, u32)>, RingFault> {
        let (buffer, written) = if self.ids.in_order() {
            let Some(next) = self.next_in_order()? else { return Ok(None) };
            next
        } else {
            let Some((id, len)) = self.element()? else { return Ok(None) };
            (self.ids.end(id, true)?, len)
        };
        self.done = self.done.plus(1);
        self.under_way -= 1;
        self.free += u32::from(buffer.count);
        Ok(Some((buffer.token, written)))
    }

    fn want_calls(&mut self, on: bool) {
        if self.event_idx {
            // Off: an index that was passed already, so that it is not passed again for 65536 buffers.
            let event = if on { self.done } else { self.done.plus(u16::MAX) }.get();
            self.ring.used_event().store(event, Ordering::Relaxed);
        } else {
            self.ring.avail_flags().store(if on { 0 } else { NO_NOTIFY }, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }
}
