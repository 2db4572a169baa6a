//! The `vhost-user` netdev: the driver's side of a virtio-net device that another program (OVS, DPDK, VPP, passt, another netdevd)
//! runs. Rings and buffers lie in memory of our own, which is shared with that program and holds nothing else.
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

pub use super::report::Report;
pub use open::{Halves, OpenError, Opened, open};
pub use options::{Agreed, WANTED, choose};

#[cfg(test)]
mod tests;
