//! One folder a netdev type, the same files in each: `options.rs` (what the user may say), `open.rs` (the slow path: files,
//! ioctls, memory), `rx.rs` and `tx.rs` (the two halves that a worker drives).

pub mod nic;
pub mod tap;
pub mod vhost_user;
