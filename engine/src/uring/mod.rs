//! File I/O of one worker: io_uring as its file-like ports share it, with batched plain syscalls where the kernel has
//! none.
//!
//! ```text
//!            receive                                        send
//!  kernel --ReadMulti--> provided buffers         frame's segments --iovecs--> scratch --WRITEV--> kernel
//!     ^                        | received(i)                                      |
//!     +------- recycle(n) <----+ lent                         submit: one io_uring_enter, all have results
//! ```
//!
//! A file's receive buffers are its own: a port that is blocked runs out of them, which ends its multishot receive and
//! makes the kernel hold the frames. That is the back-pressure; the receive is armed again when buffers return.
//!
//! Sends name lent memory. They carry `RWF_NOWAIT`, so each has its result when [`FdIo::submit`] returns and nothing in
//! the kernel points into a burst any more. Their tickets stay readable until the first [`FdIo::send`] after it.

#![allow(unsafe_code)] // shares memory with the kernel

mod batch;
mod bell;
mod buffers;
mod doze;
mod error;
mod fdio;
mod files;
mod ring;
mod sends;
mod wake;

pub use bell::Bell;
pub use buffers::Buffers;
pub use error::{IoError, IoMode, Refused};
pub use fdio::FdIo;
pub use files::FileId;
pub use sends::{Sent, Ticket};
pub use wake::Waker;

#[cfg(test)]
mod tests;
