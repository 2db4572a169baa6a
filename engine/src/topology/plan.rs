//! The plan: for every queue, where its frames go. Derived from the topology, immutable, read by all workers.
//!
//! A [`Node`] is a stage of a frame's way: filters, then a port, a hub, a switch, or a discard. Each queue has one node of its own
//! (what its client sends); each hub or switch has one node a leg (what leaves by that port), shared by all sources. So the
//! plan grows with the number of clients, not with its square.
//!
//! A frame enters a hub or switch at most once and crosses at most [`MAX_HUBS`]; a way that would break that is dropped as a loop.

mod switch;

pub use switch::{PortPlan, SwitchPlan};

use super::model::{Client, ClientId, ClientKind, FilterId, FilterUse, QueueRef, Topology};
use std::collections::HashMap;
use switch::{Gate, Gates};

/// Hubs and switches that a frame crosses at most.
pub const MAX_HUBS: u32 = 8;

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
    /// By hub: its legs, newest port first (the order in which QEMU floods).
    pub hubs: Vec<Legs>,
    /// Switches, the one with the newest port first.
    pub switches: Vec<SwitchPlan>,
    /// All nodes.
    pub nodes: Vec<Node>,
    /// Filter steps that nodes refer to.
    pub steps: Vec<FilterStep>,
    /// By filter slot: where frames start that the filter puts in.
    pub injects: Vec<Option<Inject>>,
}

/// Where frames start that a filter puts in: behind it in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inject {
    /// On to the filter's netdev.
    pub rx: Entry,
    /// On from the filter's netdev.
    pub tx: Entry,
}

/// The legs of a hub, as nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Legs {
    /// First node.
    pub first: u32,
    /// Number of nodes.
    pub count: u32,
}

/// Where a queue's frames start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The queue's name, checked before use; of no meaning where a filter puts frames in.
    pub queue: u64,
    /// First node.
    pub node: u32,
    /// The one port that frames can reach, and its node; `None` when there is none or more than one. With one, its
    /// back-pressure reaches the source.
    pub only: Option<(Target, u32)>,
    /// Ports that frames can reach.
    pub legs: u32,
    /// Whether a filter stands in the way to the only port.
    pub filtered: bool,
    /// Whether nothing but the only port is to be seen on the way: neither filters nor discards.
    pub direct: bool,
    /// Short frames are padded before they start.
    pub pads: bool,
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
    /// Whom drops at this node are charged to.
    pub client: ClientId,
}

/// Where frames go from a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// To a queue, on this worker or another.
    Port(Target),
    /// Into a hub, and out by all its legs but the one at node `except`.
    Hub {
        /// Index into [`WorkerPlan::hubs`].
        hub: u32,
        /// The leg that leads back.
        except: u32,
    },
    /// Into a switch.
    Switch {
        /// Index into [`WorkerPlan::switches`].
        switch: u32,
        /// Number of the port where they enter.
        port: u32,
    },
    /// Nowhere, by name.
    Discard(Discard),
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
    /// Too many hubs or switches, or one of them twice.
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
    /// Port of a switch to its number there.
    pub switch_ports: HashMap<ClientId, u32>,
}

/// Builds the plan of `topology` for `workers` workers.
#[must_use]
pub fn build(topology: &Topology, slots: &Slots, workers: usize) -> Plan {
    let world = World::new(topology, slots);
    Plan { workers: (0..workers).map(|worker| Builder::new(&world, worker).build(topology)).collect() }
}

/// The topology, indexed.
struct World<'a> {
    clients: HashMap<ClientId, &'a Client>,
    /// Ports of each hub, newest first.
    hubs: Vec<Vec<&'a Client>>,
    /// Hub port to its hub's index and its place among the hub's ports.
    places: HashMap<ClientId, (u32, u32)>,
    /// Ports of the switches.
    gates: Gates<'a>,
    slots: &'a Slots,
}

impl<'a> World<'a> {
    fn new(topology: &'a Topology, slots: &'a Slots) -> Self {
        let mut numbers: HashMap<i32, usize> = HashMap::new();
        let mut hubs: Vec<Vec<&Client>> = Vec::new();
        for c in topology.clients.iter().rev() {
            if let ClientKind::HubPort { hub, .. } = c.kind {
                let index = *numbers.entry(hub).or_insert_with(|| {
                    hubs.push(Vec::new());
                    hubs.len() - 1
                });
                hubs[index].push(c);
            }
        }
        let mut places = HashMap::new();
        for (h, ports) in hubs.iter().enumerate() {
            places.extend(ports.iter().enumerate().map(|(i, p)| (p.id, (h as u32, i as u32))));
        }
        let gates = Gates::new(topology, slots);
        Self { clients: topology.clients.iter().map(|c| (c.id, c)).collect(), hubs, places, gates, slots }
    }
}

/// Builds one worker's part.
struct Builder<'w> {
    world: &'w World<'w>,
    worker: usize,
    part: WorkerPlan,
    /// By hub: live ports in reach of a frame that enters it, with at most two of them by node.
    reach: Vec<Option<Reach>>,
}

