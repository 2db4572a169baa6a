//! The worker's side of a limit.

use super::Shared;
use super::bucket::{Cost, Level};
use crate::burst::{Burst, Mask};
use crate::filter::hold::{Hold, side};
use crate::filter::{Direction, Filter};
use crate::port::Turn;
use crate::port::counters::Counter;
use crossbeam::utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One worker's instance.
pub(super) struct Instance {
    shared: Arc<Shared>,
    holds: [Hold; 2],
    passed: Arc<CachePadded<Counter>>,
    /// When frames were lent last.
    lent: u64,
}

impl Instance {
    pub(super) fn new(shared: Arc<Shared>, holds: [Hold; 2], passed: Arc<CachePadded<Counter>>) -> Self {
        Self { shared, holds, passed, lent: 0 }
    }

    fn level(&self, now: u64, direction: Direction) -> Level {
        self.shared.buckets[side(direction)].0.level(now, &self.shared.bytes, &self.shared.frames)
    }

    fn charge(&self, now: u64, direction: Direction, cost: Cost) {
        self.shared.buckets[side(direction)].0.charge(now, &self.shared.bytes, &self.shared.frames, cost);
    }

    /// The first of the selected frames, as far as they may pass now.
    fn pass(&self, now: u64, direction: Direction, burst: &Burst, mask: Mask) -> Mask {
        let mut level = self.level(now, direction);
        let (mut pass, mut all) = (Mask::NONE, Cost::default());
        for i in mask.iter() {
            let Some(cost) = burst.frames().get(i).map(Cost::of_frame) else { break };
            if !level.pass(cost) {
                break;
            }
            pass.0 |= 1 << i;
            all = all.and(cost);
        }
        self.charge(now, direction, all);
        self.passed.add(pass.count() as u64);
        pass
    }
}

impl Filter for Instance {
    #[inline]
    fn frames(&mut self, turn: &mut Turn<'_>, direction: Direction, burst: &Burst, mask: Mask) -> Mask {
        let empty = self.holds[side(direction)].is_empty();
        let on = self.shared.settings.sees(direction);
        if !on && empty {
            return mask;
        }
        let pass = if empty { self.pass(turn.now, direction, burst, mask) } else { Mask::NONE };
        let rest = Mask(mask.0 & !pass.0);
        if !rest.is_empty() {
            let most = self.shared.queue.load(Ordering::Relaxed);
            self.holds[side(direction)].keep(burst, rest, most);
        }
        pass
    }

    fn tick(&mut self, _turn: &mut Turn<'_>) {}

    fn lost(&mut self, _kept: u64) -> u64 {
        self.holds.iter_mut().map(Hold::lost).sum()
    }

    fn injects(&self) -> bool {
        true
    }

    fn due(&mut self, now: u64, direction: Direction) -> usize {
        let hold = &self.holds[side(direction)];
        let goes = !hold.is_empty()
            && (!self.shared.settings.sees(direction) || self.level(now, direction).is_open());
        if goes { hold.waiting() as usize } else { 0 }
    }

    fn lend(&mut self, turn: &mut Turn<'_>, direction: Direction, want: usize, burst: &mut Burst) {
        self.lent = turn.now;
        let mut level = self.level(turn.now, direction);
        let free = !self.shared.settings.sees(direction);
        let goes = |hdr: &_, len| free || level.pass(Cost::of(hdr, len));
        let mut goes = goes;
        self.holds[side(direction)].lend(want, burst, |record| goes(&record.hdr, record.bytes.len()));
    }

    fn took(&mut self, direction: Direction, n: usize) {
        if self.shared.settings.sees(direction) {
            let mut all = Cost::default();
            self.holds[side(direction)]
                .look(n, |record| all = all.and(Cost::of(&record.hdr, record.bytes.len())));
            self.charge(self.lent, direction, all);
        }
        self.holds[side(direction)].took(n);
    }

    fn gone(&mut self, _turn: &mut Turn<'_>, direction: Direction, n: usize) {
        self.holds[side(direction)].gone(n);
    }

    fn deadline(&self) -> Option<u64> {
        let waits = |direction: &Direction| !self.holds[side(*direction)].is_empty();
        Direction::BOTH.into_iter().filter(waits).map(|direction| self.level(0, direction).opens()).min()
    }
}
