//! The plan together with the counters that its ends need: what control publishes.

use crate::port::lanes::Lanes;
use crate::topology::model::ClientId;
use crate::topology::plan::{Entry, Hop, Node, Plan, WorkerPlan};
use std::collections::HashMap;
use std::sync::Arc;

/// What all workers read. Immutable once published.
#[derive(Debug, Default)]
pub struct Routes {
    plan: Plan,
    /// By worker and node: whose lanes count what is dropped or sent there (discards and targets).
    lanes: Vec<Vec<Option<Arc<Lanes>>>>,
}

/// The lanes that nodes can refer to.
#[derive(Debug, Default, Clone)]
pub struct LaneTable {
    /// By client, for discards.
    pub clients: HashMap<ClientId, Arc<Lanes>>,
    /// By queue, for targets.
    pub queues: HashMap<u64, Arc<Lanes>>,
}

impl Routes {
    /// Binds `plan` to its counters.
    #[must_use]
    pub fn new(plan: Plan, table: &LaneTable) -> Self {
        let bind = |node: &Node| match node.hop {
            Hop::Port(target) => table.queues.get(&target.queue).cloned(),
            Hop::Hub { .. } | Hop::Discard(_) => table.clients.get(&node.client).cloned(),
        };
        let lanes = plan.workers.iter().map(|w| w.nodes.iter().map(bind).collect()).collect();
        Self { plan, lanes }
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

    /// The lanes at a node.
    #[must_use]
    pub fn lanes(&self, worker: usize, node: u32) -> Option<&Lanes> {
        self.lanes.get(worker)?.get(node as usize)?.as_deref()
    }

    /// Hubs of the plan (what a walk's scratch must hold).
    #[must_use]
    pub fn hubs(&self) -> usize {
        self.plan.workers.first().map_or(0, |w| w.hubs.len())
    }
}
