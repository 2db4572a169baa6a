//! Frames between veth pairs, and to a guest.

use super::NEEDS;
use super::wire::{BROADCAST, SOURCE, Wire, add, has_program, state};
use serde_json::json;
use std::net::Ipv4Addr;
use tests::lab::{Lab, Leg};
use tests::packet::frame;
use tests::skip::{Need, ready};
use tests::wait;

/// Two wires on a hub of two ports.
fn pair(mode: &str, queues: u32, mtu: u32, arguments: &[&str]) -> (Lab, [Wire; 2]) {
    let mut lab = Lab::new(arguments);
    let wires = ["one", "two"].map(|name| Wire::with(&lab.home, name, queues, mtu));
    for wire in &wires {
        add(&mut lab, wire, &json!({"mode": mode, "queues": queues}));
    }
    lab.hub(0, &["one", "two"]);
    (lab, wires)
}

#[test]
fn frames_of_any_size_pass_between_two_interfaces_unchanged() {
    if !ready("frames_of_any_size_pass_between_two_interfaces_unchanged", NEEDS) {
        return;
    }
    for (mode, idle) in [("native", "poll"), ("native", "adaptive"), ("skb", "poll")] {
        let (mut lab, [one, two]) = pair(mode, 1, 1500, &["-idle", idle]);
        assert!(has_program(&lab.home, "one"), "{mode}");
        let netdev = state(&mut lab, "one");
        assert_eq!((&netdev["attached"], &netdev["transport"]["state"]), (&json!(mode), &json!("ready")));
        for (from, to) in [(&one, &two), (&two, &one)] {
            for length in [0, 1, 46, 500, 1500] {
                let payload: Vec<u8> = (1..=length).map(|at: u32| at.to_le_bytes()[0]).collect();
                from.socket.send(&frame(BROADCAST, SOURCE, &payload));
                assert_eq!(to.payloads(), [payload], "{length} bytes in mode {mode}, {idle}");
            }
        }
        let (rx, tx, drops) = lab.port("one");
        assert_eq!((rx, tx, drops), (5, 5, 0));
    }
}

#[test]
fn every_frame_of_a_burst_arrives_in_order() {
    if !ready("every_frame_of_a_burst_arrives_in_order", NEEDS) {
        return;
    }
    let (mut lab, [one, two]) = pair("native", 1, 1500, &[]);
    for round in 0..20u32 {
        for number in 0..200u32 {
            one.socket.send(&frame(BROADCAST, SOURCE, &(round * 200 + number).to_be_bytes().repeat(20)));
        }
        let got: Vec<u32> =
            two.payloads().iter().map(|p| u32::from_be_bytes(p[..4].try_into().unwrap())).collect();
        assert_eq!(got, (round * 200..(round + 1) * 200).collect::<Vec<_>>());
    }
    let (rx, ..) = lab.port("one");
    let (_, tx, drops) = lab.port("two");
    assert_eq!((rx, tx, drops), (4000, 4000, 0));
}

#[test]
fn jumbo_frames_take_several_chunks() {
    if !ready("jumbo_frames_take_several_chunks", NEEDS) {
        return;
    }
    let (mut lab, [one, two]) = pair("native", 1, 9000, &[]);
    if state(&mut lab, "one")["multi-buffer"] != true {
        return tests::skip::record("jumbo_frames_take_several_chunks", "needs XDP_USE_SG (Linux 6.6)");
    }
    for length in [3000, 3826, 3827, 5000, 9000] {
        let payload: Vec<u8> = (1..=length).map(|at: u32| (at * 7).to_le_bytes()[0]).collect();
        one.socket.send(&frame(BROADCAST, SOURCE, &payload));
        assert!(two.payloads() == [payload], "{length} bytes");
    }
}

