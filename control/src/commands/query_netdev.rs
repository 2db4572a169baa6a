//! `query-netdev`: every netdev and nic with its options, and how it stands.

use super::State;
use super::args::Args;
use crate::model::{Client, Kind};
use crate::qmp::error::QmpError;
use serde_json::{Map, Value, json};

impl State {
    /// All clients, or those of one name.
    pub(super) fn query_netdev(&self, args: &Map<String, Value>) -> Result<Value, QmpError> {
        let Some(name) = args.maybe("name") else {
            return Ok(self.net.clients().map(|c| self.describe(c)).collect());
        };
        let found: Vec<Value> = self.net.named(name).map(|c| self.describe(c)).collect();
        if found.is_empty() {
            return Err(QmpError::device_not_found(name));
        }
        Ok(found.into())
    }

    fn describe(&self, client: &Client) -> Value {
        // The options as they were given; `link` among them is only the first state.
        let mut entry = client.options.clone();
        entry.insert("id".into(), client.name.clone().into());
        entry.insert("type".into(), client.driver().into());
        entry.insert("link".into(), client.link_up.into());
        if let Some(peer) = client.peer.and_then(|peer| self.net.client(peer)) {
            entry.insert("peer-id".into(), peer.name.clone().into());
        }
        entry.insert("transport".into(), transport(client));
        let filters = client.filters.iter().filter_map(|id| self.net.filter(*id));
        entry.insert("filters".into(), filters.map(|f| f.name.clone()).collect());
        Value::Object(entry)
    }
}

fn transport(client: &Client) -> Value {
    match &client.kind {
        Kind::HubPort { .. } => json!({"state": "ready", "info": ""}),
        Kind::Netdev(dev) | Kind::Nic(dev) => {
            let state = if dev.connected { "ready" } else { "closed" };
            json!({"state": state, "info": dev.info.first().map_or("", String::as_str)})
        }
    }
}
