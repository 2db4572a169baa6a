//! A network of switches and hubs with ports that remember what they got: for tests of the walk.

#![allow(unsafe_code)] // lends the bytes of vectors that it holds

use super::forward::{Outlet, forward};
use super::routes::LaneTable;
use super::state::State;
use super::table::{Station, Table};
use super::{Routes, Walk};
use crate::burst::{Burst, Head, Mask, Seg};
use crate::mem::arena::{Arena, ArenaConfig};
use crate::mem::pool::{Pool, PoolSize};
use crate::offload::Offload;
use crate::port::Turn;
use crate::port::counters::DropReason;
use crate::port::lanes::Lanes;
use crate::topology::model::{Client, ClientId, ClientKind, QueueRef, Topology};
use crate::topology::plan::{self, FilterStep, Slots, Target};
use crate::topology::switch::{PORTS_MOST, Switch, SwitchPort};
use crate::uring::{FdIo, IoMode};
use crate::wire::vnet_hdr::VnetHdr;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes of a frame with its virtio-net header.
pub(super) type Sent = (VnetHdr, Vec<u8>);

/// Who gets what.
pub(super) struct Out {
    offload: Offload,
    /// By slot: what it got.
    pub(super) got: HashMap<u32, Vec<Sent>>,
    /// By slot: frames that it still takes; without limit where there is none.
    pub(super) room: HashMap<u32, usize>,
    /// Slots in the order in which they were offered something, with whether it was the last time.
    pub(super) offers: Vec<(u32, bool)>,
    /// First bytes of the frames under way, which their sender overwrites before a port behind a switch reads them.
    spoil: Vec<(NonNull<u8>, usize)>,
    pub(super) tx_full: usize,
}

impl Out {
    /// A sender changes its frames.
    fn spoil(&self) {
        for (at, len) in &self.spoil {
            // SAFETY: the vectors are held by `World::send` during the walk.
            unsafe { at.write_bytes(0xee, *len) };
        }
    }

    fn take(&mut self, slot: u32, burst: &Burst, mask: Mask, heads: Option<&[Head]>) -> Mask {
        let room = self.room.get(&slot).copied().unwrap_or(usize::MAX);
        let mut left = Mask::NONE;
        for (n, i) in mask.iter().enumerate() {
            if n >= room {
                left.0 |= 1 << i;
                continue;
            }
            let frame = &burst.frames()[i];
            let mut bytes = vec![0; frame.len()];
            assert_eq!(burst.copy_out(frame, 0, &mut bytes), frame.len());
            if let Some(heads) = heads {
                bytes.iter_mut().zip(heads[i]).for_each(|(byte, head)| *byte = head);
            }
            self.got.entry(slot).or_default().push((frame.hdr, bytes));
        }
        if let Some(room) = self.room.get_mut(&slot) {
            *room -= mask.count() - left.count();
        }
        left
    }
}

impl Outlet for Out {
    fn deliver(
        &mut self,
        _: &mut Turn<'_>,
        to: Target,
        _: Option<&Lanes>,
        burst: &Burst,
        mask: Mask,
        _: bool,
    ) -> usize {
        self.take(to.slot, burst, mask, None);
        mask.count()
    }

    fn offer(
        &mut self,
        _: &mut Turn<'_>,
        to: Target,
        _: Option<&Lanes>,
        burst: &Burst,
        mask: Mask,
        last: bool,
    ) -> Mask {
        self.offers.push((to.slot, last));
        self.spoil();
        let left = self.take(to.slot, burst, mask, None);
        self.tx_full += if last { left.count() } else { 0 };
        if last { Mask::NONE } else { left }
    }

    /// Every other port takes frames so.
    fn offer_headed(
        &mut self,
        _: &mut Turn<'_>,
        to: Target,
        burst: &Burst,
        mask: Mask,
        heads: &[Head],
    ) -> Option<Mask> {
        if to.slot.is_multiple_of(2) {
            return None;
        }
        self.offers.push((to.slot, false));
        self.spoil();
        Some(self.take(to.slot, burst, mask, Some(heads)))
    }

