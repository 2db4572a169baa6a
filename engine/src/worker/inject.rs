//! Frames that filters put in: each goes on from behind its filter, as if a source had lent it there.

use super::turn::{Done, LENDERS, Lender, Worker};
use crate::burst::{BURST, Mask};
use crate::filter::Direction;
use crate::port::Turn;
use crate::port::counters::DropReason;
use crate::switch::forward;

/// Bursts of one filter and direction in a turn at most: more than several sources bring in a turn, so that one that no longer holds anything back
/// comes to its end.
const BURSTS: usize = 16;

/// Places for bursts under way that are left to sources.
const LEFT: usize = LENDERS / 4;

impl Worker {
    /// A burst of each filter and direction that has frames to put in. They come before those of sources, which must not overtake them.
    pub(super) fn inject(&mut self, now: u64, done: &mut Done) {
        let n = self.out.injectors.len();
        // From another one each time, so that none is always last.
        self.next_injector = if self.next_injector + 1 < n { self.next_injector + 1 } else { 0 };
        for at in (self.next_injector..n).chain(0..self.next_injector) {
            let Some(&slot) = self.out.injectors.get(at) else { return };
            for direction in Direction::BOTH {
                for _ in 0..BURSTS {
                    if self.lent.len() + LEFT >= LENDERS {
                        return;
                    }
                    if !self.inject_from(now, slot, direction, done) {
                        break;
                    }
                }
            }
        }
    }

    /// One burst; whether more may go at once.
    fn inject_from(&mut self, now: u64, slot: u32, direction: Direction, done: &mut Done) -> bool {
        let index = self.parts.index;
        let mut turn = Turn { now, io: &mut self.parts.io, pool: &mut self.parts.pool };
        let due = match self.out.filters.get_mut(slot as usize) {
            Some(Some(filter)) => filter.due(now, direction),
            _ => 0,
        };
        let toward = direction == Direction::Rx;
        let (1.., Some(entry)) = (due, self.routes.inject(index, slot as usize, toward)) else {
            return false;
        };
        let room = match entry.only {
            Some((target, node)) => self.out.room(&mut turn, target, self.routes.lanes(index, node)),
            None => turn.io.send_room() / (entry.legs as usize).max(1),
        };
        let want = room.min(due).min(BURST);
        if want == 0 {
            self.out.elsewhere |= entry.only.is_none();
            done.blocked = true;
            return false;
        }
        self.burst.clear();
        if let Some(Some(filter)) = self.out.filters.get_mut(slot as usize) {
            filter.lend(&mut turn, direction, want, &mut self.burst);
        }
        if self.burst.is_empty() {
            return false;
        }
        self.out.filtered = 0;
        let taken = forward(&self.routes, &entry, &mut turn, &self.burst, &mut self.walk, &mut self.out);
        // What a filter behind this one drops, nobody but whom it was for can be charged with.
        if self.out.filtered != 0
            && let Some(lanes) = self.routes.lanes(index, entry.node)
        {
            lanes.count_drop(index, DropReason::Filter, self.out.filtered);
        }
        if let Some(Some(filter)) = self.out.filters.get_mut(slot as usize) {
            filter.took(direction, taken);
        }
        let blocked = taken < self.burst.len();
        done.blocked |= blocked;
        done.frames += taken as u64;
        self.lent.push((Lender::Filter(slot, direction), Mask::first(taken)));
        !blocked
    }

    /// Whether a filter has frames to put in now (for the last look before sleep).
    pub(super) fn any_due(&mut self, now: u64) -> bool {
        let filters = &mut self.out.filters;
        self.out.injectors.iter().any(|slot| match filters.get_mut(*slot as usize) {
            Some(Some(filter)) => Direction::BOTH.iter().any(|d| filter.due(now, *d) != 0),
            _ => false,
        })
    }

    /// How long a sleep may last: `look`, if that is given, and not beyond the time when a filter has frames to put in.
    pub(super) fn until_due(&self, now: u64, look: Option<u64>) -> Option<u64> {
        let filters =
            self.out.injectors.iter().filter_map(|slot| self.out.filters.get(*slot as usize)?.as_ref());
        // One that is over waits for a receiver, which wakes the worker itself.
        let next = filters.filter_map(|filter| filter.deadline()).filter(|at| *at > now).min();
        let left = next.map(|at| at.saturating_sub(now).max(1));
        look.into_iter().chain(left).min()
    }
}
