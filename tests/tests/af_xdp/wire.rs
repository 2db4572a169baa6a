//! A veth pair: one end where the daemon lives, the other in a namespace of its own with a packet socket on it.

use serde_json::{Map, Value, json};
use std::time::Duration;
use tests::lab::Lab;
use tests::netns::NetNs;
use tests::packet::PacketSocket;

pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];
pub(crate) const SOURCE: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

pub(crate) struct Wire {
    /// Name of the end at the daemon.
    pub(crate) near: String,
    /// Name of the other end.
    pub(crate) far: String,
    pub(crate) place: NetNs,
    pub(crate) socket: PacketSocket,
}

impl Wire {
    /// A pair with one queue.
    pub(crate) fn new(home: &NetNs, name: &str) -> Self {
        Self::with(home, name, 1, 1500)
    }

    pub(crate) fn with(home: &NetNs, name: &str, queues: u32, mtu: u32) -> Self {
        let (place, near, far) = (home.sibling(), name.to_owned(), format!("{name}-far"));
        let many = format!("numrxqueues {queues} numtxqueues {queues}");
        home.ip(&format!("link add {near} mtu {mtu} {many} type veth peer name {far} mtu {mtu} {many}"));
        home.give(&far, &place);
        home.silent(&near);
        place.silent(&far);
        home.ip(&format!("link set {near} up"));
        place.ip(&format!("link set {far} up"));
        let socket = PacketSocket::open(&place, &far);
        Self { near, far, place, socket }
    }

    /// Payloads of the test frames that have come, once nothing has come for a tenth of a second.
    pub(crate) fn payloads(&self) -> Vec<Vec<u8>> {
        let frames = self.socket.drain(Duration::from_millis(100)).into_iter();
        frames.filter(|frame| frame[12..14] == [0x88, 0xb5]).map(|frame| frame[14..].to_vec()).collect()
    }
}

/// Adds a netdev named as the interface, with more members as given.
pub(crate) fn add(lab: &mut Lab, wire: &Wire, more: &Value) {
    lab.qmp.ok("netdev_add", options(&wire.near, &wire.near, more));
}

/// Arguments of `netdev_add`.
pub(crate) fn options(id: &str, ifname: &str, more: &Value) -> Value {
    let mut all = Map::from_iter([
        ("type".to_owned(), json!("af-xdp")),
        ("id".to_owned(), json!(id)),
        ("ifname".to_owned(), json!(ifname)),
    ]);
    all.extend(more.as_object().cloned().unwrap_or_default());
    Value::Object(all)
}

/// Whether an XDP program is attached to a link.
pub(crate) fn has_program(place: &NetNs, link: &str) -> bool {
    place.ip(&format!("-j link show dev {link}")).contains("\"xdp\"")
}

/// How a netdev stands, by `query-netdev`.
pub(crate) fn state(lab: &mut Lab, name: &str) -> Value {
    lab.qmp.ok("query-netdev", json!({"name": name}))[0].clone()
}
