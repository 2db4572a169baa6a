//! Netdevs over stream sockets: `stream`, and `socket` with `listen=`, `connect=` or a stream's `fd=` (QEMU `net/stream.c`, `net/socket.c`).
//!
//! ```text
//!  netdev_add -> Streams: attempt (own thread) -> listeners -> client's socket -+
//!                             ^ timer      \----> connected socket ------------+-> engine::backend::stream -> a worker, by one commit
//!                             +------------------- Report: the connection ended, and why <-------------------+
//! ```
//!
//! A netdev exists without its peer: its link is down and frames for it are dropped as `not-connected`. Nothing here waits for a peer or a
//! resolver. One peer at a time; a server takes the next when it has gone, a client tries again where it was told to.

mod ends;
mod netdev;
mod netdevs;
mod place;
mod view;

pub use netdevs::{Asked, Happened, Start, Streams, Style};
pub use place::{Given, Place};
