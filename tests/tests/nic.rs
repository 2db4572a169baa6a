//! Nics of the built daemon, driven by guests without machines. Nothing here needs privileges but what speaks to a tap.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use engine::virtq::DriverRing;
use engine::virtq::packed::PackedDriver;
use engine::virtq::split::SplitDriver;
use nix::sys::signal::Signal;
use serde_json::json;
use tests::daemon::Daemon;
use tests::guest::{Guest, Shape};
use tests::netns::NetNs;
use tests::nics::{
    Packed, SPLIT, Split, arrives, await_drop, cross, dropped, frame, hub, plug, shown, socket,
};
use tests::packet::PacketSocket;
use tests::skip::{Need, ready};
use tests::wait::{self, PATIENCE};

#[test]
fn frames_cross_a_hub_unchanged_whatever_the_rings_are_like() {
    for mergeable in [false, true] {
        let (daemon, _client) = hub(2);
        let (split, packed) = (Shape { packed: false, mergeable }, Shape { packed: true, mergeable });
        {
            let (mut a, mut b) =
                (plug::<SplitDriver>(&daemon, "n0", split), plug::<SplitDriver>(&daemon, "n1", split));
            cross(&mut a, &mut b);
            cross(&mut b, &mut a);
        }
        {
            let mut a: Packed = plug(&daemon, "n0", packed);
            let mut b: Split = plug(&daemon, "n1", Shape { mergeable: !mergeable, ..split });
            cross(&mut a, &mut b);
            cross(&mut b, &mut a);
        }
        let (mut a, mut b): (Packed, Packed) = (plug(&daemon, "n0", packed), plug(&daemon, "n1", packed));
        cross(&mut a, &mut b);
        cross(&mut b, &mut a);
    }
}

#[test]
fn frames_cross_to_a_tap_and_back() {
    if !ready("nic and tap", &[Need::Root, Need::Tap, Need::Namespaces]) {
        return;
    }
    for packed in [false, true] {
        let place = NetNs::new();
        let arguments = [
            "-netdev",
            "tap,id=t0,ifname=nt0,script=no,downscript=no",
            "-netdev",
            "nic,id=n0,netdev=t0,addr=n0.sock",
        ];
        let (daemon, _client) = Daemon::netdevd_within(&place, &arguments);
        place.silent("nt0");
        place.ip("link set nt0 up");
        let interface = PacketSocket::open(&place, "nt0");
        let shape = Shape { packed, mergeable: packed };
        if packed {
            to_tap(&mut plug::<PackedDriver>(&daemon, "n0", shape), &interface);
        } else {
            to_tap(&mut plug::<SplitDriver>(&daemon, "n0", shape), &interface);
        }
    }
}

fn to_tap<R: DriverRing>(guest: &mut Guest<R>, interface: &PacketSocket) {
    for (seed, len) in [60, 500, 1514].into_iter().enumerate() {
        let sent = frame(len, seed as u8);
        assert!(guest.send(&sent));
        let found =
            wait::until(PATIENCE, || interface.receive(PATIENCE).filter(|got| got[12..14] == sent[12..14]));
        assert!(found.as_ref() == Some(&sent), "{len} bytes to the tap");
        interface.send(&sent);
        let found =
            wait::until(PATIENCE, || guest.receive(PATIENCE).filter(|got| got[12..14] == sent[12..14]));
        assert!(found.as_ref() == Some(&sent), "{len} bytes from the tap");
    }
}

#[test]
fn a_guest_goes_and_another_one_comes() {
    let (daemon, mut client) = hub(2);
    assert_eq!(shown(&mut client, "n0")["transport"]["state"], "listening");
    let mut b: Split = plug(&daemon, "n1", SPLIT);
    let mut a: Split = plug(&daemon, "n0", SPLIT);
    let connected = client.event("NETDEV_VHOST_USER_CONNECTED", PATIENCE).expect("an event");
    assert_eq!(connected["data"], json!({"netdev-id": "n1", "chardev-id": "#n1"}));
    cross(&mut a, &mut b);
    let now = shown(&mut client, "n0");
    assert_eq!(now["transport"]["state"], "ready");
    assert_eq!(
        now["rings"],
        json!([{"ring": 0, "state": "running", "size": 64}, {"ring": 1, "state": "running", "size": 64}])
    );
    let features =
        now["features"].as_str().and_then(|text| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok());
    assert_eq!(features.map(|bits| (bits >> 32 & 1, bits >> 15 & 1, bits >> 34 & 1)), Some((1, 1, 0)));
    drop(a);
    let gone = client.event("NETDEV_VHOST_USER_DISCONNECTED", PATIENCE).expect("an event");
    assert_eq!(gone["data"], json!({"netdev-id": "n0"}));
    let now = shown(&mut client, "n0");
    assert_eq!((&now["transport"]["state"], &now["rings"]), (&json!("listening"), &json!([])));
    assert_eq!(now.get("features"), None);
    // The counters stay, and so does what is dropped for want of a guest.
    let stats = client.ok("query-net-stats", json!({}));
    let row = stats["ports"].as_array().and_then(|all| all.iter().find(|port| port["name"] == "n0")).cloned();
    assert!(row.is_some_and(|row| row["rx-frames"].as_u64() >= Some(206)), "{stats}");
    assert!(b.send(&frame(60, 1)));
    await_drop(&mut client, "n0", "not-connected", 1);
    // Another kind of guest on the same socket.
    let mut a: Packed = plug(&daemon, "n0", Shape { packed: true, mergeable: false });
    cross(&mut a, &mut b);
    cross(&mut b, &mut a);
    assert!(dropped(&mut client, "n0", "not-connected") >= 1);
}

