//! Where a worker's frames come from: its receiving queues, and which of them have something.

use crate::burst::BURST;
use crate::port::counters::PortCounters;
use crate::port::pace::{Pace, Terms};
use crate::port::{Doze, RxQueue, Source, Turn};
use crate::uring::FileId;
use std::os::fd::RawFd;
use std::sync::Arc;

/// A receiving queue in its slot.
pub(super) struct RxSlot {
    pub(super) id: u64,
    pub(super) rx: Box<dyn RxQueue>,
    pub(super) counters: Arc<PortCounters>,
    pub(super) fd: RawFd,
    file: Option<FileId>,
    /// In the list of active slots.
    active: bool,
    /// Its frames wait for somebody: its own news change nothing.
    pub(super) blocked: bool,
    /// On the list of slots that were given buffers back.
    given: bool,
    pub(super) pace: Pace,
}

impl RxSlot {
    pub(super) fn new(id: u64, rx: Box<dyn RxQueue>, counters: Arc<PortCounters>, fd: RawFd) -> Self {
        Self {
            id,
            rx,
            counters,
            fd,
            file: None,
            active: false,
            blocked: false,
            given: false,
            pace: Pace::new(GATHER),
        }
    }
}

/// How long frames gather in a ring whose receiver is behind, so that it sees none of them later: those of fewer than 5.6 million a second never. It
/// matters with guests that cost as much a frame as the worker does. Measured with DPDK's virtio-user as the guest, packed rings, against the same
/// load on testpmd: 1.2 to 1.4 times fewer busy cycles a frame with 40 frames in 5 microseconds, 1.6 to 1.8 times fewer with these.
const GATHER: Terms = Terms { enough: 56, patience: 10_000, window: 250 };

/// From as many frames on a queue waits for another one to be looked at: their lines take as long to load. Fewer are served at once.
const MANY: usize = BURST / 4;

/// All sources of a worker.
pub(super) struct Sources {
    pub(super) rx: Vec<Option<RxSlot>>,
    /// Slots to look at in the coming turn.
    pub(super) active: Vec<u32>,
    /// Slots that are looked at in every turn (memory rings).
    pub(super) polled: Vec<u32>,
    /// Slots that were given buffers back in this turn.
    given: Vec<u32>,
    /// File to slot.
    files: Vec<u32>,
}

const NO_SLOT: u32 = u32::MAX;

impl Sources {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            rx: std::iter::repeat_with(|| None).take(capacity).collect(),
            active: Vec::with_capacity(capacity),
            polled: Vec::with_capacity(capacity),
            given: Vec::with_capacity(capacity),
            files: vec![NO_SLOT; capacity],
        }
    }

    /// Takes a queue into its slot.
    pub(super) fn insert(&mut self, slot: u32, queue: RxSlot) {
        if let Some(place) = self.rx.get_mut(slot as usize) {
            *place = Some(queue);
        }
    }

    /// Learns, once the queue has started, how its frames are noticed.
    pub(super) fn watch(&mut self, slot: u32) {
        let Some(Some(s)) = self.rx.get_mut(slot as usize) else { return };
        match s.rx.source() {
            Source::Polled => self.polled.push(slot),
            Source::File(file) => {
                s.file = Some(file);
                if let Some(place) = self.files.get_mut(file.0 as usize) {
                    *place = slot;
                }
            }
        }
    }

    /// Stops looking at a slot.
    pub(super) fn unwatch(&mut self, slot: u32) {
        if let Some(Some(s)) = self.rx.get_mut(slot as usize)
            && let Some(place) = s.file.take().and_then(|f| self.files.get_mut(f.0 as usize))
        {
            *place = NO_SLOT;
        }
        self.active.retain(|s| *s != slot);
        self.polled.retain(|s| *s != slot);
    }

    /// The file has something: look at its slot.
    pub(super) fn wake(&mut self, file: FileId) {
        if let Some(&slot) = self.files.get(file.0 as usize) {
            self.activate(slot);
        }
    }

    /// Puts the slot of a file on the list, once. What is looked at every turn anyway must not be served twice in one.
    pub(super) fn activate(&mut self, slot: u32) {
        if let Some(Some(s)) = self.rx.get_mut(slot as usize)
            && !s.active
            && s.file.is_some()
        {
            s.active = true;
            self.active.push(slot);
        }
    }

    /// Asks the rings that are looked at every turn, and are not blocked, for wake-ups; what the most wakeful of them says.
    pub(super) fn doze(&mut self) -> Doze {
        let mut all = Doze::Sleep;
        for &slot in &self.polled {
            let Some(Some(s)) = self.rx.get_mut(slot as usize) else { continue };
            if !s.blocked {
                all = all.max(s.rx.doze());
            }
        }
        all
    }

    /// No more wake-ups from those rings.
    pub(super) fn rise(&mut self) {
        for &slot in &self.polled {
            if let Some(Some(s)) = self.rx.get_mut(slot as usize)
                && !s.blocked
            {
                s.rx.rise();
            }
        }
    }

    /// Looks at the rings in a turn: all else in it takes as long as several looks at two rings, so where there are few, a frame is found sooner by
    /// looking again. More, and whoever waits for the rest of the turn would notice.
    #[inline]
    pub(super) const fn looks(&self) -> usize {
        match self.polled.len() {
            0..=2 => 4,
            3..=4 => 2,
            _ => 1,
        }
    }

    /// Whether a slot's queue has nothing, or nothing that is to be taken now.
    #[inline]
    pub(super) fn is_empty(&mut self, now: u64, slot: u32) -> bool {
        let Some(Some(s)) = self.rx.get_mut(slot as usize) else { return true };
        if s.pace.waits(now) {
            return true;
        }
        let empty = s.rx.is_empty();
        s.blocked &= !empty;
        empty
    }

    /// Looks what a slot's queue has; whether that is so much that another is looked at before it is served.
    #[inline]
    pub(super) fn has_many(&mut self, slot: u32) -> bool {
        self.rx.get_mut(slot as usize).and_then(Option::as_mut).is_some_and(|s| s.rx.peek() >= MANY)
    }

    /// The first `count` frames of a slot's last burst have gone.
    #[inline]
    pub(super) fn release(&mut self, turn: &mut Turn<'_>, slot: u32, count: usize) {
        let Some(Some(s)) = self.rx.get_mut(slot as usize) else { return };
        s.rx.release(turn, count);
        if !s.given {
            s.given = true;
            self.given.push(slot);
        }
    }

    /// Whether buffers were given back in this turn.
    #[inline]
    pub(super) const fn gave(&self) -> bool {
        !self.given.is_empty()
    }

    /// Wakes who waits for the buffers that were given back; the worker has fenced.
    pub(super) fn notify(&mut self) {
        while let Some(slot) = self.given.pop() {
            let Some(Some(s)) = self.rx.get_mut(slot as usize) else { continue };
            s.given = false;
            s.rx.notify();
        }
    }

    /// Takes the `i`th slot off the list.
    pub(super) fn deactivate(&mut self, i: usize) {
        if i < self.active.len() {
            let slot = self.active.swap_remove(i);
            if let Some(Some(s)) = self.rx.get_mut(slot as usize) {
                s.active = false;
            }
        }
    }
}
