//! Two guests, and a pair of nics for each shape that rings and devices may have.

use std::net::Ipv4Addr;

use engine::backend::nic::NetFeatures;
use engine::virtq::{F_EVENT_IDX, F_RING_PACKED};
use serde_json::json;
use tests::daemon::Daemon;
use tests::machine::{self, Boot, Machine, Socket};
use tests::qmp::Qmp;
use tests::skip::ready;

use crate::{GUESTS, counted, dropped, iperf, nics, ping, socket, ten_pings};

/// Feature bits.
const MTU: u64 = NetFeatures::MTU;
const TSO: u64 = NetFeatures::HOST_TSO4;
const MERGE: u64 = NetFeatures::MRG_RXBUF;
const MQ: u64 = NetFeatures::MQ;

/// A nic of each guest, on a hub of their own.
struct Shape {
    name: &'static str,
    /// What QEMU's device is told.
    device: &'static str,
    /// Queue pairs.
    pairs: u8,
    /// Feature bits that both drivers must have, and those that they must not.
    has: u64,
    lacks: u64,
}

const SPLIT: Shape = Shape {
    name: "split",
    device: "packed=off",
    pairs: 1,
    has: MERGE | F_EVENT_IDX | TSO,
    lacks: F_RING_PACKED | MQ,
};

const SHAPES: [Shape; 9] = [
    SPLIT,
    Shape {
        name: "packed",
        device: "packed=on",
        has: MERGE | F_EVENT_IDX | F_RING_PACKED,
        lacks: MQ,
        ..SPLIT
    },
    Shape { name: "whole", device: "mrg_rxbuf=off", has: F_EVENT_IDX, lacks: MERGE | F_RING_PACKED, ..SPLIT },
    Shape {
        name: "whole-packed",
        device: "mrg_rxbuf=off,packed=on",
        has: F_RING_PACKED,
        lacks: MERGE,
        ..SPLIT
    },
    Shape { name: "flags", device: "event_idx=off", has: MERGE, lacks: F_EVENT_IDX | F_RING_PACKED, ..SPLIT },
    Shape {
        name: "flags-packed",
        device: "event_idx=off,packed=on",
        has: F_RING_PACKED,
        lacks: F_EVENT_IDX,
        ..SPLIT
    },
    Shape { name: "jumbo", device: "host_mtu=9000", has: MTU, lacks: F_RING_PACKED, ..SPLIT },
    Shape { name: "queues", device: "mq=on,vectors=6", pairs: 2, has: MQ, lacks: F_RING_PACKED },
    Shape {
        name: "queues-packed",
        device: "mq=on,vectors=6,packed=on",
        pairs: 2,
        has: MQ | F_RING_PACKED,
        lacks: 0,
    },
];

fn address(shape: usize, guest: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, u8::try_from(shape).expect("few shapes"), guest)
}

/// The nic of guest `a` or `b`.
fn name(shape: &Shape, guest: &str) -> String {
    format!("{}-{guest}", shape.name)
}

