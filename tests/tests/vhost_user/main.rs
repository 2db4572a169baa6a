//! `vhost-user` netdevs of the built daemon: joined to a nic of another one, to DPDK, and to a back-end that breaks the rules. Frames come from
//! guests without machines.

mod bad;
mod dpdk;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use engine::virtq::split::SplitDriver;
use serde_json::{Value, json};
use tests::daemon::{Daemon, Program};
use tests::guest::{Guest, Shape};
use tests::lab::Lab;
use tests::qmp::Qmp;
use tests::skip::{Need, ready};
use tests::wait::{self, PATIENCE};

type Split = Guest<SplitDriver>;

const SPLIT: Shape = Shape { packed: false, mergeable: true };
const CONNECTED: &str = "NETDEV_VHOST_USER_CONNECTED";
const DISCONNECTED: &str = "NETDEV_VHOST_USER_DISCONNECTED";

/// Arguments of a daemon that serves a nic `up` at `up.sock`, joined to a nic `g` for a guest.
fn serves(more: &str) -> Vec<String> {
    let words = |n: &str, more: &str| {
        [
            "-netdev".into(),
            format!("hubport,id=h{n},hubid=0"),
            "-chardev".into(),
            format!("socket,id=c{n},path={n}.sock,server=on,wait=off"),
            "-device".into(),
            format!("virtio-net,id={n},netdev=h{n},chardev=c{n}{more}"),
        ]
    };
    [words("up", more), words("g", "")].concat()
}

fn back_end(more: &str) -> (Daemon, Qmp) {
    let arguments = serves(more);
    Daemon::netdevd(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A daemon whose nic `g` leads to a vhost-user netdev `v0` on chardev `c0`.
fn front_end(chardev: &str, more: &str) -> (Daemon, Qmp) {
    let chardev = format!("socket,id=c0,{chardev}");
    let netdev = format!("vhost-user,id=v0,chardev=c0{more}");
    Daemon::netdevd(&["-chardev", &chardev, "-netdev", &netdev, "-netdev", "nic,id=g,netdev=v0,addr=g.sock"])
}

fn dials(path: &Path) -> String {
    format!("path={},reconnect-ms=20", path.display())
}

fn at(daemon: &Daemon, name: &str) -> PathBuf {
    daemon.directory().join(format!("{name}.sock"))
}

fn guest(daemon: &Daemon) -> Split {
    Guest::connect(&at(daemon, "g"), SPLIT).expect("a guest")
}

fn shown(client: &mut Qmp, name: &str) -> Value {
    client.ok("query-netdev", json!({"name": name}))[0].clone()
}

/// Waits until the netdev has its back-end.
#[track_caller]
fn await_ready(client: &mut Qmp) -> Value {
    let ready =
        wait::until(PATIENCE, || Some(shown(client, "v0")).filter(|v| v["transport"]["state"] == "ready"));
    ready.unwrap_or_else(|| panic!("{}", shown(client, "v0")))
}

/// The next event of that name about the netdev; the nic beside it has its own.
#[track_caller]
fn event(client: &mut Qmp, name: &str) -> Value {
    loop {
        let event = client.event(name, 6 * PATIENCE).expect("an event");
        if event["data"]["netdev-id"] == "v0" {
            return event["data"].clone();
        }
    }
}

/// A frame of that many bytes, told from others by its seed.
fn frame(len: usize, seed: u8) -> Vec<u8> {
    let head = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    let body = (0..len - head.len()).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed));
    head.into_iter().chain(body).collect()
}

/// Frames from one guest to the other, each as it was sent.
#[track_caller]
fn cross(from: &mut Split, to: &mut Split) {
    let sizes = [60, 14, 1000, 1514, 4000].into_iter().chain(std::iter::repeat_n(100, 600));
    for (seed, len) in sizes.enumerate() {
        let sent = frame(len, seed as u8);
        assert_eq!(
            wait::until(PATIENCE, || from.send(&sent).then_some(())),
            Some(()),
            "room for {len} bytes"
        );
        assert!(to.receive(PATIENCE) == Some(sent), "frame {seed} of {len} bytes; {}", to.books());
    }
}

