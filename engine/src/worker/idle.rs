//! Poll, then rest: how an idle worker backs off, and whom it wakes.

use crate::uring::Waker;
use std::sync::Arc;

/// What an idle worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Idle {
    /// Polls for a while, pauses, then sleeps on its files and its waker.
    #[default]
    Adaptive,
    /// Never sleeps.
    Poll,
}

/// How long an idle worker keeps polling before it sleeps, in nanoseconds. Shorter, and a request whose answer
/// comes from another process finds the worker asleep (a wake-up costs 20 to 40 us on a virtual machine); longer, and
/// a lightly loaded engine burns its core.
pub const POLL_FOR: u64 = 50_000;

/// Empty turns after which an idle worker puts a pause instruction into each.
pub const PAUSE_AFTER: u32 = 64;

/// The wakers of all workers, for those that put work on a link.
///
/// A producer pushes and nudges; a worker announces sleep, then looks at its links once more. One of them sees the
/// other (see [`Waker`]), so no burst waits for a sleeper.
#[derive(Debug, Clone)]
pub struct Wakers(Arc<Vec<Arc<Waker>>>);

impl Wakers {
    /// By worker.
    #[must_use]
    pub fn new(wakers: Vec<Arc<Waker>>) -> Self {
        Self(Arc::new(wakers))
    }

    /// Wakes `worker` if it sleeps; called after a push to one of its links.
    pub fn nudge(&self, worker: usize) {
        if let Some(waker) = self.0.get(worker) {
            waker.nudge();
        }
    }
}
