//! Every QMP and HMP command: what it checks, in QEMU's order and words, and what it does.
//!
//! Arguments arrive with their JSON types checked by the schema; a command looks at what they mean. Commands that
//! must open or close something answer later, by a [`Ticket`].

mod af_xdp;
mod announce;
mod args;
pub mod chardev;
mod fd;
mod hmp;
mod link;
mod matching;
mod metrics;
mod netdev;
mod netstat;
pub(super) mod nic;
mod object;
mod pending;
mod qom;
mod query;
mod query_colo;
mod query_filter;
mod query_netdev;
mod query_switch;
mod state;
mod stream;
mod usernet;
mod vhost_user;

pub use crate::apply::Ticket;
pub use chardev::{Added, ChardevInfo, Chardevs, FdSource, OpenJob};
pub use query::version;
pub use state::{Context, Outcome, State};

#[cfg(test)]
mod tests;
