//! The two ends of an L2TPv3 tunnel: ours with a tap, and QEMU's with a socket in place of a guest, in one namespace.

use serde_json::{Map, Value, json};
use std::net::UdpSocket;
use std::time::Duration;
use tests::daemon::{Daemon, Program};
use tests::lab::{Lab, Leg};
use tests::netns::NetNs;
use tests::packet::frame;
use tests::qmp::Qmp;
use tests::wait;

pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];
pub(crate) const SOURCE: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

/// The end under test: netdev `t` and tap `leg` on a hub.
pub(crate) struct Ours {
    pub(crate) lab: Lab,
    pub(crate) leg: Leg,
}

/// QEMU's end: netdev `t` and a UDP socket of ours on a hub.
pub(crate) struct Theirs {
    qmp: Qmp,
    _daemon: Daemon,
    socket: UdpSocket,
}

/// Port where QEMU's guest-to-be listens, and ours.
const INSIDE: (u16, u16) = (6001, 6002);

pub(crate) fn udp(place: &NetNs, address: &str) -> UdpSocket {
    let socket = place.inside(|| UdpSocket::bind(address)).expect("the address is free");
    socket.set_read_timeout(Some(wait::PATIENCE)).expect("a time limit");
    socket
}

/// The next datagram of a socket.
pub(crate) fn datagram(socket: &UdpSocket) -> Vec<u8> {
    let mut bytes = vec![0; 70_000];
    let n = socket.recv(&mut bytes).expect("a datagram comes");
    bytes.truncate(n);
    bytes
}

/// A test frame of `len` bytes in all.
pub(crate) fn numbered(len: usize, mark: u8) -> Vec<u8> {
    let payload: Vec<u8> = (14..len).map(|at| mark.wrapping_add((at % 251) as u8)).collect();
    frame(BROADCAST, SOURCE, &payload)
}

/// Options of a tunnel, as `netdev_add` takes them.
pub(crate) fn options(base: &Value, more: &Value) -> Map<String, Value> {
    let mut all = Map::from_iter([("type".into(), json!("l2tpv3")), ("id".into(), json!("t"))]);
    for part in [base, more] {
        all.extend(part.as_object().cloned().unwrap_or_default());
    }
    all
}

/// The options of the other end.
pub(crate) fn mirrored(options: &Map<String, Value>) -> Map<String, Value> {
    let mut other = options.clone();
    if !other.contains_key("rxsession") {
        other.insert("rxsession".into(), other["txsession"].clone());
    }
    for (one, two) in
        [("src", "dst"), ("srcport", "dstport"), ("txcookie", "rxcookie"), ("txsession", "rxsession")]
    {
        let (a, b) = (other.shift_remove(one), other.shift_remove(two));
        other.extend(b.map(|b| (one.to_owned(), b)));
        other.extend(a.map(|a| (two.to_owned(), a)));
    }
    other
}

impl Ours {
    pub(crate) fn new() -> Self {
        let mut lab = Lab::new(&[]);
        for address in ["fd00::1", "fd00::2"] {
            lab.home.ip(&format!("address add {address}/128 dev lo nodad"));
        }
        let leg = Leg::new(&mut lab, "leg");
        lab.hub(1, &["leg"]);
        Self { lab, leg }
    }

    /// Opens a tunnel in place of the last one.
    pub(crate) fn tunnel(&mut self, options: &Map<String, Value>) {
        for id in ["t-port", "t"] {
            let _ = self.lab.qmp.execute("netdev_del", json!({"id": id}));
        }
        self.lab.qmp.ok("netdev_add", Value::Object(options.clone()));
        self.lab.hub(1, &["t"]);
    }

    /// The next test frame on the tap.
    pub(crate) fn receive(&self) -> Vec<u8> {
        let end = std::time::Instant::now() + wait::PATIENCE;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            let bytes = self.leg.socket.receive(left).expect("a frame comes");
            if bytes[12..14] == [0x88, 0xb5] {
                return bytes;
            }
        }
    }

    /// Frames of the tunnel that were dropped for this reason.
    pub(crate) fn dropped(&mut self, reason: &str) -> u64 {
        let stats = self.lab.qmp.ok("query-net-stats", json!({}));
        let ports = stats["ports"].as_array().expect("ports");
        let tunnel = ports.iter().find(|port| port["name"] == "t").expect("the tunnel");
        tunnel["drops"][reason].as_u64().unwrap_or(0)
    }
}

impl Theirs {
    pub(crate) fn new(home: &NetNs) -> Self {
        let daemon = Daemon::of(Program::Oracle).within(home).start();
        let mut qmp = daemon.client();
        let socket = udp(home, &format!("127.0.0.1:{}", INSIDE.1));
        socket.connect(("127.0.0.1", INSIDE.0)).expect("an address");
        let addresses = json!({"type": "socket", "id": "s", "udp": format!("127.0.0.1:{}", INSIDE.1),
            "localaddr": format!("127.0.0.1:{}", INSIDE.0)});
        qmp.ok("netdev_add", addresses);
        qmp.ok("netdev_add", json!({"type": "hubport", "id": "s-port", "hubid": 1, "netdev": "s"}));
        Self { qmp, _daemon: daemon, socket }
    }

    /// Opens a tunnel in place of the last one.
    pub(crate) fn tunnel(&mut self, options: &Map<String, Value>) {
        for id in ["t-port", "t"] {
            let _ = self.qmp.execute("netdev_del", json!({"id": id}));
        }
        self.qmp.ok("netdev_add", Value::Object(options.clone()));
        self.qmp.ok("netdev_add", json!({"type": "hubport", "id": "t-port", "hubid": 1, "netdev": "t"}));
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        self.socket.send(frame).expect("QEMU listens");
    }

    pub(crate) fn receive(&self) -> Vec<u8> {
        datagram(&self.socket)
    }

    /// Whether nothing comes for a tenth of a second.
    pub(crate) fn is_quiet(&self) -> bool {
        self.socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time limit");
        let quiet = self.socket.recv(&mut [0; 70_000]).is_err();
        self.socket.set_read_timeout(Some(wait::PATIENCE)).expect("a time limit");
        quiet
    }
}
