//! What the user may get wrong, in QEMU's words.

use super::NEEDS;
use super::wire::{Wire, add, has_program, options, state};
use serde_json::json;
use std::os::fd::AsFd;
use tests::lab::Lab;
use tests::skip::ready;

#[test]
fn options_are_checked_in_qemus_order_and_words() {
    if !ready("options_are_checked_in_qemus_order_and_words", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let wire = Wire::new(&lab.home, "one");
    for (more, want) in [
        (json!({"queues": 0}), "invalid number of queues (0) for 'one'"),
        (json!({"queues": -3, "inhibit": true}), "invalid number of queues (-3) for 'one'"),
        (json!({"inhibit": true}), "'inhibit=on' requires 'sock-fds' or 'map-path'"),
        (json!({"sock-fds": "3"}), "'sock-fds' and 'map-path' require 'inhibit=on'"),
        (json!({"map-path": "/x"}), "'sock-fds' and 'map-path' require 'inhibit=on'"),
        (
            json!({"inhibit": true, "map-path": "/x", "sock-fds": "3"}),
            "'sock-fds' and 'map-path' are mutually exclusive",
        ),
        (
            json!({"inhibit": true, "sock-fds": "3", "map-start-index": 1}),
            "'map-start-index' requires 'map-path'",
        ),
        (
            json!({"inhibit": true, "map-path": "/x", "map-start-index": -1}),
            "'map-start-index' cannot be negative (-1)",
        ),
        (json!({"inhibit": true, "queues": 2, "sock-fds": "3"}), "expected 2 socket fds, got 1"),
        (json!({"only-vlan": 4095}), "Parameter 'only-vlan' expects a value of at most 4094"),
    ] {
        let error = lab.qmp.refused("netdev_add", options("a", &wire.near, &more));
        assert_eq!(error, want, "{more}");
    }
    let error = lab.qmp.refused("netdev_add", options("a", "nosuch0", &json!({"queues": 0})));
    assert_eq!(error, "failed to get ifindex for 'nosuch0': No such device");
    assert!(!has_program(&lab.home, "one"));
}

#[test]
fn a_device_without_native_xdp_is_served_behind_its_driver() {
    if !ready("a_device_without_native_xdp_is_served_behind_its_driver", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    lab.home.ip("link add plain type bridge");
    lab.home.ip("link set plain up");
    let error = lab.qmp.refused("netdev_add", options("a", "plain", &json!({"mode": "native"})));
    let want = "failed to create AF_XDP socket for plain queue_id: 0: Operation not supported (the driver has no native XDP)";
    assert_eq!(error, want);
    lab.qmp.ok("netdev_add", options("a", "plain", &json!({})));
    assert_eq!(state(&mut lab, "a")["attached"], "skb");
}

#[test]
fn what_is_no_socket_and_no_map_is_refused() {
    if !ready("what_is_no_socket_and_no_map_is_refused", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let wire = Wire::new(&lab.home, "one");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    lab.qmp.execute_with("getfd", json!({"fdname": "udp"}), &[udp.as_fd()]).expect("getfd");
    let with = json!({"inhibit": true, "sock-fds": "udp"});
    let error = lab.qmp.refused("netdev_add", options("a", &wire.near, &with));
    let want = "failed to create umem for one queue_index: 0: Protocol not available (the descriptor is no AF_XDP socket)";
    assert_eq!(error, want);
    let file = std::fs::File::open("/dev/null").expect("a file");
    lab.qmp.execute_with("getfd", json!({"fdname": "file"}), &[file.as_fd()]).expect("getfd");
    let with = json!({"inhibit": true, "sock-fds": "file"});
    let error = lab.qmp.refused("netdev_add", options("a", &wire.near, &with));
    assert!(error.ends_with("(the descriptor is no AF_XDP socket)"), "{error}");
    let with = json!({"inhibit": true, "map-path": "/dev/null"});
    let error = lab.qmp.refused("netdev_add", options("a", &wire.near, &with));
    assert!(error.starts_with("failed to open AF_XDP map /dev/null: "), "{error}");
    add(&mut lab, &wire, &json!({}));
}

#[test]
fn what_the_kernel_refuses_is_told_and_leaves_nothing_behind() {
    if !ready("what_the_kernel_refuses_is_told_and_leaves_nothing_behind", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let (one, two) = (Wire::new(&lab.home, "one"), Wire::new(&lab.home, "two"));
    let mut refused = |ifname: &str, more: serde_json::Value, want: &str| {
        let error = lab.qmp.refused("netdev_add", options("a", ifname, &more));
        assert!(error.starts_with(want), "{more}: {error}");
    };
    refused(
        &one.near,
        json!({"start-queue": 5}),
        "failed to create AF_XDP socket for one queue_id: 5: Invalid argument",
    );
    refused(
        &one.near,
        json!({"queues": 2}),
        "failed to create AF_XDP socket for one queue_id: 1: Invalid argument",
    );
    refused("lo", json!({}), "failed to create AF_XDP socket for lo queue_id: 0: a loopback interface");
    refused(
        &one.near,
        json!({"inhibit": true, "map-path": "/nosuch"}),
        "failed to open AF_XDP map /nosuch: No such file or directory",
    );
    refused(
        &one.near,
        json!({"inhibit": true, "sock-fds": "999"}),
        "a: Can't use file descriptor 999: Bad file descriptor",
    );
    assert!(!has_program(&lab.home, "one"));
    add(&mut lab, &one, &json!({}));
    let error = lab.qmp.refused("netdev_add", options("b", "one", &json!({})));
    let want = "failed to create AF_XDP socket for one queue_id: 0: Device or resource busy";
    assert!(error.starts_with(want), "{error}");
    assert!(has_program(&lab.home, "one"), "the first one goes on");
    add(&mut lab, &two, &json!({}));
    lab.qmp.ok("netdev_del", json!({"id": "one"}));
    assert!(!has_program(&lab.home, "one"));
    add(&mut lab, &one, &json!({}));
}
