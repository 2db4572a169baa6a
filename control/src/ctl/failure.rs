//! What ends netdevctl without success, and with which exit status.

use std::io;

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The words on the command line make no sense.
    #[error("{0}")]
    Usage(String),
    /// No connection, or it ended, or the other side does not speak QMP.
    #[error("{0}")]
    Connection(String),
    /// The daemon's error reply.
    #[error("{class}: {desc}")]
    Daemon {
        /// Its class.
        class: String,
        /// Its description.
        desc: String,
    },
    /// Standard output cannot be written.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The exit status: 1 for the daemon's error, 2 for usage and connections. A reader of our output that has seen
    /// enough (`| head`) is no failure.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Daemon { .. } => 1,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Usage(_) | Self::Connection(_) | Self::Output(_) => 2,
        }
    }
}
