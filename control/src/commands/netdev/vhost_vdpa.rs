//! `netdev_add type=vhost-vdpa` (QEMU 10.0 `net_init_vhost_vdpa`), and such a netdev when its device changes.

use super::Opening;
use super::tap::Info;
use crate::apply::jobs::Product;
use crate::apply::{Opened, Vdpa};
use crate::commands::args::Args;
use crate::commands::fd::Fds;
use crate::commands::nic::ring;
use crate::commands::state::{empty, timestamp};
use crate::commands::{Outcome, State};
use crate::model::Client;
use crate::qmp::error::QmpError;
use crate::qmp::events::Event;
use crate::reactor::Ready;
use engine::backend::vhost_vdpa::VdpaOptions;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// In QEMU's order. How many queue pairs there are, the device says: `queues` is taken and not used, as in QEMU.
fn options(args: &Map<String, Value>, fds: &mut Fds, monitor: u64) -> Result<VdpaOptions, QmpError> {
    let device = match (args.maybe("vhostdev"), args.maybe("vhostfd")) {
        (None, None) => {
            let desc = "vhost-vdpa: neither vhostdev= nor vhostfd= was specified";
            return Err(QmpError::generic(desc));
        }
        (Some(_), Some(_)) => {
            let desc = "vhost-vdpa: vhostdev= and vhostfd= are mutually exclusive";
            return Err(QmpError::generic(desc));
        }
        (Some(path), None) => Ok(path.to_owned()),
        (None, Some(fd)) => {
            let taken = fds.named_or_numbered(monitor, args.text("id"), fd);
            let (file, _) = taken.map_err(|error| {
                // A number that is no open file shows in QEMU with the first question.
                let desc = match error.desc.rsplit_once("Can't use file descriptor ") {
                    Some((_, why)) => {
                        let why = why.split_once(": ").map_or(why, |(_, why)| why);
                        format!("Fail to query features from vhost-vDPA device: {why}")
                    }
                    None => format!("vhost-vdpa: unable to parse vhostfd: {}", error.desc),
                };
                QmpError::generic(desc)
            })?;
            Err(file)
        }
    };
    Ok(VdpaOptions { device, shadow: args.flag("x-svq") == Some(true) })
}

/// What is told of a ring of the kernel's that stopped.
fn stopped((name, ring, reason): (String, usize, String)) -> Event {
    let data = json!({"name": name, "queue": ring, "reason": reason});
    Event { name: "NIC_STOPPED", data: Some(data), timestamp: timestamp() }
}

impl State {
    pub(super) fn add_vhost_vdpa(&mut self, monitor: u64, args: Map<String, Value>) -> Outcome {
        let options = match options(&args, &mut self.fds, monitor) {
            Ok(options) => options,
            Err(error) => return Err(error).into(),
        };
        let opening = Opening::new("vhost-vdpa", args);
        let (backends, wake) = (Arc::clone(&self.binding.backends), self.vdpas.wake().clone());
        self.open(opening, move || Product::Vdpa(backends.open_vhost_vdpa(options, &wake)))
    }

    /// Opening a device ended well: the netdev enters the model and the engine.
    pub(in crate::commands) fn vdpa_opened(
        &mut self,
        mut opening: Opening,
        vdpa: Vdpa,
    ) -> Result<Value, QmpError> {
        let Vdpa { queues, handle, up } = vdpa;
        opening.info = Info::Lines(queues.iter().map(|_| "vhost-vdpa".to_owned()).collect());
        let follows_link = opening.link_up;
        opening.link_up = follows_link && up;
        let name = opening.name.clone();
        let opened = Opened {
            queues,
            ifname: None,
            connected: true,
            down: None,
            port: None,
            carrier: None,
            rings: None,
        };
        let (client, counters) = self.enter(opening, opened)?;
        if let Some(client) = self.net.client_mut(client) {
            client.carries = Some(handle.features().1);
        }
        self.vdpas.add(&name, client, handle, follows_link, counters);
        Ok(empty())
    }

    /// Handles what happened to a descriptor of [`crate::reactor::Part::Vdpa`].
    pub fn vdpa_ready(&mut self, event: Ready, events: &mut Vec<Event>) {
        let news = self.vdpas.ready(event, &mut self.net, &mut self.binding);
        events.extend(news.stopped.into_iter().map(stopped));
        for nic in news.announce {
            self.nics.announce(nic);
        }
        for retired in news.retired {
            self.binding.let_go(retired);
        }
        if news.link {
            self.settle_links(events); // of the nic that it is joined to
        }
    }

    /// Handles what happened to a descriptor of [`crate::reactor::Part::VhostNet`].
    pub fn vhost_net_ready(&mut self, event: Ready, events: &mut Vec<Event>) {
        events.extend(self.vhost_nets.ready(event).map(stopped));
    }

    /// Its own members of `query-netdev`.
    pub(in crate::commands) fn describe_vhost_vdpa(&self, client: &Client) -> Map<String, Value> {
        let mut entry = client.options.clone();
        if let Some((offered, accepted, pairs, rings)) = self.vdpas.view(client.id) {
            entry.insert("queues".into(), pairs.into());
            entry.insert("offered".into(), format!("{offered:#x}").into());
            entry.insert("features".into(), format!("{accepted:#x}").into());
            entry.insert("rings".into(), rings.into_iter().map(ring).collect());
        }
        entry
    }
}
