//! What lives longer than a plan: the state of each switch, and the numbers of its ports.

use super::Engine;
use crate::switch::State;
use crate::switch::routes::LaneTable;
use crate::switch::state::Count;
use crate::switch::table::{Station, Table, units};
use crate::topology::model::{ClientId, ClientKind, Topology};
use crate::topology::plan::{Hop, Plan, Slots};
use crate::topology::switch::{Mac, PORTS_MOST, Switch};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// All switches.
#[derive(Default)]
pub(super) struct Switches {
    switches: HashMap<i32, Switch>,
    ports: HashMap<ClientId, Port>,
}

/// A port of a switch.
struct Port {
    switch: i32,
    number: u32,
    /// Its static stations are not in the table yet.
    fresh: bool,
}

impl Switches {
    /// Gives what is new its state and its number. Ports that go keep theirs until [`Switches::settle`].
    pub(super) fn prepare(
        &mut self,
        topology: &Topology,
        workers: usize,
        slots: &mut Slots,
        lanes: &mut LaneTable,
    ) {
        let mut taken: HashMap<i32, HashSet<u32>> = HashMap::new();
        for port in self.ports.values() {
            taken.entry(port.switch).or_default().insert(port.number);
        }
        for client in &topology.clients {
            let ClientKind::SwitchPort { switch: number, .. } = client.kind else { continue };
            if self.ports.contains_key(&client.id) {
                continue;
            }
            self.switches.entry(number).or_insert_with(|| {
                let asked = topology.switches.iter().find(|s| s.number == number).copied();
                let asked = asked.unwrap_or(Switch::new(number));
                let table = Table::new(asked.stations, PORTS_MOST, RandomState::new().hash_one(number));
                lanes.switches.insert(number, Arc::new(State::new(table, asked.ageing, workers)));
                asked
            });
            let taken = taken.entry(number).or_default();
            // One beyond the most is no port of the plan: frames there have no peer.
            let Some(free) = (0..PORTS_MOST).find(|n| !taken.contains(n)) else { continue };
            taken.insert(free);
            slots.switch_ports.insert(client.id, free);
            self.ports.insert(client.id, Port { switch: number, number: free, fresh: true });
        }
    }

    /// Ports that nothing can leave by: their link is down, or nobody is behind them.
    pub(super) fn dead(plan: &Plan) -> HashSet<ClientId> {
        let Some(plan) = plan.workers.first() else { return HashSet::new() };
        let ports = plan.switches.iter().flat_map(|switch| switch.ports.iter().flatten());
        let discards =
            |node: u32| plan.nodes.get(node as usize).is_none_or(|node| matches!(node.hop, Hop::Discard(_)));
        ports.filter(|port| discards(port.node)).map(|port| port.client).collect()
    }

    /// The plan is in force: forgets stations at ports that are gone or dead, and puts the static ones in.
    pub(super) fn settle(
        &mut self,
        topology: &Topology,
        dead: &HashSet<ClientId>,
        now: u64,
        slots: &mut Slots,
        lanes: &mut LaneTable,
    ) {
        if self.ports.is_empty() {
            return;
        }
        let clients = topology.clients.iter().map(|client| (client.id, client));
        let clients: HashMap<ClientId, _> = clients.collect();
        self.ports.retain(|id, port| {
            let Some(state) = lanes.switches.get(&port.switch) else { return false };
            let number = port.number;
            let Some(client) = clients.get(id) else {
                state.table.remove(|value, _| value.port() == number);
                slots.switch_ports.remove(id);
                return false;
            };
            if dead.contains(id) {
                state.table.remove(|value, _| value.port() == number && !value.is_static());
            }
            if let (true, ClientKind::SwitchPort { port: rules, .. }) = (port.fresh, &client.kind) {
                for (mac, vlan) in &rules.stations {
                    state.table.fix(Station::of(*mac, *vlan), number, units(now));
                }
                port.fresh = false;
            }
            true
        });
        let ports = &self.ports;
        self.switches.retain(|number, _| {
            let used = ports.values().any(|port| port.switch == *number);
            if !used {
                lanes.switches.remove(number);
            }
            used
        });
    }
}

/// A switch at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwitchStats {
    /// Its number.
    pub number: i32,
    /// Seconds after which a station is forgotten; 0: never.
    pub ageing: u32,
    /// Stations that it holds at most.
    pub most: u32,
    /// Its stations, in no order.
    pub stations: Vec<StationStats>,
    /// What it counted.
    pub counts: Vec<(Count, u64)>,
}

/// A station of a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StationStats {
    /// Its address.
    pub mac: Mac,
    /// Its VLAN.
    pub vlan: u16,
    /// The port where it is.
    pub port: ClientId,
    /// It stays there whatever is heard.
    pub fixed: bool,
    /// Seconds since it was heard, a little more than a second more or less.
    pub age: u64,
}

impl Engine {
    /// The switches now (nobody is stopped), lowest number first.
    #[must_use]
    pub fn switches(&self) -> Vec<SwitchStats> {
        let now = units(self.now());
        let mut all: Vec<SwitchStats> =
            self.switches.switches.values().map(|s| self.switch(s, now)).collect();
        all.sort_by_key(|switch| switch.number);
        all
    }

    fn switch(&self, switch: &Switch, now: u64) -> SwitchStats {
        let Switch { number, ageing, stations: most } = *switch;
        let Some(state) = self.lanes.switches.get(&number) else { return SwitchStats::default() };
        let ports = self.switches.ports.iter().filter(|(_, port)| port.switch == number);
        let names: HashMap<u32, ClientId> = ports.map(|(id, port)| (port.number, *id)).collect();
        let live = state.table.stations().filter(|(_, value)| !value.is_old(now, state.ageing));
        let stations = live.filter_map(|(station, value)| {
            Some(StationStats {
                mac: station.mac(),
                vlan: station.vlan(),
                port: *names.get(&value.port())?,
                fixed: value.is_static(),
                age: if value.is_static() {
                    0
                } else {
                    (now.saturating_sub(value.time()) << 30) / 1_000_000_000
                },
            })
        });
        let counts = Count::ALL.into_iter().map(|count| (count, state.counted(count)));
        SwitchStats { number, ageing, most, stations: stations.collect(), counts: counts.collect() }
    }
}
