//! `netdev_add`, `netdev_del`, `set_link`, `info network`, `query-netdev`, counters.

use super::super::Outcome;
use super::Client;
use serde_json::json;
use std::sync::atomic::Ordering;

#[test]
fn checks_come_in_qemus_order() {
    let mut c = Client::new();
    c.port("h1", 1);
    for id in ["2h", "", "é", "a b"] {
        c.refused("netdev_add", json!({"type": "nic", "id": id}), "Parameter 'id' expects an identifier");
    }
    let desc = "network backend 'none' is not compiled into this binary";
    c.refused("netdev_add", json!({"type": "none", "id": "h1"}), desc);
    c.refused("netdev_add", json!({"type": "hubport", "id": "h1", "hubid": 2}), "Duplicate ID 'h1'");
    c.refused(
        "netdev_add",
        json!({"type": "hubport", "id": "h2", "hubid": 1, "netdev": "nope"}),
        "netdev 'nope' not found",
    );
    c.missing("netdev_del", json!({"id": "nope"}), "Device 'nope' not found");
    c.missing("set_link", json!({"name": "nope", "up": true}), "Device 'nope' not found");
    c.refused("query-rx-filter", json!({"name": "x"}), "invalid net client name: x");
    c.refused("query-rx-filter", json!({"name": "h1"}), "net client(h1) isn't a NIC");
    assert_eq!(c.ok("query-rx-filter", json!({})), json!([]));
    c.refused(
        "human-monitor-command",
        json!({"command-line": "info name", "cpu-index": 1}),
        "Parameter 'cpu-index' expects a CPU number",
    );
}

#[test]
fn tap_options_exclude_each_other_in_qemus_words() {
    let mut c = Client::new();
    let with_fd = "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, fds=, and vhostfds= are invalid with fd=";
    let with_fds =
        "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, and vhostfd= are invalid with fds=";
    let with_helper =
        "ifname=, script=, downscript=, vnet_hdr=, queues=, and vhostfds= are invalid with helper=";
    for (options, desc) in [
        (json!({"queues": 1, "fd": "7"}), with_fd),
        (json!({"fds": "1:2", "fd": "7"}), with_fd),
        (json!({"queues": 0, "fd": "3"}), with_fd),
        (json!({"fd": "7", "ifname": "x"}), with_fd),
        (json!({"fd": "nope", "vnet_hdr": true}), with_fd),
        (json!({"fd": "nope", "vhostfds": "a"}), with_fd),
        (json!({"fds": "a", "vhostfd": "b"}), with_fds),
        (json!({"fds": "a", "vnet_hdr": false}), with_fds),
        (json!({"fds": "a", "downscript": "b"}), with_fds),
        (json!({"fds": "a", "helper": "b"}), with_fds),
        (
            json!({"fds": "a:b", "vhostfds": "b"}),
            "The number of fds passed does not match the number of vhostfds passed",
        ),
        (json!({"queues": 1, "helper": "/x"}), with_helper),
        (json!({"helper": "b", "vhostfds": "2"}), with_helper),
        (json!({"ifname": "t", "vhostfds": "3"}), "vhostfds= is invalid if fds= wasn't specified"),
        (json!({"fd": "nope", "vhost": true}), "File descriptor named 'nope' has not been found"),
        (json!({"fd": "9x"}), "Invalid file descriptor number '9x'"),
        (json!({"fd": "-1"}), "File descriptor named '-1' has not been found"),
        (json!({"fd": ""}), "File descriptor named '' has not been found"),
        (json!({"fd": "999"}), "t0: Can't use file descriptor 999: Bad file descriptor"),
        (json!({"fds": "a:b"}), "File descriptor named 'a' has not been found"),
        (json!({"fds": ":"}), "File descriptor named '' has not been found"),
        (json!({"vhost": false, "vhostfd": "3"}), "vhostfd(s)= is not valid without vhost"),
        // QEMU 10.0 aborts at these; the words are those of 11.1.
        (json!({"queues": 0}), "queues must be greater than zero"),
        (json!({"fds": ""}), "no fds passed"),
        (json!({"vhost": true, "vhostfd": "nope"}), "File descriptor named 'nope' has not been found"),
        (json!({"vhostfd": "999"}), "t0: Can't use file descriptor 999: Bad file descriptor"),
    ] {
        let mut args = json!({"type": "tap", "id": "t0"});
        args.as_object_mut().unwrap().append(&mut options.as_object().cloned().unwrap());
        c.refused("netdev_add", args, desc);
    }
    assert_eq!(c.log.calls(), Vec::<String>::new());
}

