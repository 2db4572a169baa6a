//! What control needs of the engine, so that it can be tested without one.

use engine::port::QueueId;
use engine::topology::model::Topology;
use engine::uring::IoMode;
use engine::{Attachments, Engine, Retired, Stats, SwitchStats};

/// The running engine.
pub trait DataPlane {
    /// Number of workers.
    fn workers(&self) -> usize;

    /// The worker for the next queue.
    fn place(&mut self) -> usize;

    /// Gives up a place that was not used.
    fn unplace(&mut self, worker: usize);

    /// Makes a worker look at its queues soon.
    fn wake(&self, worker: usize);

    /// A name for the next queue, never used before.
    fn queue_id(&mut self) -> QueueId;

    /// Puts a topology in force on all workers before it returns. What it retired closes when it is dropped, which
    /// may wait for the kernel: not on the control thread.
    ///
    /// # Errors
    /// In words for the user.
    fn commit(&mut self, topology: &Topology, attach: Attachments) -> Result<Retired, String>;

    /// The counters now.
    fn stats(&self) -> Stats;

    /// The switches now, lowest number first.
    fn switches(&self) -> Vec<SwitchStats>;

    /// Nanoseconds since the engine started; captured frames are stamped by them.
    fn now(&self) -> u64;

    /// Whether idle workers poll and never sleep.
    fn polls(&self) -> bool;

    /// How a worker moves frames of files.
    fn io_mode(&self, worker: usize) -> Option<IoMode>;
}

impl DataPlane for Engine {
    fn workers(&self) -> usize {
        Self::workers(self)
    }

    fn place(&mut self) -> usize {
        Self::place(self)
    }

    fn unplace(&mut self, worker: usize) {
        Self::unplace(self, worker);
    }

    fn wake(&self, worker: usize) {
        Self::wake(self, worker);
    }

    fn queue_id(&mut self) -> QueueId {
        Self::queue_id(self)
    }

    fn commit(&mut self, topology: &Topology, attach: Attachments) -> Result<Retired, String> {
        Self::commit(self, topology, attach).map_err(|e| e.to_string())
    }

    fn stats(&self) -> Stats {
        Self::stats(self)
    }

    fn switches(&self) -> Vec<SwitchStats> {
        Self::switches(self)
    }

    fn now(&self) -> u64 {
        Self::now(self)
    }

    fn polls(&self) -> bool {
        Self::polls(self)
    }

    fn io_mode(&self, worker: usize) -> Option<IoMode> {
        Self::io_mode(self, worker).copied()
    }
}
