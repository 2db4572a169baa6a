//! The worker's turn, phase by phase.

use super::clock::{Clock, ticks};
use super::idle::{Idle, PAUSE_AFTER, POLL_FOR, Wakers};
use super::inbox::{Attach, Change, Mail};
use super::link::Links;
use super::outlets::{Outlets, TxSlot};
use super::regimes::{Regime, WorkerCounters};
use super::sources::{RxSlot, Sources};
use crate::burst::{BURST, Burst, Mask};
use crate::filter::Direction;
use crate::mem::pool::{Pool, PoolFrame};
use crate::offload::Offload;
use crate::port::counters::DropReason;
use crate::port::{Doze, Queue, Turn};
use crate::switch::table::units;
use crate::switch::{Extent, Routes, Walk, forward};
use crate::sync;
use crate::topology::cell::Reader;
use crate::uring::FdIo;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Queues that one worker can own.
pub const MAX_SLOTS: usize = 32_768;

/// Sources and backlogs served in one turn at most; more wait for the next.
pub(super) const LENDERS: usize = 512;

/// Link bursts taken in one turn at most, and the pool frames that they can hold.
const LINK_TAKE: usize = 32;
const HELD: usize = LINK_TAKE * super::link::LINK_BURST;

/// Frames in a turn after which no look is repeated.
const MANY: u64 = 2 * BURST as u64;

/// What a plan may have before control sends larger scratch.
pub const FIRST_EXTENT: Extent = Extent { places: 256, levels: 0, ports: 0 };

/// Time between housekeeping rounds, in nanoseconds.
const HOUSEKEEPING: u64 = 1_000_000;

/// How long a worker with blocked receivers sleeps before it looks again, in nanoseconds. Shorter burns the core of
/// the one that is to make room; longer shows as latency after a stall.
const LOOK_AGAIN: u64 = 200_000;

/// Who lent the frames of a burst that is under way.
pub(super) enum Lender {
    Source(u32),
    Backlog(u32),
    Filter(u32, Direction),
}

/// What a worker is made of.
pub struct WorkerParts {
    /// Its index.
    pub index: usize,
    /// Its end of the plan cell.
    pub reader: Reader<Routes>,
    /// Its mail with control.
    pub mail: Mail,
    /// Its files.
    pub io: FdIo,
    /// Its frame buffers.
    pub pool: Pool,
    /// Its ends of the links.
    pub links: Links,
    /// How others are woken.
    pub wakers: Wakers,
    /// Its counters.
    pub counters: Arc<WorkerCounters>,
    /// The engine's clock.
    pub clock: Clock,
    /// What it does when idle.
    pub idle: Idle,
    /// Whether it yields its core after each empty turn.
    pub yield_empty: bool,
    /// Set when the engine ends.
    pub stop: Arc<AtomicBool>,
}

/// One worker. Everything it needs is allocated here, before its first turn.
pub struct Worker {
    pub(super) parts: WorkerParts,
    pub(super) routes: sync::Arc<Routes>,
    sources: Sources,
    pub(super) out: Outlets,
    pub(super) burst: Burst,
    scratch: Burst,
    pub(super) walk: Walk,
    pub(super) lent: Vec<(Lender, Mask)>,
    held: Vec<PoolFrame>,
    /// A change whose queues are being stopped.
    stopping: Option<Box<Change>>,
    next_housekeeping: u64,
    idle_since: u64,
    empty_turns: u32,
    next_source: usize,
    /// The filter whose frames were put in first in this turn.
    pub(super) next_injector: usize,
    /// The switch, and the part of its table, that is looked at next for stations that are too old.
    sweep: (usize, usize),
}

/// What a turn did.
#[derive(Default)]
pub(super) struct Done {
    pub(super) frames: u64,
    pub(super) blocked: bool,
    changed: bool,
    /// When a ring had something, if looks before had found nothing.
    found: Option<u64>,
}

