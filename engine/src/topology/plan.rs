//! The plan: for every queue, where its frames go. Derived from the topology, immutable, read by all workers.
//!
//! The way of a frame is a tree of [`Node`]s: filters, then a port, a flood to several nodes, or a discard. Hubs are
//! flattened into it, so a worker walks indices and knows nothing of hubs. A frame enters a hub at most once and
//! crosses at most [`MAX_HUBS`]; a way that would break that ends in [`Discard::Loop`].

use super::model::{Client, ClientId, ClientKind, FilterId, QueueRef, Topology};
use std::collections::{HashMap, VecDeque};

/// Hubs that a frame crosses at most.
pub const MAX_HUBS: usize = 8;

/// The whole plan: one part a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Indexed by worker.
    pub workers: Vec<WorkerPlan>,
}

/// What one worker reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerPlan {
    /// By queue slot: where frames of that queue start.
    pub sources: Vec<Option<Entry>>,
    /// All nodes that the sources refer to.
    pub nodes: Vec<Node>,
    /// Filter steps that nodes refer to.
    pub steps: Vec<FilterStep>,
}

/// Where a queue's frames start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The queue's name, checked before use.
    pub queue: u64,
    /// First node.
    pub node: u32,
    /// One past the last node; a child always lies behind its parent.
    pub end: u32,
    /// The one port that frames can reach and its node; `None` when there is none or more than one. With one, its
    /// back-pressure reaches the source.
    pub only: Option<(Target, u32)>,
    /// Ports that frames reach.
    pub legs: u32,
    /// Whether a filter stands in the way.
    pub filtered: bool,
    /// Whether nothing but the one port is on the way: neither filters nor discards.
    pub direct: bool,
}

/// A stage of a frame's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// First filter step.
    pub step: u32,
    /// Number of filter steps.
    pub steps: u32,
    /// Where to go behind the filters.
    pub hop: Hop,
}

impl Node {
    const EMPTY: Self = Self { step: 0, steps: 0, hop: Hop::Flood { first: 0, count: 0 } };
}

/// Where frames go from a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// To a queue, on this worker or another.
    Port(Target),
    /// To `count` nodes from `first` on, each its own copy.
    Flood {
        /// First node.
        first: u32,
        /// Number of nodes.
        count: u32,
    },
    /// Nowhere, by name, charged to this client.
    Discard {
        /// Why.
        why: Discard,
        /// Whose counter.
        client: ClientId,
    },
}

/// A transmitting queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Its worker.
    pub worker: u32,
    /// Its slot there.
    pub slot: u32,
    /// Its name, checked before use.
    pub queue: u64,
}

/// Why a way ends without a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Discard {
    /// The sender has no peer.
    NoPeer,
    /// A link is down.
    LinkDown,
    /// The receiver's transport has nobody at the other end.
    NotConnected,
    /// Too many hubs, or a hub twice.
    Loop,
}

/// One filter on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterStep {
    /// Which filter.
    pub filter: FilterId,
    /// Its slot in every worker's table.
    pub slot: u32,
    /// True: the frame is sent to the filter's netdev (`rx` in QEMU's words); false: the netdev sends it (`tx`).
    pub toward: bool,
}

/// Slots that the engine gave to queues and filters.
#[derive(Debug, Clone, Default)]
pub struct Slots {
    /// Queue name to slot in its worker's tables.
    pub queues: HashMap<u64, u32>,
    /// Filter to slot in every worker's table.
    pub filters: HashMap<FilterId, u32>,
}

/// Builds the plan of `topology` for `workers` workers.
#[must_use]
pub fn build(topology: &Topology, slots: &Slots, workers: usize) -> Plan {
    let world = World::new(topology, slots);
    let mut plan = Plan { workers: vec![WorkerPlan::default(); workers] };
    for client in &topology.clients {
        let ClientKind::Port { queues } = &client.kind else { continue };
        for queue in queues {
            let Some(&slot) = slots.queues.get(&queue.id) else { continue };
            let Some(part) = plan.workers.get_mut(queue.worker) else { continue };
            let entry = Builder {
                world: &world,
                part,
                home: *queue,
                hubs: Vec::new(),
                ports: Vec::new(),
                todo: VecDeque::new(),
            };
            let entry = entry.entry(client);
            if part.sources.len() <= slot as usize {
                part.sources.resize(slot as usize + 1, None);
            }
            part.sources[slot as usize] = Some(entry);
        }
    }
    plan
}

/// The topology, indexed.
struct World<'a> {
    clients: HashMap<ClientId, &'a Client>,
    /// Ports of each hub, newest first (the order in which QEMU floods).
    hubs: HashMap<i32, Vec<&'a Client>>,
    slots: &'a Slots,
}

impl<'a> World<'a> {
    fn new(topology: &'a Topology, slots: &'a Slots) -> Self {
        let mut hubs: HashMap<i32, Vec<&Client>> = HashMap::new();
        for c in topology.clients.iter().rev() {
            if let ClientKind::HubPort { hub } = c.kind {
                hubs.entry(hub).or_default().push(c);
            }
        }
        Self { clients: topology.clients.iter().map(|c| (c.id, c)).collect(), hubs, slots }
    }
}

