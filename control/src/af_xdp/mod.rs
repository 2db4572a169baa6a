//! `af-xdp` netdevs: their programs, which stay attached as long as the netdev lives, and the interfaces that they follow.
//!
//! An interface that goes takes its queues along: the netdev stays, frames for it are dropped as `not-connected`, and when an interface of
//! that name comes, its queues are opened again. MTU, up and down, and carrier are followed.

mod netdevs;
mod watch;

pub use netdevs::{AfXdps, Changes};
