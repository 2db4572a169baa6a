//! `info network` and its like (QEMU `net/net.c`, `net/hub.c`).

use super::State;
use crate::model::{Client, ClientId, Kind};
use serde_json::Value;
use std::fmt::Write;

/// `info version`: release and package without anything between, as QEMU prints them.
pub(super) fn version() -> String {
    let version = crate::commands::version();
    let part = |name: &str| version["qemu"][name].as_i64().unwrap_or_default();
    let package = version["package"].as_str().unwrap_or_default();
    format!("{}.{}.{}{package}\n", part("major"), part("minor"), part("micro"))
}

impl State {
    /// `info chardev`.
    pub(super) fn info_chardev(&self) -> String {
        self.chardevs.list().iter().map(|c| format!("{}: filename={}\n", c.label, c.filename)).collect()
    }

    /// `info network`: hubs with what hangs on their ports, newest first; switches in the same way, lowest number first; then nics with their peers and clients
    /// without a peer, oldest first. A hub port shows the first queue of its netdev; QEMU leaves the others without a
    /// peer and lists them below, and so does this, although here the hub has them all.
    pub(super) fn info_network(&self) -> String {
        let mut out = String::new();
        for hub in self.net.hubs() {
            let _ = writeln!(out, "hub {}", hub.number);
            self.list_ports(&mut out, &hub.ports);
        }
        for switch in self.net.switches() {
            let _ = writeln!(out, "switch {}", switch.settings.number);
            self.list_ports(&mut out, &switch.ports);
        }
        for client in self.net.clients() {
            self.list(&mut out, client);
        }
        out
    }

    /// Ports with what hangs on them, newest first.
    fn list_ports(&self, out: &mut String, ports: &[ClientId]) {
        for port in ports.iter().rev().filter_map(|id| self.net.client(*id)) {
            let _ = write!(out, " \\ {}", port.name);
            match port.peer.and_then(|id| self.net.client(id)) {
                Some(peer) => {
                    out.push_str(": ");
                    self.describe_queue(out, peer, 0);
                }
                None => out.push('\n'),
            }
        }
    }

    fn list(&self, out: &mut String, client: &Client) {
        let peer = client.peer.and_then(|id| self.net.client(id));
        match (&client.kind, peer) {
            (Kind::HubPort { .. } | Kind::SwitchPort { .. }, _) => {}
            // The hub or switch shows the first queue.
            (Kind::Nic(_), Some(peer)) if peer.is_port() => {
                for queue in 1..self.queues(client) {
                    self.describe_queue(out, client, queue);
                }
            }
            (Kind::Nic(_), Some(peer)) => {
                for queue in 0..self.queues(client) {
                    self.describe_queue(out, client, queue);
                    out.push_str(" \\ ");
                    self.describe_queue(out, peer, queue);
                }
            }
            (Kind::Nic(_) | Kind::Netdev(_), None) => {
                for queue in 0..self.queues(client) {
                    self.describe_queue(out, client, queue);
                }
            }
            (Kind::Netdev(_), Some(peer)) if peer.is_port() => {
                for queue in 1..self.queues(client) {
                    self.describe_queue(out, client, queue);
                }
            }
            (Kind::Netdev(_), Some(_)) => {}
        }
    }

    /// Lines that a client has: queues are there whether they run or not.
    fn queues(&self, client: &Client) -> usize {
        let pairs = self.nics.of(client.id).map(|nic| usize::from(nic.state.properties.pairs));
        pairs.unwrap_or(client.pairs()).max(1)
    }

    /// One line for a queue of a client, and the client's filters.
    fn describe_queue(&self, out: &mut String, client: &Client, queue: usize) {
        let info = match &client.kind {
            Kind::Netdev(dev) | Kind::Nic(dev) => {
                dev.info.get(queue).or(dev.info.first()).map_or("", String::as_str)
            }
            Kind::HubPort { .. } | Kind::SwitchPort { .. } => "",
        };
        // QEMU numbers the queues of a nic and its peer only.
        let index = if client.is_nic() || self.is_behind_nic(client) { queue } else { 0 };
        // To QEMU a bridge netdev is the tap that its helper made.
        let kind = if client.driver() == "bridge" { "tap" } else { client.driver() };
        let _ = writeln!(out, "{}: index={index},type={kind},{info}", client.name);
        let mut filters = client.filters.iter().filter_map(|id| self.net.filter(*id)).peekable();
        if filters.peek().is_some() {
            out.push_str("filters:\n");
        }
        for filter in filters {
            let _ = write!(out, "  - {}: type={}", filter.name, filter.driver);
            for name in self.info_order(filter.driver) {
                match filter.property(name) {
                    Some(Value::String(text)) => {
                        let _ = write!(out, ",{name}={text}");
                    }
                    Some(value) => {
                        let _ = write!(out, ",{name}={value}");
                    }
                    None => {}
                }
            }
            out.push('\n');
        }
    }

    fn is_behind_nic(&self, client: &Client) -> bool {
        client.peer.and_then(|id| self.net.client(id)).is_some_and(Client::is_nic)
    }

    /// The order in which QEMU prints a filter's properties.
    fn info_order(&self, driver: &str) -> &'static [&'static str] {
        match driver {
            "filter-dump" => &["file", "maxlen", "filter", "position", "status", "insert", "netdev", "queue"],
            "filter-match" => {
                &["match", "action", "file", "maxlen", "position", "status", "insert", "netdev", "queue"]
            }
            "filter-buffer" => &["interval", "position", "status", "insert", "netdev", "queue"],
            _ => &["outdev", "indev", "vnet_hdr_support", "position", "status", "insert", "netdev", "queue"],
        }
    }
}
