//! `query-rx-filter`, and a nic as `query-netdev` shows it.

use super::{MODEL, show_mac};
use crate::commands::State;
use crate::commands::args::Args;
use crate::model::{Client, ClientId};
use crate::nic::{Nic, RingView, Standing, complete};
use crate::qmp::error::QmpError;
use engine::{ClientStats, Stats};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// The filter of a nic without a control queue: it takes everything. The VLAN table is full, as QEMU shows one that
/// was not agreed on.
fn rx_filter(nic: &Nic) -> Value {
    json!({
        "name": nic.name,
        "promiscuous": true,
        "multicast": "normal",
        "unicast": "normal",
        "vlan": "all",
        "broadcast-allowed": true,
        "multicast-overflow": false,
        "unicast-overflow": false,
        "main-mac": show_mac(nic.state.properties.mac),
        "vlan-table": (0..4096).rev().collect::<Vec<u16>>(),
        "unicast-table": [],
        "multicast-table": [],
    })
}

pub(in crate::commands) fn ring(view: RingView) -> Value {
    let state = match (&view.fault, view.size) {
        (Some(_), _) => "failed",
        (None, Some(_)) => "running",
        (None, None) => "stopped",
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
    /// What the guests of nics have asked for.
    pub(in crate::commands) fn query_rx_filter(&self, args: &Map<String, Value>) -> Result<Value, QmpError> {
        let Some(name) = args.maybe("name") else { return Ok(self.nics.all().map(rx_filter).collect()) };
        match self.net.named(name).next() {
            None => Err(QmpError::generic(format!("invalid net client name: {name}"))),
            Some(client) => match self.nics.of(client.id) {
                Some(nic) => Ok(json!([rx_filter(nic)])),
                None => Err(QmpError::generic(format!("net client({name}) isn't a NIC"))),
            },
        }
    }

    /// All counters, with every queue pair of every nic and `vhost-user` netdev, whether it runs or not.
    pub(in crate::commands) fn stats(&self) -> Stats {
        let mut stats = self.binding.plane.stats();
        let nics = self.nics.all().map(|nic| (nic.client, nic.counters()));
        let netdevs = self.vhost_users.all().map(|netdev| (netdev.client, netdev.counters()));
        let mut pairs: HashMap<ClientId, _> = nics.chain(netdevs).collect();
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
        entry.insert("macaddr".into(), show_mac(nic.state.properties.mac).into());
        entry.insert("queues".into(), nic.state.properties.pairs.into());
        entry.insert("properties".into(), args.into());
        entry.insert("offered".into(), format!("{:#x}", nic.state.properties.features).into());
        if let Some(bits) = nic.state.accepted {
            entry.insert("features".into(), format!("{bits:#x}").into());
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
