//! Taps on hubs, in network namespaces: who gets which frame.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use serde_json::json;
use tests::daemon::{Daemon, Program};
use tests::lab::{Lab, Leg};
use tests::netns::NetNs;
use tests::nics::{await_drop, dropped};
use tests::packet::{PacketSocket, frame};
use tests::skip::{Need, ready};
use tests::wait;

const NEEDS: &[Need] = &[Need::Root, Need::Tap];
const BROADCAST: [u8; 6] = [0xff; 6];
const SOURCE: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

fn three() -> (Lab, Vec<Leg>) {
    let mut lab = Lab::new(&[]);
    let legs: Vec<_> = ["one", "two", "three"].iter().map(|name| Leg::new(&mut lab, name)).collect();
    lab.hub(1, &["one", "two", "three"]);
    (lab, legs)
}

#[test]
fn a_hub_floods_to_all_but_the_source() {
    if !ready("a_hub_floods_to_all_but_the_source", NEEDS) {
        return;
    }
    let (mut lab, legs) = three();
    for (from, leg) in legs.iter().enumerate() {
        leg.socket.send(&frame(BROADCAST, SOURCE, format!("from {from}").as_bytes()));
        for (to, other) in legs.iter().enumerate() {
            let expected = if from == to { vec![] } else { vec![format!("from {from}").into_bytes()] };
            assert_eq!(other.payloads(), expected, "from {from} to {to}");
        }
    }
    let (rx, tx, drops) = lab.port("one");
    assert_eq!((rx, tx, drops), (1, 2, 0), "frames in, frames out and drops of one leg");
}

#[test]
fn frames_of_any_size_pass_a_hub_unchanged() {
    if !ready("frames_of_any_size_pass_a_hub_unchanged", NEEDS) {
        return;
    }
    let (_lab, legs) = three();
    for leg in &legs {
        leg.place.ip(&format!("link set {} mtu 9000", leg.name));
    }
    for length in [0, 1, 46, 100, 1500, 8986] {
        let payload: Vec<u8> = (1..=length).map(|at: u32| at.to_le_bytes()[0]).collect();
        legs[0].socket.send(&frame(BROADCAST, SOURCE, &payload));
        for leg in &legs[1..] {
            assert!(leg.payloads() == [payload.clone()], "{length} bytes to {}", leg.name);
        }
    }
}

/// What comes out of a hub where `program` has a tap and a `dgram` netdev: frames of these lengths from the tap, and one of 20 bytes to it.
fn through(program: Program, lengths: &[usize]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let home = NetNs::new();
    let [own, wire] =
        [2000, 2001].map(|port| json!({"type": "inet", "host": "127.0.0.1", "port": port.to_string()}));
    let socket = home.inside(|| UdpSocket::bind("127.0.0.1:2001")).expect("a port");
    socket.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
    let daemon = Daemon::of(program).within(&home).start();
    let mut qmp = daemon.client();
    qmp.ok(
        "netdev_add",
        json!({"type": "tap", "id": "t", "ifname": "tap0", "script": "no", "downscript": "no"}),
    );
    qmp.ok("netdev_add", json!({"type": "dgram", "id": "d", "local": own, "remote": wire}));
    for id in ["t", "d"] {
        qmp.ok("netdev_add", json!({"type": "hubport", "id": format!("{id}h"), "hubid": 1, "netdev": id}));
    }
    home.silent("tap0");
    home.ip("link set tap0 up");
    let tap = PacketSocket::open(&home, "tap0");
    let out = lengths.iter().map(|length| {
        tap.send(&frame(BROADCAST, SOURCE, &vec![7; length - 14]));
        let mut bytes = [1; 2000];
        let n = socket.recv(&mut bytes).expect("the frame");
        bytes[..n].to_vec()
    });
    let out = out.collect();
    socket.send_to(&frame(BROADCAST, SOURCE, &[7; 6]), "127.0.0.1:2000").expect("it is sent");
    (out, tap.receive(wait::PATIENCE).expect("the other way"))
}

