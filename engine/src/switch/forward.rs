//! The walk of a burst over its source's nodes.

use super::cross::{Level, cross};
use super::routes::Routes;
use super::walk::{Marks, Visit, Walk, Way};
use crate::burst::{Burst, Head, Mask, Seg};
use crate::port::Turn;
use crate::port::counters::DropReason;
use crate::port::lanes::Lanes;
use crate::topology::plan::{Discard, Entry, FilterStep, Hop, Legs, Target, WorkerPlan};

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

    /// Offers the selected frames to a port behind a switch and returns those that it has no room for; with `last` these are dropped as
    /// `tx-full`.
    fn offer(
        &mut self,
        turn: &mut Turn<'_>,
        to: Target,
        lanes: Option<&Lanes>,
        burst: &Burst,
        mask: Mask,
        last: bool,
    ) -> Mask;

    /// Offers the selected frames to a port as they came, but for their first bytes, which are those of `heads`, by place. Returns those that it
    /// has no room for; none, with nothing done, where the port takes frames only as [`Outlet::offer`] gives them.
    fn offer_headed(
        &mut self,
        _turn: &mut Turn<'_>,
        _to: Target,
        _burst: &Burst,
        _mask: Mask,
        _heads: &[Head],
    ) -> Option<Mask> {
        None
    }

    /// Lends these bytes, first ones of frames as the walk decided on them, until the turn's submission; nothing when there is no room.
    fn heads(&mut self, bytes: &[u8]) -> Option<Seg>;

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
    let Walk { marks, levels, .. } = walk;
    marks.begin();
    let stage = Stage { routes, plan, worker, partial };
    stage.node(marks, turn, (entry.node, 0, false), burst, Mask::first(taken), out);
    stage.visits(marks, turn, burst, 0, levels, out);
    taken
}

/// What a walk needs at every node.
pub(super) struct Stage<'a> {
    pub(super) routes: &'a Routes,
    pub(super) plan: &'a WorkerPlan,
    pub(super) worker: usize,
    partial: bool,
}

impl Stage<'_> {
    /// Takes frames through the node `at`, which is reached after so many hubs and switches, behind a switch or not. Returns what a port
    /// behind a switch has no room for.
    #[inline]
    pub(super) fn node(
        &self,
        marks: &mut Marks,
        turn: &mut Turn<'_>,
        (at, crossed, switched): (u32, u32, bool),
        burst: &Burst,
        mut mask: Mask,
        out: &mut impl Outlet,
    ) -> Mask {
        let Some(node) = self.plan.nodes.get(at as usize) else { return Mask::NONE };
        for s in node.step..node.step + node.steps {
            if let (Some(step), false) = (self.plan.steps.get(s as usize), mask.is_empty()) {
                mask = out.filter(turn, *step, burst, mask);
            }
        }
        if mask.is_empty() {
            return Mask::NONE;
        }
        let hubs = self.plan.hubs.len();
        let (place, way) = match node.hop {
            Hop::Port(target) => {
                let lanes = self.routes.lanes(self.worker, at);
                if switched {
                    return out.offer(turn, target, lanes, burst, mask, false);
                }
                if !self.partial {
                    out.deliver(turn, target, lanes, burst, mask, true);
                }
                return Mask::NONE;
            }
            Hop::Discard(why) => {
                self.discard(at, why.into(), mask);
                return Mask::NONE;
            }
            Hop::Hub { hub, except } => (hub as usize, Way::Hub { hub, except }),
            Hop::Switch { switch, port } => (hubs + switch as usize, Way::Switch { switch, port }),
        };
        let been = marks.enter(place, Visit { way, at, crossed: crossed + 1, mask });
        self.discard(at, DropReason::Loop, been);
        Mask::NONE
    }

    /// Makes the visits noted from `from` on, and those that they lead to.
    pub(super) fn visits(
        &self,
        marks: &mut Marks,
        turn: &mut Turn<'_>,
        burst: &Burst,
        from: usize,
        levels: &mut [Level],
        out: &mut impl Outlet,
    ) {
        let mut next = from;
        while let Some(visit) = marks.visit(next) {
            next += 1;
            match visit.way {
                Way::Hub { hub, except } => {
                    let Some(&Legs { first, count }) = self.plan.hubs.get(hub as usize) else { continue };
                    for leg in (first..first + count).filter(|leg| *leg != except) {
                        self.node(marks, turn, (leg, visit.crossed, false), burst, visit.mask, out);
                    }
                }
                Way::Switch { switch, port } => match levels.split_first_mut() {
                    Some((level, deeper)) => {
                        cross(self, marks, turn, burst, (switch, port), visit, level, deeper, out);
                    }
                    None => self.discard(visit.at, DropReason::Loop, visit.mask),
                },
            }
        }
        marks.forget(from);
    }

    /// Offers frames from a switch as they came, with their first bytes beside them, where the node `at` leads straight to a port that takes
    /// them so; nothing where it does not.
    #[inline]
    pub(super) fn direct(
        &self,
        turn: &mut Turn<'_>,
        at: u32,
        burst: &Burst,
        mask: Mask,
        heads: &[Head],
        out: &mut impl Outlet,
    ) -> Option<Mask> {
        let node = self.plan.nodes.get(at as usize)?;
        match node.hop {
            Hop::Port(target) if node.steps == 0 => out.offer_headed(turn, target, burst, mask, heads),
            _ => None,
        }
    }

    /// The last try for frames that a port behind a switch had no room for.
    pub(super) fn last(
        &self,
        turn: &mut Turn<'_>,
        at: u32,
        burst: &Burst,
        mask: Mask,
        out: &mut impl Outlet,
    ) {
        if let Some(Hop::Port(target)) = self.plan.nodes.get(at as usize).map(|node| node.hop) {
            out.offer(turn, target, self.routes.lanes(self.worker, at), burst, mask, true);
        }
    }

    /// Drops frames by name, charged to whom the node `at` leads to.
    #[inline]
    pub(super) fn discard(&self, at: u32, reason: DropReason, mask: Mask) {
        if !mask.is_empty()
            && let Some(lanes) = self.routes.lanes(self.worker, at)
        {
            lanes.count_drop(self.worker, reason, mask.count() as u64);
        }
    }
}