#[test]
fn frames_cross_to_another_daemon_and_back() {
    for (more, packed) in [(",packed=off", false), ("", true), (",mrg_rxbuf=off,packed=off", false)] {
        let (b, _b) = back_end(more);
        let (a, mut client) = front_end(&dials(&at(&b, "up")), "");
        let now = await_ready(&mut client);
        assert_eq!(
            (&now["link"], &now["queues"], &now["transport"]["io"]),
            (&json!(true), &json!(1), &json!("ring"))
        );
        assert_eq!(now["rings"].as_array().map(Vec::len), Some(2));
        let bits =
            |name: &str| u64::from_str_radix(&now[name].as_str().expect("features")[2..], 16).expect("hex");
        assert_eq!(bits("features") >> 34 & 1 == 1, packed);
        assert_eq!(bits("features") & !bits("offered"), 0);
        let (mut here, mut there) = (guest(&a), guest(&b));
        cross(&mut here, &mut there);
        cross(&mut there, &mut here);
    }
}

#[test]
fn a_back_end_goes_and_comes_back_and_frames_go_on() {
    let (b, _b) = back_end("");
    let (a, mut client) = front_end(&dials(&at(&b, "up")), "");
    await_ready(&mut client);
    let (mut here, mut there) = (guest(&a), guest(&b));
    cross(&mut here, &mut there);
    let directory = b.kill();
    assert_eq!(event(&mut client, DISCONNECTED), json!({"netdev-id": "v0"}));
    let now = shown(&mut client, "v0");
    assert_eq!(
        (&now["link"], &now["transport"]["state"], &now["rings"]),
        (&json!(false), &json!("connecting"), &json!([]))
    );
    // The link went down with it, that of the nic too.
    here.config_change();
    assert!(!here.link_up());
    assert!(here.send(&frame(60, 1)));
    let dropped = |client: &mut Qmp| {
        let stats = client.ok("query-net-stats", json!({}));
        let ports = stats["ports"].as_array().cloned().unwrap_or_default();
        let drops = ports
            .iter()
            .filter(|port| port["name"] == "g")
            .filter_map(|port| port["drops"]["link-down"].as_u64());
        Some(()).filter(|()| drops.sum::<u64>() > 0)
    };
    assert_eq!(wait::until(PATIENCE, || dropped(&mut client)), Some(()));
    let b = Daemon::of(Program::Netdevd).args(serves("")).directory(directory).start();
    assert_eq!(event(&mut client, CONNECTED), json!({"netdev-id": "v0", "chardev-id": "c0"}));
    assert_eq!(await_ready(&mut client)["link"], true);
    here.config_change();
    assert!(here.link_up());
    let mut there = guest(&b);
    cross(&mut here, &mut there);
    cross(&mut there, &mut here);
}

#[test]
fn the_link_of_the_nic_behind_it_is_the_netdevs() {
    let (b, mut other) = back_end("");
    let (a, mut client) = front_end(&dials(&at(&b, "up")), "");
    await_ready(&mut client);
    let (mut here, mut there) = (guest(&a), guest(&b));
    cross(&mut here, &mut there);
    for up in [false, true] {
        other.ok("set_link", json!({"name": "up", "up": up}));
        here.config_change();
        assert_eq!(here.link_up(), up);
        assert_eq!(shown(&mut client, "v0")["link"], up);
    }
    cross(&mut here, &mut there);
    cross(&mut there, &mut here);
    // A back-end whose link is down when it is connected to.
    other.ok("set_link", json!({"name": "up", "up": false}));
    client.ok("netdev_del", json!({"id": "v0"}));
    client.ok("netdev_add", json!({"type": "vhost-user", "id": "v0", "chardev": "c0"}));
    assert_eq!(await_ready(&mut client)["link"], false);
    other.ok("set_link", json!({"name": "up", "up": true}));
    let up = wait::until(PATIENCE, || Some(()).filter(|()| shown(&mut client, "v0")["link"] == true));
    assert_eq!(up, Some(()));
}

