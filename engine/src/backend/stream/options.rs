//! The framing, which is the peer's as much as ours: nobody has a choice in it (QEMU `net_fill_rstate`).

use crate::burst::MAX_FRAME;

/// Bytes of the length before each frame.
pub(super) const WORD: usize = 4;

/// The longest frame. One that is announced longer ends the connection, since nobody knows where the next begins.
pub(super) const LONGEST: usize = MAX_FRAME;

/// Bytes of the longest frame with its length.
pub(super) const WHOLE: usize = WORD + LONGEST;