#[test]
fn helpers_open_a_tap_that_is_told_as_qemu_tells_it() {
    let mut c = Client::new();
    for (options, call, info, kind) in [
        (json!({"type": "tap", "helper": "/x"}), "helper /x br br0", "helper=/x", "tap"),
        (json!({"type": "tap", "helper": "/x y", "br": "b"}), "helper /x y br b", "helper=/x y", "tap"),
        (json!({"type": "bridge", "helper": "/x"}), "helper /x br br0", "helper=/x,br=br0", "bridge"),
        (json!({"type": "bridge", "helper": "/x", "br": "b"}), "helper /x br b", "helper=/x,br=b", "bridge"),
    ] {
        let mut args = json!({"id": "t0"});
        args.as_object_mut().unwrap().append(&mut options.as_object().cloned().unwrap());
        c.ok("netdev_add", args);
        assert_eq!(c.log.calls()[0], call);
        let text = c.ok("human-monitor-command", json!({"command-line": "info network"}));
        assert_eq!(text.as_str().unwrap().trim_end(), format!("t0: index=0,type=tap,{info}"));
        assert_eq!(c.ok("query-netdev", json!({}))[0]["type"], kind);
        c.ok("netdev_del", json!({"id": "t0"}));
        assert_eq!(c.log.calls(), Vec::<String>::new(), "no down script");
    }
}

#[test]
fn a_tap_opens_off_the_control_thread_with_its_name_reserved() {
    let mut c = Client::new();
    c.log.hold(true);
    let tap = json!({"type": "tap", "id": "t0"});
    let Outcome::Later(ticket) = c.send("netdev_add", &tap) else { panic!() };
    c.refused("netdev_add", tap.clone(), "Duplicate ID 't0'");
    c.missing("netdev_del", json!({"id": "t0"}), "Device 't0' not found");
    c.refused(
        "netdev_add",
        json!({"type": "hubport", "id": "h", "hubid": 1, "netdev": "t0"}),
        "netdev 't0' not found",
    );
    c.port("other", 1);
    c.log.hold(false);
    assert_eq!(c.wait(ticket), Ok(json!({})));
    assert_eq!(c.log.calls(), ["open script /etc/qemu-ifup fds 0"]);
    assert_eq!(c.log.last().clients.len(), 2);
    c.ok("netdev_del", json!({"id": "t0"}));
    assert_eq!(c.log.calls(), ["down /etc/qemu-ifdown tap0"]);
}

#[test]
fn a_failed_open_or_commit_leaves_the_id_free() {
    let mut c = Client::new();
    let busy = json!({"type": "tap", "id": "t0", "ifname": "busy", "script": "no", "downscript": "/down"});
    for _ in 0..2 {
        c.refused(
            "netdev_add",
            busy.clone(),
            "could not configure /dev/net/tun (busy): Device or resource busy",
        );
    }
    c.log.refuse.store(true, Ordering::Relaxed);
    c.refused("netdev_add", json!({"type": "tap", "id": "t0", "downscript": "/down"}), "worker 0 hangs");
    c.log.refuse.store(false, Ordering::Relaxed);
    c.tap("t0");
    c.log.refuse.store(true, Ordering::Relaxed);
    c.refused(
        "netdev_add",
        json!({"type": "hubport", "id": "h", "hubid": 1, "netdev": "t0"}),
        "worker 0 hangs",
    );
    c.log.refuse.store(false, Ordering::Relaxed);
    c.ok("netdev_add", json!({"type": "hubport", "id": "h", "hubid": 1, "netdev": "t0"}));
}

#[test]
fn info_network_is_qemus() {
    let mut c = Client::new();
    assert_eq!(c.line("info network"), "");
    c.port("h1", 1);
    c.port("h2", 1);
    c.port("h3", 2);
    assert_eq!(c.line("info network"), "hub 2\r\n \\ h3\r\nhub 1\r\n \\ h2\r\n \\ h1\r\n");
    c.ok("netdev_add", json!({"type": "hubport", "id": "h4", "hubid": 1, "netdev": "h3"}));
    assert_eq!(
        c.line("info network"),
        "hub 2\r\n \\ h3: h4: index=0,type=hubport,\r\nhub 1\r\n \\ h4: h3: index=0,type=hubport,\r\n \\ h2\r\n \\ h1\r\n"
    );
    let tap =
        json!({"type": "tap", "id": "t", "ifname": "tp0", "script": "", "downscript": "no", "queues": 2});
    c.ok("netdev_add", tap);
    c.ok("netdev_del", json!({"id": "h4"}));
    let queue = "t: index=0,type=tap,ifname=tp0,script=,downscript=no\r\n";
    let other = "t: index=0,type=tap,ifname=tp0,script=no,downscript=no\r\n";
    assert_eq!(
        c.line("info network"),
        format!("hub 2\r\n \\ h3\r\nhub 1\r\n \\ h2\r\n \\ h1\r\n{queue}{other}")
    );
    c.ok("netdev_del", json!({"id": "h2"}));
    c.ok("netdev_add", json!({"type": "hubport", "id": "h0", "hubid": 2, "netdev": "t"}));
    assert_eq!(
        c.line("info network"),
        format!("hub 2\r\n \\ h0: {queue} \\ h3\r\nhub 1\r\n \\ h1\r\n{other}")
    );
}

