#![doc = include_str!("../README.md")]
//! # How it is laid out
//! AF_XDP: frames between a NIC's receive queue and user space over shared rings, while the kernel keeps the NIC
//! (`Documentation/networking/af_xdp.rst` of Linux).
//!
//! ```text
//!            fill ->                         -> rx
//!  we  =============  kernel and NIC queue  =============  we        each ring: one producer, one consumer
//!            tx   ->                         -> completion
//! ```
//!
//! The layers, each a file that knows only those above it in this list:
//!
//! | module | what it is |
//! |---|---|
//! | [`cursor`] | the two indices of a ring: the only place that does arithmetic with them |
//! | [`ring`] | the four rings, a type each, so that nobody produces where they should consume |
//! | [`umem`] | memory that frames lie in, cut into chunks, registered with the kernel |
//! | [`socket`] | a socket bound to one queue of one interface: its rings, wake-ups, statistics |
//! | [`asm`], [`program`] | the XDP program that hands frames to sockets, assembled here; attached by a link that ends with its last holder |
//! | [`testing`] | ring pairs whose other end plays the kernel |
//!
//! Who holds a chunk is the user's to know: a chunk is in the fill ring, in the receive ring, in the transmit ring, in the completion ring, or
//! free, and this crate does not keep the books.
//!
//! # Traps
//! - `lo` delivers to AF_XDP sockets in generic mode only, and what is sent there does not come back as it would on a wire.
//! - A socket can share a UMEM only through another that is bound, and takes over its mode (copy or zero-copy).
//! - In copy mode a transmit ring moves only in `sendto`, a batch at a time ([`socket::Socket::send`]).
//! - The kernel shows a frame a moment before the place in the fill ring that it used is free (`xsk_flush`): who holds as many chunks as the
//!   ring has places may find it full when he gives one back.
//! - A frame received over veth may carry no checksum: the sender's kernel left it to hardware that is not there
//!   (`ethtool -K ... tx off` at the sending end).

#![deny(unsafe_code)]

pub mod asm;
mod bpf;
pub mod cursor;
mod error;
pub mod program;
mod query;
pub mod ring;
pub mod socket;
mod sync;
mod sys;
pub mod testing;
pub mod umem;

pub use error::{Error, Step};
pub use program::{Filter, Mode, Program, XskMap};
pub use ring::{Completion, Desc, Fill, Rx, Tx};
pub use socket::{Socket, SocketConfig, Statistics};
pub use umem::{Area, Umem, UmemConfig};
