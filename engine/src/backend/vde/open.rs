//! Joining a switch: the slow path, off the workers.

use super::options::{USUAL, VdeOptions};
use super::plug::{Plug, join};
use crate::backend::datagram::framing::Plain;
use crate::backend::datagram::open::pair;
use crate::backend::pair::QueuePair;
use crate::mem::arena::{Arena, ArenaError};
use nix::errno::Errno;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Why a switch was not joined. What it displays is what QMP shows: QEMU's words in front.
#[derive(Debug, thiserror::Error)]
pub enum VdeError {
    /// The kernel's word on the switch's sockets.
    #[error("Could not open vde: {}", .0.desc())]
    Open(#[from] Errno),
    /// A name of something else.
    #[error("Could not open vde: '{0}' is not a switch, only 'vde' is")]
    Scheme(String),
    /// Something in brackets.
    #[error("Could not open vde: '{0}' makes no sense")]
    Word(String),
    /// No such group.
    #[error("Could not open vde: there is no group '{0}'")]
    Group(String),
    /// The switch hung up: the port is taken, or our socket is out of its reach.
    #[error("Could not open vde: the switch refuses the port")]
    Refused,
    /// The switch says nothing, as it does when asked for a port that it has not.
    #[error("Could not open vde: the switch does not answer")]
    Silent,
    /// No memory for receive buffers.
    #[error(transparent)]
    Memory(#[from] ArenaError),
}

/// A port of a switch.
pub struct Opened {
    /// Its frames.
    pub queue: QueuePair,
    /// The stream that the port was asked for on: it ends when the switch goes, and the port goes when it is closed.
    pub plug: OwnedFd,
}

/// Joins a switch. Blocks for some seconds where the switch does not answer: control calls it off its own thread.
///
/// # Errors
/// [`VdeError`]; nothing stays open, and no file stays behind.
pub fn open(options: &VdeOptions, arena: &Arc<Arena>) -> Result<Opened, VdeError> {
    let options = options.plain()?;
    let [first, second] = USUAL;
    let Plug { data, control } = match options.sock.as_str() {
        "" => join(first, &options).or_else(|_| join(second, &options))?,
        directory => join(directory, &options)?,
    };
    Ok(Opened { queue: pair(data, None, &Plain, arena)?, plug: control })
}
