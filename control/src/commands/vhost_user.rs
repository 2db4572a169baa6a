//! `netdev_add type=vhost-user` (QEMU `net/vhost-user.c`), and such a netdev as `query-netdev` shows it.

use super::State;
use super::args::Args;
use super::nic::ring;
use super::state::{empty, timestamp};
use crate::chardev::{Stream, User};
use crate::model::{Client, ClientId, Netdev};
use crate::qmp::error::QmpError;
use crate::qmp::events::Event;
use crate::reactor::Ready;
use crate::vhost_user::{Happened, Standing};
use engine::Attachments;
use serde_json::{Map, Value, json};

/// Queue pairs at most, as QEMU takes them (`MAX_QUEUE_NUM`).
const QUEUES: std::ops::RangeInclusive<i64> = 1..=1024;

impl State {
    /// Checks in QEMU's order: the chardev, the queues. QEMU waits for the back-end then; here the answer is given at once, and the link is down
    /// until a back-end is there.
    pub(super) fn add_vhost_user(
        &mut self,
        args: Map<String, Value>,
        events: &mut Vec<Event>,
    ) -> Result<Value, QmpError> {
        let (name, chardev) = (args.text("id").to_owned(), args.text("chardev").to_owned());
        self.check_backend(&chardev)?;
        let queues = args.int("queues").unwrap_or(1);
        let pairs = u16::try_from(queues).ok().filter(|_| QUEUES.contains(&queues)).ok_or_else(|| {
            let (least, most) = QUEUES.into_inner();
            QmpError::generic(format!("vhost-user number of queues must be in range [{least}, {most}]"))
        })?;
        if self.chardevs.list().iter().any(|known| known.label == chardev && known.frontend_open) {
            return Err(QmpError::generic(format!("chardev '{chardev}' is already in use")));
        }
        let raises_link = args.flag("link").unwrap_or(true);
        let info = (0..pairs).map(|pair| format!("vhost-user{pair} to {chardev}")).collect();
        let dev = Netdev { driver: "vhost-user", queues: Vec::new(), info, connected: false };
        let client = self.net.add_netdev(&name, dev, false, args)?;
        let number = self.vhost_users.add(&name, &chardev, client, pairs, raises_link);
        let claimed = self.chardevs.claim(&chardev, User::Netdev(number)).and_then(|stream| {
            self.binding.commit(&self.net, Attachments::default())?;
            Ok(stream)
        });
        match claimed {
            Ok(stream) => {
                if let Some(stream) = stream {
                    self.vhost_user_connected(number, stream, events);
                }
                Ok(empty())
            }
            Err(error) => {
                self.net.remove_client(client);
                self.forget_vhost_user(client);
                Err(error)
            }
        }
    }

    /// The chardev must be one that passes descriptors.
    fn check_backend(&self, name: &str) -> Result<(), QmpError> {
        let found = self.chardevs.list().into_iter().find(|chardev| chardev.label == name);
        let why = match found {
            None => "not found",
            Some(chardev) if chardev.driver != "chardev-socket" => "is not reconnectable",
            Some(chardev) => match chardev.addr.as_ref().and_then(|addr| addr["type"].as_str()) {
                Some("unix" | "fd") => return Ok(()),
                _ => "does not support FD passing",
            },
        };
        Err(QmpError::generic(format!("chardev \"{name}\" {why}")))
    }

    /// The netdev of that client has left the model: its connection is closed, its chardev free.
    pub(super) fn forget_vhost_user(&mut self, client: ClientId) {
        if let Some(chardev) = self.vhost_users.remove(client).filter(|chardev| !chardev.is_empty()) {
            self.chardevs.release(&chardev);
        }
    }

    /// Somebody is at the other end of a netdev's chardev.
    pub fn vhost_user_connected(&mut self, number: u32, stream: Stream, events: &mut Vec<Event>) {
        let happened = self.vhost_users.connected(number, stream);
        self.tell_vhost_user(happened, events);
    }

    /// Handles what happened to a descriptor of [`crate::reactor::Part::VhostUser`].
    pub fn vhost_user_ready(&mut self, ready: Ready, events: &mut Vec<Event>) {
        let happened = self.vhost_users.ready(ready, &mut self.net, &mut self.binding);
        self.tell_vhost_user(happened, events);
    }

    fn tell_vhost_user(&mut self, all: impl IntoIterator<Item = Happened>, events: &mut Vec<Event>) {
        let mut linked = false;
        for happened in all {
            let (name, data) = match happened {
                // A passt's, of which nothing is told, as in QEMU.
                Happened::Connected(_, chardev) | Happened::Disconnected(_, chardev)
                    if chardev.is_empty() =>
                {
                    linked = true;
                    continue;
                }
                Happened::Connected(netdev, chardev) => {
                    linked = true;
                    ("NETDEV_VHOST_USER_CONNECTED", json!({"netdev-id": netdev, "chardev-id": chardev}))
                }
                Happened::Disconnected(netdev, chardev) => {
                    linked = true;
                    self.chardevs.disconnected(&chardev);
                    ("NETDEV_VHOST_USER_DISCONNECTED", json!({"netdev-id": netdev}))
                }
                Happened::Link => {
                    linked = true;
                    continue;
                }
                Happened::GaveUp(chardev) if chardev.is_empty() => continue,
                Happened::GaveUp(chardev) => {
                    self.chardevs.disconnected(&chardev);
                    continue;
                }
                Happened::Stopped(netdev, ring, reason) => {
                    ("NIC_STOPPED", json!({"name": netdev, "queue": ring, "reason": reason}))
                }
            };
            events.push(Event { name, data: Some(data), timestamp: timestamp() });
        }
        if linked {
            self.settle_links(events); // of the nic that it is joined to
        }
        self.look_at_passts(events);
    }

    /// Its own members of `query-netdev`.
    pub(super) fn describe_vhost_user(&self, client: &Client) -> Map<String, Value> {
        let mut entry = client.options.clone();
        let Some(netdev) = self.vhost_users.of(client.id) else { return entry };
        entry.insert("queues".into(), netdev.pairs().into());
        if let Some((offered, accepted)) = netdev.features() {
            entry.insert("offered".into(), format!("{offered:#x}").into());
            entry.insert("features".into(), format!("{accepted:#x}").into());
        }
        entry.insert("rings".into(), netdev.rings().into_iter().map(ring).collect());
        entry
    }

    /// How it stands: a word, and what went wrong.
    pub(super) fn vhost_user_state(&self, client: ClientId) -> (&'static str, Option<String>) {
        let Some(netdev) = self.vhost_users.of(client) else { return ("closed", None) };
        match netdev.standing() {
            Standing::Running => ("ready", None),
            Standing::Failed(ring, why) => ("failed", Some(format!("ring {ring}: {why}"))),
            Standing::Connecting => ("connecting", netdev.ended.clone()),
            Standing::Alone => (self.awaits(&netdev.chardev), netdev.ended.clone()),
        }
    }

    /// What a chardev without a connection does about it.
    fn awaits(&self, chardev: &str) -> &'static str {
        let found = self.chardevs.list().into_iter().find(|known| known.label == chardev);
        match found {
            Some(chardev) if chardev.filename.ends_with("server=on") => "listening",
            Some(chardev) if chardev.reconnects => "connecting",
            _ => "closed",
        }
    }
}
