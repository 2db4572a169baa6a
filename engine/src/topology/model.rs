//! What control says of the network: clients (netdevs, ports of hubs and switches, nics), who peers whom, and which filters sit where.

use super::switch::{Switch, SwitchPort};

/// Names a client for life; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// Names a filter for life; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilterId(pub u64);

/// Frames that wait for one leg of a hub at most, where nothing else is asked for.
pub const HUB_BACKLOG: u32 = 256;

/// The most that may be asked for: the buffers of a worker's pool.
pub const HUB_BACKLOG_MOST: u32 = 4096;

/// The whole network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// All clients, in creation order.
    pub clients: Vec<Client>,
    /// What holds for a switch as such; one that is not named here has [`Switch::new`].
    pub switches: Vec<Switch>,
}

/// One netdev, port of a hub or switch, or nic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its name for life.
    pub id: ClientId,
    /// What it is.
    pub kind: ClientKind,
    /// False: neither sends nor receives (`set_link`).
    pub link_up: bool,
    /// False: the transport has nobody at the other end (frames for it drop as `not-connected`).
    pub connected: bool,
    /// Frames that it sends to a hub are at least [`crate::burst::SHORTEST`] bytes long: zeros follow what is shorter (QEMU `net/tap.c`, `net/slirp.c`:
    /// unless the peer says that it needs none, which virtio-net says).
    pub pads: bool,
    /// The client it is joined to.
    pub peer: Option<ClientId>,
    /// Its filters, head first.
    pub filters: Vec<FilterUse>,
}

/// What a client is to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientKind {
    /// Frames enter and leave here, by these queues.
    Port {
        /// One entry a queue pair, in queue order.
        queues: Vec<QueueRef>,
    },
    /// A port of a hub.
    HubPort {
        /// The hub's number.
        hub: i32,
        /// Frames that wait at most for the port on this leg while it is busy.
        backlog: u32,
    },
    /// A port of a learning switch.
    SwitchPort {
        /// The switch's number.
        switch: i32,
        /// How it treats frames.
        port: Box<SwitchPort>,
    },
}

/// A queue of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueRef {
    /// The queue's name for life.
    pub id: u64,
    /// The worker that owns it.
    pub worker: usize,
}

/// A filter's place in a client's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterUse {
    /// Which filter.
    pub id: FilterId,
    /// It sees frames sent to the client.
    pub rx: bool,
    /// It sees frames that the client sends.
    pub tx: bool,
}