#[test]
fn a_vmm_that_stops_in_the_middle_or_talks_nonsense_harms_its_own_nic_only() {
    let (daemon, mut client) = hub(3);
    let (mut a, mut b): (Split, Split) = (plug(&daemon, "n0", SPLIT), plug(&daemon, "n1", SPLIT));
    let mut third = UnixStream::connect(socket(&daemon, "n2")).expect("a connection");
    // Half a header: no more comes.
    third.write_all(&[1, 0, 0, 0, 1]).expect("written");
    cross(&mut a, &mut b);
    let state = wait::until(PATIENCE, || {
        Some(shown(&mut client, "n2")["transport"]["state"].clone()).filter(|state| state == "connecting")
    });
    assert_eq!(state, Some(json!("connecting")));
    // The rest, and a body of nonsense.
    third.write_all(&[0xff; 64]).expect("written");
    third.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert!(matches!(third.read(&mut [0; 16]), Ok(0) | Err(_)), "the connection is closed");
    for noise in [vec![0; 12], vec![0xff; 12], vec![3, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0], frame(4000, 3)] {
        let mut noisy =
            wait::until(PATIENCE, || UnixStream::connect(socket(&daemon, "n2")).ok()).expect("it listens");
        // It may be closed before all is written.
        let _ = noisy.write_all(&noise);
    }
    cross(&mut b, &mut a);
    let mut c: Packed = plug(&daemon, "n2", Shape { packed: true, mergeable: true });
    let sent = frame(600, 9);
    assert!(c.send(&sent));
    arrives(&mut a, &sent);
    arrives(&mut b, &sent);
}

#[test]
fn a_ring_that_breaks_the_rules_stops_alone() {
    let (daemon, mut client) = hub(3);
    let (mut a, mut b): (Split, Split) = (plug(&daemon, "n0", SPLIT), plug(&daemon, "n1", SPLIT));
    let mut bad: Split = plug(&daemon, "n2", SPLIT);
    bad.jump();
    let stopped = client.event("NIC_STOPPED", PATIENCE).expect("an event");
    assert_eq!((&stopped["data"]["name"], &stopped["data"]["queue"]), (&json!("n2"), &json!(1)));
    let reason = stopped["data"]["reason"].as_str().expect("a reason");
    let now = shown(&mut client, "n2");
    assert_eq!(now["transport"]["state"], "failed");
    assert!(now["transport"]["error"].as_str().is_some_and(|error| error.contains(reason)), "{now}");
    assert_eq!(now["rings"][1]["state"], "failed");
    // Neither sends to the third, whose receive ring still takes frames for a while.
    cross(&mut a, &mut b);
    drop(bad);
    client.event("NETDEV_VHOST_USER_DISCONNECTED", PATIENCE).expect("an event");
    let mut good: Packed = plug(&daemon, "n2", Shape { packed: true, mergeable: true });
    let sent = frame(600, 9);
    assert!(good.send(&sent));
    arrives(&mut b, &sent);
    assert_eq!(shown(&mut client, "n2")["transport"]["state"], "ready");
}

