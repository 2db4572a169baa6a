//! The texts are QEMU 10.0.2's with a PC machine, but for what concerns the chardev.

use crate::commands::tests::Client;
use crate::reactor::{Part, Ready, Token};
use engine::topology::model::ClientKind;
use serde_json::{Value, json};

/// A client with a chardev `s0` that a nic can use.
fn client() -> Client {
    let mut c = Client::new();
    for id in ["s0", "s1", "s2"] {
        chardev(&mut c, id);
    }
    c
}

fn chardev(c: &mut Client, id: &str) {
    c.ok("chardev-add", json!({"id": id, "backend": {"type": "null", "data": {}}}));
}

/// The events that come behind replies.
fn later(c: &mut Client) -> Vec<Value> {
    let ready = Ready { token: Token::new(Part::Nic, u32::MAX, 0), read: true, write: false, hangup: false };
    let mut events = Vec::new();
    c.state.nic_ready(ready, &mut events);
    events.into_iter().map(|e| json!({"event": e.name, "data": e.data})).collect()
}

#[test]
fn a_device_is_checked_in_qemus_order_and_words() {
    let mut c = client();
    c.port("h0", 0);
    c.port("h1", 0);
    let add = |more: Value| {
        let mut args = json!({"driver": "virtio-net-pci", "chardev": "s0"});
        args.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        args
    };
    for (args, desc) in [
        (json!({}), "Parameter 'driver' is missing"),
        (json!({"driver": 1}), "Parameter 'driver' is missing"),
        (json!({"driver": "nosuch", "id": "1x"}), "'nosuch' is not a valid device model name"),
        (add(json!({"bus": "nobus"})), "Bus 'nobus' not found"),
        (add(json!({"bogus": 1})), "Property 'virtio-net-pci.bogus' not found"),
        (add(json!({"mq": "on"})), "Invalid parameter type for 'mq', expected: boolean"),
        (add(json!({"netdev": "nope"})), "Property 'virtio-net-device.netdev' can't find value 'nope'"),
        (add(json!({"mac": "zz"})), "Property 'virtio-net-device.mac' doesn't take value 'zz'"),
        (
            add(json!({"mac": "52-54-0-12-34-1"})),
            "Property 'virtio-net-device.mac' doesn't take value '52-54-0-12-34-1'",
        ),
        (add(json!({"duplex": "zz", "rx_queue_size": 5})), "'duplex' must be 'half' or 'full'"),
        (add(json!({"speed": -2, "rx_queue_size": 5})), "'speed' must be between 0 and INT_MAX"),
        (
            add(json!({"rx_queue_size": 100})),
            "Invalid rx_queue_size (= 100), must be a power of 2 between 256 and 1024.",
        ),
        (
            add(json!({"tx_queue_size": 100})),
            "Invalid tx_queue_size (= 100), must be a power of 2 between 256 and 1024",
        ),
        (add(json!({"queues": 129})), "vhost-user number of queues must be in range [1, 128]"),
        (
            json!({"driver": "virtio-net"}),
            "Parameter 'chardev' is missing: the socket chardev where the guest's VMM connects",
        ),
        (add(json!({"chardev": "nope"})), "Property 'virtio-net-pci.chardev' can't find value 'nope'"),
    ] {
        c.refused("device_add", args, desc);
    }
    chardev(&mut c, "null");
    c.refused("device_add", add(json!({"chardev": "null"})), "chardev \"null\" does not support FD passing");
    c.ok("device_add", add(json!({"id": "n0", "netdev": "h0", "bus": "pci.0", "romfile": ""})));
    c.refused("device_add", add(json!({"id": "n0", "bogus": 1})), "Duplicate device ID 'n0'");
    let used = "Property 'virtio-net-device.netdev' can't take value 'h0', it's in use";
    c.refused("device_add", add(json!({"id": "n1", "netdev": "h0"})), used);
    let used = "Property 'virtio-net-pci.chardev' can't take value 's0', it's in use";
    c.refused("device_add", add(json!({"id": "n1"})), used);
    // A nic may have the name of a netdev, and an id need not be well-formed here.
    c.ok("device_add", json!({"driver": "virtio-net", "id": "h1", "netdev": "h1", "chardev": "s1"}));
    c.ok("device_add", json!({"driver": "virtio-net", "chardev": "s2"}));
    let expected = "hub 0\r\n \\ h1: h1: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:57\r\n \
                    \\ h0: n0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56\r\n\
                    virtio-net-pci.2: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:58\r\n";
    assert_eq!(c.line("info network"), expected);
}