impl Worker {
    /// A worker that is ready to run.
    #[must_use]
    pub fn new(mut parts: WorkerParts) -> Self {
        let out = Outlets {
            index: parts.index,
            tx: std::iter::repeat_with(|| None).take(MAX_SLOTS).collect(),
            filters: std::iter::repeat_with(|| None).take(MAX_SLOTS).collect(),
            links: std::mem::take(&mut parts.links),
            wakers: parts.wakers.clone(),
            offload: Offload::new(),
            dirty: Vec::with_capacity(MAX_SLOTS),
            shown: Vec::with_capacity(MAX_SLOTS),
            waiting: Vec::with_capacity(MAX_SLOTS),
            full: Vec::with_capacity(MAX_SLOTS),
            elsewhere: false,
            filters_top: 0,
            injectors: Vec::with_capacity(MAX_SLOTS),
            filtered: 0,
        };
        Self {
            routes: parts.reader.held().clone(),
            parts,
            sources: Sources::new(MAX_SLOTS),
            out,
            burst: Burst::new(),
            scratch: Burst::new(),
            walk: Walk::new(FIRST_EXTENT),
            lent: Vec::with_capacity(LENDERS),
            held: Vec::with_capacity(HELD),
            stopping: None,
            next_housekeeping: 0,
            idle_since: 0,
            empty_turns: 0,
            next_source: 0,
            next_injector: 0,
            sweep: (0, 0),
        }
    }

    /// Runs until the engine stops.
    pub fn run(&mut self) {
        let mut from = ticks();
        while !self.parts.stop.load(Ordering::Relaxed) {
            let now = self.parts.clock.nanoseconds(from);
            let done = self.turn(now);
            let to = ticks();
            let regime = match done {
                Done { frames: 1.., .. } => Regime::Busy,
                Done { changed: true, .. } => Regime::Housekeeping,
                Done { blocked: true, .. } => Regime::BackPressured,
                Done { .. } => Regime::Empty,
            };
            // Looks that found nothing are no part of what the frames cost.
            let began = if done.frames > 0 { done.found.unwrap_or(from) } else { from };
            if began != from {
                self.parts.counters.charge_part(Regime::Empty, began.wrapping_sub(from));
            }
            self.parts.counters.charge(regime, to.wrapping_sub(began), done.frames);
            from = to;
            if done.frames != 0 || done.changed || self.stopping.is_some() {
                self.empty_turns = 0;
                self.idle_since = now;
            } else if self.rest(now, done.blocked) {
                from = ticks();
            }
        }
    }

    /// One turn. `now` is in nanoseconds since the engine started.
    fn turn(&mut self, now: u64) -> Done {
        let mut done = Done { changed: self.adopt(now), ..Done::default() };
        self.parts.io.poll();
        self.out.begin();
        let mut turn = Turn { now, io: &mut self.parts.io, pool: &mut self.parts.pool };
        while let Some(file) = turn.io.take_ready() {
            self.sources.wake(file);
        }
        done.frames += Self::links(&mut self.out, &mut turn, &mut self.scratch, &mut self.held);
        done.frames += Self::retry(&mut self.out, &mut turn, &mut self.scratch, &mut self.lent);
        if !self.out.injectors.is_empty() {
            self.inject(now, &mut done);
        }
        self.serve(now, &mut done);
        for look in 0..self.sources.looks() {
            let before = done.frames;
            self.look(now, look > 0, &mut done);
            let over = done.frames != 0 && (done.frames == before || done.frames > MANY);
            if over || done.blocked || !self.parts.io.is_clear() {
                break;
            }
            // All were copied: the senders may have their buffers again, and nobody reads heads any more.
            self.give_back(now);
            self.out.offload.reset();
        }
        self.finish(now);
        if now >= self.next_housekeeping {
            self.housekeeping(now);
        }
        done
    }

    /// Takes a newer plan and what came with it. Returns whether there was something.
    fn adopt(&mut self, now: u64) -> bool {
        if self.stopping.is_some() {
            self.stop(now);
        } else if self.parts.reader.changed() {
            self.parts.reader.adopt();
            self.routes = self.parts.reader.held().clone();
        } else {
            return false;
        }
        while self.stopping.is_none() {
            let Some(mut change) = self.parts.mail.inbox.pop() else {
                self.parts.reader.acknowledge();
                break;
            };
            self.apply(now, &mut change);
            self.stopping = Some(change);
            self.stop(now);
        }
        true
    }

