//! The walk of a burst over its source's nodes.

use super::routes::Routes;
use crate::burst::{Burst, Mask};
use crate::port::Turn;
use crate::port::counters::DropReason;
use crate::port::lanes::Lanes;
use crate::topology::plan::{Discard, Entry, FilterStep, Hop, Target};

/// Where the walk hands frames over; the worker is one.
pub trait Outlet {
    /// Gives the selected frames to a port. With `leg`, or behind a filter, all of them are disposed of (sent, kept in
    /// the leg's backlog, or dropped by name); else a prefix is taken and its length returned.
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

/// Sends `burst` from `entry` on its way and returns how many frames (a prefix) the source may take back.
///
/// `masks` is scratch with a place for every node of the worker's plan.
pub fn forward(
    routes: &Routes,
    entry: &Entry,
    turn: &mut Turn<'_>,
    burst: &Burst,
    masks: &mut [Mask],
    out: &mut impl Outlet,
) -> usize {
    let worker = out.worker();
    if let (Some((target, node)), true) = (entry.only, entry.direct) {
        return out.deliver(turn, target, routes.lanes(worker, node), burst, burst.all(), false);
    }
    let Some(plan) = routes.worker(worker) else { return burst.len() };
    // A pair across a hub has discarding legs or none beside its one port: unfiltered, a prefix may still be taken,
    // and what the other legs drop is counted for that prefix only.
    let partial = entry.only.is_some() && !entry.filtered;
    let mut taken = burst.len();
    if partial && let Some((target, node)) = entry.only {
        taken = out.deliver(turn, target, routes.lanes(worker, node), burst, burst.all(), false);
    }
    let range = entry.node as usize..entry.end as usize;
    let (Some(nodes), Some(masks)) = (plan.nodes.get(range.clone()), masks.get_mut(range)) else {
        return burst.len();
    };
    let Some(first) = masks.first_mut() else { return burst.len() };
    *first = Mask::first(taken);
    for (i, node) in nodes.iter().enumerate() {
        let mut mask = masks.get(i).copied().unwrap_or_default();
        for s in node.step..node.step + node.steps {
            if let (Some(step), false) = (plan.steps.get(s as usize), mask.is_empty()) {
                mask = out.filter(turn, *step, burst, mask);
            }
        }
        match node.hop {
            Hop::Flood { first, count } => {
                let first = (first - entry.node) as usize;
                if let Some(children) = masks.get_mut(first..first + count as usize) {
                    children.fill(mask);
                }
            }
            Hop::Port(_) if partial || mask.is_empty() => {}
            Hop::Port(target) => {
                let lanes = routes.lanes(worker, entry.node + i as u32);
                out.deliver(turn, target, lanes, burst, mask, true);
            }
            Hop::Discard { why, .. } if !mask.is_empty() => {
                if let Some(lanes) = routes.lanes(worker, entry.node + i as u32) {
                    lanes.count_drop(worker, why.into(), mask.count() as u64);
                }
            }
            Hop::Discard { .. } => {}
        }
    }
    taken
}
