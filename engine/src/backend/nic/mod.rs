//! The `nic`: a virtio-net device that a guest drives. Its rings lie in the guest's memory; a vhost-user session says where.
//!
//! What the guest transmits is lent where it lies in the guest's memory; what it receives is copied once, into its buffers, if its
//! filter takes it.
//!
//! ```text
//!  control queue -> ControlQueue -> Command -> Asked (a value)      control thread
//!                                                |
//!                                            Published              words, one writer
//!                                                |
//!                                        SelectiveTx, NicTx          workers
//! ```
//!
//! RSS and hash reports are not offered: a worker gives frames to the receive ring that it runs itself, so a hash of the guest's choice
//! would send each frame over a link to another worker, for a spread that the plan has made already.

mod asked;
mod command;
mod control;
mod filter;
mod later;
mod open;
mod options;
mod published;
mod put;
mod rx;
mod selective;
mod tx;

pub use asked::{Asked, Outcome};
pub use command::Command;
pub use control::ControlQueue;
pub use filter::{Mac, MacTable, Mode, RxFilter};
pub use open::{Halves, Shared, pair};
pub use options::{Features, NetFeatures};
pub use published::Published;

#[cfg(test)]
mod tests;
