//! From the model to what the engine reads.

use std::collections::BTreeSet;

use super::{Client, Kind, Net};
use engine::topology::model::{Client as Place, ClientKind, FilterUse, HUB_BACKLOG, Topology};

impl Net {
    /// The whole network for the engine: linear in the number of clients and filters.
    #[must_use]
    pub fn topology(&self) -> Topology {
        let exact = self.hubs_with_passt();
        Topology {
            clients: self.clients.values().map(|client| self.describe(client, &exact)).collect(),
            switches: self.switches().map(|switch| switch.settings).collect(),
        }
    }

    /// The hub that a client is joined to.
    fn hub_of(&self, client: &Client) -> Option<i32> {
        match self.client(client.peer?)?.kind {
            Kind::HubPort { hub } => Some(hub),
            _ => None,
        }
    }

    /// Hubs whose frames keep their length: passt of 2023, Debian 12's, waits for ever when an acknowledgement has zeros behind it.
    fn hubs_with_passt(&self) -> BTreeSet<i32> {
        let passt = self.clients.values().filter(|client| client.driver() == "passt");
        passt.filter_map(|client| self.hub_of(client)).collect()
    }

    fn describe(&self, client: &Client, exact: &BTreeSet<i32>) -> Place {
        let (kind, connected) = match &client.kind {
            Kind::Netdev(dev) | Kind::Nic(dev) => {
                (ClientKind::Port { queues: dev.queues.clone() }, dev.connected)
            }
            Kind::HubPort { hub } => (ClientKind::HubPort { hub: *hub, backlog: backlog(client) }, true),
            Kind::SwitchPort { switch, port } => {
                (ClientKind::SwitchPort { switch: *switch, port: port.clone() }, true)
            }
        };
        let filters = client.filters.iter().filter_map(|id| {
            let filter = self.filters.get(id)?;
            let (options, holds) = (&filter.options, filter.holds());
            // A filter that is off keeps its place and its instances, and sees nothing.
            Some(FilterUse {
                id: *id,
                rx: holds || (options.on && options.queue.rx()),
                tx: holds || (options.on && options.queue.tx()),
            })
        });
        // A netdev without its other end drops frames for that, not for the link that is down with it.
        let alone = !connected && matches!(client.kind, Kind::Netdev(_));
        Place {
            id: client.id,
            kind,
            link_up: client.link_up || alone,
            connected,
            pads: matches!(client.driver(), "tap" | "bridge" | "user")
                && self.hub_of(client).is_some_and(|hub| !exact.contains(&hub)),
            peer: client.peer,
            filters: filters.collect(),
        }
    }
}

/// Frames that may wait for the port behind a hub port.
fn backlog(client: &Client) -> u32 {
    let asked = client.options.get("hub-backlog").and_then(serde_json::Value::as_u64);
    asked.map_or(HUB_BACKLOG, |frames| u32::try_from(frames).unwrap_or(u32::MAX))
}