#[test]
fn a_device_goes_behind_the_reply_and_is_told_twice() {
    let mut c = client();
    c.port("h0", 0);
    c.ok("device_add", json!({"driver": "virtio-net", "id": "n0", "netdev": "h0", "chardev": "s0"}));
    c.ok("device_add", json!({"driver": "virtio-net", "chardev": "s1"}));
    c.missing("device_del", json!({"id": "nope"}), "Device 'nope' not found");
    c.missing("device_del", json!({"id": "/machine/nope"}), "Device '/machine/nope' not found");
    c.refused("device_del", json!({"id": "/machine"}), "/machine is not a device");
    c.missing("netdev_del", json!({"id": "n0"}), "Device 'n0' not found");
    c.ok("device_del", json!({"id": "n0"}));
    assert!(c.events.is_empty());
    let deleted = |data: Value| json!({"event": "DEVICE_DELETED", "data": data});
    let path = "/machine/peripheral/n0";
    let expected = vec![
        deleted(json!({"path": format!("{path}/virtio-backend")})),
        deleted(json!({"device": "n0", "path": path})),
    ];
    assert_eq!(later(&mut c), expected);
    c.ok("device_del", json!({"id": "/machine/peripheral-anon/device[0]"}));
    assert_eq!(later(&mut c)[1], deleted(json!({"path": "/machine/peripheral-anon/device[0]"})));
    assert_eq!(c.line("info network"), "hub 0\r\n \\ h0\r\n");
    // Netdev and chardev are free again.
    c.ok("device_add", json!({"driver": "virtio-net", "id": "n0", "netdev": "h0", "chardev": "s0"}));
}

#[test]
fn both_commands_make_a_nic_and_device_del_removes_either() {
    let mut c = client();
    c.ok("netdev_add", json!({"type": "nic", "id": "n0", "addr": "/n0"}));
    c.refused("netdev_add", json!({"type": "nic", "id": "n0", "addr": "/n0"}), "Duplicate ID 'n0'");
    c.refused(
        "netdev_add",
        json!({"type": "nic", "id": "n1"}),
        "Parameter 'addr' is missing: the path of the nic's vhost-user socket",
    );
    let multicast = "NIC cannot have multicast MAC address (odd 1st byte)";
    c.refused(
        "netdev_add",
        json!({"type": "nic", "id": "n1", "addr": "/n", "macaddr": "1:2:3:4:5:6"}),
        multicast,
    );
    c.refused(
        "netdev_add",
        json!({"type": "nic", "id": "n1", "addr": "/n", "macaddr": "2:2:3:4:5"}),
        "invalid syntax for ethernet address",
    );
    c.refused(
        "netdev_add",
        json!({"type": "nic", "id": "n1", "addr": "/n", "model": "e1000"}),
        "Unsupported NIC model: e1000",
    );
    c.refused(
        "netdev_add",
        json!({"type": "nic", "id": "n1", "addr": "/n", "queues": 0}),
        "vhost-user number of queues must be in range [1, 128]",
    );
    c.ok("netdev_del", json!({"id": "n0"}));
    c.ok("netdev_add", json!({"type": "nic", "id": "n0", "addr": "/n0", "macaddr": "2:0:0:0:0:1"}));
    c.ok("device_del", json!({"id": "n0"}));
    assert_eq!(c.ok("query-netdev", json!({})), json!([]));
    assert_eq!(c.line("device_add nosuch"), "Error: 'nosuch' is not a valid device model name\r\n");
    assert_eq!(c.line("device_add virtio-net,id=1x"), "Try \"help device_add\" for more information\r\n");
    assert_eq!(
        c.line("device_add virtio-net,id=x,chardev=s0,mq=zz"),
        "Error: Parameter 'mq' expects 'on' or 'off'\r\n"
    );
    assert_eq!(c.line("device_add virtio-net,id=x,chardev=s0,mq=on"), "");
    assert_eq!(c.line("device_del x"), "");
    assert_eq!(c.line("device_del x"), "Error: Device 'x' not found\r\n");
}