    /// Takes queues and filters into their slots.
    fn apply(&mut self, now: u64, change: &mut Change) {
        if change.walk.extent() != Extent::default() {
            std::mem::swap(&mut self.walk, &mut change.walk);
        }
        for Attach { slot, queue, lanes, backlog, owed } in change.attach.drain(..) {
            let mut turn = Turn { now, io: &mut self.parts.io, pool: &mut self.parts.pool };
            let Queue { id, mut rx, mut tx, counters, fd } = queue;
            rx.start(&mut turn);
            tx.start(&mut turn);
            if let Some(place) = self.out.tx.get_mut(slot as usize) {
                *place = Some(TxSlot::new(id.0, tx, counters.clone(), lanes, backlog, owed));
            }
            self.sources.insert(slot, RxSlot::new(id.0, rx, counters, fd));
            self.sources.watch(slot);
            self.sources.activate(slot);
        }
        for (slot, filter) in change.add_filters.drain(..) {
            if let Some(place) = self.out.filters.get_mut(slot as usize) {
                if filter.injects() {
                    self.out.injectors.push(slot);
                }
                *place = Some(filter);
                self.out.filters_top = self.out.filters_top.max(slot as usize + 1);
            }
        }
        for (slot, backlog) in &mut change.backlogs {
            if let Some(Some(tx)) = self.out.tx.get_mut(*slot as usize) {
                backlog.take_over(&mut tx.backlog);
                std::mem::swap(backlog, &mut tx.backlog);
            }
        }
        for slot in change.remove_filters.drain(..) {
            self.out.injectors.retain(|s| *s != slot);
            if let Some(mut filter) = self.out.filters.get_mut(slot as usize).and_then(Option::take) {
                let mut turn = Turn { now, io: &mut self.parts.io, pool: &mut self.parts.pool };
                filter.tick(&mut turn);
                change.removed.push(filter);
            }
        }
    }

    /// Goes on stopping queues; hands the change back when all are stopped.
    fn stop(&mut self, now: u64) {
        let Some(mut change) = self.stopping.take() else { return };
        let mut i = 0;
        while let Some(&slot) = change.detach.get(i) {
            let mut turn = Turn { now, io: &mut self.parts.io, pool: &mut self.parts.pool };
            let at = slot as usize;
            self.sources.unwatch(slot);
            let (Some(rx), Some(tx)) = (self.sources.rx.get_mut(at), self.out.tx.get_mut(at)) else {
                change.detach.swap_remove(i);
                continue;
            };
            let still = rx.as_mut().is_none_or(|r| r.rx.stop(&mut turn));
            let quiet = tx.as_mut().is_none_or(|t| t.tx.stop(&mut turn));
            if !(still && quiet) {
                i += 1;
                continue;
            }
            change.detach.swap_remove(i);
            if let (Some(rx), Some(mut tx)) = (rx.take(), tx.take()) {
                tx.empty(turn.pool);
                self.out.forget(slot);
                change.stopped.push(tx.into_attach(slot, rx));
            }
        }
        if change.detach.is_empty() {
            self.return_change(change);
        } else {
            self.parts.io.submit();
            self.stopping = Some(change);
        }
    }

    fn return_change(&self, change: Box<Change>) {
        // Control keeps at most as many changes under way as the outbox holds.
        let _ = self.parts.mail.outbox.push(change);
    }

    /// Takes bursts from other workers.
    fn links(out: &mut Outlets, turn: &mut Turn<'_>, scratch: &mut Burst, held: &mut Vec<PoolFrame>) -> u64 {
        let workers = out.links.workers();
        let mut frames = 0;
        for from in 0..workers {
            for _ in 0..LINK_TAKE / workers.max(1) {
                let begin = held.len();
                let Some(to) = out.links.receive(from, turn.pool, held) else { break };
                frames += (held.len() - begin) as u64;
                out.arrive(turn, (from, to), scratch, held, begin);
            }
        }
        frames
    }

    /// Sends what waits in backlogs.
    fn retry(
        out: &mut Outlets,
        turn: &mut Turn<'_>,
        scratch: &mut Burst,
        lent: &mut Vec<(Lender, Mask)>,
    ) -> u64 {
        let mut frames = 0;
        for _ in 0..out.waiting.len().min(LENDERS / 2) {
            let Some((slot, gone)) = out.retry(turn, scratch) else { break };
            frames += gone.count() as u64;
            lent.push((Lender::Backlog(slot), gone));
        }
        frames
    }

