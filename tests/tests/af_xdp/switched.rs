//! A guest, an interface and a tap on one learning switch: who hears what, byte for byte.

use super::wire::{BROADCAST, Wire, add};
use serde_json::{Value, json};
use std::time::Duration;
use tests::guest::Guest;
use tests::lab::{Lab, Leg};
use tests::nics::{SPLIT, Split, socket};
use tests::packet::PacketSocket;
use tests::skip::{Need, ready};

const NEEDS: &[Need] = &[Need::Root, Need::Tap];

/// Stations behind the nic, the interface and the tap.
const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 0xa1];
const WIRE: [u8; 6] = [2, 0, 0, 0, 0, 0xa2];
const TAP: [u8; 6] = [2, 0, 0, 0, 0, 0xa3];

/// So long nothing comes after the last frame.
const QUIET: Duration = Duration::from_millis(100);

/// Three stations on switch 0.
struct Rig {
    lab: Lab,
    guest: Split,
    wire: Wire,
    leg: Leg,
}

/// What the guest, the interface and the tap heard.
type Heard = [Vec<Vec<u8>>; 3];

impl Rig {
    /// Ports with these options, in that order.
    fn new(ports: [&Value; 3]) -> Self {
        let mut lab = Lab::new(&[]);
        let wire = Wire::new(&lab.home, "one");
        add(&mut lab, &wire, &json!({}));
        let leg = Leg::new(&mut lab, "leg");
        let netdevs = [None, Some("one"), Some("leg")];
        for ((id, options), netdev) in ["p0", "p1", "p2"].into_iter().zip(ports).zip(netdevs) {
            let mut all = json!({"type": "switchport", "id": id, "switchid": 0});
            let members = all.as_object_mut().expect("an object");
            members.extend(options.as_object().cloned().unwrap_or_default());
            members.extend(netdev.map(|netdev| ("netdev".to_owned(), json!(netdev))));
            lab.qmp.ok("netdev_add", all);
        }
        lab.qmp.ok("netdev_add", json!({"type": "nic", "id": "n0", "netdev": "p0", "addr": "n0.sock"}));
        let guest = Guest::connect(&socket(&lab.daemon, "n0"), SPLIT).expect("a guest");
        Self { lab, guest, wire, leg }
    }

    /// What they heard since the last look.
    fn heard(&mut self) -> Heard {
        let guest = std::iter::from_fn(|| self.guest.receive(QUIET)).collect();
        let at = |socket: &PacketSocket| {
            let frames = std::iter::from_fn(|| socket.receive_tagged(QUIET));
            frames.filter(|f| matches!(f[12..14], [0x88, 0xb5] | [0x81, 0])).collect()
        };
        [guest, at(&self.wire.socket), at(&self.leg.socket)]
    }

    fn guest_sends(&mut self, frame: &[u8]) -> Heard {
        assert!(self.guest.send(frame));
        self.heard()
    }

    fn wire_sends(&mut self, frame: &[u8]) -> Heard {
        self.wire.socket.send(frame);
        self.heard()
    }

    fn tap_sends(&mut self, frame: &[u8]) -> Heard {
        self.leg.socket.send(frame);
        self.heard()
    }

    /// Frames that port `name` dropped for that its VLAN is not carried.
    fn foreign(&mut self, name: &str) -> Value {
        let stats = self.lab.qmp.ok("query-net-stats", json!({}));
        let ports = stats["ports"].as_array().expect("ports");
        ports.iter().find(|port| port["name"] == name).expect("the port")["drops"]["vlan"].clone()
    }
}

/// A frame of `len` bytes whose payload nobody else has.
fn plain(to: [u8; 6], from: [u8; 6], len: usize, seed: u8) -> Vec<u8> {
    let head = to.into_iter().chain(from).chain([0x88, 0xb5]);
    head.chain((14..len).map(|at| (at * 31 + at / 256) as u8 ^ seed)).collect()
}

/// The same with a tag.
fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &vlan.to_be_bytes(), &frame[12..]].concat()
}

const fn nobody() -> Vec<Vec<u8>> {
    Vec::new()
}