#[test]
fn a_device_goes_under_traffic_and_comes_back() {
    let (daemon, mut client) = hub(2);
    let mut b: Split = plug(&daemon, "n1", SPLIT);
    client.ok("netdev_add", json!({"type": "hubport", "id": "h9", "hubid": 0}));
    let backend = json!({"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "d.sock"}}, "wait": false}});
    for round in 0..3 {
        client.ok("chardev-add", json!({"id": "c0", "backend": backend}));
        let device = json!({"driver": "virtio-net-pci", "id": "d0", "netdev": "h9", "chardev": "c0"});
        client.ok("device_add", device);
        assert!(client.refused("chardev-remove", json!({"id": "c0"})).contains("busy"));
        let mut a: Split = plug(&daemon, "d", SPLIT);
        cross(&mut a, &mut b);
        for seed in 0..40 {
            a.send(&frame(1000, seed));
            b.send(&frame(1000, seed));
        }
        client.ok("device_del", json!({"id": "d0"}));
        let path = "/machine/peripheral/d0";
        let backend_gone = client.event("DEVICE_DELETED", PATIENCE).expect("an event");
        assert_eq!(backend_gone["data"], json!({"path": format!("{path}/virtio-backend")}), "round {round}");
        let gone = client.event("DEVICE_DELETED", PATIENCE).expect("an event");
        assert_eq!(gone["data"], json!({"device": "d0", "path": path}));
        assert!(!a.is_connected());
        assert_eq!(
            client.execute("query-netdev", json!({"name": "d0"})).map_err(|e| e.class),
            Err("DeviceNotFound".into())
        );
        client.ok("chardev-remove", json!({"id": "c0"}));
        // What was under way from the other side may be there, or still on its way; the daemon is, too.
        while b.receive(Duration::from_millis(100)).is_some() {}
        let mut other: Split = plug(&daemon, "n0", SPLIT);
        cross(&mut other, &mut b);
    }
}

#[test]
fn a_link_that_is_down_stops_frames_and_the_guest_hears_of_it() {
    let (daemon, mut client) = hub(2);
    let (mut a, mut b): (Split, Split) = (plug(&daemon, "n0", SPLIT), plug(&daemon, "n1", SPLIT));
    cross(&mut a, &mut b);
    assert!(a.link_up());
    client.ok("set_link", json!({"name": "n0", "up": false}));
    a.config_change();
    assert!(!a.link_up() && b.link_up());
    let before = dropped(&mut client, "n0", "link-down");
    assert!(b.send(&frame(60, 1)));
    await_drop(&mut client, "n0", "link-down", before + 1);
    assert!(a.send(&frame(60, 1)));
    await_drop(&mut client, "n0", "link-down", before + 2);
    client.ok("set_link", json!({"name": "n0", "up": true}));
    a.config_change();
    assert!(a.link_up());
    cross(&mut a, &mut b);
    cross(&mut b, &mut a);
    // A netdev that goes takes the link with it.
    client.ok("netdev_del", json!({"id": "h0"}));
    a.config_change();
    assert!(!a.link_up());
}

#[test]
fn a_link_that_is_down_may_close_the_connection() {
    let arguments = ["-netdev", "nic,id=n0,addr=n0.sock,link-down=disconnect"];
    let (daemon, mut client) = Daemon::netdevd(&arguments);
    let a: Split = plug(&daemon, "n0", SPLIT);
    client.ok("set_link", json!({"name": "n0", "up": false}));
    client.event("NETDEV_VHOST_USER_DISCONNECTED", PATIENCE).expect("an event");
    assert!(!a.is_connected());
    // Whoever comes is sent away until the link is up.
    assert!(Guest::<SplitDriver>::connect(&socket(&daemon, "n0"), SPLIT).is_err());
    client.ok("set_link", json!({"name": "n0", "up": true}));
    let again: Split = plug(&daemon, "n0", SPLIT);
    assert!(again.is_connected());
}

#[test]
fn a_live_nic_changes_its_netdev() {
    let (daemon, mut client) = hub(2);
    client.ok("netdev_add", json!({"type": "hubport", "id": "g0", "hubid": 1}));
    client.ok("netdev_add", json!({"type": "hubport", "id": "g2", "hubid": 1}));
    client.ok("netdev_add", json!({"type": "nic", "id": "n2", "netdev": "g2", "addr": "n2.sock"}));
    let (mut a, mut b): (Split, Split) = (plug(&daemon, "n0", SPLIT), plug(&daemon, "n1", SPLIT));
    let mut c: Packed = plug(&daemon, "n2", Shape { packed: true, mergeable: true });
    cross(&mut a, &mut b);
    client.ok("nic-set-netdev", json!({"name": "n0", "netdev": "g0"}));
    cross(&mut a, &mut c);
    cross(&mut c, &mut a);
    assert_eq!(shown(&mut client, "n0")["peer-id"], "g0");
    client.ok("nic-set-netdev", json!({"name": "n0", "netdev": "h0"}));
    cross(&mut a, &mut b);
    // Nothing of it went astray.
    assert_eq!(b.receive(Duration::ZERO), None);
    assert_eq!(c.receive(Duration::ZERO), None);
}

#[test]
fn sockets_go_with_the_daemon() {
    let (mut daemon, _client) = hub(2);
    let mut a: Split = plug(&daemon, "n0", SPLIT);
    let mut b: Split = plug(&daemon, "n1", SPLIT);
    cross(&mut a, &mut b);
    assert!(socket(&daemon, "n0").exists());
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended(PATIENCE).is_some_and(|status| status.success()));
    assert!(!socket(&daemon, "n0").exists() && !socket(&daemon, "n1").exists());
    assert!(!a.is_connected());
}
