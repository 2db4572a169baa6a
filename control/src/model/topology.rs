//! From the model to what the engine reads.

use super::{Client, Kind, Net};
use engine::topology::model::{Client as Place, ClientKind, FilterUse, HUB_BACKLOG, Topology};

impl Net {
    /// The whole network for the engine: linear in the number of clients and filters.
    #[must_use]
    pub fn topology(&self) -> Topology {
        Topology {
            clients: self.clients.values().map(|client| self.describe(client)).collect(),
            switches: self.switches().map(|switch| switch.settings).collect(),
        }
    }

    fn describe(&self, client: &Client) -> Place {
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
            pads: matches!(client.driver(), "tap" | "bridge" | "user"),
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
