//! `query-rx-filter`, and a nic as `query-netdev` shows it.

use super::{MODEL, show_mac};
use crate::commands::State;
use crate::commands::args::Args;
use crate::model::{Client, ClientId};
use crate::nic::{Nic, RingView, Standing, complete};
use crate::qmp::error::QmpError;
use engine::backend::nic::{Mac, Mode, NetFeatures};
use engine::{ClientStats, Stats};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// What a guest's driver takes (QEMU `virtio_net_query_rxfilter`): tables in reverse order. Without an agreement on VLANs all are taken.
fn rx_filter(nic: &Nic) -> Value {
    let asked = nic.asked();
    let filter = &asked.filter;
    let state = |none, all| match (filter.mode(none), filter.mode(all)) {
        (true, _) => "none",
        (false, true) => "all",
        (false, false) => "normal",
    };
    let addresses = |all: &[Mac]| -> Value { all.iter().rev().map(|mac| show_mac(*mac)).collect() };
    let vlans: Vec<u16> = filter.vlans().collect();
    let vlan = match (asked.has(NetFeatures::CTRL_VLAN), vlans.is_empty()) {
        (false, _) => "all",
        (true, true) => "none",
        (true, false) => "normal",
    };
    json!({
        "name": nic.name,
        "promiscuous": filter.mode(Mode::Promiscuous),
        "multicast": state(Mode::NoMulticast, Mode::AllMulticast),
        "unicast": state(Mode::NoUnicast, Mode::AllUnicast),
        "vlan": vlan,
        "broadcast-allowed": !filter.mode(Mode::NoBroadcast),
        "multicast-overflow": filter.table.multicast_overflow,
        "unicast-overflow": filter.table.unicast_overflow,
        "main-mac": show_mac(filter.mac),
        "vlan-table": vlans,
        "unicast-table": addresses(filter.table.unicast()),
        "multicast-table": addresses(filter.table.multicast()),
    })
}

pub(in crate::commands) fn ring(view: RingView) -> Value {
    let state = match (&view.fault, view.size) {
        (Some(_), _) => "failed",
        (None, Some(_)) if view.used => "running",
        (None, _) => "stopped",
    };
    let mut entry = json!({"ring": view.ring, "state": state});
    if let Some(size) = view.size {
        entry["size"] = size.into();
    }
    if let Some(why) = view.fault {
        entry["reason"] = why.into();
    }
    entry
}

impl State {
    /// What the guests of nics have asked for; NIC_RX_FILTER_CHANGED tells of changes again.
    pub(in crate::commands) fn query_rx_filter(
        &mut self,
        args: &Map<String, Value>,
    ) -> Result<Value, QmpError> {
        let nics: Vec<&Nic> = match args.maybe("name") {
            None => self.nics.all().collect(),
            Some(name) => match self.net.named(name).next() {
                None => return Err(QmpError::generic(format!("invalid net client name: {name}"))),
                Some(client) => match self.nics.of(client.id) {
                    Some(nic) => vec![nic],
                    None => return Err(QmpError::generic(format!("net client({name}) isn't a NIC"))),
                },
            },
        };
        let shown = nics.iter().copied().map(rx_filter).collect();
        let clients: Vec<ClientId> = nics.iter().map(|nic| nic.client).collect();
        clients.into_iter().for_each(|client| self.nics.arm(client));
        Ok(shown)
    }

    /// All counters, with every queue pair of every nic, `vhost-user` and `af-xdp` netdev, whether it runs or not.
    pub(in crate::commands) fn stats(&self) -> Stats {
        let mut stats = self.binding.plane.stats();
        let nics = self.nics.all().map(|nic| (nic.client, nic.counters()));
        let netdevs = self.vhost_users.all().map(|netdev| (netdev.client, netdev.counters()));
        let interfaces = self
            .af_xdps
            .counters()
            .chain(self.vdes.counters())
            .chain(self.users.counters())
            .chain(self.vdpas.counters());
        let streams = self.streams.counters();
        let mut pairs: HashMap<ClientId, _> = nics.chain(netdevs).chain(interfaces).chain(streams).collect();
        if pairs.is_empty() {
            return stats;
        }
        for ClientStats { client, queues } in &mut stats.clients {
            if let Some(pairs) = client.and_then(|id| pairs.remove(&id)) {
                complete(&pairs, queues);
            }
        }
        stats.clients.extend(pairs.into_iter().map(|(client, pairs)| {
            let mut queues = Vec::new();
            complete(&pairs, &mut queues);
            ClientStats { client: Some(client), queues }
        }));
        stats
    }

    /// A nic's own members of `query-netdev`.
    pub(in crate::commands) fn describe_nic(&self, client: &Client) -> Map<String, Value> {
        let mut entry = Map::new();
        let Some(nic) = self.nics.of(client.id) else { return entry };
        let mut args = client.options.clone();
        for name in ["id", "type", "link", "model", "mac", "macaddr", "queues"] {
            args.shift_remove(name);
        }
        for name in ["netdev", "chardev", "addr", "vectors"] {
            if let Some(value) = args.shift_remove(name)
                && (name != "addr" || nic.made.by_netdev_add)
            {
                entry.insert(name.into(), value);
            }
        }
        entry.insert("model".into(), MODEL.into());
        entry.insert("macaddr".into(), show_mac(nic.asked().filter.mac).into());
        entry.insert("queues".into(), nic.state.properties.pairs.into());
        entry.insert("properties".into(), args.into());
        entry.insert("offered".into(), format!("{:#x}", nic.state.offered(client.id, &self.net)).into());
        if let Some(bits) = nic.state.accepted {
            entry.insert("features".into(), format!("{bits:#x}").into());
        }
        if let Some(mtu) = nic.state.mtu {
            entry.insert("mtu".into(), mtu.into());
        }
        entry.insert("rings".into(), nic.rings().into_iter().map(ring).collect());
        entry
    }

    /// How a nic's connection stands: a word, and what went wrong.
    pub(in crate::commands) fn nic_state(&self, client: ClientId) -> (&'static str, Option<String>) {
        let Some(nic) = self.nics.of(client) else { return ("closed", None) };
        match nic.standing() {
            Standing::Running => ("ready", None),
            Standing::Connecting => ("connecting", None),
            Standing::Failed(ring, why) => ("failed", Some(format!("ring {ring}: {why}"))),
            Standing::Alone => {
                let chardev = self.chardevs.list().into_iter().find(|c| c.label == nic.chardev);
                let dials = chardev.is_some_and(|c| c.addr.is_some() && !c.filename.contains("server=on"));
                (if dials { "connecting" } else { "listening" }, None)
            }
        }
    }
}
