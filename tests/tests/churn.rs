//! Adding and removing under traffic: nothing lost, nothing leaked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::lab::{Lab, Leg};
use tests::packet::frame;
use tests::skip::{Need, ready};
use tests::wait;

const NEEDS: &[Need] = &[Need::Root, Need::Tap];
const RATE: u32 = 50_000;

/// Pairs of additions and removals: a short form, and `NETDEVD_LONG=1` for the whole one.
fn rounds() -> u32 {
    if std::env::var_os("NETDEVD_LONG").is_some() { 10_000 } else { 300 }
}

/// Sends numbered frames at `RATE` until `stop`, and returns how many.
fn pump(leg: &Leg, stop: &AtomicBool) -> u32 {
    let (begun, mut sent) = (Instant::now(), 0_u32);
    while !stop.load(Ordering::Relaxed) {
        let due =
            u32::try_from(begun.elapsed().as_micros() * u128::from(RATE) / 1_000_000).unwrap_or(u32::MAX);
        // A late sender must not become a burst that overruns the tap's queue of 1,000 frames.
        for _ in 0..due.saturating_sub(sent).min(200) {
            leg.socket.send(&frame([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1], &sent.to_be_bytes()));
            sent += 1;
        }
        std::thread::yield_now();
    }
    sent
}

/// Runs `work` while one tap sends to another, and checks that every frame is delivered or dropped under a name.
fn under_traffic(work: impl FnOnce(&mut Lab)) {
    let mut lab = Lab::new(&[]);
    let (from, to) = (Leg::new(&mut lab, "from"), Leg::new(&mut lab, "to"));
    lab.hub(1, &["from", "to"]);
    let (before_from, before_to) = (from.counts(), to.counts());
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let pump = scope.spawn(|| pump(&from, &stop));
        work(&mut lab);
        stop.store(true, Ordering::Relaxed);
        u64::from(pump.join().expect("the sender"))
    });
    assert!(sent > 0, "there was traffic");
    let settled = wait::until(wait::PATIENCE, || {
        let kernel = from.counts().tx_dropped - before_from.tx_dropped;
        let delivered = to.counts().rx_packets - before_to.rx_packets;
        let (_, _, lost_from) = lab.port("from");
        let (_, _, lost_to) = lab.port("to");
        (kernel + delivered + lost_from + lost_to == sent).then_some((kernel, delivered, lost_from + lost_to))
    });
    let (kernel, delivered, lost) = settled.unwrap_or_else(|| {
        let (ports, kernel) = ((lab.port("from"), lab.port("to")), (from.counts(), to.counts()));
        panic!("{sent} frames sent, and not all accounted for: ports {ports:?}, kernel {kernel:?}")
    });
    println!(
        "{sent} frames: {delivered} delivered, {lost} dropped by name, {kernel} never left the kernel's queue"
    );
    assert_eq!(lost, 0, "frames lost while the topology changes");
}

#[test]
fn netdevs_come_and_go_without_loss() {
    if !ready("netdevs_come_and_go_without_loss", NEEDS) {
        return;
    }
    under_traffic(|lab| {
        for _ in 0..rounds() {
            lab.qmp.ok("netdev_add", json!({"type": "hubport", "id": "h", "hubid": 2}));
            lab.qmp.ok("netdev_del", json!({"id": "h"}));
        }
    });
}

#[test]
fn taps_come_and_go_without_loss() {
    if !ready("taps_come_and_go_without_loss", NEEDS) {
        return;
    }
    under_traffic(|lab| {
        for _ in 0..rounds() / 10 {
            lab.tap("guest", &json!({}));
            lab.qmp.ok("netdev_add", json!({"type": "hubport", "id": "h", "hubid": 2, "netdev": "guest"}));
            lab.qmp.ok("netdev_del", json!({"id": "guest"}));
            lab.qmp.ok("netdev_del", json!({"id": "h"}));
        }
    });
}

#[test]
fn filters_come_and_go_without_loss() {
    if !ready("filters_come_and_go_without_loss", NEEDS) {
        return;
    }
    under_traffic(|lab| {
        let file = lab.daemon.directory().join("capture");
        for _ in 0..rounds() {
            let options =
                json!({"qom-type": "filter-dump", "id": "f", "netdev": "from", "file": file, "maxlen": 64});
            lab.qmp.ok("object-add", options);
            lab.qmp.ok("object-del", json!({"id": "f"}));
        }
    });
}

#[test]
fn filters_that_hold_frames_come_and_go_without_loss() {
    if !ready("filters_that_hold_frames_come_and_go_without_loss", NEEDS) {
        return;
    }
    under_traffic(|lab| {
        let kinds = [
            json!({"qom-type": "filter-buffer", "id": "f", "netdev": "from", "interval": 2000}),
            json!({"qom-type": "filter-limit", "id": "f", "netdev": "from", "bps": 1_000_000_000}),
            json!({"qom-type": "filter-rewriter", "id": "f", "netdev": "from"}),
            json!({"qom-type": "filter-replay", "id": "f", "netdev": "from"}),
        ];
        let set = |property: &str, value: &str| json!({"path": "f", "property": property, "value": value});
        for kind in kinds.iter().cycle().take(rounds() as usize / 3) {
            lab.qmp.ok("object-add", kind.clone());
            lab.qmp.ok("qom-set", set("status", "off"));
            lab.qmp.ok("qom-set", set("status", "on"));
            lab.qmp.ok("qom-set", set("queue", "tx"));
            lab.qmp.ok("object-del", json!({"id": "f"}));
        }
    });
}

