//! What goes back to the front-end.

use super::message::{Message, answer};
use std::os::fd::OwnedFd;

/// An answer, ready to be sent: all of `bytes`, with the file (if there is one) on the first of them.
#[derive(Debug)]
pub struct Reply {
    /// Header and payload.
    pub bytes: Vec<u8>,
    /// A file to pass.
    pub fd: Option<OwnedFd>,
}

impl Reply {
    /// The answer to a message.
    pub(super) fn new(to: &Message, payload: &[u8]) -> Self {
        Self { bytes: answer(to.request, payload), fd: None }
    }

    /// A number for an answer.
    pub(super) fn number(to: &Message, number: u64) -> Self {
        Self::new(to, &number.to_ne_bytes())
    }
}
