//! Taps on a learning switch, in network namespaces: who gets which frame, and what the switch tells of it.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::daemon::netdevctl;
use tests::lab::{Lab, Leg};
use tests::packet::frame;
use tests::skip::{Need, ready};
use tests::wait;

const NEEDS: &[Need] = &[Need::Root, Need::Tap];
const BROADCAST: [u8; 6] = [0xff; 6];

/// The address of station `n`.
const fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

/// Adds a port `NAME-port` with these options to switch 1 and joins it to the netdev of that name.
fn plug(lab: &mut Lab, name: &str, options: &Value) {
    let mut all = json!({"type": "switchport", "id": format!("{name}-port"), "switchid": 1, "netdev": name});
    all.as_object_mut().expect("an object").extend(options.as_object().cloned().unwrap_or_default());
    lab.qmp.ok("netdev_add", all);
}

/// Taps of these names, each on a port with these options.
fn legs(lab: &mut Lab, ports: &[(&str, Value)]) -> Vec<Leg> {
    let mut legs = Vec::new();
    for (name, options) in ports {
        legs.push(Leg::new(lab, name));
        plug(lab, name, options);
    }
    legs
}

/// What switch 1 tells of itself.
fn query(lab: &mut Lab) -> Value {
    lab.qmp.ok("query-switch", json!({"switchid": 1}))[0].clone()
}

/// The stations that it knows, as address and port.
fn stations(lab: &mut Lab) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let switch = query(lab);
    let all = switch["macs"].as_array().expect("a list").iter();
    all.map(|s| (text(&s["mac"]), text(&s["port"]))).collect()
}

/// Payloads of what came at each leg.
fn came(legs: &[Leg]) -> Vec<Vec<Vec<u8>>> {
    legs.iter().map(Leg::payloads).collect()
}

