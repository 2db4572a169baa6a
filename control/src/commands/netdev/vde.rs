//! `netdev_add type=vde` (QEMU 10.0 `net_init_vde`), and such a netdev when its switch has gone.

use super::Opening;
use super::tap::{Info, cut};
use crate::apply::Plugged;
use crate::apply::binding::OPEN_LIMIT;
use crate::apply::jobs::Product;
use crate::commands::args::Args;
use crate::commands::pending::Pending;
use crate::commands::state::empty;
use crate::commands::{Outcome, State};
use crate::model::ClientId;
use crate::qmp::error::QmpError;
use crate::qmp::events::Event;
use crate::reactor::Ready;
use crate::vde::Unplugged;
use engine::backend::vde::VdeOptions;
use serde_json::{Map, Value};
use std::sync::Arc;

/// As `info network` tells of it.
fn info(plugged: &Plugged) -> String {
    let fd = plugged.opened.queues.first().map_or(-1, |queue| queue.fd);
    cut(format!("sock={},fd={fd}", plugged.options.sock))
}

fn options(args: &Map<String, Value>) -> VdeOptions {
    VdeOptions {
        sock: args.text("sock").to_owned(),
        port: args.uint("port").map_or(0, |port| port as u16),
        group: args.maybe("group").map(str::to_owned),
        mode: args.uint("mode").map_or(0o700, |mode| u32::from(mode as u16)),
    }
}

impl State {
    pub(super) fn add_vde(&mut self, args: Map<String, Value>) -> Outcome {
        let options = options(&args);
        let opening = Opening::new("vde", args);
        let backends = Arc::clone(&self.binding.backends);
        self.open(opening, move || Product::Vde(backends.open_vde(options)))
    }

    /// Joining a switch ended well: the netdev enters the model and the engine.
    pub(in crate::commands) fn vde_opened(
        &mut self,
        mut opening: Opening,
        plugged: Plugged,
    ) -> Result<Value, QmpError> {
        opening.info = Info::Lines(vec![info(&plugged)]);
        let raises_link = opening.link_up;
        let (client, counters) = self.enter(opening, plugged.opened)?;
        if let Some(counters) = counters.into_iter().next() {
            self.vdes.add(client, plugged.options, plugged.plug, raises_link, counters);
        }
        Ok(empty())
    }

    /// Handles what happened to a descriptor of [`crate::reactor::Part::Vde`].
    pub fn vde_ready(&mut self, event: Ready, events: &mut Vec<Event>) {
        let Unplugged { again, retired } = self.vdes.ready(event, &mut self.net, &mut self.binding);
        for retired in retired {
            self.binding.let_go(retired);
            self.settle_links(events); // of the nic that it is joined to
        }
        for (client, options) in again {
            let backends = Arc::clone(&self.binding.backends);
            match self.binding.jobs.start(OPEN_LIMIT, move || Product::Vde(backends.open_vde(options))) {
                Ok(ticket) => drop(self.pending.insert(ticket, Pending::Replug(client))),
                Err(error) => self.replugged(client, Err(format!("no thread to join a switch on: {error}"))),
            }
        }
    }

    /// Joining a switch again ended.
    pub(in crate::commands) fn replugged(&mut self, client: ClientId, result: Result<Plugged, String>) {
        let took = result.is_ok();
        let plugged = result.map(|plugged| {
            let info = info(&plugged);
            (plugged.opened, plugged.plug, info)
        });
        if self.vdes.replugged(client, plugged, &mut self.net, &mut self.binding) && took {
            let mut events = Vec::new();
            self.settle_links(&mut events);
            self.after_reply.append(&mut events);
        }
    }
}