#[test]
fn a_nic_is_shown_with_what_it_was_told_and_how_it_stands() {
    let mut c = client();
    c.port("h0", 0);
    let mac = "52:54:00:00:00:01";
    let args = json!({"driver": "virtio-net", "id": "n0", "netdev": "h0", "chardev": "s0", "mac": mac, "queues": 2, "packed": false});
    c.ok("device_add", args);
    let shown = &c.ok("query-netdev", json!({"name": "n0"}))[0];
    let transport = json!({"state": "connecting", "info": format!("model=virtio-net-pci,macaddr={mac}")});
    for (name, value) in [
        ("id", json!("n0")),
        ("type", json!("nic")),
        ("link", json!(true)),
        ("peer-id", json!("h0")),
        ("netdev", json!("h0")),
        ("chardev", json!("s0")),
        ("macaddr", json!(mac)),
        ("queues", json!(2)),
        ("properties", json!({"packed": false})),
        ("rings", json!([])),
        ("transport", transport),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    crate::schema::Schema::get().check_type("NetdevInfo", shown).unwrap();
    let stats = c.ok("query-net-stats", json!({}));
    let rows: Vec<_> = stats["ports"].as_array().unwrap().iter().filter(|p| p["name"] == "n0").collect();
    assert_eq!(rows.len(), 2, "{stats}");
    assert_eq!(rows[1]["queue"], 1);
}

#[test]
fn a_nic_without_a_control_queue_takes_every_frame() {
    let mut c = client();
    c.ok("device_add", json!({"driver": "virtio-net", "id": "n0", "chardev": "s0"}));
    let all = c.ok("query-rx-filter", json!({}));
    assert_eq!(all, c.ok("query-rx-filter", json!({"name": "n0"})));
    let one = &all[0];
    assert_eq!((&one["promiscuous"], &one["main-mac"]), (&json!(true), &json!("52:54:00:12:34:56")));
    assert_eq!(one["vlan-table"].as_array().unwrap().len(), 4096);
    assert_eq!((&one["vlan-table"][0], &one["unicast-table"]), (&json!(4095), &json!([])));
    crate::schema::Schema::get().check_type("RxFilterInfo", one).unwrap();
    c.port("h0", 0);
    c.refused("query-rx-filter", json!({"name": "h0"}), "net client(h0) isn't a NIC");
    c.refused("query-rx-filter", json!({"name": "nope"}), "invalid net client name: nope");
}

#[test]
fn the_link_of_a_nic_follows_its_netdev() {
    let mut c = client();
    c.tap("t0");
    c.ok("device_add", json!({"driver": "virtio-net", "id": "n0", "netdev": "t0", "chardev": "s0"}));
    let link = |c: &mut Client, name: &str| c.ok("query-netdev", json!({"name": name}))[0]["link"].clone();
    c.ok("set_link", json!({"name": "n0", "up": false}));
    assert_eq!((link(&mut c, "n0"), link(&mut c, "t0")), (json!(false), json!(true)));
    c.ok("set_link", json!({"name": "t0", "up": false}));
    c.ok("set_link", json!({"name": "n0", "up": true}));
    assert_eq!((link(&mut c, "n0"), link(&mut c, "t0")), (json!(true), json!(false)));
    c.ok("set_link", json!({"name": "t0", "up": true}));
    c.ok("netdev_del", json!({"id": "t0"}));
    assert_eq!(link(&mut c, "n0"), json!(false));
}

#[test]
fn a_nic_changes_its_netdev_in_one_commit() {
    let mut c = client();
    c.tap("t0");
    c.port("h0", 3);
    c.port("h1", 3);
    c.ok("device_add", json!({"driver": "virtio-net", "id": "n0", "netdev": "t0", "chardev": "s0"}));
    let before = c.log.committed();
    c.ok("nic-set-netdev", json!({"name": "n0", "netdev": "h0"}));
    assert_eq!(c.log.committed(), before + 1);
    let peer = |c: &mut Client| c.ok("query-netdev", json!({"name": "n0"}))[0]["peer-id"].clone();
    assert_eq!(peer(&mut c), json!("h0"));
    let topology = c.log.last();
    let tap = topology.clients.iter().find(|c| matches!(c.kind, ClientKind::Port { .. })).unwrap();
    assert_eq!(tap.peer, None);
    // The tap is free for another nic; the hub port is not.
    c.refused("nic-set-netdev", json!({"name": "n0", "netdev": "nope"}), "netdev 'nope' not found");
    c.ok("device_add", json!({"driver": "virtio-net", "id": "n1", "netdev": "t0", "chardev": "s1"}));
    c.refused("nic-set-netdev", json!({"name": "n0", "netdev": "t0"}), "netdev 't0' is already in use");
    c.refused("nic-set-netdev", json!({"name": "t0"}), "net client(t0) isn't a NIC");
    c.missing("nic-set-netdev", json!({"name": "nope"}), "Device 'nope' not found");
    // What no worker took is as it was.
    c.log.refuse.store(true, std::sync::atomic::Ordering::Relaxed);
    c.refused("nic-set-netdev", json!({"name": "n0", "netdev": "h1"}), "worker 0 hangs");
    c.log.refuse.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(peer(&mut c), json!("h0"));
    // A removed netdev takes the link down, another one raises it.
    c.ok("netdev_del", json!({"id": "h0"}));
    assert_eq!(c.ok("query-netdev", json!({"name": "n0"}))[0]["link"], json!(false));
    c.ok("nic-set-netdev", json!({"name": "n0", "netdev": "h1"}));
    assert_eq!(c.ok("query-netdev", json!({"name": "n0"}))[0]["link"], json!(true));
    c.ok("nic-set-netdev", json!({"name": "n0"}));
    assert_eq!(peer(&mut c), Value::Null);
}