/// Builds the tree of one source, breadth first: a hub is entered by its shortest way, and only once.
struct Builder<'a, 'w> {
    world: &'a World<'w>,
    part: &'a mut WorkerPlan,
    home: QueueRef,
    /// Hubs that the tree has entered.
    hubs: Vec<i32>,
    /// Ports that frames reach.
    ports: Vec<(Target, u32)>,
    /// Nodes still to fill: who sends, which node, how many hubs were crossed.
    todo: VecDeque<(&'a Client, u32, usize)>,
}

impl<'a> Builder<'a, '_> {
    fn entry(mut self, client: &'a Client) -> Entry {
        let node = self.part.nodes.len() as u32;
        let steps = self.part.steps.len();
        self.part.nodes.push(Node::EMPTY);
        self.todo.push_back((client, node, 0));
        while let Some((sender, at, crossed)) = self.todo.pop_front() {
            self.part.nodes[at as usize] = self.from(sender, at, crossed);
        }
        let only = if self.ports.len() == 1 { Some(self.ports[0]) } else { None };
        let end = self.part.nodes.len() as u32;
        let filtered = self.part.steps.len() > steps;
        let discards = self.part.nodes[node as usize..].iter().any(|n| matches!(n.hop, Hop::Discard { .. }));
        let legs = self.ports.len() as u32;
        Entry {
            queue: self.home.id,
            node,
            end,
            only,
            legs,
            filtered,
            direct: only.is_some() && !filtered && !discards,
        }
    }

    /// The way of a frame that `sender` sends. Order of checks as QEMU `net/net.c`: the sender's link and peer, the
    /// filters of both, the receiver's link.
    fn from(&mut self, sender: &'a Client, at: u32, crossed: usize) -> Node {
        let discard = |why| Node { hop: Hop::Discard { why, client: sender.id }, ..Node::EMPTY };
        if !sender.link_up {
            return discard(Discard::LinkDown);
        }
        let Some(peer) = sender.peer.and_then(|p| self.world.clients.get(&p).copied()) else {
            return discard(Discard::NoPeer);
        };
        let step = self.part.steps.len() as u32;
        self.steps(sender.filters.iter().filter(|f| f.tx).map(|f| f.id), false);
        self.steps(peer.filters.iter().rev().filter(|f| f.rx).map(|f| f.id), true);
        let steps = self.part.steps.len() as u32 - step;
        Node { step, steps, hop: self.arrive(peer, at, crossed) }
    }

    fn steps(&mut self, filters: impl Iterator<Item = FilterId>, toward: bool) {
        for filter in filters {
            if let Some(&slot) = self.world.slots.filters.get(&filter) {
                self.part.steps.push(FilterStep { filter, slot, toward });
            }
        }
    }

    /// What happens to a frame that reaches `receiver`.
    fn arrive(&mut self, receiver: &'a Client, at: u32, crossed: usize) -> Hop {
        let discard = |why| Hop::Discard { why, client: receiver.id };
        if !receiver.link_up {
            return discard(Discard::LinkDown);
        }
        match &receiver.kind {
            ClientKind::Port { .. } if !receiver.connected => discard(Discard::NotConnected),
            ClientKind::Port { queues } => match self.choose(queues) {
                Some(target) => {
                    self.ports.push((target, at));
                    Hop::Port(target)
                }
                None => discard(Discard::NotConnected),
            },
            ClientKind::HubPort { hub } => self.flood(*hub, receiver, crossed),
        }
    }

    fn flood(&mut self, hub: i32, entered_by: &Client, crossed: usize) -> Hop {
        if self.hubs.contains(&hub) || crossed == MAX_HUBS {
            return Hop::Discard { why: Discard::Loop, client: entered_by.id };
        }
        self.hubs.push(hub);
        let first = self.part.nodes.len() as u32;
        for leg in self.world.hubs.get(&hub).into_iter().flatten().filter(|p| p.id != entered_by.id) {
            self.todo.push_back((leg, self.part.nodes.len() as u32, crossed + 1));
            self.part.nodes.push(Node::EMPTY);
        }
        Hop::Flood { first, count: self.part.nodes.len() as u32 - first }
    }

    /// The queue of a receiver that this source uses: one on its own worker where there is one, else spread by the
    /// source. One source always uses one queue, so frames of a flow stay in order.
    fn choose(&self, queues: &[QueueRef]) -> Option<Target> {
        let own: Vec<&QueueRef> = queues.iter().filter(|q| q.worker == self.home.worker).collect();
        let among: Vec<&QueueRef> = if own.is_empty() { queues.iter().collect() } else { own };
        let q = among.get(self.home.id as usize % among.len().max(1))?;
        let slot = *self.world.slots.queues.get(&q.id)?;
        Some(Target { worker: q.worker as u32, slot, queue: q.id })
    }
}

#[cfg(test)]
mod tests;
