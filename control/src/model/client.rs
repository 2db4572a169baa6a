//! One client of the network.

use super::{ClientId, FilterId, QueueRef};
use engine::topology::switch::SwitchPort;
use serde_json::{Map, Value};

/// A netdev, port of a hub or switch, or nic.
#[derive(Debug, Clone, PartialEq)]
pub struct Client {
    /// Its number for life; a later client has a larger one.
    pub id: ClientId,
    /// The id the user gave.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// False: neither sends nor receives (`set_link`).
    pub link_up: bool,
    /// The client it is joined to.
    pub peer: Option<ClientId>,
    /// Its filters, head first.
    pub filters: Vec<FilterId>,
    /// The options as given, `id` and `type` among them; what `query-netdev` shows.
    pub options: Map<String, Value>,
    /// Offloads that the device behind it carries, as virtio feature bits: a nic joined to it offers no others but those that its guest had already, so
    /// that they pass through. None: whatever a guest leaves undone is done on the way.
    pub carries: Option<u64>,
}

/// What a client is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A backend with queues of its own.
    Netdev(Netdev),
    /// A port of a hub.
    HubPort {
        /// The hub's number.
        hub: i32,
    },
    /// A port of a learning switch.
    SwitchPort {
        /// The switch's number.
        switch: i32,
        /// How it treats frames.
        port: Box<SwitchPort>,
    },
    /// A device that a guest drives.
    Nic(Netdev),
}

/// The part of a client that has queues.
#[derive(Debug, Clone, PartialEq)]
pub struct Netdev {
    /// The type's name in the schema, for example `tap`.
    pub driver: &'static str,
    /// The queues, in order.
    pub queues: Vec<QueueRef>,
    /// What `info network` prints after the type (QEMU's `info_str`; one a queue, or one for all).
    pub info: Vec<String>,
    /// False: nobody is at the other end of the transport.
    pub connected: bool,
}

impl Client {
    /// The type's name in the schema.
    #[must_use]
    pub fn driver(&self) -> &'static str {
        match &self.kind {
            Kind::Netdev(dev) | Kind::Nic(dev) => dev.driver,
            Kind::HubPort { .. } => "hubport",
            Kind::SwitchPort { .. } => "switchport",
        }
    }

    /// Whether a guest drives it. Every other client is a netdev in QEMU's sense: `netdev_del` and filters take it.
    #[must_use]
    pub const fn is_nic(&self) -> bool {
        matches!(self.kind, Kind::Nic(_))
    }

    /// Queue pairs that it has, or has while it is connected.
    #[must_use]
    pub fn pairs(&self) -> usize {
        match &self.kind {
            Kind::Netdev(dev) | Kind::Nic(dev) => dev.queues.len().max(dev.info.len()),
            Kind::HubPort { .. } | Kind::SwitchPort { .. } => 1,
        }
    }

    /// Whether it is a port of a hub or switch.
    #[must_use]
    pub const fn is_port(&self) -> bool {
        matches!(self.kind, Kind::HubPort { .. } | Kind::SwitchPort { .. })
    }

    /// Its queues; a port of a hub or switch has none.
    #[must_use]
    pub fn queues(&self) -> &[QueueRef] {
        match &self.kind {
            Kind::Netdev(dev) | Kind::Nic(dev) => &dev.queues,
            Kind::HubPort { .. } | Kind::SwitchPort { .. } => &[],
        }
    }
}
