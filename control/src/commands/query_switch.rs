//! `query-switch`: the learning switches with their ports, VLANs, stations and counters.

use super::State;
use super::args::Args;
use crate::model::{Client, Kind, Switch};
use crate::nic::show_mac;
use crate::qmp::error::QmpError;
use engine::topology::switch::SwitchPort;
use engine::{StationStats, SwitchStats};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

impl State {
    /// All switches, or that of one number.
    pub(super) fn query_switch(&self, args: &Map<String, Value>) -> Result<Value, QmpError> {
        let asked = args.int("switchid");
        let stats = self.binding.plane.switches();
        let of = |number| stats.iter().find(|s| s.number == number).cloned().unwrap_or_default();
        let wanted = |switch: &&Switch| asked.is_none_or(|id| id == i64::from(switch.settings.number));
        let all = self.net.switches().filter(wanted).map(|s| self.describe_switch(s, of(s.settings.number)));
        let all: Vec<Value> = all.collect();
        match asked {
            Some(id) if all.is_empty() => Err(QmpError::generic(format!("switch {id} not found"))),
            _ => Ok(all.into()),
        }
    }

    fn describe_switch(&self, switch: &Switch, mut stats: SwitchStats) -> Value {
        stats.stations.sort_by_key(|station| (station.vlan, station.mac));
        let ports: Vec<(&Client, &SwitchPort)> = switch
            .ports
            .iter()
            .filter_map(|id| self.net.client(*id))
            .filter_map(|client| match &client.kind {
                Kind::SwitchPort { port, .. } => Some((client, &**port)),
                _ => None,
            })
            .collect();
        let known: Vec<Value> =
            stats.stations.iter().filter_map(|station| self.describe_station(station)).collect();
        let counters: Map<String, Value> =
            stats.counts.iter().map(|(count, n)| (count.name().to_owned(), json!(n))).collect();
        json!({
            "switchid": switch.settings.number,
            "ageing-time": switch.settings.ageing,
            "table-size": switch.settings.stations,
            "ports": ports.iter().map(|(client, port)| self.describe_port(client, port, &stats)).collect::<Vec<_>>(),
            "vlans": vlans(&ports, &stats),
            "macs": known,
            "counters": counters,
        })
    }

    fn describe_port(&self, client: &Client, port: &SwitchPort, stats: &SwitchStats) -> Value {
        let mode = match (&port.mirror, port.tagged.is_empty()) {
            (Some(_), _) => "mirror",
            (None, true) => "access",
            (None, false) => "trunk",
        };
        let mut entry = Map::new();
        entry.insert("name".into(), client.name.clone().into());
        entry.insert("link".into(), client.link_up.into());
        if let Some(peer) = client.peer.and_then(|peer| self.net.client(peer)) {
            entry.insert("peer-id".into(), peer.name.clone().into());
        }
        entry.insert("mode".into(), mode.into());
        if mode != "mirror" && port.untagged != 0 {
            entry.insert("vlan".into(), port.untagged.into());
        }
        if mode == "trunk" {
            entry.insert("trunk".into(), ranges(port.tagged.iter()).into());
        }
        entry.insert("private".into(), port.private.into());
        let macs = stats.stations.iter().filter(|station| station.port == client.id).count();
        entry.insert("macs".into(), macs.into());
        entry.insert("mac-limit".into(), port.limit.into());
        if let Some(of) = client.options.maybe("mirror") {
            entry.insert("mirror".into(), of.into());
            entry.insert(
                "mirror-frames".into(),
                client.options.maybe("mirror-frames").unwrap_or("both").into(),
            );
        }
        Value::Object(entry)
    }

    fn describe_station(&self, station: &StationStats) -> Option<Value> {
        Some(json!({
            "mac": show_mac(station.mac),
            "vlan": station.vlan,
            "port": self.net.client(station.port)?.name,
            "static": station.fixed,
            "age": station.age,
        }))
    }
}

/// VLANs in which some port has frames without a tag, or a station is known.
fn vlans(ports: &[(&Client, &SwitchPort)], stats: &SwitchStats) -> Vec<Value> {
    let ports = || ports.iter().filter(|(_, port)| port.mirror.is_none());
    let mut stations: BTreeMap<u16, usize> = BTreeMap::new();
    for station in &stats.stations {
        *stations.entry(station.vlan).or_default() += 1;
    }
    let untagged = ports().map(|(_, port)| port.untagged).filter(|vlan| *vlan != 0);
    let all: BTreeSet<u16> = untagged.chain(stations.keys().copied()).collect();
    let names = |which: &dyn Fn(&SwitchPort) -> bool| -> Vec<Value> {
        ports().filter(|(_, port)| which(port)).map(|(client, _)| client.name.clone().into()).collect()
    };
    let describe = |vlan: u16| {
        json!({
            "vlan": vlan,
            "untagged": names(&|port| port.untagged == vlan),
            "tagged": names(&|port| port.untagged != vlan && port.tagged.has(vlan)),
            "macs": stations.get(&vlan).copied().unwrap_or_default(),
        })
    };
    all.into_iter().map(describe).collect()
}

/// `10:20-29`, or `all`.
fn ranges(vlans: impl Iterator<Item = u16>) -> String {
    let mut all: Vec<(u16, u16)> = Vec::new();
    for vlan in vlans {
        match all.last_mut() {
            Some((_, to)) if *to + 1 == vlan => *to = vlan,
            _ => all.push((vlan, vlan)),
        }
    }
    if all == [(1, engine::topology::switch::VLAN_MOST)] {
        return "all".to_owned();
    }
    let show = |(from, to): &(u16, u16)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    all.iter().map(show).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_vlans_are_a_range() {
        assert_eq!(ranges([1, 2, 3, 7, 9, 10].into_iter()), "1-3:7:9-10");
        assert_eq!(ranges(1..=4094), "all");
        assert_eq!(ranges(std::iter::empty()), "");
    }
}
