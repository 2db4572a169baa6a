//! `filter-match`, which QEMU does not have: drops frames that match a pcap filter expression, or those that do not.
//!
//! A frame is matched as it lies there, with a partial checksum or as large as segmentation offload makes it. What decides is
//! copied before it is looked at; a guest that writes over a frame while it passes can still have other bytes delivered
//! than those that matched, so this sorts traffic and does not fence in a hostile guest.

use super::bpf::{Matcher, Program, Selection, selection};
use super::{Direction, Filter, Handle};
use crate::burst::{Burst, Mask};
use crate::port::Turn;
use crate::port::counters::Counter;
use std::sync::Arc;

/// What becomes of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Those that match are dropped.
    Drop,
    /// Those that do not match are dropped.
    Pass,
}

/// What a match counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MatchCounters {
    /// Frames seen.
    pub seen: u64,
    /// Frames that matched.
    pub matched: u64,
}

/// Counters of one instance, their only writer.
#[derive(Debug, Default)]
struct Counts {
    seen: Counter,
    matched: Counter,
}

/// A match in force, held by control.
pub struct MatchHandle {
    selection: Selection,
    counts: Box<[Arc<Counts>]>,
}

/// One worker's instance.
struct Instance {
    matcher: Matcher,
    action: Action,
    counts: Arc<Counts>,
}

/// A match by `program`, with an instance for each of `workers` workers.
#[must_use]
pub fn open(program: Program, action: Action, workers: usize) -> (MatchHandle, Vec<Box<dyn Filter>>) {
    let (selection, matchers) = selection(Some(program), workers);
    let counts: Box<[Arc<Counts>]> = (0..workers).map(|_| Arc::default()).collect();
    let instance = |(matcher, counts): (Matcher, &Arc<Counts>)| {
        Box::new(Instance { matcher, action, counts: counts.clone() }) as Box<dyn Filter>
    };
    let instances = matchers.into_iter().zip(&counts).map(instance).collect();
    (MatchHandle { selection, counts }, instances)
}

impl MatchHandle {
    /// What was seen so far.
    #[must_use]
    pub fn counters(&self) -> MatchCounters {
        let sum = |of: fn(&Counts) -> u64| self.counts.iter().map(|counts| of(counts)).sum();
        MatchCounters { seen: sum(|c| c.seen.get()), matched: sum(|c| c.matched.get()) }
    }
}

impl Handle for MatchHandle {
    fn counters(&self) -> Vec<(&'static str, u64)> {
        let MatchCounters { seen, matched } = self.counters();
        vec![("seen", seen), ("matched", matched)]
    }

    fn select(&self, program: Option<Program>) {
        self.selection.set(program);
    }
}

impl Filter for Instance {
    fn frames(&mut self, _turn: &mut Turn<'_>, _direction: Direction, burst: &Burst, mask: Mask) -> Mask {
        let matched = self.matcher.select(burst, mask);
        self.counts.seen.add(mask.count() as u64);
        self.counts.matched.add(matched.count() as u64);
        match self.action {
            Action::Drop => Mask(mask.0 & !matched.0),
            Action::Pass => matched,
        }
    }

    fn tick(&mut self, _turn: &mut Turn<'_>) {}
}
