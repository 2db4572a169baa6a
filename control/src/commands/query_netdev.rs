//! `query-netdev`: every netdev and nic with its options, and how it stands.

use super::State;
use super::args::Args;
use crate::apply::backends::strerror;
use crate::model::{Client, ClientId, Kind, Netdev};
use crate::qmp::error::QmpError;
use engine::uring::IoMode;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Clients whose transport is in trouble, each with the kernel's word.
type Troubles = HashMap<ClientId, String>;

impl State {
    /// All clients, or those of one name.
    pub(super) fn query_netdev(&self, args: &Map<String, Value>) -> Result<Value, QmpError> {
        let troubles = self.troubles();
        let Some(name) = args.maybe("name") else {
            return Ok(self.net.clients().map(|c| self.describe(c, &troubles)).collect());
        };
        let found: Vec<Value> = self.net.named(name).map(|c| self.describe(c, &troubles)).collect();
        if found.is_empty() {
            return Err(QmpError::device_not_found(name));
        }
        Ok(found.into())
    }

    fn troubles(&self) -> Troubles {
        let clients = self.stats().clients.into_iter();
        let text = |errno: i32| strerror(&std::io::Error::from_raw_os_error(errno)).to_string();
        let first = |c: engine::ClientStats| {
            let errno = c.queues.iter().map(|q| q.trouble).find(|errno| *errno != 0).map(text);
            let sending = c.queues.iter().map(|q| q.tx_trouble).find(|errno| *errno != 0);
            let sending = || Some(format!("frames cannot be sent: {}", text(sending?)));
            Some((c.client?, errno.or_else(sending)?))
        };
        clients.filter_map(first).collect()
    }

    fn describe(&self, client: &Client, troubles: &Troubles) -> Value {
        // The options as they were given; `link` among them was only the first state.
        let mut entry = match client.driver() {
            "nic" => self.describe_nic(client),
            "vhost-user" => self.describe_vhost_user(client),
            "af-xdp" => self.describe_af_xdp(client),
            "vhost-vdpa" => self.describe_vhost_vdpa(client),
            _ => client.options.clone(),
        };
        entry.insert("id".into(), client.name.clone().into());
        entry.insert("type".into(), client.driver().into());
        entry.insert("link".into(), client.link_up.into());
        if let Some(peer) = client.peer.and_then(|peer| self.net.client(peer)) {
            entry.insert("peer-id".into(), peer.name.clone().into());
        }
        let transport = match &client.kind {
            Kind::HubPort { .. } | Kind::SwitchPort { .. } => json!({"state": "ready", "info": ""}),
            Kind::Netdev(dev) if dev.driver == "vhost-user" => {
                let (state, trouble) = self.vhost_user_state(client.id);
                self.transport(dev, state, trouble)
            }
            Kind::Netdev(dev) if dev.driver == "passt" => {
                let (state, trouble) = self.passt_state(client.id);
                self.transport(dev, state, trouble)
            }
            Kind::Netdev(dev) if self.streams.of(client.id).is_some() => {
                let (state, trouble) = self.stream_state(client.id);
                self.transport(dev, state, trouble)
            }
            Kind::Netdev(dev) => {
                let trouble = self.af_xdps.trouble(client.id).or_else(|| self.vdes.trouble(client.id));
                let trouble = trouble.or_else(|| self.users.trouble(client.id));
                let trouble = trouble.or_else(|| self.vdpas.trouble(client.id));
                let trouble = trouble.or_else(|| self.vhost_nets.trouble(client.id));
                let trouble = trouble.or_else(|| troubles.get(&client.id).cloned());
                let state = match (&trouble, dev.connected) {
                    (Some(_), _) => "failed",
                    (None, true) => "ready",
                    (None, false) => "closed",
                };
                self.transport(dev, state, trouble)
            }
            Kind::Nic(dev) => {
                let (state, trouble) = self.nic_state(client.id);
                self.transport(dev, state, trouble)
            }
        };
        entry.insert("transport".into(), transport);
        let filters = client.filters.iter().filter_map(|id| self.net.filter(*id));
        entry.insert("filters".into(), filters.map(|f| f.name.clone()).collect());
        Value::Object(entry)
    }

    fn transport(&self, dev: &Netdev, state: &str, error: Option<String>) -> Value {
        let mut entry = Map::new();
        entry.insert("state".into(), state.into());
        entry.insert("info".into(), dev.info.first().cloned().unwrap_or_default().into());
        // Rings in shared memory need no system call.
        let rings = matches!(dev.driver, "af-xdp" | "nic" | "vhost-user" | "vhost-vdpa")
            || dev.info.first().is_some_and(|info| info.starts_with("vhost-user,")); // a passt's
        let worker = dev.queues.first().filter(|_| !rings).map(|queue| queue.worker);
        if let Some(mode) = worker.and_then(|worker| self.binding.plane.io_mode(worker)) {
            let mode = match mode {
                IoMode::Uring => "io-uring",
                IoMode::Batched => "batched",
            };
            entry.insert("io".into(), mode.into());
        }
        if rings && state == "ready" {
            entry.insert("io".into(), "ring".into());
        }
        if let Some(error) = error {
            entry.insert("error".into(), error.into());
        }
        Value::Object(entry)
    }
}
