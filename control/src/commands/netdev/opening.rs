//! A netdev between its command and its reply: it is opened off the control thread.

use super::tap;
use crate::apply::Opened;
use crate::apply::binding::OPEN_LIMIT;
use crate::apply::jobs::Product;
use crate::commands::args::Args;
use crate::commands::pending::Pending;
use crate::commands::state::empty;
use crate::commands::{Outcome, State};
use crate::model::{ClientId, Netdev};
use crate::qmp::error::QmpError;
use engine::backend::af_xdp::AfXdpOptions;
use engine::port::counters::PortCounters;
use serde_json::{Map, Value};
use std::sync::Arc;

/// A netdev that is being opened.
#[derive(Debug)]
pub(in crate::commands) struct Opening {
    pub name: String,
    pub driver: &'static str,
    pub link_up: bool,
    /// Program that will undo what the script did.
    pub down: Option<String>,
    /// How `info network` describes it, once the interface is known.
    pub info: tap::Info,
    /// Workers that were chosen before it is open.
    pub workers: Vec<usize>,
    /// How an interface is opened again that came back.
    pub again: Option<AfXdpOptions>,
    pub options: Map<String, Value>,
}

impl Opening {
    /// As its arguments say, with nothing that only some netdevs have.
    pub(super) fn new(driver: &'static str, args: Map<String, Value>) -> Self {
        Self {
            name: args.text("id").to_owned(),
            driver,
            link_up: args.flag("link").unwrap_or(true),
            down: None,
            info: tap::Info::Lines(Vec::new()),
            workers: Vec::new(),
            again: None,
            options: args,
        }
    }
}

impl State {
    /// Opens off this thread; the reply waits for it.
    pub(super) fn open(
        &mut self,
        opening: Opening,
        job: impl FnOnce() -> Product + Send + 'static,
    ) -> Outcome {
        let name = opening.name.clone();
        if let Err(error) = self.net.reserve(&name) {
            self.unplace(&opening.workers);
            return Err(error.into()).into();
        }
        match self.binding.jobs.start(OPEN_LIMIT, job) {
            Ok(ticket) => {
                self.pending.insert(ticket, Pending::Netdev(opening));
                Outcome::Later(ticket)
            }
            Err(error) => {
                self.net.unreserve(&name);
                self.unplace(&opening.workers);
                Err(QmpError::generic(format!("netdev '{name}': no thread to open it on: {error}"))).into()
            }
        }
    }

    /// Gives up workers that were chosen.
    pub(in crate::commands) fn unplace(&mut self, workers: &[usize]) {
        workers.iter().for_each(|worker| self.binding.plane.unplace(*worker));
    }

    /// The open ended well: the netdev enters the model and the engine.
    pub(in crate::commands) fn netdev_opened(
        &mut self,
        opening: Opening,
        opened: Opened,
    ) -> Result<Value, QmpError> {
        self.enter(opening, opened).map(|_| empty())
    }

    /// As [`State::netdev_opened`]: its client, and the counters of its queues.
    pub(super) fn enter(
        &mut self,
        opening: Opening,
        opened: Opened,
    ) -> Result<(ClientId, Vec<Arc<PortCounters>>), QmpError> {
        let Opening { name, driver, link_up, info, again, options, .. } = opening;
        let info = info.lines(&opened);
        let (connected, script, port) = (opened.connected, opened.down, opened.port);
        let (carrier, rings) = (opened.carrier, opened.rings);
        let (queues, attach) = self.binding.place(opened.queues);
        let counters: Vec<_> = attach.queues.iter().map(|(_, queue)| queue.counters.clone()).collect();
        let dev = Netdev { driver, queues, info, connected };
        let added = self.net.add_netdev(&name, dev, link_up, options);
        let id: ClientId = match added {
            Ok(id) => id,
            Err(error) => {
                // Cannot be while the name is reserved; what was opened closes here.
                drop(attach);
                return Err(error.into());
            }
        };
        if let Some(carrier) = carrier {
            self.binding.carriers.add(id, carrier);
        }
        match self.binding.commit(&self.net, attach) {
            Ok(_) => {
                if let Some(script) = script {
                    self.binding.owe(id, script);
                }
                if let Some(port) = port {
                    self.af_xdps.add(id, port, again, link_up, counters.clone());
                    self.look_at_link(id);
                }
                if let Some(rings) = rings {
                    self.vhost_nets.add(&name, id, rings);
                }
                Ok((id, counters))
            }
            Err(error) => {
                let gone = self.net.remove_client(id);
                for queue in gone.iter().flat_map(|gone| gone.client.queues()) {
                    self.binding.plane.unplace(queue.worker);
                }
                if let Some(script) = script {
                    self.binding.run_down_script(script);
                }
                Err(error)
            }
        }
    }
}
