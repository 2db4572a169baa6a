//! Starting the process: the slow path, off the workers.

use super::header::Header;
use super::options::UserOptions;
use super::process::Process;
use crate::backend::datagram::open::pair;
use crate::backend::pair::QueuePair;
use crate::mem::arena::{Arena, ArenaError};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a process was not started.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No sockets to it.
    #[error("user: no sockets to netdevd-user: {}", .0.desc())]
    Sockets(#[from] Errno),
    /// It cannot be run.
    #[error("user: '{}' cannot be run: {}", .program.display(), .errno.desc())]
    Program {
        /// The program.
        program: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// No memory for receive buffers.
    #[error(transparent)]
    Memory(#[from] ArenaError),
}

/// A process that knows nothing of its network yet.
pub struct Opened {
    /// Its frames.
    pub queue: QueuePair,
    /// The process; it ends with this.
    pub process: Process,
    /// Our end of its control socket; it ends when this closes, too.
    pub control: OwnedFd,
}

/// Starts a process.
///
/// # Errors
/// [`UserError`]; nothing is left behind.
pub fn open(options: &UserOptions, arena: &Arc<Arena>) -> Result<Opened, UserError> {
    let two = || socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    let (frames, control) = (two()?, two()?);
    let queue = pair(frames.0, None, &Header::default(), arena)?;
    let process = Process::start(&options.program, &frames.1, &control.1)
        .map_err(|errno| UserError::Program { program: options.program.clone(), errno })?;
    Ok(Opened { queue, process, control: control.0 })
}
