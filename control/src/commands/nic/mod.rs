//! Nics: `device_add`, `netdev_add type=nic`, what their guests do, and what queries tell of them.

mod device;
mod link;
mod netdev;
mod query;
pub(super) use query::ring;
#[cfg(test)]
mod tests;

use super::State;
use super::args::Args;
use super::state::timestamp;
use crate::chardev::{Stream, User};
use crate::model::{Client, ClientId, Kind, Netdev};
use crate::nic::{Happened, MODEL, MOST_PAIRS, Made, Nic, NicProperties, info, show_mac};
use crate::qmp::error::QmpError;
use crate::qmp::events::Event;
use crate::reactor::Ready;
use engine::Attachments;
use serde_json::{Map, Value, json};

/// The first hardware address that is given out (QEMU `qemu_macaddr_default_if_unset`).
const FIRST_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

/// Reads a hardware address: six parts between colons or dashes, of two digits, or of one as well.
pub(in crate::commands) fn mac(text: &str, short: bool) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut bytes {
        let fits = |part: &&str| part.len() == 2 || (short && part.len() == 1);
        let part = parts.next().filter(fits).filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

/// A nic to be made.
struct NewNic {
    name: String,
    chardev: String,
    made: Made,
    mac: [u8; 6],
    args: Map<String, Value>,
}

impl State {
    /// Makes a nic on a chardev that exists; a VMM that waits there already is served at once.
    fn plug_nic(&mut self, new: NewNic, events: &mut Vec<Event>) -> Result<(), QmpError> {
        let NewNic { name, chardev, made, mac, args } = new;
        let netdev = args.maybe("netdev").map(str::to_owned);
        let peer_queues = netdev.as_deref().and_then(|peer| self.net.netdev(peer)).map_or(1, Client::pairs);
        let pairs = args.uint("queues").unwrap_or(peer_queues as u64).clamp(1, u64::from(MOST_PAIRS)) as u16;
        let properties = NicProperties::new(mac, pairs, &args);
        let link_up = args.flag("link").unwrap_or(true);
        let info = vec![info(mac)];
        let dev = Netdev { driver: "nic", queues: Vec::new(), info, connected: false };
        let client = self.net.add_nic(&name, dev, netdev.as_deref(), args)?;
        if let Some(client) = self.net.client_mut(client) {
            client.link_up = link_up;
        }
        let number = self.nics.add(&name, &chardev, made, client, properties);
        let claimed = self.chardevs.claim(&chardev, User::Nic(number)).and_then(|stream| {
            self.binding.commit(&self.net, Attachments::default())?;
            Ok(stream)
        });
        match claimed {
            Ok(stream) => {
                if let Some(stream) = stream {
                    self.nic_connected(number, stream, events);
                }
                self.settle_vdpas();
                Ok(())
            }
            Err(error) => {
                self.nics.remove(client, &mut self.net, &mut self.binding);
                self.net.remove_client(client);
                Err(error)
            }
        }
    }

    /// The lowest hardware address of the default range that no nic has.
    fn free_mac(&self) -> [u8; 6] {
        let taken: Vec<[u8; 6]> = self.nics.all().map(|nic| nic.state.properties.mac).collect();
        let free = (FIRST_MAC[5]..=0xfe).map(|last| [0x52, 0x54, 0x00, 0x12, 0x34, last]);
        free.into_iter().find(|mac| !taken.contains(mac)).unwrap_or(FIRST_MAC)
    }

    /// Removes a nic: its guest is disconnected; a socket of its own goes, a chardev is free again.
    fn unplug_nic(&mut self, client: ClientId) -> Result<Option<Nic>, QmpError> {
        let nic = self.nics.remove(client, &mut self.net, &mut self.binding);
        let removed = self.net.remove_client(client);
        let filters: Vec<_> = removed.iter().flat_map(|r| r.filters.iter().map(|f| f.id)).collect();
        let retired = self.binding.commit(&self.net, Attachments::default())?;
        // A device that it was joined to lets everything in again.
        self.settle_vdpas();
        self.count_lost(removed.as_ref().map_or(&[], |removed| &removed.filters));
        if filters.is_empty() {
            drop(retired);
        } else if let Err(error) = self.binding.close(retired, None, &filters) {
            tracing::warn!("no thread to close on: {error}");
        }
        if let Some(nic) = &nic {
            self.chardevs.release(&nic.chardev);
            if nic.chardev.starts_with('#') {
                let _ = self.chardevs.remove(&nic.chardev);
            }
        }
        Ok(nic)
    }

    /// A VMM has connected to the nic of that number.
    pub fn nic_connected(&mut self, number: u32, stream: Stream, events: &mut Vec<Event>) {
        match self.nics.connected(number, stream, &mut self.net, &mut self.binding) {
            Some(happened) => events.push(event(happened)),
            // Sent away: the next may try.
            None => {
                if let Some(chardev) = self.nics.chardev(number) {
                    self.chardevs.disconnected(chardev);
                }
            }
        }
    }

    /// Handles what happened to a descriptor of [`crate::reactor::Part::Nic`].
    pub fn nic_ready(&mut self, ready: Ready, events: &mut Vec<Event>) {
        events.append(&mut self.after_reply);
        let happened = self.nics.ready(ready, &mut self.net, &mut self.binding);
        self.settle_vdpas();
        self.tell_happened(happened, events);
    }

    fn tell_happened(&mut self, all: Vec<Happened>, events: &mut Vec<Event>) {
        for happened in all {
            if let Happened::Disconnected(_, chardev) = &happened {
                self.chardevs.disconnected(chardev);
            }
            events.push(event(happened));
        }
    }

    /// The nic of that name.
    fn nic_named(&self, name: &str) -> Option<&Nic> {
        let client = self.net.named(name).find(|client| matches!(client.kind, Kind::Nic(_)))?;
        self.nics.of(client.id)
    }
}

/// The event that tells of it.
fn event(happened: Happened) -> Event {
    let (name, data) = match happened {
        Happened::Connected(nic, chardev) => {
            ("NETDEV_VHOST_USER_CONNECTED", json!({"netdev-id": nic, "chardev-id": chardev}))
        }
        Happened::Disconnected(nic, _) => ("NETDEV_VHOST_USER_DISCONNECTED", json!({"netdev-id": nic})),
        Happened::Stopped(nic, ring, reason) => {
            ("NIC_STOPPED", json!({"name": nic, "queue": ring, "reason": reason}))
        }
        Happened::Filter(id, path) => {
            let mut data = json!({"path": format!("{path}/virtio-backend")});
            if let Some(id) = id {
                data["name"] = id.into();
            }
            ("NIC_RX_FILTER_CHANGED", data)
        }
        Happened::Standby(nic) => ("FAILOVER_NEGOTIATED", json!({"device-id": nic})),
    };
    Event { name, data: Some(data), timestamp: timestamp() }
}
