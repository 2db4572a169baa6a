//! A daemon in a namespace of its own, taps handed to other namespaces, and what the kernel counts on them.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::daemon::Daemon;
use crate::netns::NetNs;
use crate::packet::PacketSocket;
use crate::qmp::Qmp;

/// The daemon under test, its namespace, and a monitor connection.
#[derive(Debug)]
pub struct Lab {
    /// A connection that has negotiated.
    pub qmp: Qmp,
    /// The running daemon.
    pub daemon: Daemon,
    /// Where the daemon lives.
    pub home: NetNs,
}

/// Counters of a link as the kernel keeps them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames that the network side delivered to this host.
    pub rx_packets: u64,
    /// Frames that this host handed to the network side.
    pub tx_packets: u64,
    /// Frames that the kernel dropped because the tap's queue was full.
    pub tx_dropped: u64,
}

impl Lab {
    /// Starts a daemon with these arguments.
    #[must_use]
    pub fn new(arguments: &[&str]) -> Self {
        let home = NetNs::new();
        let (daemon, qmp) = Daemon::netdevd_within(&home, arguments);
        Self { qmp, daemon, home }
    }

    /// Adds a tap without scripts whose interface is named like its id, with more members as given.
    ///
    /// # Panics
    /// When the daemon refuses.
    pub fn tap(&mut self, id: &str, more: &Value) {
        let mut options = Map::from_iter([("type".to_string(), json!("tap")), ("id".to_string(), json!(id))]);
        options.extend([
            ("ifname".to_string(), json!(id)),
            ("script".to_string(), json!("no")),
            ("downscript".to_string(), json!("no")),
        ]);
        options.extend(more.as_object().cloned().unwrap_or_default());
        self.qmp.ok("netdev_add", Value::Object(options));
        self.home.silent(id);
    }

    /// Adds a tap, hands its interface to `place`, and gives it an address there.
    ///
    /// # Panics
    /// When the daemon or the kernel refuses.
    pub fn tap_at(&mut self, id: &str, place: &NetNs, address: Ipv4Addr) {
        self.tap(id, &json!({}));
        self.home.give(id, place);
        place.up(id, address);
    }

    /// Joins netdevs by a hub: one port each, named `ID-port`.
    ///
    /// # Panics
    /// When the daemon refuses.
    pub fn hub(&mut self, number: i32, netdevs: &[&str]) {
        for netdev in netdevs {
            let port = format!("{netdev}-port");
            self.qmp
                .ok("netdev_add", json!({"type": "hubport", "id": port, "hubid": number, "netdev": netdev}));
        }
    }

    /// One port of `query-net-stats`, all of its queues added up: frames in, frames out, drops.
    ///
    /// # Panics
    /// When the reply has not the shape that the documentation promises.
    pub fn port(&mut self, name: &str) -> (u64, u64, u64) {
        let stats = self.qmp.ok("query-net-stats", json!({}));
        let ports = stats["ports"].as_array().expect("a list of ports");
        let number = |value: &Value| value.as_u64().expect("a counter");
        let of = ports.iter().filter(|port| port["name"] == name);
        of.fold((0, 0, 0), |(rx, tx, drops), port| {
            let lost: u64 = port["drops"].as_object().expect("drops by reason").values().map(number).sum();
            (rx + number(&port["rx-frames"]), tx + number(&port["tx-frames"]), drops + lost)
        })
    }
}

/// A tap in a namespace of its own, with a packet socket on it.
#[derive(Debug)]
pub struct Leg {
    /// The interface's name, and the netdev's.
    pub name: String,
    /// Sends and receives on it.
    pub socket: PacketSocket,
    /// Where it is.
    pub place: NetNs,
}

impl Leg {
    /// Adds a tap to the daemon and moves it to a namespace of its own.
    ///
    /// # Panics
    /// When the daemon or the kernel refuses.
    pub fn new(lab: &mut Lab, name: &str) -> Self {
        let place = lab.home.sibling();
        lab.tap(name, &json!({}));
        lab.home.give(name, &place);
        place.silent(name);
        place.ip(&format!("link set {name} up"));
        let socket = PacketSocket::open(&place, name);
        Self { name: name.into(), socket, place }
    }

    /// Payloads of the test frames that have come, once nothing has come for a tenth of a second, without the zero
    /// bytes at their end: a tap may pad short frames to 60 bytes.
    #[must_use]
    pub fn payloads(&self) -> Vec<Vec<u8>> {
        let frames = self.socket.drain(Duration::from_millis(100)).into_iter();
        let ours = frames.filter(|frame| frame[12..14] == [0x88, 0xb5]);
        let length =
            |frame: &[u8]| frame.iter().rposition(|byte| *byte != 0).map_or(14, |last| 14.max(last + 1));
        ours.map(|frame| frame[14..length(&frame)].to_vec()).collect()
    }

    /// What the kernel has counted on it.
    #[must_use]
    pub fn counts(&self) -> Counts {
        counts(&self.place, &self.name)
    }
}

/// What the kernel has counted on a link.
///
/// # Panics
/// When the link is not there.
#[must_use]
pub fn counts(place: &NetNs, link: &str) -> Counts {
    let text = place.run("ip", &["-j", "-s", "link", "show", "dev", link]);
    let value: Value = serde_json::from_str(&text).expect("ip prints JSON");
    let number =
        |direction: &str, what: &str| value[0]["stats64"][direction][what].as_u64().expect("a counter");
    Counts {
        rx_packets: number("rx", "packets"),
        tx_packets: number("tx", "packets"),
        tx_dropped: number("tx", "dropped"),
    }
}
