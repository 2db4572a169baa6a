//! Why a ring stopped by itself: a worker's word to control.

use crate::virtq::RingFault;
use crossbeam::atomic::AtomicCell;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What control learns of a ring that a worker runs.
#[derive(Debug)]
pub struct Report {
    fault: AtomicCell<Option<RingFault>>,
    /// An eventfd that is written to when there is a fault.
    wake: Arc<OwnedFd>,
}

impl Report {
    pub(super) fn new(wake: &Arc<OwnedFd>) -> Self {
        Self { fault: AtomicCell::new(None), wake: wake.clone() }
    }

    /// Why the ring was stopped for cause.
    #[must_use]
    pub fn fault(&self) -> Option<RingFault> {
        self.fault.load()
    }

    pub(super) fn fail(&self, fault: RingFault) {
        self.fault.store(Some(fault));
        // Ours alone, and non-blocking: one that is full has told already.
        let _ = nix::unistd::write(&*self.wake, &1u64.to_ne_bytes());
    }
}
