//! A chardev whose bytes are frames. A thread of its own reads or writes it, so that no worker touches what may block.
//!
//! ```text
//!  worker: Outlet --records--> outlet thread --framing--> chardev      full ring: the frame is lost, by name
//!  worker: Inlet <--records-- inlet thread <--framing-- chardev        full ring: the thread reads no more
//! ```
//! Control hands over each connection ([`Link::connect`]) and learns of its end by an eventfd. A thread that has nothing to do sleeps as
//! workers do: it announces that, looks once more, and whoever has work for it looks at that flag ([`crate::uring::Waker`]).

mod feed;
pub mod framing;
mod inlet;
mod link;
mod outlet;

pub use feed::Inlet;
pub(super) use feed::{Feed, Flow};
pub use inlet::InletThread;
pub use link::Link;
pub use outlet::{Outlet, OutletThread};

/// Bytes of each ring of frames between a worker and a thread.
const RING: usize = 4 << 20;

/// Bytes that a thread reads or writes at once.
pub(super) const BATCH: usize = 256 * 1024;

#[cfg(test)]
mod tests;
