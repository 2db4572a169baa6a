//! The frames of a `user` netdev, which `netdevd-user` answers: a process of its own, since it reads hostile frames with a C library.
//!
//! ```text
//!  worker --sendmmsg--> SOCK_SEQPACKET --> netdevd-user     a message = virtio_net_hdr_v1 (12) frame
//!  worker <--recvmmsg-- SOCK_SEQPACKET <-- netdevd-user
//! ```
//!
//! A message keeps its bounds, so the queue pair is the one of datagrams ([`super::datagram`]) with a header before each frame. Checksums and
//! segments are left to the receiver both ways. A full socket holds frames back; nothing is dropped between the two. When the process is started
//! again there is another socket, and another queue pair over it.

mod header;
mod open;
mod options;
mod process;

pub use open::{Opened, UserError, open};
pub use options::UserOptions;
pub use process::Process;

#[cfg(test)]
mod tests;