#[test]
fn queues_of_an_interface_are_all_served() {
    if !ready("queues_of_an_interface_are_all_served", NEEDS) {
        return;
    }
    for queues in [2, 4] {
        let (mut lab, [one, two]) = pair("native", queues, 1500, &[]);
        // Senders on different threads are spread over the queues of the veth by the processor they run on, and by flows.
        for number in 0..200u32 {
            let mut bytes = frame(BROADCAST, [2, 0, 0, 0, 1, number as u8], &number.to_be_bytes());
            bytes.resize(60 + number as usize, 0);
            one.socket.send(&bytes);
        }
        let mut got: Vec<u32> =
            two.payloads().iter().map(|p| u32::from_be_bytes(p[..4].try_into().unwrap())).collect();
        got.sort_unstable();
        assert_eq!(got, (0..200).collect::<Vec<_>>(), "{queues} queues");
        assert_eq!(lab.port("one").0, 200);
    }
}

#[test]
fn frames_pass_between_an_interface_and_a_tap() {
    if !ready("frames_pass_between_an_interface_and_a_tap", &[Need::Root, Need::Tap]) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let wire = Wire::new(&lab.home, "one");
    add(&mut lab, &wire, &json!({}));
    let leg = Leg::new(&mut lab, "leg");
    lab.hub(0, &["one", "leg"]);
    wire.socket.send(&frame(BROADCAST, SOURCE, b"to the tap, long enough not to be padded by anyone"));
    assert_eq!(leg.payloads(), [b"to the tap, long enough not to be padded by anyone"]);
    leg.socket.send(&frame(BROADCAST, SOURCE, b"to the interface, long enough not to be padded"));
    assert_eq!(wire.payloads(), [b"to the interface, long enough not to be padded"]);
}

#[test]
fn a_stack_at_each_end_talks_through() {
    if !ready(
        "a_stack_at_each_end_talks_through",
        &[Need::Root, Need::Tool("ping"), Need::Tool("ethtool"), Need::Tool("iperf3")],
    ) {
        return;
    }
    let (_lab, [one, two]) = pair("native", 1, 1500, &[]);
    for (wire, last) in [(&one, 1), (&two, 2)] {
        // A veth leaves checksums to hardware that is not there.
        wire.place.run("ethtool", &["-K", &wire.far, "tx", "off"]);
        wire.place.up(&wire.far, Ipv4Addr::new(10, 9, 0, last));
    }
    let text = one.place.run("ping", &["-c", "20", "-i", "0.01", "-W", "2", "10.9.0.2"]);
    assert!(text.contains(" 0% packet loss"), "{text}");
    let mut server =
        two.place.command("iperf3").args(["-s", "-1", "-B", "10.9.0.2"]).spawn().expect("iperf3");
    let up = wait::until(wait::PATIENCE, || {
        two.place.run("ss", &["-Hltn", "sport = :5201"]).contains("5201").then_some(())
    });
    up.expect("the server listens");
    let text = one.place.run("iperf3", &["-c", "10.9.0.2", "-t", "2", "-J"]);
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64().expect("a rate");
    assert!(bits > 10e6, "{bits} bit/s");
    let _ = server.wait();
}

#[test]
fn a_filter_leaves_the_rest_to_the_kernel() {
    if !ready("a_filter_leaves_the_rest_to_the_kernel", &[Need::Root, Need::Tool("ping")]) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let wires = ["one", "two"].map(|name| Wire::new(&lab.home, name));
    add(&mut lab, &wires[0], &json!({"only-ethertype": 0x88b5}));
    add(&mut lab, &wires[1], &json!({}));
    lab.hub(0, &["one", "two"]);
    let [one, two] = wires;
    lab.home.ip("address add 10.8.0.1/24 dev one");
    one.place.up(&one.far, Ipv4Addr::new(10, 8, 0, 2));
    let text = one.place.run("ping", &["-c", "3", "-i", "0.01", "-W", "2", "10.8.0.1"]);
    assert!(text.contains(" 0% packet loss"), "the host answers: {text}");
    one.socket.send(&frame(BROADCAST, SOURCE, b"ours"));
    let payloads = two.payloads();
    assert!(payloads.len() == 1 && payloads[0].starts_with(b"ours"), "{payloads:?}");
    assert_eq!(lab.port("one").0, 1, "nothing but the test frame came");
}
