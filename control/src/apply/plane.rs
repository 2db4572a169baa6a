//! What control needs of the engine, so that it can be tested without one.

use engine::port::{Queue, QueueId};
use engine::topology::model::{FilterId, Topology};
use std::any::Any;

/// One instance of a filter for each worker.
pub type Instances = Vec<Box<dyn Any + Send>>;

/// New queues and filters that come into force with a topology.
#[derive(Default)]
pub struct Attach {
    /// Each with the worker that will own it.
    pub queues: Vec<(usize, Queue)>,
    /// Each with its instances.
    pub filters: Vec<(FilterId, Instances)>,
}

/// What a commit took out of force. Dropping it closes files and may wait for the kernel: not on the control thread.
pub type Retired = Box<dyn Any + Send>;

/// The running engine.
pub trait DataPlane {
    /// Number of workers.
    fn workers(&self) -> usize;

    /// The worker for the next queue.
    fn place(&mut self) -> usize;

    /// A name for the next queue, never used before.
    fn queue_id(&mut self) -> QueueId;

    /// Puts a topology in force on all workers before it returns.
    ///
    /// # Errors
    /// In words for the user; nothing has changed then.
    fn commit(&mut self, topology: Topology, attach: Attach) -> Result<Retired, String>;

    /// The counters now.
    fn stats(&self) -> Stats;
}

/// All counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Ticks of the time stamp counter in a second.
    pub tsc_hz: u64,
    /// One entry a worker.
    pub workers: Vec<WorkerStats>,
    /// One entry a queue.
    pub ports: Vec<PortStats>,
}

/// Counters of one worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Its number.
    pub worker: usize,
    /// The core it is pinned to.
    pub core: usize,
    /// Rounds over its queues.
    pub turns: u64,
    /// Frames it moved.
    pub frames: u64,
    /// Ticks: busy, empty, back-pressured, housekeeping.
    pub ticks: [u64; 4],
}

/// Counters of one queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortStats {
    /// The queue's name for life.
    pub queue: u64,
    /// Frames that entered here.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames that left here.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames dropped, in the order of `DropReason::ALL`.
    pub drops: Vec<u64>,
}
