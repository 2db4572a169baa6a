//! Ports of learning switches, and `query-switch`. QEMU has none of it; the texts are in its style.

use super::Client;
use engine::topology::model::ClientKind;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

fn port(more: Value) -> Value {
    let mut all = json!({"type": "switchport", "id": "p", "switchid": 1});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

#[test]
fn wrong_options_are_named() {
    let mut c = Client::new();
    c.ok(
        "netdev_add",
        json!({"type": "switchport", "id": "first", "switchid": 1, "table-size": 8, "static-macs": [
        {"mac": "52:54:00:00:00:01"}]}),
    );
    c.ok("netdev_add", json!({"type": "switchport", "id": "other", "switchid": 2}));
    let vlan = |name: &str| format!("Parameter '{name}' expects a VLAN from 1 to 4094");
    let trunk = "Parameter 'trunk' expects VLANs from 1 to 4094, as '10:20-29', or 'all'";
    let station = "Parameter 'static-macs[0].mac' expects the hardware address of one station";
    for (options, desc) in [
        (json!({"vlan": 0}), vlan("vlan").as_str()),
        (json!({"vlan": 4095}), vlan("vlan").as_str()),
        (json!({"trunk": "5", "native-vlan": 4095}), vlan("native-vlan").as_str()),
        (
            json!({"trunk": "5", "vlan": 5}),
            "'vlan' and 'trunk' are mutually exclusive; a trunk has 'native-vlan'",
        ),
        (json!({"native-vlan": 5}), "'native-vlan' requires 'trunk'; an access port has 'vlan'"),
        (json!({"trunk": ""}), trunk),
        (json!({"trunk": "20-10"}), trunk),
        (json!({"static-macs": [{"mac": "52:54"}]}), station),
        (json!({"static-macs": [{"mac": "53:54:00:00:00:01"}]}), station),
        (
            json!({"static-macs": [{"mac": "52:54:00:00:00:02", "vlan": 7}]}),
            "Parameter 'static-macs[0].vlan' expects a VLAN that the port carries, not 7",
        ),
        (
            json!({"trunk": "7", "static-macs": [{"mac": "52:54:00:00:00:02"}]}),
            "Parameter 'static-macs[0].vlan' is missing: the trunk has no native VLAN",
        ),
        (
            json!({"static-macs": [{"mac": "52:54:00:00:00:01"}]}),
            "Parameter 'static-macs': 52:54:00:00:00:01 of VLAN 1 is static at port 'first' already",
        ),
        (
            json!({"static-macs": (2..6).map(|n| json!({"mac": format!("52:54:00:00:00:0{n}")})).collect::<Value>()}),
            "Parameter 'static-macs': more than 4 static stations, half of the switch's table",
        ),
        (json!({"table-size": 0}), "Parameter 'table-size' expects a value from 1 to 1048576"),
        (
            json!({"table-size": 16}),
            "Parameter 'table-size' expects 8, which holds for all ports of switch 1",
        ),
        (
            json!({"ageing-time": 10}),
            "Parameter 'ageing-time' expects 300, which holds for all ports of switch 1",
        ),
        (json!({"mac-limit": 1 << 21}), "Parameter 'mac-limit' expects a value from 0 to 1048576"),
        (json!({"mirror-frames": "rx"}), "'mirror-frames' requires 'mirror'"),
        (json!({"mirror": "nope"}), "Parameter 'mirror' expects another port of switch 1, not 'nope'"),
        (json!({"mirror": "other"}), "Parameter 'mirror' expects another port of switch 1, not 'other'"),
        (
            json!({"mirror": "first", "vlan": 1}),
            "'mirror' and 'vlan' are mutually exclusive: a mirror only gets copies",
        ),
        (json!({"netdev": "nope"}), "netdev 'nope' not found"),
        (json!({"id": "first"}), "Duplicate ID 'first'"),
    ] {
        c.refused("netdev_add", port(options), desc);
    }
    c.refused("query-switch", json!({"switchid": 9}), "switch 9 not found");
    assert_eq!(c.ok("query-netdev", json!({})).as_array().map(Vec::len), Some(2), "nothing is left behind");
}

#[test]
fn the_engine_is_told_of_ports_and_settings() {
    let mut c = Client::new();
    c.ok("netdev_add", json!({"type": "tap", "id": "t"}));
    let options = json!({"netdev": "t", "trunk": "10:20-22", "native-vlan": 5, "private": true, "mac-limit": 3,
        "table-size": 100, "ageing-time": 0, "static-macs": [{"mac": "52:54:00:00:00:01", "vlan": 21}]});
    c.ok("netdev_add", port(options));
    let topology = c.log.last();
    let [settings] = topology.switches.as_slice() else { panic!("{topology:?}") };
    assert_eq!((settings.number, settings.ageing, settings.stations), (1, 0, 100));
    let ClientKind::SwitchPort { switch: 1, port: rules } = &topology.clients[1].kind else {
        panic!("{topology:?}")
    };
    assert_eq!((rules.untagged, rules.private, rules.limit), (5, true, 3));
    assert_eq!(rules.tagged.iter().collect::<Vec<_>>(), [10, 20, 21, 22]);
    assert_eq!(rules.stations, [([0x52, 0x54, 0, 0, 0, 1], 21)]);
    assert_eq!(topology.clients[1].peer, Some(topology.clients[0].id));
    // The switch goes with its last port, and another of its number begins anew.
    c.ok("netdev_del", json!({"id": "p"}));
    assert!(c.log.last().switches.is_empty());
    c.ok("netdev_add", port(json!({})));
    assert_eq!(c.log.last().switches[0].stations, 8192);
}

#[test]
fn a_port_that_the_engine_refuses_leaves_nothing_behind() {
    let mut c = Client::new();
    c.log.refuse.store(true, Ordering::Relaxed);
    c.refused("netdev_add", port(json!({})), "worker 0 hangs");
    c.log.refuse.store(false, Ordering::Relaxed);
    assert_eq!(c.ok("query-switch", json!({})), json!([]));
    c.ok("netdev_add", port(json!({"table-size": 9})));
}

#[test]
fn queries_show_ports_with_what_they_are() {
    let mut c = Client::new();
    c.ok("netdev_add", port(json!({"vlan": 7})));
    c.ok("netdev_add", json!({"type": "switchport", "id": "up", "switchid": 1, "trunk": "all"}));
    c.ok(
        "netdev_add",
        json!({"type": "switchport", "id": "m", "switchid": 1, "mirror": "up", "mirror-frames": "tx"}),
    );
    c.ok("netdev_add", json!({"type": "tap", "id": "t", "ifname": "x"}));
    c.ok("netdev_add", json!({"type": "switchport", "id": "q", "switchid": 1, "netdev": "t"}));
    let switch = &c.ok("query-switch", json!({}))[0];
    let common = json!({"link": true, "private": false, "macs": 0, "mac-limit": 4096});
    let with = |more: Value| {
        let mut all = common.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let expected = json!([
        with(json!({"name": "p", "mode": "access", "vlan": 7})),
        with(json!({"name": "up", "mode": "trunk", "trunk": "all"})),
        with(json!({"name": "m", "mode": "mirror", "mirror": "up", "mirror-frames": "tx"})),
        with(json!({"name": "q", "mode": "access", "vlan": 1, "peer-id": "t"})),
    ]);
    assert_eq!(switch["ports"], expected);
    let vlans = json!([
        {"vlan": 1, "untagged": ["q"], "tagged": ["up"], "macs": 0},
        {"vlan": 7, "untagged": ["p"], "tagged": ["up"], "macs": 0},
    ]);
    assert_eq!(switch["vlans"], vlans);
    let shown = c.ok("query-netdev", json!({"name": "q"}))[0].clone();
    assert_eq!(
        (&shown["type"], &shown["switchid"], &shown["peer-id"]),
        (&json!("switchport"), &json!(1), &json!("t"))
    );
    let info = c.ok("human-monitor-command", json!({"command-line": "info network"}));
    let info = info.as_str().unwrap().replace('\r', "");
    assert!(info.starts_with("switch 1\n \\ q: t: index=0,type=tap,ifname=x"), "{info}");
    assert!(info.ends_with(" \\ m\n \\ up\n \\ p\n"), "{info}");
}
