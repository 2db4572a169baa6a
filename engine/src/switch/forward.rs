//! The walk of a burst over its source's nodes.

use super::routes::Routes;
use crate::burst::{Burst, Mask};
use crate::port::Turn;
use crate::port::counters::DropReason;
use crate::port::lanes::Lanes;
use crate::topology::plan::{Discard, Entry, FilterStep, Hop, Legs, MAX_HUBS, Target, WorkerPlan};

/// Where the walk hands frames over; the worker is one.
pub trait Outlet {
    /// Gives the selected frames to a port. With `whole`, all of them are disposed of (sent, kept in the backlog, or
    /// dropped by name); else a prefix is taken and its length returned.
    fn deliver(
        &mut self,
        turn: &mut Turn<'_>,
        to: Target,
        lanes: Option<&Lanes>,
        burst: &Burst,
        mask: Mask,
        whole: bool,
    ) -> usize;

    /// Shows the selected frames to a filter and returns those that go on.
    fn filter(&mut self, turn: &mut Turn<'_>, step: FilterStep, burst: &Burst, mask: Mask) -> Mask;

    /// This worker's index.
    fn worker(&self) -> usize;
}

impl From<Discard> for DropReason {
    fn from(why: Discard) -> Self {
        match why {
            Discard::NoPeer => Self::NoPeer,
            Discard::LinkDown => Self::LinkDown,
            Discard::NotConnected => Self::NotConnected,
            Discard::Loop => Self::Loop,
        }
    }
}

/// Scratch of a walk: which hubs it has entered, and which are still to be flooded.
#[derive(Debug, Default)]
pub struct Walk {
    /// By hub: the walk that entered it last.
    entered: Vec<u64>,
    serial: u64,
    todo: Vec<Visit>,
}

#[derive(Debug, Clone, Copy)]
struct Visit {
    hub: u32,
    except: u32,
    crossed: u32,
    mask: Mask,
}

impl Walk {
    /// Scratch for plans of at most `hubs` hubs.
    #[must_use]
    pub fn new(hubs: usize) -> Self {
        Self { entered: vec![0; hubs], serial: 0, todo: Vec::with_capacity(hubs) }
    }

    /// Hubs that it can hold.
    #[must_use]
    pub const fn hubs(&self) -> usize {
        self.entered.len()
    }

    fn begin(&mut self) {
        self.serial += 1;
        self.todo.clear();
    }

    /// Notes a hub to be flooded; false when the walk has been there, or has crossed too many.
    fn enter(&mut self, visit: Visit) -> bool {
        match self.entered.get_mut(visit.hub as usize) {
            Some(last) if *last != self.serial && visit.crossed <= MAX_HUBS => {
                *last = self.serial;
                self.todo.push(visit);
                true
            }
            _ => false,
        }
    }
}

/// Sends `burst` from `entry` on its way and returns how many frames (a prefix) the source may take back.
pub fn forward(
    routes: &Routes,
    entry: &Entry,
    turn: &mut Turn<'_>,
    burst: &Burst,
    walk: &mut Walk,
    out: &mut impl Outlet,
) -> usize {
    let worker = out.worker();
    let mut taken = burst.len();
    // A pair, if need be across hubs, whose other legs only discard: a prefix may be taken, and what the other legs
    // drop is counted for that prefix only. Behind a filter all frames must go, as a filter sees each of them once.
    let mut partial = false;
    if let (Some((target, node)), false) = (entry.only, entry.filtered) {
        taken = out.deliver(turn, target, routes.lanes(worker, node), burst, burst.all(), false);
        if entry.direct {
            return taken;
        }
        partial = true;
    }
    let Some(plan) = routes.worker(worker) else { return taken };
    walk.begin();
    let mut stage = Stage { routes, plan, worker, burst, walk, partial };
    stage.node(turn, entry.node, Mask::first(taken), 0, out);
    let mut next = 0;
    while let Some(&Visit { hub, except, crossed, mask }) = stage.walk.todo.get(next) {
        next += 1;
        let Some(&Legs { first, count }) = plan.hubs.get(hub as usize) else { continue };
        for leg in (first..first + count).filter(|leg| *leg != except) {
            stage.node(turn, leg, mask, crossed, out);
        }
    }
    taken
}

/// What a walk needs at every node.
struct Stage<'a> {
    routes: &'a Routes,
    plan: &'a WorkerPlan,
    worker: usize,
    burst: &'a Burst,
    walk: &'a mut Walk,
    partial: bool,
}

impl Stage<'_> {
    fn node(&mut self, turn: &mut Turn<'_>, at: u32, mut mask: Mask, crossed: u32, out: &mut impl Outlet) {
        let Some(node) = self.plan.nodes.get(at as usize) else { return };
        for s in node.step..node.step + node.steps {
            if let (Some(step), false) = (self.plan.steps.get(s as usize), mask.is_empty()) {
                mask = out.filter(turn, *step, self.burst, mask);
            }
        }
        if mask.is_empty() {
            return;
        }
        let lanes = self.routes.lanes(self.worker, at);
        match node.hop {
            Hop::Port(_) if self.partial => {}
            Hop::Port(target) => {
                out.deliver(turn, target, lanes, self.burst, mask, true);
            }
            Hop::Hub { hub, except } => {
                if !self.walk.enter(Visit { hub, except, crossed: crossed + 1, mask }) {
                    self.discard(lanes, DropReason::Loop, mask);
                }
            }
            Hop::Discard(why) => self.discard(lanes, why.into(), mask),
        }
    }

    fn discard(&self, lanes: Option<&Lanes>, reason: DropReason, mask: Mask) {
        if let Some(lanes) = lanes {
            lanes.count_drop(self.worker, reason, mask.count() as u64);
        }
    }
}
