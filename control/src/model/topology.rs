//! From the model to what the engine reads.

use super::{Client, Direction, Kind, Net};
use engine::topology::model::{Client as Place, ClientKind, FilterUse, Topology};

impl Net {
    /// The whole network for the engine: linear in the number of clients and filters.
    #[must_use]
    pub fn topology(&self) -> Topology {
        Topology { clients: self.clients.values().map(|client| self.describe(client)).collect() }
    }

    fn describe(&self, client: &Client) -> Place {
        let (kind, connected) = match &client.kind {
            Kind::Netdev(dev) | Kind::Nic(dev) => {
                (ClientKind::Port { queues: dev.queues.clone() }, dev.connected)
            }
            Kind::HubPort { hub } => (ClientKind::HubPort { hub: *hub }, true),
        };
        let filters = client.filters.iter().filter_map(|id| {
            let options = &self.filters.get(id)?.options;
            // A filter that is off keeps its place and its instances, and sees nothing.
            Some(FilterUse {
                id: *id,
                rx: options.on && options.queue != Direction::Tx,
                tx: options.on && options.queue != Direction::Rx,
            })
        });
        Place {
            id: client.id,
            kind,
            link_up: client.link_up,
            connected,
            peer: client.peer,
            filters: filters.collect(),
        }
    }
}
