//! The `nic`: a virtio-net device that a guest drives. Its rings lie in the guest's memory; a vhost-user session says where.
//!
//! What the guest transmits is lent where it lies in the guest's memory; what it receives is copied once, into its buffers.

pub(super) mod copy;
mod open;
mod options;
mod rx;
mod tx;

pub use open::{Halves, Shared, pair};
pub use options::{Features, NetFeatures};

#[cfg(test)]
mod tests;