#[test]
fn frames_for_a_known_station_go_to_its_port_only() {
    if !ready("frames_for_a_known_station_go_to_its_port_only", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let legs = legs(&mut lab, &[("one", json!({})), ("two", json!({})), ("three", json!({}))]);
    let none = Vec::<Vec<u8>>::new;
    legs[0].socket.send(&frame(mac(2), mac(1), b"unknown"));
    assert_eq!(came(&legs), [none(), vec![b"unknown".to_vec()], vec![b"unknown".to_vec()]]);
    legs[1].socket.send(&frame(mac(1), mac(2), b"answer"));
    assert_eq!(came(&legs), [vec![b"answer".to_vec()], none(), none()]);
    legs[2].socket.send(&frame(mac(2), mac(3), b"known"));
    assert_eq!(came(&legs), [none(), vec![b"known".to_vec()], none()]);
    // It moves.
    legs[0].socket.send(&frame(BROADCAST, mac(2), b"here"));
    came(&legs);
    legs[2].socket.send(&frame(mac(2), mac(3), b"moved"));
    assert_eq!(came(&legs), [vec![b"moved".to_vec()], none(), none()]);
    let counters = query(&mut lab)["counters"].clone();
    assert_eq!((&counters["learned"], &counters["moved"]), (&json!(3), &json!(1)), "{counters}");
}

#[test]
fn stations_go_with_the_link_and_with_the_port() {
    if !ready("stations_go_with_the_link_and_with_the_port", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let fixed = json!({"static-macs": [{"mac": "02:00:00:00:00:09"}]});
    let legs = legs(&mut lab, &[("one", json!({})), ("two", fixed)]);
    let learned = ("02:00:00:00:00:01".to_owned(), "one-port".to_owned());
    let known = ("02:00:00:00:00:09".to_owned(), "two-port".to_owned());
    for (command, arguments) in [
        ("set_link", json!({"name": "one-port", "up": false})),
        ("set_link", json!({"name": "one", "up": false})),
        ("netdev_del", json!({"id": "one-port"})),
    ] {
        legs[0].socket.send(&frame(BROADCAST, mac(1), b"hello"));
        assert_eq!(legs[1].payloads(), [b"hello"]);
        assert_eq!(stations(&mut lab), [learned.clone(), known.clone()]);
        lab.qmp.ok(command, arguments.clone());
        assert_eq!(stations(&mut lab), std::slice::from_ref(&known), "{command} {arguments}");
        if command == "set_link" {
            lab.qmp.ok(command, json!({"name": arguments["name"], "up": true}));
        }
    }
    lab.qmp.ok("netdev_del", json!({"id": "two-port"}));
    assert_eq!(lab.qmp.ok("query-switch", json!({})), json!([]), "a switch goes with its last port");
}

/// Joins switch 1 and switch 2 by trunks of these VLANs.
fn cable(lab: &mut Lab, vlans: &str) {
    for (id, switch, netdev) in [("near", 1, None), ("far", 2, Some("near"))] {
        let mut all = json!({"type": "switchport", "id": id, "switchid": switch, "trunk": vlans});
        if let Some(netdev) = netdev {
            all["netdev"] = json!(netdev);
        }
        lab.qmp.ok("netdev_add", all);
    }
}

#[test]
fn vlans_are_apart_and_meet_at_trunks() {
    if !ready("vlans_are_apart_and_meet_at_trunks", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let ports = [
        ("ten", json!({"vlan": 10})),
        ("twenty", json!({"vlan": 20})),
        ("uplink", json!({"trunk": "10:21-29"})),
        ("away", json!({"vlan": 20, "switchid": 2})),
    ];
    let legs = legs(&mut lab, &ports);
    cable(&mut lab, "10:20");
    let none = Vec::<Vec<u8>>::new;
    legs[0].socket.send(&frame(BROADCAST, mac(1), b"in ten"));
    assert_eq!(came(&legs), [none(), none(), vec![b"in ten".to_vec()], none()]);
    legs[1].socket.send(&frame(BROADCAST, mac(2), b"in twenty"));
    assert_eq!(came(&legs), [none(), none(), none(), vec![b"in twenty".to_vec()]]);
    legs[3].socket.send(&frame(mac(2), mac(4), b"back"));
    assert_eq!(came(&legs), [none(), vec![b"back".to_vec()], none(), none()]);
    // With a tag; the trunk has no native VLAN, and does not carry 20.
    let tagged =
        |vlan: u8, text: &[u8]| [&mac(1)[..], &mac(3), &[0x81, 0, 0, vlan], &[0x88, 0xb5], text].concat();
    legs[2].socket.send(&tagged(10, b"tagged"));
    assert_eq!(came(&legs), [vec![b"tagged".to_vec()], none(), none(), none()]);
    legs[2].socket.send(&frame(BROADCAST, mac(3), b"without a tag"));
    legs[2].socket.send(&tagged(20, b"not here"));
    assert_eq!(came(&legs), [none(), none(), none(), none()]);
    let stats = lab.qmp.ok("query-net-stats", json!({}));
    let port = stats["ports"].as_array().expect("ports").iter().find(|port| port["name"] == "uplink-port");
    assert_eq!(port.expect("the port")["drops"], json!({"vlan": 2}), "{stats}");
    let expected = json!([
        {"vlan": 10, "untagged": ["ten-port"], "tagged": ["uplink-port", "near"], "macs": 2},
        {"vlan": 20, "untagged": ["twenty-port"], "tagged": ["near"], "macs": 2},
    ]);
    assert_eq!(query(&mut lab)["vlans"], expected);
}

#[test]
fn tcp_with_its_offloads_passes_two_switches_with_a_tag_between() {
    let test = "tcp_with_its_offloads_passes_two_switches_with_a_tag_between";
    if !ready(test, &[Need::Root, Need::Tap, Need::Tool("ping"), Need::Tool("iperf3")]) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let (left, right) = (lab.home.sibling(), lab.home.sibling());
    lab.tap_at("left", &left, Ipv4Addr::new(10, 78, 0, 1));
    lab.tap_at("right", &right, Ipv4Addr::new(10, 78, 0, 2));
    plug(&mut lab, "left", &json!({"vlan": 7}));
    plug(&mut lab, "right", &json!({"vlan": 7, "switchid": 2}));
    cable(&mut lab, "7");
    left.run("ping", &["-c", "5", "-i", "0.05", "-W", "2", "10.78.0.2"]);
    let mut server = right.command("iperf3");
    server.args(["-s", "--forceflush"]).stdout(std::process::Stdio::piped());
    let mut server = server.spawn().expect("iperf3 starts");
    let listening =
        wait::until(wait::PATIENCE, || right.run("ss", &["-Hltn"]).contains(":5201").then_some(()));
    listening.expect("iperf3 listens");
    for direction in ["--interval=0", "--reverse"] {
        let report = left.run("iperf3", &["-c", "10.78.0.2", "-t", "1", "-J", direction]);
        let report: Value = serde_json::from_str(&report).expect("iperf3 prints JSON");
        let rate = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or_default();
        assert!(rate > 1e7, "TCP passes at {rate} bit/s ({direction})");
    }
    let _ = server.kill();
    wait::child(&mut server, Duration::from_secs(5)).expect("the server ends");
    let stats = lab.qmp.ok("query-net-stats", json!({})).to_string();
    assert!(!stats.contains("bad-offload") && !stats.contains("malformed"), "{stats}");
}

#[test]
fn private_ports_and_mirrors_do_as_they_say() {
    if !ready("private_ports_and_mirrors_do_as_they_say", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let ports = [
        ("one", json!({"private": true})),
        ("two", json!({"private": true})),
        ("open", json!({})),
        ("copy", json!({"mirror": "one-port"})),
    ];
    let legs = legs(&mut lab, &ports);
    legs[0].socket.send(&frame(BROADCAST, mac(1), b"from one"));
    let (none, from_one) = (Vec::<Vec<u8>>::new(), vec![b"from one".to_vec()]);
    assert_eq!(came(&legs), [none.clone(), none.clone(), from_one.clone(), from_one]);
    legs[2].socket.send(&frame(mac(1), mac(3), b"to one"));
    let to_one = vec![b"to one".to_vec()];
    assert_eq!(came(&legs), [to_one.clone(), none.clone(), none.clone(), to_one]);
    legs[3].socket.send(&frame(BROADCAST, mac(4), b"from the mirror"));
    assert_eq!(came(&legs), vec![none; 4]);
}

#[test]
fn a_flood_of_addresses_leaves_known_stations_their_path() {
    if !ready("a_flood_of_addresses_leaves_known_stations_their_path", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let small = json!({"table-size": 16});
    let bounded = json!({"mac-limit": 4});
    let legs = legs(&mut lab, &[("good", small), ("bad", bounded), ("third", json!({}))]);
    legs[0].socket.send(&frame(BROADCAST, mac(1), b"hello"));
    came(&legs);
    for n in 0..200_u8 {
        legs[1].socket.send(&frame(mac(1), [2, 1, 0, 0, 0, n], b"flood"));
    }
    let heard = wait::until(wait::PATIENCE, || (legs[0].counts().rx_packets >= 200).then_some(()));
    heard.expect("what is for a known station comes");
    legs[2].socket.send(&frame(mac(1), mac(3), b"still there"));
    let all = came(&legs);
    assert!(all[0].contains(&b"still there".to_vec()) && all[1].is_empty(), "{all:?}");
    let switch = query(&mut lab);
    assert_eq!(switch["ports"][1]["macs"], 4, "{switch}");
    assert_eq!(switch["counters"]["limit"], 196, "{switch}");
    assert_eq!(switch["macs"].as_array().map(Vec::len), Some(6), "{switch}");
}

#[test]
fn stations_are_forgotten_in_time() {
    if !ready("stations_are_forgotten_in_time", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let legs = legs(&mut lab, &[("one", json!({"ageing-time": 1})), ("two", json!({}))]);
    legs[0].socket.send(&frame(BROADCAST, mac(1), b"hello"));
    came(&legs);
    assert_eq!(stations(&mut lab).len(), 1);
    let gone = wait::until(Duration::from_secs(10), || stations(&mut lab).is_empty().then_some(()));
    gone.expect("a station that is not heard is forgotten");
}

#[test]
fn netdevctl_shows_a_switch_as_tables() {
    let mut lab = Lab::new(&[]);
    let ports = json!([{"id": "p0", "vlan": 10}, {"id": "p1", "trunk": "10:20-29", "native-vlan": 1}]);
    for port in ports.as_array().expect("a list") {
        let mut all = json!({"type": "switchport", "switchid": 3});
        all.as_object_mut().expect("an object").extend(port.as_object().cloned().unwrap_or_default());
        lab.qmp.ok("netdev_add", all);
    }
    let mut command = Command::new(netdevctl());
    command.arg("-s").arg(lab.daemon.socket(0)).arg("query-switch");
    let text = wait::success(&command, 10);
    for part in ["switchid", "ports:", "p1    true  trunk", "10:20-29", "vlans:", "counters.learned"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let info = lab.qmp.ok("human-monitor-command", json!({"command-line": "info network"}));
    assert_eq!(info, "switch 3\r\n \\ p1\r\n \\ p0\r\n");
}

#[test]
fn ports_can_be_made_on_the_command_line() {
    let arguments = [
        "-netdev",
        "switchport,id=a,switchid=1,trunk=10:20,native-vlan=1,static-macs.0.mac=52:54:00:00:00:01,static-macs.0.vlan=20",
        "-netdev",
        "{'type':'switchport','id':'b','switchid':1,'private':true}",
    ];
    let mut lab = Lab::new(&arguments);
    let switch = query(&mut lab);
    assert_eq!(switch["macs"][0]["vlan"], 20, "{switch}");
    assert_eq!(
        (&switch["ports"][0]["mode"], &switch["ports"][1]["private"]),
        (&json!("trunk"), &json!(true))
    );
}
