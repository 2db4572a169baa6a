//! What the network is, as values: clients (netdevs, ports, nics), hubs, switches, peers, links, filters, and the object tree.
//!
//! Nothing here opens, sends or waits. Every change is checked first and then made whole, so that a failed command
//! leaves the model as it was; [`Net::topology`] says it to the engine.
//!
//! QEMU keeps one list of clients in creation order, with one entry a queue; here a client has all its queues, and the
//! order of its id is the order of creation (`qemu-net` behaviour: QEMU `net/net.c`, `net/hub.c`, `net/filter.c`).

mod client;
mod filter;
mod link;
mod net;
mod object;
pub mod qom;
mod switch;
mod topology;

pub use client::{Client, Kind, Netdev};
pub use engine::topology::model::{ClientId, FilterId, QueueRef};
pub use filter::{Direction, Filter, FilterOptions, Insert, Place};
pub use net::{Change, Hub, Net, NetError, Removed};
pub use object::Plain;
pub use switch::{NewSwitchPort, Switch};

#[cfg(test)]
mod tests;
