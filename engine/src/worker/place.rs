//! Which core a worker runs on, by what name it is seen, and which worker gets the next queue.

use core_affinity::CoreId;

/// Cores that this process may use (its affinity mask).
#[must_use]
pub fn allowed() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|c| c.id).collect()
}

/// Pins the calling thread. False when the kernel refuses.
#[must_use]
pub fn pin(core: usize) -> bool {
    // core_affinity panics on ids that no mask can hold.
    core < 1024 && core_affinity::set_for_current(CoreId { id: core })
}

/// Counts queues a worker and names the least loaded.
#[derive(Debug)]
pub struct Load(Vec<usize>);

impl Load {
    /// No queue on any of `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self(vec![0; workers])
    }

    /// The worker with the fewest queues; counts one more for it.
    pub fn place(&mut self) -> usize {
        let least = (0..self.0.len()).min_by_key(|&w| self.0[w]).unwrap_or(0);
        self.add(least);
        least
    }

    /// Counts one more queue.
    pub fn add(&mut self, worker: usize) {
        if let Some(n) = self.0.get_mut(worker) {
            *n += 1;
        }
    }

    /// Counts one queue less.
    pub fn remove(&mut self, worker: usize) {
        if let Some(n) = self.0.get_mut(worker) {
            *n = n.saturating_sub(1);
        }
    }
}