    fn heads(&mut self, bytes: &[u8]) -> Option<Seg> {
        self.offload.lend(bytes)
    }

    fn filter(&mut self, _: &mut Turn<'_>, _: FilterStep, _: &Burst, mask: Mask) -> Mask {
        mask
    }

    fn worker(&self) -> usize {
        0
    }
}

/// The network under test. Queue n is that of port n, in the order in which they were made.
pub(super) struct World {
    topology: Topology,
    slots: Slots,
    lanes: LaneTable,
    routes: Routes,
    walk: Walk,
    io: FdIo,
    pool: Pool,
    pub(super) out: Out,
    /// Nanoseconds.
    pub(super) now: u64,
    ids: u64,
    queues: u64,
    /// Pieces that a frame is lent in.
    pub(super) pieces: usize,
}

/// A second.
pub(super) const SECOND: u64 = 1_000_000_000;

impl World {
    pub(super) fn new() -> Self {
        let arena = Arena::new(&ArenaConfig { initial: 1 << 20, step: 1 << 20, hugepages: false }).unwrap();
        let pool = Pool::set_of(1, PoolSize { small: 4, large: 1 }, &arena).unwrap().remove(0);
        let out = Out {
            offload: Offload::new(),
            got: HashMap::new(),
            room: HashMap::new(),
            offers: Vec::new(),
            spoil: Vec::new(),
            tx_full: 0,
        };
        Self {
            topology: Topology::default(),
            slots: Slots::default(),
            lanes: LaneTable::default(),
            routes: Routes::default(),
            walk: Walk::default(),
            io: FdIo::new(Some(IoMode::Batched)).unwrap().0,
            pool,
            out,
            now: 0,
            ids: 0,
            queues: 0,
            pieces: 1,
        }
    }

    fn client(&mut self, kind: ClientKind) -> ClientId {
        self.ids += 1;
        let id = ClientId(self.ids);
        let (link_up, connected) = (true, true);
        self.topology.clients.push(Client {
            id,
            kind,
            link_up,
            connected,
            pads: false,
            peer: None,
            filters: Vec::new(),
        });
        self.lanes.clients.insert(id, Arc::new(Lanes::new(1)));
        id
    }

    fn join(&mut self, a: ClientId, b: ClientId) {
        for (id, peer) in [(a, b), (b, a)] {
            self.topology.clients.iter_mut().find(|c| c.id == id).unwrap().peer = Some(peer);
        }
    }

    /// A port of a hub or switch that has nobody behind it yet.
    pub(super) fn port(&mut self, switch: i32, rules: SwitchPort) -> ClientId {
        let stations = rules.stations.clone();
        let id = self.client(ClientKind::SwitchPort { switch, port: Box::new(rules) });
        let of_it = |c: &&Client| matches!(c.kind, ClientKind::SwitchPort { switch: of, .. } if of == switch);
        let number = self.topology.clients.iter().filter(of_it).count() as u32 - 1;
        self.slots.switch_ports.insert(id, number);
        let settings = self.topology.switches.iter().find(|s| s.number == switch).copied();
        let Switch { ageing, stations: most, .. } = settings.unwrap_or(Switch::new(switch));
        let make = || Arc::new(State::new(Table::new(most, PORTS_MOST, 77), ageing, 1));
        let state = self.lanes.switches.entry(switch).or_insert_with(make);
        for (mac, vlan) in stations {
            assert!(state.table.fix(Station::of(mac, vlan), number, 0));
        }
        id
    }

    pub(super) fn settings(&mut self, switch: Switch) {
        self.topology.switches.push(switch);
    }

    pub(super) fn state(&self, switch: i32) -> &State {
        &self.lanes.switches[&switch]
    }

    /// A port with a queue behind it; the number of the queue.
    pub(super) fn add(&mut self, switch: i32, rules: SwitchPort) -> (usize, ClientId) {
        let id = self.port(switch, rules);
        (self.queue(id), id)
    }

