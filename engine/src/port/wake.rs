//! How queues wake the worker that serves them.

/// How a worker learns that a queue has frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Look at it every turn (memory rings).
    Polled,
    /// [`crate::uring::FdIo`] says which files have completions.
    File(crate::uring::FileId),
}

/// What keeps a worker that is about to sleep from it, as one of its queues sees it; the most wakeful is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doze {
    /// The outside will wake the worker.
    Sleep,
    /// Nobody will: the worker must look again after a while.
    Nap,
    /// Something has come: stay awake.
    Stay,
}