    /// Serves the sources that have something, each a burst.
    fn serve(&mut self, now: u64, done: &mut Done) {
        let mut i = 0;
        while i < self.sources.active.len() && self.lent.len() < LENDERS {
            let slot = self.sources.active[i];
            let (frames, blocked, more) = self.source(now, slot);
            done.frames += frames;
            done.blocked |= blocked;
            if more {
                // It has something and neither gave it nor waits for anybody known.
                self.out.elsewhere |= frames == 0 && !blocked;
                i += 1;
            } else {
                self.sources.deactivate(i);
            }
        }
    }

    /// Serves the rings that are looked at every turn, each a burst; from another one each time, so that none is always last.
    fn look(&mut self, now: u64, again: bool, done: &mut Done) {
        let n = self.sources.polled.len();
        let first = if self.next_source < n { self.next_source } else { 0 };
        self.next_source = first + 1;
        // A ring that was looked at and has many frames: they are loaded while the next one is looked at.
        let mut loading = None;
        for at in (first..n).chain(0..first) {
            if self.lent.len() + 1 >= LENDERS {
                break;
            }
            let Some(&slot) = self.sources.polled.get(at) else { break };
            if self.sources.is_empty(now, slot) {
                continue;
            }
            if again && done.frames == 0 && loading.is_none() {
                done.found = Some(ticks());
            }
            if !self.sources.has_many(slot) {
                self.ring(now, slot, done);
            } else if let Some(before) = loading.replace(slot) {
                self.ring(now, before, done);
            }
        }
        if let Some(slot) = loading {
            self.ring(now, slot, done);
        }
    }

    /// Serves a ring that is looked at every turn.
    #[inline]
    fn ring(&mut self, now: u64, slot: u32, done: &mut Done) {
        let (frames, blocked, _) = self.source(now, slot);
        done.frames += frames;
        done.blocked |= blocked;
        let Some(Some(source)) = self.sources.rx.get_mut(slot as usize) else { return };
        source.pace.took(now, frames, || {
            let entry = self.routes.entry(self.parts.index, slot as usize, source.id);
            entry.and_then(|entry| entry.only).is_some_and(|(target, _)| self.out.is_behind(target))
        });
    }

    /// One burst of one source: frames read, whether it is blocked, whether to look again.
    fn source(&mut self, now: u64, slot: u32) -> (u64, bool, bool) {
        let index = self.parts.index;
        let Some(Some(source)) = self.sources.rx.get_mut(slot as usize) else { return (0, false, false) };
        source.blocked = false;
        let mut turn = Turn { now, io: &mut self.parts.io, pool: &mut self.parts.pool };
        let Some(entry) = self.routes.entry(index, slot as usize, source.id) else {
            return (0, false, false);
        };
        let want = match entry.only {
            Some((target, node)) => self.out.room(&mut turn, target, self.routes.lanes(index, node)),
            // A flood needs a send for each leg.
            None => turn.io.send_room() / (entry.legs as usize).max(1),
        };
        source.blocked = want == 0;
        if want == 0 {
            self.out.elsewhere |= entry.only.is_none();
            return (0, true, true);
        }
        self.burst.clear();
        source.rx.rx(&mut turn, want.min(BURST), &mut self.burst);
        if let Some((reason, n)) = source.rx.drops() {
            source.counters.count_drop(reason, n);
        }
        if self.burst.is_empty() {
            source.counters.trouble.store(source.rx.trouble(), Ordering::Relaxed);
            return (0, false, source.rx.pending());
        }
        if entry.pads {
            self.burst.pad();
        }
        self.out.filtered = 0;
        let taken = forward(&self.routes, &entry, &mut turn, &self.burst, &mut self.walk, &mut self.out);
        if self.out.filtered != 0 {
            source.counters.count_drop(DropReason::Filter, self.out.filtered);
        }
        source.counters.rx.frames.add(taken as u64);
        source.counters.rx.bytes.add(self.burst.bytes(taken));
        source.blocked = taken == 0;
        self.lent.push((Lender::Source(slot), Mask::first(taken)));
        (taken as u64, taken < self.burst.len(), true)
    }

