//! What control hands to a worker, and gets back: queues and filters move by value.

use crate::filter::Filter;
use crate::port::Queue;
use crate::port::backlog::Backlog;
use crate::port::lanes::Lanes;
use crate::switch::Walk;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;

/// Changes under way to or from a worker at most.
const DEPTH: usize = 64;

/// What comes with one generation of the plan. It travels back with everything that was removed, so that nothing is
/// freed on the worker.
#[derive(Default)]
pub struct Change {
    /// The generation that it belongs to.
    pub generation: u64,
    /// Queues to take over, with their slots. Emptied by the worker.
    pub attach: Vec<Attach>,
    /// Slots of queues to stop and hand back.
    pub detach: Vec<u32>,
    /// Backlogs of another size for queues that stay; the old ones travel back in their place.
    pub backlogs: Vec<(u32, Backlog)>,
    /// Filters to take over, with their slots. Emptied by the worker.
    pub add_filters: Vec<(u32, Box<dyn Filter>)>,
    /// Slots of filters to hand back.
    pub remove_filters: Vec<u32>,
    /// Scratch for walks over the plan, where it needs more than before.
    pub walk: Walk,
    /// Queues that were stopped (room reserved by control).
    pub stopped: Vec<Attach>,
    /// Filters that were removed (room reserved by control).
    pub removed: Vec<Box<dyn Filter>>,
}

/// A queue for a worker.
pub struct Attach {
    /// Its slot in the worker's tables.
    pub slot: u32,
    /// The queue.
    pub queue: Queue,
    /// Its words between workers.
    pub lanes: Arc<Lanes>,
    /// Where frames wait for it.
    pub backlog: Backlog,
    /// Scratch: what it owes to the lane of each worker.
    pub owed: Box<[u64]>,
}

/// The two ways between control and one worker.
#[derive(Clone)]
pub struct Mail {
    /// Control to worker.
    pub inbox: Arc<ArrayQueue<Box<Change>>>,
    /// Worker to control.
    pub outbox: Arc<ArrayQueue<Box<Change>>>,
}

impl Default for Mail {
    fn default() -> Self {
        Self { inbox: Arc::new(ArrayQueue::new(DEPTH)), outbox: Arc::new(ArrayQueue::new(DEPTH)) }
    }
}
