//! Poll, then rest: how an idle worker backs off, and whom it wakes.

use super::link::Links;
use crate::uring::Waker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

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

/// Who sleeps, for those that put work on a link.
///
/// A producer pushes, fences, and reads the flag; a worker sets the flag, fences, and looks at its links once more. One
/// of them sees the other (Dekker), so no burst waits for a sleeper.
#[derive(Debug, Clone)]
pub struct Sleepers(Arc<Vec<(AtomicBool, Arc<Waker>)>>);

impl Sleepers {
    /// All awake.
    #[must_use]
    pub fn new(wakers: Vec<Arc<Waker>>) -> Self {
        Self(Arc::new(wakers.into_iter().map(|w| (AtomicBool::new(false), w)).collect()))
    }

    /// Announces that `worker` goes to sleep; true when nothing waits for it on a link.
    #[must_use]
    pub fn announce(&self, worker: usize, links: &Links) -> bool {
        let Some((flag, _)) = self.0.get(worker) else { return false };
        flag.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        if links.waiting(worker) {
            flag.store(false, Ordering::Release);
            return false;
        }
        true
    }

    /// `worker` is awake.
    pub fn awake(&self, worker: usize) {
        if let Some((flag, _)) = self.0.get(worker) {
            flag.store(false, Ordering::Release);
        }
    }

    /// Wakes `worker` if it sleeps; called after a push to one of its links.
    pub fn wake(&self, worker: usize) {
        fence(Ordering::SeqCst);
        if let Some((flag, waker)) = self.0.get(worker)
            && flag.swap(false, Ordering::AcqRel)
        {
            waker.wake();
        }
    }
}