#[test]
fn short_frames_of_a_tap_have_zeros_behind_them_as_in_qemu() {
    let lengths = [14, 54, 59, 60, 61];
    let expected = lengths.iter().map(|&n| {
        [&frame(BROADCAST, SOURCE, &vec![7; n - 14])[..], &vec![0; 60_usize.saturating_sub(n)]].concat()
    });
    let expected = (expected.collect(), frame(BROADCAST, SOURCE, &[7; 6]));
    for (program, needs) in
        [(Program::Netdevd, NEEDS), (Program::Oracle, &[Need::Root, Need::Tap, Need::Oracle])]
    {
        if ready("short_frames_of_a_tap_have_zeros_behind_them_as_in_qemu", needs) {
            assert_eq!(through(program, &lengths), expected, "{program:?}");
        }
    }
}

#[test]
fn a_leg_whose_link_is_down_neither_sends_nor_receives() {
    if !ready("a_leg_whose_link_is_down_neither_sends_nor_receives", NEEDS) {
        return;
    }
    let (mut lab, legs) = three();
    let send = |leg: &Leg, text: &str| leg.socket.send(&frame(BROADCAST, SOURCE, text.as_bytes()));
    for name in ["two", "two-port"] {
        lab.qmp.ok("set_link", json!({"name": name, "up": false}));
        send(&legs[0], "down");
        assert_eq!(legs[1].payloads(), Vec::<Vec<u8>>::new(), "{name} is down and receives");
        assert_eq!(legs[2].payloads(), [b"down"], "the other leg is not touched");
        send(&legs[1], "from below");
        assert_eq!(legs[0].payloads(), Vec::<Vec<u8>>::new(), "{name} is down and sends");
        assert_eq!(legs[2].payloads(), Vec::<Vec<u8>>::new(), "{name} is down and sends");
        lab.qmp.ok("set_link", json!({"name": name, "up": true}));
        send(&legs[0], "up");
        assert_eq!((legs[1].payloads(), legs[2].payloads()), (vec![b"up".to_vec()], vec![b"up".to_vec()]));
    }
}

