//! The driver's side of a virtio-net device that somebody else runs: another program (the `vhost-user` netdev), the kernel's vhost-net
//! (a tap with `vhost=on`) or a vDPA device (`vhost-vdpa`). Rings and buffers lie in memory of our own, which is shared with the
//! device and holds nothing else.
//!
//! ```text
//!  region = per queue pair: receive ring, transmit ring, receive buffers, small and large transmit buffers
//! ```
//!
//! What arrives is lent where the device wrote it, and its buffers go back to the ring afterwards. What leaves is copied once into a
//! transmit buffer, since the device must not see other memory. The device is not trusted: what it says is checked, and a ring that makes
//! no sense stops alone.

mod buffers;
mod open;
mod options;
mod rx;
mod tx;
mod undone;

pub use super::report::Report;
pub(super) use buffers::Buffers;
pub(super) use open::kick;
pub use open::{Halves, Keep, OpenError, Opened, Shape, open};
pub use options::{Agreed, RING, WANTED, choose};

#[cfg(test)]
mod tests;