/// What a frame that enters a hub can get to.
#[derive(Debug, Clone, Default)]
struct Reach {
    ports: u32,
    /// The first two ports found, with their nodes.
    found: Vec<(Target, u32)>,
    filters: bool,
    discards: bool,
}

impl<'w> Builder<'w> {
    fn new(world: &'w World<'w>, worker: usize) -> Self {
        Self { world, worker, part: WorkerPlan::default(), reach: vec![None; world.hubs.len()] }
    }

    fn build(mut self, topology: &Topology) -> WorkerPlan {
        let mut first = 0;
        for ports in &self.world.hubs {
            self.part.hubs.push(Legs { first, count: ports.len() as u32 });
            first += ports.len() as u32;
        }
        for ports in &self.world.hubs {
            for leg in ports {
                let node = self.node(leg, 0);
                self.part.nodes.push(node);
            }
        }
        let world = self.world;
        self.part.switches = world.gates.plans(|client| {
            let node = self.node(client, 0);
            self.part.nodes.push(node);
            self.part.nodes.len() as u32 - 1
        });
        for client in &topology.clients {
            let ClientKind::Port { queues } = &client.kind else { continue };
            let worker = self.worker;
            for (index, queue) in queues.iter().enumerate().filter(|(_, q)| q.worker == worker) {
                if let Some(&slot) = self.world.slots.queues.get(&queue.id) {
                    let entry = self.entry(client, index, queue.id);
                    if self.part.sources.len() <= slot as usize {
                        self.part.sources.resize(slot as usize + 1, None);
                    }
                    self.part.sources[slot as usize] = Some(entry);
                }
            }
        }
        for client in &topology.clients {
            for at in 0..client.filters.len() {
                self.inject(client, at);
            }
        }
        self.part
    }

    /// Where frames start that a client's filter puts in; they pass what stands behind it, in either direction.
    fn inject(&mut self, client: &Client, at: usize) {
        let filters = &client.filters;
        let Some(&slot) = filters.get(at).and_then(|f| self.world.slots.filters.get(&f.id)) else { return };
        let step = self.part.steps.len() as u32;
        self.steps(filters[..at].iter().rev().filter(|f| f.rx).map(|f| f.id), true);
        let steps = self.part.steps.len() as u32 - step;
        let toward = Node { step, steps, hop: self.arrive(client, 0), client: client.id };
        let from = self.way(client, &filters[at + 1..], 0);
        let [rx, tx] = [toward, from].map(|first| self.entry_at(first, 0, 0));
        if self.part.injects.len() <= slot as usize {
            self.part.injects.resize(slot as usize + 1, None);
        }
        self.part.injects[slot as usize] = Some(Inject { rx, tx });
    }

    /// The way of a frame that queue `index` of `sender` sends. Order of checks as QEMU `net/net.c`: the sender's link and peer, the
    /// filters of both, the receiver's link.
    fn node(&mut self, sender: &Client, index: usize) -> Node {
        self.way(sender, &sender.filters, index)
    }

    /// As [`Builder::node`], with only these filters of the sender's.
    fn way(&mut self, sender: &Client, filters: &[FilterUse], index: usize) -> Node {
        let discard =
            |why, client: &Client| Node { step: 0, steps: 0, hop: Hop::Discard(why), client: client.id };
        if !sender.link_up {
            return discard(Discard::LinkDown, sender);
        }
        let Some(peer) = sender.peer.and_then(|p| self.world.clients.get(&p).copied()) else {
            return discard(Discard::NoPeer, sender);
        };
        let step = self.part.steps.len() as u32;
        self.steps(filters.iter().filter(|f| f.tx).map(|f| f.id), false);
        self.steps(peer.filters.iter().rev().filter(|f| f.rx).map(|f| f.id), true);
        let steps = self.part.steps.len() as u32 - step;
        Node { step, steps, hop: self.arrive(peer, index), client: peer.id }
    }

    fn steps(&mut self, filters: impl Iterator<Item = FilterId>, toward: bool) {
        for filter in filters {
            if let Some(&slot) = self.world.slots.filters.get(&filter) {
                self.part.steps.push(FilterStep { filter, slot, toward });
            }
        }
    }

    /// What happens to a frame of a sender's queue `index` that reaches `receiver`.
    fn arrive(&self, receiver: &Client, index: usize) -> Hop {
        if !receiver.link_up {
            return Hop::Discard(Discard::LinkDown);
        }
        match &receiver.kind {
            ClientKind::Port { queues } if receiver.connected => {
                self.choose(queues, index).map_or(Hop::Discard(Discard::NotConnected), Hop::Port)
            }
            ClientKind::Port { .. } => Hop::Discard(Discard::NotConnected),
            ClientKind::HubPort { .. } => match self.world.places.get(&receiver.id) {
                Some(&(hub, place)) => Hop::Hub { hub, except: self.part.hubs[hub as usize].first + place },
                None => Hop::Discard(Discard::NoPeer),
            },
            ClientKind::SwitchPort { .. } => match self.world.gates.of(receiver.id) {
                Some(Gate { switch, port }) => Hop::Switch { switch, port },
                None => Hop::Discard(Discard::NoPeer),
            },
        }
    }

