//! `passt` netdevs: a program that is started, watched, started again and ended; its frames move as those of other netdevs do (QEMU 10.1
//! `net/passt.c`).
//!
//! ```text
//!  netdev_add -> launch (own thread) -> Started { socket, process } -> Streams::supply, or VhostUsers::connected with vhost-user=on
//!                   ^ timer                        |
//!                   +---- Passts: it has ended, or closed its end <----+
//! ```
//!
//! While there is none, the link is down and frames are dropped as `not-connected`. Nothing here waits for a passt.

mod launch;
mod netdevs;
mod pidfile;
mod process;
mod said;
mod words;

pub use launch::{LaunchError, START_LIMIT, Started, launch};
pub use netdevs::{Happened, Passts};
pub use process::Process;