#[test]
fn two_guests_talk_whatever_their_rings_are_like() {
    if !ready("two_guests_talk_whatever_their_rings_are_like", GUESTS) {
        return;
    }
    let _turn = machine::turn();
    let mut arguments = Vec::new();
    for (hub, shape) in (0..).zip(&SHAPES) {
        let mtu = if shape.has & MTU != 0 { ",host_mtu=9000" } else { "" };
        let properties = format!(",queues={}{mtu}", shape.pairs);
        arguments.extend(nics(hub, &[&name(shape, "a"), &name(shape, "b")], &properties));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (daemon, mut client) = Daemon::netdevd(&arguments);
    let machine = |number: u8, guest: &str| {
        let nic = |boot: Boot, shape: &Shape| {
            let socket = Socket::new(socket(&daemon, &name(shape, guest))).device(shape.device);
            boot.nic(socket.netdev(&format!("queues={}", shape.pairs)))
        };
        SHAPES.iter().fold(Machine::prepare(number).processors(2), nic).start()
    };
    let (a, b) = (machine(1, "a"), machine(2, "b"));
    let (mut a, mut b) = (a.up(), b.up());
    b.run("iperf3 -s -D");
    for (at, shape) in SHAPES.iter().enumerate() {
        println!("{}", shape.name);
        for guest in [&mut a, &mut b] {
            let bits = guest.features(at);
            assert_eq!((bits & shape.has, bits & shape.lacks), (shape.has, 0), "{}: {bits:#x}", shape.name);
        }
        a.address(at, address(at, 1));
        b.address(at, address(at, 2));
        let to = address(at, 2);
        ping(&mut a, to, 1400);
        iperf(&mut a, to, "-n 8M");
        iperf(&mut a, to, "-n 8M -R");
        iperf(&mut a, to, "-u -l 1200 -b 10M -n 480K");
        if shape.pairs > 1 {
            both_queues_send(&mut a, &mut client, &name(shape, "a"), to);
        }
        nothing_is_lost(&mut client, shape);
    }
    large_frames_are_the_guests_choice(&mut a, &mut client);
    jumbo_frames_pass_whole(&mut a, &mut b, &mut client);
    vlans_pass(&mut a, &mut b);
}

/// What one nic takes in, the other gives out.
fn nothing_is_lost(client: &mut Qmp, shape: &Shape) {
    let [a, b] = ["a", "b"].map(|guest| name(shape, guest));
    let mut of = |nic: &str| counted(client, nic, ["rx-frames", "tx-frames"]);
    let [[from_a, to_a], [from_b, to_b]] = [of(&a), of(&b)];
    // A frame may be under way between the two looks.
    assert!(
        from_a.abs_diff(to_b) < 5 && from_b.abs_diff(to_a) < 5,
        "{a}: {from_a} {to_a}, {b}: {from_b} {to_b}"
    );
    assert_eq!([dropped(client, &a), dropped(client, &b)], [0, 0], "{a}, {b}");
}

/// A driver sends by the queue of the processor that it runs on.
fn both_queues_send(a: &mut Machine, client: &mut Qmp, nic: &str, to: Ipv4Addr) {
    for queue in 0..2 {
        let before = taken(client, nic)[queue];
        a.run(&format!("taskset {} sh -c '{}'", 1 << queue, ten_pings(to, 56)));
        let after = taken(client, nic)[queue];
        assert!(after >= before + 10, "queue {queue} sent {} frames", after - before);
    }
}

/// Frames that a nic took from its guest, by queue.
fn taken(client: &mut Qmp, nic: &str) -> Vec<u64> {
    let stats = client.ok("query-net-stats", json!({}));
    let ports = stats["ports"].as_array().cloned().unwrap_or_default();
    let mine = ports.iter().filter(|port| port["name"] == nic);
    mine.map(|port| port["rx-frames"].as_u64().unwrap_or_default()).collect()
}

/// Bytes a frame that guest `a` sent on the first nic while it ran iperf3.
fn bytes_a_frame(a: &mut Machine, client: &mut Qmp) -> u64 {
    let sent = |client: &mut Qmp| counted(client, "split-a", ["rx-bytes", "rx-frames"]);
    let [bytes, frames] = sent(client);
    iperf(a, address(0, 2), "-n 8M");
    let [more_bytes, more_frames] = sent(client);
    (more_bytes - bytes) / (more_frames - frames)
}

/// Segmentation is left to the other guest, or not, as the sender's driver is told.
fn large_frames_are_the_guests_choice(a: &mut Machine, client: &mut Qmp) {
    let dev = a.dev(0);
    let large = bytes_a_frame(a, client);
    a.run(&format!("ethtool -K {dev} tso off gso off"));
    let small = bytes_a_frame(a, client);
    a.run(&format!("ethtool -K {dev} tso on gso on"));
    assert!(large > 4000 && small < 1515, "{large} bytes a frame with TSO, {small} without");
}

/// A frame of 9000 bytes is one frame.
fn jumbo_frames_pass_whole(a: &mut Machine, b: &mut Machine, client: &mut Qmp) {
    let at = SHAPES.iter().position(|shape| shape.has & MTU != 0).expect("a nic with an MTU");
    for guest in [&mut *a, &mut *b] {
        let dev = guest.dev(at);
        assert_eq!(guest.run(&format!("cat /sys/class/net/{dev}/mtu")).trim(), "9000");
    }
    let jumbo = name(&SHAPES[at], "a");
    let [bytes, frames] = counted(client, &jumbo, ["rx-bytes", "rx-frames"]);
    ping(a, address(at, 2), 8900);
    let [more_bytes, more_frames] = counted(client, &jumbo, ["rx-bytes", "rx-frames"]);
    let (bytes, frames) = (more_bytes - bytes, more_frames - frames);
    assert!(bytes >= 10 * 8900 && frames < 30, "{bytes} bytes in {frames} frames");
}

/// A VLAN on the first nic: QEMU keeps the filter to itself, tags and offloads pass.
fn vlans_pass(a: &mut Machine, b: &mut Machine) {
    for (guest, host) in [(&mut *a, 1), (&mut *b, 2)] {
        let dev = guest.dev(0);
        guest.run(&format!("modprobe 8021q && ip link add link {dev} name v7 type vlan id 7"));
        guest.run(&format!("ip address add 10.9.107.{host}/24 dev v7 && ip link set v7 up"));
    }
    let to = Ipv4Addr::new(10, 9, 107, 2);
    ping(a, to, 1400);
    iperf(a, to, "-n 4M");
    iperf(a, to, "-n 4M -R");
}