#[test]
fn a_netdev_may_start_with_its_link_down() {
    if !ready("a_netdev_may_start_with_its_link_down", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    lab.tap("low", &json!({"link": false}));
    let state = lab.qmp.ok("query-netdev", json!({}));
    assert_eq!(state[0]["link"], false, "{state}");
    lab.qmp.ok("set_link", json!({"name": "low", "up": true}));
    let state = lab.qmp.ok("query-netdev", json!({}));
    assert_eq!(state[0]["link"], true, "{state}");
}

#[test]
fn a_pair_without_a_hub_of_more_than_two_is_point_to_point() {
    if !ready("a_pair_without_a_hub_of_more_than_two_is_point_to_point", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let legs: Vec<_> = ["left", "right"].iter().map(|name| Leg::new(&mut lab, name)).collect();
    lab.hub(7, &["left", "right"]);
    for number in 0..2000_u32 {
        legs[0].socket.send(&frame(BROADCAST, SOURCE, &number.to_be_bytes()));
    }
    let arrived = wait::until(wait::PATIENCE, || {
        let lost = legs[0].counts().tx_dropped;
        (legs[1].counts().rx_packets + lost >= 2000).then_some(lost)
    });
    let lost = arrived.expect("every frame arrives that the kernel's own queue did not drop");
    let (rx, _, _) = lab.port("left");
    let (_, tx, drops) = lab.port("right");
    assert_eq!((rx, tx, drops), (2000 - lost, 2000 - lost, 0));
}

#[test]
fn hubs_joined_in_a_ring_do_not_loop_for_ever() {
    if !ready("hubs_joined_in_a_ring_do_not_loop_for_ever", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let legs: Vec<_> = ["one", "two"].iter().map(|name| Leg::new(&mut lab, name)).collect();
    lab.hub(1, &["one"]);
    lab.hub(2, &["two"]);
    for (from, to) in [(1, 2), (2, 3), (3, 1)] {
        let end = format!("from{from}");
        lab.qmp.ok("netdev_add", json!({"type": "hubport", "id": end, "hubid": from}));
        let other = json!({"type": "hubport", "id": format!("to{to}"), "hubid": to, "netdev": end});
        lab.qmp.ok("netdev_add", other);
    }
    for number in 1..=10_u8 {
        legs[0].socket.send(&frame(BROADCAST, SOURCE, &[number]));
    }
    let copies = legs[1].payloads();
    for number in 1..=10_u8 {
        let count = copies.iter().filter(|payload| payload[0] == number).count();
        assert!((1..=16).contains(&count), "frame {number} arrived {count} times");
    }
    let stats = lab.qmp.ok("query-net-stats", json!({})).to_string();
    assert!(stats.contains("\"loop\""), "the drops have their name: {stats}");
}

#[test]
fn a_tap_works_on_when_it_moves_and_comes_back() {
    if !ready("a_tap_works_on_when_it_moves_and_comes_back", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let legs: Vec<_> = ["near", "far"].iter().map(|name| Leg::new(&mut lab, name)).collect();
    lab.hub(1, &["near", "far"]);
    let other = lab.home.sibling();
    legs[1].place.give("far", &other);
    other.ip("link set far name elsewhere");
    other.silent("elsewhere");
    other.ip("link set elsewhere up");
    let socket = tests::packet::PacketSocket::open(&other, "elsewhere");
    legs[0].socket.send(&frame(BROADCAST, SOURCE, b"moved"));
    let frame = socket.receive(wait::PATIENCE).expect("the frame follows the tap");
    assert!(frame.ends_with(b"moved") || frame[14..].starts_with(b"moved"));
}

#[test]
fn ping_and_iperf3_pass_between_two_taps() {
    let test = "ping_and_iperf3_pass_between_two_taps";
    if !ready(test, &[Need::Root, Need::Tap, Need::Tool("ping"), Need::Tool("iperf3")]) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let (left, right) = (lab.home.sibling(), lab.home.sibling());
    lab.tap_at("left", &left, Ipv4Addr::new(10, 77, 0, 1));
    lab.tap_at("right", &right, Ipv4Addr::new(10, 77, 0, 2));
    lab.hub(1, &["left", "right"]);
    left.run("ping", &["-c", "5", "-i", "0.05", "-W", "2", "10.77.0.2"]);
    let mut server = right.command("iperf3");
    server.args(["-s", "-1", "--forceflush"]).stdout(std::process::Stdio::piped());
    let mut server = server.spawn().expect("iperf3 starts");
    let listening =
        wait::until(wait::PATIENCE, || right.run("ss", &["-Hltn"]).contains(":5201").then_some(()));
    listening.expect("iperf3 listens");
    let report = left.run("iperf3", &["-c", "10.77.0.2", "-t", "1", "-J"]);
    let report: serde_json::Value = serde_json::from_str(&report).expect("iperf3 prints JSON");
    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or_default();
    assert!(rate > 1e7, "TCP passes at {rate} bit/s");
    wait::child(&mut server, Duration::from_secs(5)).expect("the server ends after one run");
}

#[test]
fn a_tap_whose_link_is_cut_loses_by_name_and_its_host_sees_no_carrier() {
    if !ready("a_tap_whose_link_is_cut_loses_by_name_and_its_host_sees_no_carrier", NEEDS) {
        return;
    }
    let (mut lab, legs) = three();
    // The kernel tells of it a little later.
    let carrier = |leg: &Leg, up: bool| {
        let seen = || leg.place.ip(&format!("link show {}", leg.name)).contains("NO-CARRIER") != up;
        assert!(wait::until(wait::PATIENCE, || seen().then_some(())).is_some(), "{}: carrier {up}", leg.name);
    };
    for round in 1..3_u8 {
        lab.qmp.ok("set_link", json!({"name": "two", "up": false}));
        carrier(&legs[1], false);
        carrier(&legs[2], true);
        let before = dropped(&mut lab.qmp, "two", "link-down");
        legs[0].socket.send(&frame(BROADCAST, SOURCE, &[b'l', round]));
        await_drop(&mut lab.qmp, "two", "link-down", before + 1);
        // What its host sends then never leaves it.
        legs[1].socket.send(&frame(BROADCAST, SOURCE, b"from below"));
        assert_eq!(legs[2].payloads(), [[b'l', round]], "the other leg is not touched");
        lab.qmp.ok("set_link", json!({"name": "two", "up": true}));
        carrier(&legs[1], true);
        legs[0].socket.send(&frame(BROADCAST, SOURCE, b"down"));
        legs[1].socket.send(&frame(BROADCAST, SOURCE, b"up"));
        assert_eq!(legs[1].payloads(), [b"down".to_vec()], "what was lost does not come later");
        assert_eq!(legs[0].payloads(), [b"up".to_vec()]);
        assert_eq!(legs[2].payloads(), [b"down".to_vec(), b"up".to_vec()]);
    }
}