    fn queue(&mut self, port: ClientId) -> usize {
        let id = self.queues;
        self.queues += 1;
        let dev = self.client(ClientKind::Port { queues: vec![QueueRef { id, worker: 0 }] });
        self.slots.queues.insert(id, id as u32);
        self.lanes.queues.insert(id, Arc::new(Lanes::new(1)));
        self.join(dev, port);
        self.plan();
        id as usize
    }

    /// A port of a hub with a queue behind it.
    pub(super) fn on_hub(&mut self, hub: i32) -> usize {
        let id = self.client(ClientKind::HubPort { hub, backlog: 1 });
        self.queue(id)
    }

    /// A cable between a switch and a hub.
    pub(super) fn cable_to_hub(&mut self, switch: i32, hub: i32) {
        let a = self.port(switch, SwitchPort::access(1));
        let b = self.client(ClientKind::HubPort { hub, backlog: 1 });
        self.join(a, b);
        self.plan();
    }

    /// A cable between two switches.
    pub(super) fn cable(&mut self, (a, a_rules): (i32, SwitchPort), (b, b_rules): (i32, SwitchPort)) {
        let (a, b) = (self.port(a, a_rules), self.port(b, b_rules));
        self.join(a, b);
        self.plan();
    }

    fn plan(&mut self) {
        self.routes = Routes::new(plan::build(&self.topology, &self.slots, 1), &self.lanes);
        self.walk = Walk::new(self.routes.extent());
    }

    /// Port `port` sends a burst; the frames that others got since the last call.
    pub(super) fn send(&mut self, port: usize, frames: &[Sent]) -> HashMap<u32, Vec<Sent>> {
        let mut bytes: Vec<Vec<u8>> = frames.iter().map(|(_, bytes)| bytes.clone()).collect();
        let mut burst = Burst::new();
        self.out.spoil.clear();
        for ((hdr, _), bytes) in frames.iter().zip(&mut bytes) {
            let each = bytes.len().div_ceil(self.pieces).max(1);
            let segs: Vec<Seg> = bytes
                .chunks_mut(each)
                // SAFETY: `bytes` lives until the walk ends.
                .map(|part| unsafe { Seg::new(NonNull::from(&mut part[0]), part.len() as u32) })
                .collect();
            assert!(burst.push(*hdr, &segs));
            self.out.spoil.push((NonNull::from(&mut bytes[0]), bytes.len().min(16)));
        }
        let entry = self.routes.entry(0, port, port as u64).unwrap();
        let mut turn = Turn { now: self.now, io: &mut self.io, pool: &mut self.pool };
        let taken = forward(&self.routes, &entry, &mut turn, &burst, &mut self.walk, &mut self.out);
        assert_eq!(taken, frames.len());
        self.out.offload.reset();
        std::mem::take(&mut self.out.got)
    }

    /// Frames dropped at a client for a reason.
    pub(super) fn dropped(&self, client: ClientId, reason: DropReason) -> u64 {
        self.lanes.clients[&client].dropped(reason)
    }

    /// Frames dropped at all clients, whatever the reason.
    pub(super) fn all_drops(&self) -> u64 {
        let of = |lanes: &Arc<Lanes>| DropReason::ALL.iter().map(|r| lanes.dropped(*r)).sum::<u64>();
        self.lanes.clients.values().chain(self.lanes.queues.values()).map(of).sum()
    }
}

/// The address of station `n`.
pub(super) const fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

/// To everybody.
pub(super) const ALL: [u8; 6] = [0xff; 6];

/// A frame, with a tag if one is given.
pub(super) fn frame(to: [u8; 6], from: [u8; 6], tag: Option<u16>) -> Sent {
    let mut bytes = [to, from].concat();
    if let Some(tag) = tag {
        bytes.extend([0x81, 0]);
        bytes.extend(tag.to_be_bytes());
    }
    bytes.extend([0x88, 0xb5]);
    bytes.extend((0..46u8).map(|i| i ^ from[5]));
    (VnetHdr::NONE, bytes)
}