    /// The queue of a receiver that a sender's queue `index` uses: that of the same number if this worker runs it, as queues of
    /// peers are joined in QEMU; else one of this worker's; else one chosen by the worker's number. A source uses one queue, so frames
    /// of a flow stay in order.
    fn choose(&self, queues: &[QueueRef], index: usize) -> Option<Target> {
        let own = |q: &&QueueRef| q.worker == self.worker;
        let count = queues.iter().filter(own).count();
        let same = queues.get(index % queues.len().max(1)).filter(own);
        let q = same
            .or_else(|| queues.iter().filter(own).nth(index % count.max(1)))
            .or_else(|| queues.get(self.worker % queues.len().max(1)))?;
        let slot = *self.world.slots.queues.get(&q.id)?;
        Some(Target { worker: q.worker as u32, slot, queue: q.id })
    }

    fn entry(&mut self, client: &Client, index: usize, queue: u64) -> Entry {
        let first = self.node(client, index);
        let peer = client.peer.and_then(|peer| self.world.clients.get(&peer));
        let hub = peer.is_some_and(|peer| matches!(peer.kind, ClientKind::HubPort { .. }));
        Entry { pads: client.pads && hub, ..self.entry_at(first, index, queue) }
    }

    fn entry_at(&mut self, first: Node, index: usize, queue: u64) -> Entry {
        let node = self.part.nodes.len() as u32;
        self.part.nodes.push(first);
        let filters = first.steps != 0;
        let mut entry =
            Entry { queue, node, only: None, legs: 0, filtered: filters, direct: false, pads: false };
        match first.hop {
            Hop::Discard(_) => {}
            Hop::Switch { switch, .. } => entry.legs = self.world.gates.legs(switch),
            Hop::Port(target) => {
                (entry.only, entry.legs, entry.direct) = (Some((target, node)), 1, !filters);
            }
            Hop::Hub { hub, except } => {
                let back = self.part.nodes[except as usize].hop;
                let reach = self.reach(hub);
                // The leg that leads back to the source is no destination.
                let own = matches!(back, Hop::Port(_)) as u32;
                entry.legs = reach.ports - own;
                if entry.legs == 1 {
                    entry.only = reach.found.iter().copied().find(|(_, node)| *node != except);
                    let discards = reach.discards || !matches!(back, Hop::Port(_));
                    entry.filtered = filters || reach.filters;
                    entry.direct = !entry.filtered && !discards;
                    if !entry.filtered {
                        entry.only = entry.only.map(|only| self.spread(only, index));
                    }
                }
            }
        }
        entry
    }

    /// The only destination of a sender's queue `index`, where the way to it was found for the first one. Nodes of a hub's legs are
    /// shared by all senders, so another queue has a node of its own.
    fn spread(&mut self, (target, at): (Target, u32), index: usize) -> (Target, u32) {
        let node = self.part.nodes[at as usize];
        let queues = match self.world.clients.get(&node.client).map(|client| &client.kind) {
            Some(ClientKind::Port { queues }) => queues,
            _ => return (target, at),
        };
        match self.choose(queues, index) {
            Some(other) if other != target => {
                let own = self.part.nodes.len() as u32;
                self.part.nodes.push(Node { step: 0, steps: 0, hop: Hop::Port(other), client: node.client });
                (other, own)
            }
            _ => (target, at),
        }
    }

    /// What a frame that enters `hub` can get to, its own port included.
    fn reach(&mut self, hub: u32) -> Reach {
        if let Some(known) = &self.reach[hub as usize] {
            return known.clone();
        }
        let mut reach = Reach::default();
        let mut todo = vec![(hub, 1)];
        let mut seen = vec![hub];
        while let Some((hub, crossed)) = todo.pop() {
            let Legs { first, count } = self.part.hubs[hub as usize];
            for at in first..first + count {
                let node = self.part.nodes[at as usize];
                reach.filters |= node.steps != 0;
                match node.hop {
                    Hop::Port(target) => {
                        reach.ports += 1;
                        if reach.found.len() < 2 {
                            reach.found.push((target, at));
                        }
                    }
                    Hop::Hub { hub, .. } if !seen.contains(&hub) && crossed < MAX_HUBS => {
                        seen.push(hub);
                        todo.insert(0, (hub, crossed + 1));
                    }
                    // A switch leads to several, and never holds a source up.
                    Hop::Switch { switch, .. } => reach.ports += self.world.gates.legs(switch),
                    // The cable by which a hub was entered leads back to a hub that was seen: no loop by itself.
                    Hop::Hub { .. } | Hop::Discard(_) => reach.discards = true,
                }
            }
        }
        self.reach[hub as usize] = Some(reach.clone());
        reach
    }
}

#[cfg(test)]
mod tests;
