//! QMP monitors on character devices.
//!
//! ```text
//! chardev stream -> Connection: bytes, descriptors -> qmp::Session -> Executor (the commands)
//!                   Connection: backlog of output <- replies, events <-/
//! ```
//!
//! Everything happens on the control thread and never waits. A wake-up reads once, executes all whole commands in what
//! it read and writes their replies together: a command that comes alone costs one `epoll_wait`, one `recvmsg` and one
//! `send`. A client that does not read its replies is not read from; one that does not read its events either is cut
//! off at a bound. Neither holds up anybody else.

mod connection;
mod executor;
mod monitors;

pub use executor::{Answer, Executor, Origin};
pub use monitors::Server;

#[cfg(test)]
mod tests;
