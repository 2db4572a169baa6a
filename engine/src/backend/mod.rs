//! One folder a netdev type, the same files in each: `options.rs` (what the user may say), `open.rs` (the slow path: files,
//! ioctls, memory), `rx.rs` and `tx.rs` (the two halves that a worker drives). What
//! several of them have in common lies beside the folders.

mod account;
pub mod af_xdp;
pub mod child;
mod copy;
pub mod datagram;
pub mod driver;
mod errno;
pub mod l2tpv3;
pub mod netmap;
pub mod nic;
mod pair;
mod registered;
mod report;
mod resolve;
mod signal;
pub mod stream;
mod tally;
pub mod tap;
pub mod user;
pub mod vde;
pub mod vhost_vdpa;
pub mod vxlan;

#[cfg(test)]
mod testing;
