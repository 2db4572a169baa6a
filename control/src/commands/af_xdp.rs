//! `af-xdp` netdevs after they were opened: their interfaces, and how `query-netdev` shows them.

use super::State;
use super::pending::Pending;
use crate::af_xdp::Changes;
use crate::apply::Opened;
use crate::apply::binding::OPEN_LIMIT;
use crate::apply::jobs::Product;
use crate::model::{Client, ClientId};
use crate::qmp::error::QmpError;
use crate::qmp::events::Event;
use engine::backend::af_xdp::{AfXdpOptions, XdpMode};
use serde_json::{Map, Value, json};
use std::sync::Arc;

impl State {
    /// Handles what happened to the descriptor of [`crate::reactor::Part::Links`].
    pub fn links_changed(&mut self, events: &mut Vec<Event>) {
        let changes = self.af_xdps.changed(&mut self.net, &mut self.binding);
        self.follow(changes, events);
    }

    /// Looks at the interface of one netdev: what was told while it was being opened found nobody.
    pub(super) fn look_at_link(&mut self, client: ClientId) {
        let changes = self.af_xdps.look(&[client], &mut self.net, &mut self.binding);
        let mut events = Vec::new();
        self.follow(changes, &mut events);
        self.after_reply.append(&mut events);
    }

    fn follow(&mut self, changes: Changes, events: &mut Vec<Event>) {
        let Changes { open, retired, linked } = changes;
        for retired in retired {
            self.binding.let_go(retired);
        }
        for (client, options) in open {
            self.open_again(client, options);
        }
        if linked {
            self.settle_links(events); // of the nic that it is joined to
        }
    }

    fn open_again(&mut self, client: ClientId, mut options: AfXdpOptions) {
        options.workers.iter_mut().for_each(|worker| *worker = self.binding.plane.place());
        let workers = options.workers.clone();
        let backends = Arc::clone(&self.binding.backends);
        let job = move || Product::Opened(backends.open_af_xdp(options));
        match self.binding.jobs.start(OPEN_LIMIT, job) {
            Ok(ticket) => drop(self.pending.insert(ticket, Pending::Reopen(client, workers))),
            Err(error) => {
                tracing::warn!("no thread to open an interface on: {error}");
                self.opened_again(client, &workers, None);
            }
        }
    }

    /// Opening a netdev again ended.
    pub(super) fn opened_again(
        &mut self,
        client: ClientId,
        workers: &[usize],
        result: Option<Result<Opened, QmpError>>,
    ) {
        let opened = match result {
            Some(Ok(opened)) => Some(opened),
            Some(Err(error)) => {
                tracing::warn!("{}", error.desc);
                None
            }
            None => None,
        };
        let took = opened.is_some();
        if !self.af_xdps.opened(client, opened, &mut self.net, &mut self.binding) || !took {
            self.unplace(workers);
        }
        if took {
            self.look_at_link(client);
        }
    }

    /// Its own members of `query-netdev`.
    pub(super) fn describe_af_xdp(&self, client: &Client) -> Map<String, Value> {
        let mut entry = client.options.clone();
        let Some(port) = self.af_xdps.port(client.id) else { return entry };
        let mode = match port.mode() {
            Some(XdpMode::Native) => Some("native"),
            Some(XdpMode::Generic) => Some("skb"),
            None => None,
        };
        if let Some(mode) = mode {
            entry.insert("attached".into(), mode.into());
        }
        entry.insert("zero-copy".into(), port.zero_copy().into());
        entry.insert("multi-buffer".into(), port.multi_buffer().into());
        entry.insert("mtu".into(), port.link().mtu.into());
        let kernel = port.statistics();
        let counts = json!({
            "rx-dropped": kernel.rx_dropped, "rx-ring-full": kernel.rx_ring_full,
            "fill-ring-empty": kernel.fill_ring_empty, "rx-invalid": kernel.rx_invalid,
            "tx-invalid": kernel.tx_invalid,
        });
        entry.insert("kernel".into(), counts);
        let memory = port.memory().map(|share| {
            json!({
                "umem": share.umem, "chunks": share.chunks, "free": share.free, "lost": share.lost,
                "receiving": share.receiving, "sending": share.sending,
            })
        });
        entry.insert("memory".into(), memory.collect());
        entry
    }
}
