//! The plan together with the counters that its ends need: what control publishes.

use super::state::State;
use super::walk::Extent;
use crate::port::lanes::Lanes;
use crate::topology::model::ClientId;
use crate::topology::plan::{Entry, Hop, MAX_HUBS, Node, Plan, WorkerPlan};
use std::collections::HashMap;
use std::sync::Arc;

/// What all workers read. Immutable once published.
#[derive(Debug, Default)]
pub struct Routes {
    plan: Plan,
    /// By worker and node: whose lanes count what is dropped or sent there (discards and targets).
    lanes: Vec<Vec<Option<Arc<Lanes>>>>,
    /// By switch: what it has learned.
    switches: Vec<Arc<State>>,
}

/// What nodes can refer to.
#[derive(Debug, Default, Clone)]
pub struct LaneTable {
    /// By client, for discards.
    pub clients: HashMap<ClientId, Arc<Lanes>>,
    /// By queue, for targets.
    pub queues: HashMap<u64, Arc<Lanes>>,
    /// By number, for switches.
    pub switches: HashMap<i32, Arc<State>>,
}

impl Routes {
    /// Binds `plan` to its counters.
    #[must_use]
    pub fn new(plan: Plan, table: &LaneTable) -> Self {
        let bind = |node: &Node| match node.hop {
            Hop::Port(target) => table.queues.get(&target.queue).cloned(),
            Hop::Hub { .. } | Hop::Switch { .. } | Hop::Discard(_) => {
                table.clients.get(&node.client).cloned()
            }
        };
        let lanes = plan.workers.iter().map(|w| w.nodes.iter().map(bind).collect()).collect();
        let switches = plan.workers.first().map_or(&[][..], |w| &w.switches);
        let switches = switches.iter().filter_map(|s| table.switches.get(&s.number).cloned()).collect();
        Self { plan, lanes, switches }
    }

    /// The part of worker `index`.
    #[must_use]
    pub fn worker(&self, index: usize) -> Option<&WorkerPlan> {
        self.plan.workers.get(index)
    }

    /// Where frames of the queue in `slot` start, if that is still the queue called `queue`.
    #[must_use]
    pub fn entry(&self, worker: usize, slot: usize, queue: u64) -> Option<Entry> {
        let entry = self.worker(worker)?.sources.get(slot)?.as_ref()?;
        (entry.queue == queue).then_some(*entry)
    }

    /// Where frames start that the filter in `slot` puts in, on toward its netdev or from it.
    #[must_use]
    pub fn inject(&self, worker: usize, slot: usize, toward: bool) -> Option<Entry> {
        let inject = self.worker(worker)?.injects.get(slot)?.as_ref()?;
        Some(if toward { inject.rx } else { inject.tx })
    }

    /// The lanes at a node.
    #[must_use]
    pub fn lanes(&self, worker: usize, node: u32) -> Option<&Lanes> {
        self.lanes.get(worker)?.get(node as usize)?.as_deref()
    }

    /// What the switch of that index has learned.
    #[inline]
    #[must_use]
    pub fn switch(&self, index: u32) -> Option<&State> {
        self.switches.get(index as usize).map(|state| &**state)
    }

    /// All switches, in the order of the plan.
    #[must_use]
    pub fn switches(&self) -> &[Arc<State>] {
        &self.switches
    }

    /// What a walk's scratch must hold.
    #[must_use]
    pub fn extent(&self) -> Extent {
        let Some(plan) = self.plan.workers.first() else { return Extent::default() };
        Extent {
            places: plan.hubs.len() + plan.switches.len(),
            levels: plan.switches.len().min(MAX_HUBS as usize),
            ports: plan.switches.iter().map(|s| s.ports.len()).max().unwrap_or(0),
        }
    }
}
