//! Why a connection ended: a worker's word to control.

use super::options::LONGEST;
use nix::errno::Errno;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The peer closed it.
    #[error("the peer has closed the connection")]
    Closed,
    /// The peer announced a frame that can be none: what follows makes no sense.
    #[error("the peer announced a frame of more than {LONGEST} bytes")]
    TooLong,
    /// The kernel gave it up.
    #[error("{}", .0.desc())]
    Failed(Errno),
}

impl End {
    /// Not an errno, which are positive.
    const CLOSED: i32 = -1;
    const TOO_LONG: i32 = -2;

    const fn code(self) -> i32 {
        match self {
            Self::Closed => Self::CLOSED,
            Self::TooLong => Self::TOO_LONG,
            Self::Failed(errno) => errno as i32,
        }
    }
}

/// What control learns of a connection that a worker serves.
#[derive(Debug)]
pub struct Report {
    /// 0 while it stands.
    code: AtomicI32,
    /// An eventfd that is written to at the end.
    wake: Arc<OwnedFd>,
}

impl Report {
    pub(super) fn new(wake: &Arc<OwnedFd>) -> Self {
        Self { code: AtomicI32::new(0), wake: wake.clone() }
    }

    /// Why the connection ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        match self.code.load(Ordering::Acquire) {
            0 => None,
            End::CLOSED => Some(End::Closed),
            End::TOO_LONG => Some(End::TooLong),
            errno => Some(End::Failed(Errno::from_raw(errno))),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.code.load(Ordering::Relaxed) != 0
    }

    /// Tells why it ended, once. The receiving half does.
    pub fn tell(&self, end: End) {
        if !self.has_ended() {
            self.code.store(end.code(), Ordering::Release);
            // Ours alone, and non-blocking: one that is full has told already.
            let _ = nix::unistd::write(&*self.wake, &1u64.to_ne_bytes());
        }
    }
}
