//! Makes frames fit their receiver, just before tx: completes checksums, segments large frames, and coalesces small
//! ones toward a receiver that is better off with large ones.
//!
//! ```text
//!  burst, mask, caps --> fits? ----------------------------------> sink(burst, mask)     nothing to do
//!                          |
//!                          +-> coalesce: runs of a flow -> one ---+
//!                          +-> complete: checksum ---------------+--> sink(out, all)      as often as `out` fills
//!                          +-> segment:  one -> many ------------+
//! ```
//!
//! Payload is never copied. A frame that changes gets a head in the arena of [`Offload`], which stays valid until
//! [`Offload::reset`]; its payload stays where it was lent. Headers are decided on and sent from that copy, never read
//! twice from memory that a guest may write.

mod adapt;
mod coalesce;
mod complete;
mod flow;
mod heads;
mod out;
mod pieces;
mod search;
mod segment;
#[cfg(test)]
mod testing;

pub use adapt::{Adapted, Offload};
pub use search::Search;

/// The virtio-net header asks for what cannot be done, or contradicts the frame's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the virtio-net header asks for what cannot be done with this frame")]
struct BadOffload;
