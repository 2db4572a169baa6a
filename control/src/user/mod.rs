//! `user` netdevs: what the options mean, the process that is their network, and what it needs of us (`netdevd-user`, crate `usernet`).
//!
//! Whatever may block (starting the process, asking it something) is done by jobs; the control thread only watches whether it has ended.

pub mod address;
pub mod claims;
pub mod conversation;
pub mod forwarded;
pub mod network;
pub mod resolver;
pub mod rule;
pub mod service;
pub mod table;

mod netdevs;
mod start;

pub use claims::nobody;
pub use netdevs::{Change, Ended, Users};
pub use start::{Setup, Started, add, start};