#[test]
fn stations_behind_a_nic_an_interface_and_a_tap_are_learned() {
    if !ready("stations_behind_a_nic_an_interface_and_a_tap_are_learned", NEEDS) {
        return;
    }
    let mut rig = Rig::new([&json!({}); 3]);
    let frame = plain(WIRE, GUEST, 60, 1);
    assert!(rig.guest_sends(&frame) == [nobody(), vec![frame.clone()], vec![frame]], "nobody knows it yet");
    for (seed, len) in [60, 313, 1514].into_iter().enumerate() {
        let seed = seed as u8;
        let frame = plain(GUEST, WIRE, len, seed);
        assert!(rig.wire_sends(&frame) == [vec![frame], nobody(), nobody()], "{len} to the guest");
        let frame = plain(WIRE, GUEST, len, seed ^ 0x55);
        assert!(rig.guest_sends(&frame) == [nobody(), vec![frame], nobody()], "{len} to the interface");
        let frame = plain(GUEST, TAP, len, seed ^ 0xaa);
        assert!(
            rig.tap_sends(&frame) == [vec![frame], nobody(), nobody()],
            "{len} from the tap to the guest"
        );
        let frame = plain(TAP, WIRE, len, seed ^ 0x33);
        assert!(rig.wire_sends(&frame) == [nobody(), nobody(), vec![frame]], "{len} to the tap");
        let frame = plain(TAP, GUEST, len, seed ^ 0xcc);
        assert!(
            rig.guest_sends(&frame) == [nobody(), nobody(), vec![frame]],
            "{len} from the guest to the tap"
        );
        let frame = plain(BROADCAST, WIRE, len, seed ^ 0x0f);
        assert!(rig.wire_sends(&frame) == [vec![frame.clone()], nobody(), vec![frame]], "{len} to all");
        let frame = plain(BROADCAST, TAP, len, seed ^ 0xf0);
        assert!(rig.tap_sends(&frame) == [vec![frame.clone()], vec![frame], nobody()], "{len} to all");
    }
}

#[test]
fn an_interface_is_an_access_port_of_a_guest_with_vlans() {
    if !ready("an_interface_is_an_access_port_of_a_guest_with_vlans", NEEDS) {
        return;
    }
    let mut rig = Rig::new([&json!({"trunk": "10:20"}), &json!({"vlan": 10}), &json!({"vlan": 20})]);
    for len in [60, 1514] {
        let frame = plain(BROADCAST, GUEST, len, 1);
        assert!(rig.guest_sends(&tagged(&frame, 10)) == [nobody(), vec![frame.clone()], nobody()], "{len}");
        assert!(rig.guest_sends(&tagged(&frame, 20)) == [nobody(), nobody(), vec![frame]], "{len}");
        // Known now, and unknown at first.
        let frame = plain(GUEST, WIRE, len, 2);
        assert!(rig.wire_sends(&frame) == [vec![tagged(&frame, 10)], nobody(), nobody()], "{len}");
        let frame = plain(GUEST, TAP, len, 3);
        assert!(rig.tap_sends(&frame) == [vec![tagged(&frame, 20)], nobody(), nobody()], "{len}");
        let frame = plain(WIRE, GUEST, len, 4);
        assert!(rig.guest_sends(&tagged(&frame, 10)) == [nobody(), vec![frame], nobody()], "{len}");
        // A station of the other VLAN is not there.
        let frame = plain(TAP, WIRE, len, 5);
        assert!(rig.wire_sends(&frame) == [vec![tagged(&frame, 10)], nobody(), nobody()], "{len}");
    }
    let frame = plain(WIRE, GUEST, 60, 6);
    assert!(rig.guest_sends(&frame) == [nobody(), nobody(), nobody()], "no native VLAN");
    assert!(rig.guest_sends(&tagged(&frame, 11)) == [nobody(), nobody(), nobody()], "not carried");
    assert_eq!(rig.foreign("p0"), 2);
}

#[test]
fn an_interface_is_a_trunk() {
    if !ready("an_interface_is_a_trunk", NEEDS) {
        return;
    }
    let mut rig = Rig::new([&json!({"vlan": 10}), &json!({"trunk": "10:20"}), &json!({"vlan": 20})]);
    for len in [60, 1514] {
        let frame = plain(BROADCAST, GUEST, len, 1);
        assert!(rig.guest_sends(&frame) == [nobody(), vec![tagged(&frame, 10)], nobody()], "{len}");
        let frame = plain(WIRE, TAP, len, 2);
        assert!(rig.tap_sends(&frame) == [nobody(), vec![tagged(&frame, 20)], nobody()], "{len}");
        let frame = plain(BROADCAST, WIRE, len, 3);
        assert!(rig.wire_sends(&tagged(&frame, 10)) == [vec![frame.clone()], nobody(), nobody()], "{len}");
        assert!(rig.wire_sends(&tagged(&frame, 20)) == [nobody(), nobody(), vec![frame.clone()]], "{len}");
        assert!(rig.wire_sends(&tagged(&frame, 30)) == [nobody(), nobody(), nobody()], "{len}");
        // Learned by VLAN.
        let frame = plain(GUEST, WIRE, len, 4);
        assert!(rig.wire_sends(&tagged(&frame, 10)) == [vec![frame], nobody(), nobody()], "{len}");
    }
    assert_eq!(rig.foreign("p1"), 2);
}