#[test]
fn a_netdev_may_wait_for_its_back_end() {
    let (a, mut client) = front_end("path=v.sock,server=on,wait=off", "");
    let now = shown(&mut client, "v0");
    assert_eq!((&now["link"], &now["transport"]["state"]), (&json!(false), &json!("listening")));
    let info = client.ok("human-monitor-command", json!({"command-line": "info network"}));
    assert!(
        info.as_str().is_some_and(|text| text.contains("v0: index=0,type=vhost-user,vhost-user0 to c0")),
        "{info}"
    );
    // Behind a hub, where no nic is in the way, its frames are dropped for want of a back-end.
    let socket = a.directory().join("v.sock");
    let chardev = format!("socket,id=c0,path={},reconnect-ms=20", socket.display());
    let serve = || {
        let arguments = [
            "-netdev",
            "hubport,id=h0,hubid=0",
            "-netdev",
            "hubport,id=h1,hubid=0",
            "-netdev",
            "nic,id=g,netdev=h1,addr=g.sock",
        ];
        Daemon::netdevd(
            &[&arguments[..], &["-chardev", &chardev, "-device", "virtio-net,id=up,netdev=h0,chardev=c0"]]
                .concat(),
        )
    };
    let mut here = guest(&a);
    for _ in 0..2 {
        let (b, _b) = serve();
        event(&mut client, CONNECTED);
        let mut there = guest(&b);
        cross(&mut here, &mut there);
        cross(&mut there, &mut here);
        drop(b);
        event(&mut client, DISCONNECTED);
        assert_eq!(shown(&mut client, "v0")["transport"]["state"], "listening");
    }
}

#[test]
fn queue_pairs_are_as_many_as_were_asked_for_or_there_is_no_connection() {
    let (b, _b) = back_end(",queues=2");
    let (a, mut client) = front_end(&dials(&at(&b, "up")), ",queues=2");
    let now = await_ready(&mut client);
    assert_eq!((&now["queues"], now["rings"].as_array().map(Vec::len)), (&json!(2), Some(4)));
    let stats = client.ok("query-net-stats", json!({}));
    let ports = stats["ports"].as_array().cloned().unwrap_or_default();
    assert_eq!(ports.iter().filter(|port| port["name"] == "v0").count(), 2);
    let (mut here, mut there) = (guest(&a), guest(&b));
    cross(&mut here, &mut there);
    cross(&mut there, &mut here);
    // More than there are: it is told, and tries again.
    let (c, mut client) = front_end(&dials(&at(&b, "up")), ",queues=3");
    drop(a);
    let told = wait::until(PATIENCE, || {
        c.stderr().contains("you are asking more queues than supported: 2").then_some(())
    });
    assert_eq!(told, Some(()), "{}", c.stderr());
    assert_eq!(shown(&mut client, "v0")["link"], false);
}

#[test]
fn a_netdev_goes_under_traffic_and_its_name_and_chardev_are_free() {
    let (b, _b) = back_end("");
    let (a, mut client) = front_end(&dials(&at(&b, "up")), "");
    await_ready(&mut client);
    let (mut here, mut there) = (guest(&a), guest(&b));
    cross(&mut here, &mut there);
    for round in 0..5 {
        for seed in 0..50 {
            here.send(&frame(200, seed));
            there.send(&frame(200, seed));
        }
        client.ok("netdev_del", json!({"id": "v0"}));
        assert!(
            client.take_events().iter().all(|event| event["event"] != DISCONNECTED),
            "as in QEMU, no event"
        );
        client.ok("netdev_add", json!({"type": "vhost-user", "id": "v0", "chardev": "c0"}));
        await_ready(&mut client);
        client.ok("nic-set-netdev", json!({"name": "g", "netdev": "v0"}));
        while here.receive(Duration::from_millis(50)).is_some() {}
        while there.receive(Duration::from_millis(50)).is_some() {}
        cross(&mut here, &mut there);
        cross(&mut there, &mut here);
        assert!(round < 5);
    }
}

