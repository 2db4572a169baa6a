//! What a guest hears of its link, and `nic-set-netdev`.

use crate::commands::State;
use crate::commands::args::Args;
use crate::commands::state::empty;
use crate::nic::Nic;
use crate::qmp::error::QmpError;
use crate::qmp::events::Event;
use engine::Attachments;
use serde_json::{Map, Value};

impl State {
    /// Tells guests whose link has changed.
    pub(in crate::commands) fn settle_links(&mut self, events: &mut Vec<Event>) {
        let happened = self.nics.settle_links(&mut self.net, &mut self.binding);
        self.settle_vdpas();
        self.tell_happened(happened, events);
    }

    /// Tells vDPA devices what guests asked of the nics in front of them.
    pub(super) fn settle_vdpas(&mut self) {
        let nics = &self.nics;
        self.vdpas.settle(&self.net, |client| nics.of(client).map(Nic::asked));
    }

    /// Joins a nic to another netdev in one commit.
    pub(in crate::commands) fn nic_set_netdev(
        &mut self,
        args: &Map<String, Value>,
        events: &mut Vec<Event>,
    ) -> Result<Value, QmpError> {
        let name = args.text("name");
        let Some(nic) = self.nic_named(name).map(|nic| nic.client) else {
            return Err(match self.net.named(name).next() {
                Some(_) => QmpError::generic(format!("net client({name}) isn't a NIC")),
                None => QmpError::device_not_found(name),
            });
        };
        let before = self.net.client(nic).map(|client| (client.peer, client.link_up));
        self.net.set_peer(nic, args.maybe("netdev"))?;
        if let Err(error) = self.binding.commit(&self.net, Attachments::default()) {
            // As it was: nothing new is in force.
            let (peer, link_up) = before.unwrap_or_default();
            self.net.join(nic, peer);
            if let Some(client) = self.net.client_mut(nic) {
                client.link_up = link_up;
            }
            return Err(error);
        }
        self.settle_links(events);
        let moved = self
            .net
            .client(nic)
            .is_some_and(|now| now.peer.is_some() && Some(now.peer) != before.map(|b| b.0));
        if moved {
            // Its neighbours are others now.
            self.nics.announce(nic);
        }
        Ok(empty())
    }
}