#[test]
fn one_interface_name_can_be_taken_again_at_once() {
    if !ready("one_interface_name_can_be_taken_again_at_once", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    for _ in 0..50 {
        lab.tap("again", &json!({}));
        lab.qmp.ok("netdev_del", json!({"id": "again"}));
        assert_eq!(lab.home.links(), Vec::<String>::new(), "the interface is gone with its netdev");
    }
}

#[test]
fn nothing_is_left_open_after_adds_removals_and_failures() {
    if !ready("nothing_is_left_open_after_adds_removals_and_failures", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    let round = |lab: &mut Lab| {
        let file = lab.daemon.directory().join("capture");
        lab.tap("t", &json!({"queues": 2}));
        lab.qmp.ok("netdev_add", json!({"type": "hubport", "id": "h", "hubid": 1, "netdev": "t"}));
        lab.qmp.ok("object-add", json!({"qom-type": "filter-dump", "id": "f", "netdev": "h", "file": file}));
        lab.qmp.refused("netdev_add", json!({"type": "tap", "id": "t", "ifname": "u", "script": "no"}));
        lab.qmp
            .refused("netdev_add", json!({"type": "tap", "id": "u", "ifname": "u", "script": "/bin/false"}));
        lab.qmp.refused("netdev_add", json!({"type": "tap", "id": "u", "ifname": "lo", "script": "no"}));
        lab.qmp.refused(
            "object-add",
            json!({"qom-type": "filter-dump", "id": "g", "netdev": "x", "file": file}),
        );
        let passed = std::os::fd::AsFd::as_fd(&null);
        lab.qmp.execute_with("getfd", json!({"fdname": "n"}), &[passed]).expect("getfd");
        lab.qmp.refused("netdev_add", json!({"type": "tap", "id": "u", "fd": "n"}));
        lab.qmp.execute_with("getfd", json!({"fdname": "n"}), &[passed]).expect("getfd");
        lab.qmp.ok("closefd", json!({"fdname": "n"}));
        let set = lab.qmp.execute_with("add-fd", json!({}), &[passed]).expect("add-fd");
        lab.qmp.ok("remove-fd", json!({"fdset-id": set["fdset-id"]}));
        lab.qmp.execute_with("query-name", Value::Null, &[passed]).expect("query-name");
        let _ = lab.qmp.execute("closefd", json!({"fdname": "none"}));
        let socket = lab.daemon.directory().join("chardev");
        let address = json!({"type": "unix", "data": {"path": socket}});
        let data = json!({"addr": address, "server": true, "wait": false});
        lab.qmp.ok("chardev-add", json!({"id": "c", "backend": {"type": "socket", "data": data}}));
        lab.qmp.ok("chardev-remove", json!({"id": "c"}));
        drop(lab.daemon.connect(0));
        lab.qmp.ok("netdev_del", json!({"id": "t"}));
        lab.qmp.ok("netdev_del", json!({"id": "h"}));
    };
    // The first round may start what stays for good, such as a writer thread or a memory region.
    round(&mut lab);
    let settle = |lab: &Lab, least: usize| {
        wait::until(wait::PATIENCE, || (lab.daemon.open_files() <= least).then_some(()))
    };
    let before = lab.daemon.open_files();
    for _ in 0..5 {
        round(&mut lab);
    }
    let after = settle(&lab, before);
    assert!(after.is_some(), "{before} files open before, {} after", lab.daemon.open_files());
    assert_eq!(lab.home.links(), Vec::<String>::new(), "no interface is left");
}

#[test]
fn a_thousand_netdevs_work() {
    if !ready("a_thousand_netdevs_work", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let (from, to) = (Leg::new(&mut lab, "from"), Leg::new(&mut lab, "to"));
    lab.hub(1, &["from", "to"]);
    for number in 0..1000 {
        let options = json!({"type": "hubport", "id": format!("n{number}"), "hubid": 2 + number / 4});
        lab.qmp.ok("netdev_add", options);
    }
    let listed = lab.qmp.ok("query-netdev", json!({}));
    assert_eq!(listed.as_array().map(Vec::len), Some(1004));
    from.socket.send(&frame([0xff; 6], [2, 0, 0, 0, 0, 1], b"still"));
    let found = to.socket.receive(wait::PATIENCE).expect("traffic passes beside them");
    assert!(found[14..].starts_with(b"still"));
    for number in 0..1000 {
        lab.qmp.ok("netdev_del", json!({"id": format!("n{number}")}));
    }
    let listed = lab.qmp.ok("query-netdev", json!({}));
    assert_eq!(listed.as_array().map(Vec::len), Some(4));
}

#[test]
fn many_taps_at_once_carry_traffic() {
    if !ready("many_taps_at_once_carry_traffic", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let names: Vec<_> = (0..64).map(|number| format!("many{number}")).collect();
    for name in &names {
        lab.tap(name, &json!({}));
        lab.home.ip(&format!("link set {name} up"));
    }
    lab.hub(1, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let socket = tests::packet::PacketSocket::open(&lab.home, "many0");
    let last = tests::packet::PacketSocket::open(&lab.home, "many63");
    socket.send(&frame([0xff; 6], [2, 0, 0, 0, 0, 1], b"to all"));
    let found = last.drain(Duration::from_millis(300));
    assert_eq!(found.iter().filter(|frame| frame[14..].starts_with(b"to all")).count(), 1);
}