#[test]
fn the_human_monitor_adds_and_removes_as_qemus_does() {
    let mut c = Client::new();
    let see = "Try \"help netdev_add\" for more information\r\n";
    assert_eq!(c.line("netdev_add hubport,id=h1,hubid=1"), "");
    assert_eq!(c.line("netdev_add hubport,id=h1,hubid=1"), see);
    assert_eq!(c.line("netdev_add hubport,id=2h,hubid=1"), see);
    c.port("q1", 1);
    assert_eq!(c.line("netdev_add hubport,id=q1,hubid=1"), "Error: Duplicate ID 'q1'\r\n");
    assert_eq!(c.line("netdev_add hubport,id=h2,hubid=1,netdev=x"), "Error: netdev 'x' not found\r\n");
    assert_eq!(c.line("netdev_add hubport,id=h2,hubid=1"), "");
    assert_eq!(
        c.line("netdev_add tap,id=t,ifname=busy"),
        "Error: could not configure /dev/net/tun (busy): Device or resource busy\r\n"
    );
    assert_eq!(c.line("netdev_add tap,id=t,ifname=good"), "");
    assert_eq!(c.line("netdev_del nope"), "Error: Device 'nope' not found\r\n");
    assert_eq!(c.line("netdev_del h1"), "");
    assert_eq!(c.line("netdev_add hubport,id=h1,hubid=1"), "");
    assert_eq!(c.line("set_link h1 off"), "");
    assert_eq!(c.line("set_link nope on"), "Error: Device 'nope' not found\r\n");
    assert_eq!(c.line("info status"), "VM status: running\r\n");
    assert_eq!(c.line("info name"), "");
    assert!(c.line("info version").starts_with("10.0.2netdevd "));
    assert!(c.line("help").contains("\r\nnetdev_del id -- "));
    assert_eq!(c.line("help bogus"), "unknown command: 'bogus'\r\n");
    assert_eq!(c.line(""), "");
    assert_eq!(c.line("closefd a"), "Error: File descriptor named 'a' not found\r\n");
}

#[test]
fn links_reach_the_engine_and_may_start_down() {
    let mut c = Client::new();
    c.tap("t");
    c.ok("netdev_add", json!({"type": "hubport", "id": "h", "hubid": 1, "netdev": "t", "link": false}));
    let links = |c: &Client| c.log.last().clients.iter().map(|c| c.link_up).collect::<Vec<_>>();
    assert_eq!(links(&c), [true, false]);
    c.ok("set_link", json!({"name": "h", "up": true}));
    assert_eq!(links(&c), [true, true]);
    let before = c.log.committed();
    c.ok("set_link", json!({"name": "h", "up": true}));
    assert_eq!(c.log.committed(), before);
}

#[test]
fn query_netdev_tells_options_and_state() {
    let mut c = Client::new();
    c.tap("t");
    c.ok("netdev_add", json!({"type": "hubport", "id": "h", "hubid": 1, "netdev": "t"}));
    c.ok("object-add", json!({"qom-type": "filter-dump", "id": "f", "netdev": "t", "file": "/f"}));
    c.ok("set_link", json!({"name": "h", "up": false}));
    let all = c.ok("query-netdev", json!({}));
    assert_eq!(
        all[0],
        json!({
            "type": "tap", "id": "t", "ifname": "t", "script": "no", "downscript": "no", "link": true, "peer-id": "h",
            "transport": {"state": "ready", "info": "ifname=t,script=no,downscript=no", "io": "io-uring"},
            "filters": ["f"],
        })
    );
    assert_eq!(
        all[1],
        json!({
            "type": "hubport", "id": "h", "hubid": 1, "netdev": "t", "link": false, "peer-id": "t",
            "transport": {"state": "ready", "info": ""}, "filters": [],
        })
    );
    assert_eq!(c.ok("query-netdev", json!({"name": "h"}))[0], all[1]);
    c.missing("query-netdev", json!({"name": "x"}), "Device 'x' not found");
}

#[test]
fn counters_start_again_after_a_reset() {
    let mut c = Client::new();
    c.tap("t");
    c.log.step.store(10, Ordering::Relaxed);
    let stats = c.ok("query-net-stats", json!({}));
    assert_eq!(stats["tsc-hz"], 1_000_000_000);
    let ticks = json!({"busy": 0, "empty": 0, "back-pressured": 0, "housekeeping": 0});
    assert_eq!(stats["workers"][1], json!({"worker": 1, "core": 3, "turns": 0, "frames": 0, "ticks": ticks}));
    let port = |frames: u64| json!({"name": "t", "queue": 0, "rx-frames": frames, "rx-bytes": 0, "tx-frames": 0, "tx-bytes": 0, "drops": {}});
    assert_eq!(stats["ports"], json!([port(0)]));
    c.ok("query-net-stats-reset", json!({}));
    let stats = c.ok("query-net-stats", json!({}));
    assert_eq!(stats["ports"], json!([port(10)]));
    assert_eq!(stats["workers"][0]["turns"], 10);
}

#[test]
fn ports_of_hubs_without_traffic_need_no_commit() {
    let mut c = Client::new();
    for round in 0..1000 {
        let id = format!("h{round}");
        c.port(&id, round % 3);
        c.ok("netdev_del", json!({"id": id}));
    }
    assert_eq!(c.log.committed(), 0);
    assert_eq!(c.state.net().clients().count(), 0);
}
