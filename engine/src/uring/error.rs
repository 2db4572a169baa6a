//! How file I/O is done, and why it is refused.

use super::buffers::Buffers;
use nix::errno::Errno;

/// How a worker talks to its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoMode {
    /// io_uring: multishot reads into provided buffers, a turn's writes in one `io_uring_enter`.
    Uring,
    /// Plain non-blocking `read` and `writev`, readiness by epoll.
    Batched,
}

impl IoMode {
    /// The name that `query-netdev` shows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Batched => "batched",
        }
    }
}

/// Why a file could not be registered, or file I/O not be set up.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// The kernel refused something that every mode needs.
    #[error("cannot set up file I/O: {what}: {errno}")]
    Setup {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// io_uring was asked for by name and is not to be had.
    #[error("io_uring is not usable: {0}")]
    NoUring(String),
    /// The kernel refused to watch a file.
    #[error("cannot watch file descriptor {fd}: {errno}")]
    Watch {
        /// The file.
        fd: i32,
        /// The kernel's answer.
        errno: Errno,
    },
    /// More files than a worker can name.
    #[error("a worker cannot have more than {0} files")]
    TooMany(usize),
}

impl IoError {
    /// The errno behind it.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Setup { errno, .. } | Self::Watch { errno, .. } => *errno,
            Self::NoUring(_) => Errno::ENOSYS,
            Self::TooMany(_) => Errno::EMFILE,
        }
    }
}

/// Why a file could not be registered; its buffers come back.
#[derive(Debug)]
pub struct Refused {
    /// The reason.
    pub error: IoError,
    /// The buffers that were to receive.
    pub buffers: Option<Buffers>,
}
