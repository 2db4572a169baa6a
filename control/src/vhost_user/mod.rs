//! `vhost-user` netdevs: the driver's side of devices that other programs run.
//!
//! ```text
//!  chardev (connects or listens) -> Connection (bytes, files) -> engine::vhost::Frontend (protocol)
//!                                                                     |
//!            engine::backend::driver (memory, rings) -> queue pairs <-> workers, by one commit
//! ```
//!
//! A netdev exists without its back-end: its link is down and frames for it are dropped as `not-connected`. When a back-end comes, or comes
//! back, it gets rings of its own. Nothing here waits for it.

mod link;
mod netdevs;
mod view;

pub use netdevs::{Happened, Standing, VhostUser, VhostUsers};