    /// Publishes, submits, settles, gives lent buffers back, and wakes who waits.
    fn finish(&mut self, now: u64) {
        let mut turn = Turn { now, io: &mut self.parts.io, pool: &mut self.parts.pool };
        let wrote = !self.out.dirty.is_empty();
        if wrote {
            self.out.flush(&mut turn);
            if !turn.io.is_clear() {
                // Who sleeps need not wait for the system call that comes now.
                fence(Ordering::SeqCst);
                self.out.notify();
            }
            turn.io.submit();
            self.out.settle(&mut turn);
        } else {
            // Heads of frames that went nowhere.
            self.out.offload.reset();
        }
        self.give_back(now);
        while let Some(frame) = self.held.pop() {
            self.parts.pool.give(frame);
        }
        self.parts.pool.umems.settle();
        if wrote || self.sources.gave() {
            // One for all rings: with a fence for each, a frame that came alone waited for the stores of four.
            fence(Ordering::SeqCst);
            self.out.notify();
            self.sources.notify();
        }
    }

    /// Gives lent buffers back, of which nothing is named any more.
    #[inline]
    fn give_back(&mut self, now: u64) {
        let mut turn = Turn { now, io: &mut self.parts.io, pool: &mut self.parts.pool };
        while let Some((lender, gone)) = self.lent.pop() {
            match lender {
                Lender::Source(slot) => {
                    self.sources.release(&mut turn, slot, gone.count());
                }
                Lender::Filter(slot, direction) => {
                    if let Some(Some(filter)) = self.out.filters.get_mut(slot as usize) {
                        filter.gone(&mut turn, direction, gone.count());
                    }
                }
                Lender::Backlog(slot) => {
                    if let Some(Some(t)) = self.out.tx.get_mut(slot as usize) {
                        t.backlog.done_selected(turn.pool, gone);
                        t.settle_lanes();
                    }
                }
            }
        }
    }

    fn housekeeping(&mut self, now: u64) {
        let from = ticks();
        self.next_housekeeping = now + HOUSEKEEPING;
        let mut turn = Turn { now, io: &mut self.parts.io, pool: &mut self.parts.pool };
        turn.pool.reclaim();
        for filter in self.out.filters.iter_mut().take(self.out.filters_top).flatten() {
            filter.tick(&mut turn);
        }
        self.sweep(now);
        self.parts.counters.charge_part(Regime::Housekeeping, ticks().wrapping_sub(from));
    }

    /// Forgets stations that are too old, in a part of one switch's table.
    fn sweep(&mut self, now: u64) {
        let (switch, from) = self.sweep;
        self.sweep = match self.routes.switches().get(switch) {
            Some(state) => match state.sweep(self.parts.index, from, units(now)) {
                0 => (switch + 1, 0),
                next => (switch, next),
            },
            None => (0, 0),
        };
    }

    /// After an empty turn: poll on, pause, yield or sleep. Whether that took time.
    fn rest(&mut self, now: u64, blocked: bool) -> bool {
        self.empty_turns = self.empty_turns.saturating_add(1);
        let pause = self.empty_turns > PAUSE_AFTER;
        if self.parts.yield_empty {
            std::thread::yield_now();
        } else if pause {
            std::hint::spin_loop();
        }
        if self.parts.idle == Idle::Poll || now.saturating_sub(self.idle_since) < POLL_FOR {
            return pause || self.parts.yield_empty;
        }
        if !self.parts.reader.sleep() {
            return true;
        }
        self.parts.io.announce();
        // A receiver that is full may promise to signal, but not every kernel queue does: then look again after a while.
        let (rings, full) = (self.sources.doze(), self.out.doze());
        let blocked = blocked || !self.out.waiting.is_empty() || !self.sources.active.is_empty();
        if self.out.links.waiting()
            || self.parts.pool.umems.is_ending()
            || self.parts.stop.load(Ordering::Relaxed)
            || full == Doze::Stay
            || (!blocked && self.any_due(now))
            || (!blocked && (rings == Doze::Stay || self.anything_waits()))
        {
            self.parts.io.rise();
        } else {
            self.housekeeping(now);
            let look = (rings.max(full) != Doze::Sleep).then_some(LOOK_AGAIN);
            self.parts.io.sleep(self.until_due(now, look));
        }
        self.sources.rise();
        self.out.rise();
        self.parts.reader.wake();
        self.empty_turns = 0;
        true
    }

    /// The last look before sleep.
    fn anything_waits(&self) -> bool {
        let slots = self.sources.active.iter().filter_map(|&s| self.sources.rx.get(s as usize));
        self.stopping.is_some() || slots.flatten().any(|s| s.rx.pending())
    }
}