#[test]
fn options_are_refused_as_qemu_refuses_them() {
    let chardevs =
        ["-chardev", "null,id=n", "-chardev", "socket,id=t,host=127.0.0.1,port=0,server=on,wait=off"];
    let (_daemon, mut client) = Daemon::netdevd(
        &[&chardevs[..], &["-chardev", "socket,id=u,path=u.sock,server=on,wait=off"]].concat(),
    );
    let mut add = |id: &str, chardev: &str, queues: i64| {
        client.refused(
            "netdev_add",
            json!({"type": "vhost-user", "id": id, "chardev": chardev, "queues": queues}),
        )
    };
    assert_eq!(add("v", "x", 0), "chardev \"x\" not found");
    assert_eq!(add("v", "n", 0), "chardev \"n\" is not reconnectable");
    assert_eq!(add("v", "t", 0), "chardev \"t\" does not support FD passing");
    for queues in [0, -1, 1025] {
        assert_eq!(add("v", "u", queues), "vhost-user number of queues must be in range [1, 1024]");
    }
    client.ok("netdev_add", json!({"type": "vhost-user", "id": "v", "chardev": "u", "vhostforce": true}));
    let mut add =
        |id: &str| client.refused("netdev_add", json!({"type": "vhost-user", "id": id, "chardev": "u"}));
    assert_eq!(add("v"), "Duplicate ID 'v'");
    assert_eq!(add("w"), "chardev 'u' is already in use");
    let busy = client.refused("chardev-remove", json!({"id": "u"}));
    assert_eq!(busy, "Chardev 'u' is busy");
    client.ok("netdev_del", json!({"id": "v"}));
    client.ok("chardev-remove", json!({"id": "u"}));
}

#[test]
fn large_frames_cross_between_taps_of_two_daemons() {
    if !ready("vhost-user between taps", &[Need::Root, Need::Tap, Need::Tool("iperf3")]) {
        return;
    }
    let mut b = Lab::new(&[]);
    let right = b.home.sibling();
    b.tap_at("tb", &right, Ipv4Addr::new(10, 78, 0, 2));
    b.qmp.ok("netdev_add", json!({"type": "nic", "id": "up", "netdev": "tb", "addr": "up.sock"}));
    let chardev = format!("socket,id=c0,{}", dials(&at(&b.daemon, "up")));
    let mut a = Lab::new(&["-chardev", &chardev, "-netdev", "vhost-user,id=v0,chardev=c0"]);
    let left = a.home.sibling();
    a.tap_at("ta", &left, Ipv4Addr::new(10, 78, 0, 1));
    a.hub(0, &["ta", "v0"]);
    await_ready(&mut a.qmp);
    let mut server = right.command("iperf3");
    server.args(["-s"]).stdout(Stdio::null());
    let mut server = server.spawn().expect("iperf3 starts");
    let listens = || right.run("ss", &["-Hltn", "sport", "=", "5201"]).contains("5201").then_some(());
    wait::until(PATIENCE, listens).expect("iperf3 listens");
    for way in [&[][..], &["-R"]] {
        let report = left.run("iperf3", &[&["-c", "10.78.0.2", "-n", "200M", "-J"][..], way].concat());
        let report: Value = serde_json::from_str(&report).expect("iperf3 prints JSON");
        assert!(
            report["end"]["sum_received"]["bytes"].as_f64().is_some_and(|bytes| bytes > 190e6),
            "{report}"
        );
    }
    let _ = (server.kill(), server.wait());
    let stats = a.qmp.ok("query-net-stats", json!({}));
    let ports = stats["ports"].as_array().cloned().unwrap_or_default();
    let v0 = ports.iter().find(|port| port["name"] == "v0").expect("a row").clone();
    let mean = |way: &str| {
        v0[format!("{way}-bytes")].as_u64().unwrap_or(0)
            / v0[format!("{way}-frames")].as_u64().unwrap_or(1).max(1)
    };
    // Acknowledgements are among them.
    assert!(mean("tx") > 3000 && mean("rx") > 3000, "frames were not segmented on the way: {v0}");
    assert_eq!(v0["drops"], json!({}));
}
