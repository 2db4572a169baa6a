//! netdevctl, the command line client: one-shot commands, counters, events, and help from the schema.
//!
//! ```text
//! words -> arguments::parse -> Invocation -> run -> Client <-> socket
//!                                              \-> render, stats, help -> standard output
//! ```
//!
//! It speaks plain QMP, so it works with QEMU's socket too.

mod address;
mod arguments;
mod client;
mod events;
mod failure;
mod help;
mod layout;
mod number;
mod order;
mod render;
mod request;
mod run;
mod screen;
mod stats;
#[cfg(test)]
mod tests;
mod watch;

pub use address::Address;
pub use client::Client;
pub use failure::Failure;
pub use run::run;
pub use screen::Screen;
