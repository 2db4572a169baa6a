//! Several daemons on one interface, somebody else's program, sockets and maps from outside; and the program itself.

use super::NEEDS;
use super::wire::{BROADCAST, SOURCE, Wire, add, has_program, options};
use af_xdp::{Filter, Program, XskMap, program};
use serde_json::json;
use std::os::fd::AsFd;
use tests::daemon::Daemon;
use tests::lab::Lab;
use tests::packet::frame;
use tests::skip::ready;
use tests::wait;

/// The number of a link where the daemon lives.
fn index_of(lab: &Lab, link: &str) -> u32 {
    lab.home.inside(|| nix::net::if_::if_nametoindex(link).expect("the link is there"))
}

#[test]
fn two_daemons_share_an_interface_and_its_program() {
    if !ready("two_daemons_share_an_interface_and_its_program", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let wire = Wire::with(&lab.home, "one", 2, 1500);
    add(&mut lab, &wire, &json!({}));
    let (second, mut qmp) = Daemon::netdevd_within(&lab.home, &[]);
    let error = qmp.refused("netdev_add", options("b", "one", &json!({"start-queue": 1, "only-vlan": 3})));
    assert!(error.contains("another XDP program is attached"), "{error}");
    qmp.ok("netdev_add", options("b", "one", &json!({"start-queue": 1})));
    for number in 0..100u8 {
        wire.socket.send(&frame(BROADCAST, [2, 0, 0, 0, 1, number], &[number; 60]));
    }
    let mut total = || {
        let stats = qmp.ok("query-net-stats", json!({}));
        let theirs = stats["ports"][0]["rx-frames"].as_u64().unwrap_or_default();
        lab.port("one").0 + theirs
    };
    wait::until(wait::PATIENCE, || (total() >= 100).then_some(()))
        .expect("each frame reaches one of the two");
    let Lab { daemon, home, .. } = lab;
    drop(daemon);
    assert!(has_program(&home, "one"), "the second holds it");
    drop(second);
    wait::until(wait::PATIENCE, || (!has_program(&home, "one")).then_some(()))
        .expect("the last one has gone");
}

#[test]
fn a_foreign_program_is_left_alone() {
    if !ready("a_foreign_program_is_left_alone", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let wire = Wire::new(&lab.home, "one");
    let index = index_of(&lab, "one");
    let filter = Filter { ethertype: Some(0x1234), ..Filter::default() };
    let foreign = lab.home.inside(|| Program::attach(index, None, &filter, 4).expect("attaches"));
    let error = lab.qmp.refused("netdev_add", options("a", &wire.near, &json!({})));
    let want = "failed to create AF_XDP socket for one queue_id: 0: Device or resource busy (another XDP program is attached)";
    assert_eq!(error, want);
    drop(foreign);
    wait::until(wait::PATIENCE, || (!has_program(&lab.home, "one")).then_some(()))
        .expect("it goes with its link");
    add(&mut lab, &wire, &json!({}));
}

#[test]
fn a_pinned_map_of_somebody_else_is_used() {
    if !ready("a_pinned_map_of_somebody_else_is_used", &[tests::skip::Need::Root, tests::skip::Need::Mount]) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let wire = Wire::new(&lab.home, "one");
    let there = std::path::Path::new("/sys/fs/bpf");
    if nix::sys::statfs::statfs(there).is_ok_and(|fs| fs.filesystem_type().0 != 0xcafe_4a11) {
        let mounted = std::process::Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]).status();
        if !mounted.is_ok_and(|status| status.success()) {
            return tests::skip::record(
                "a_pinned_map_of_somebody_else_is_used",
                "cannot mount a BPF file system",
            );
        }
    }
    let path = there.join(format!("netdevd-test-{}", std::process::id()));
    let index = index_of(&lab, "one");
    let program = lab.home.inside(|| Program::attach(index, None, &Filter::default(), 4).expect("attaches"));
    program.map().pin(&path).expect("pins");
    let with = json!({"inhibit": true, "map-path": path.to_str(), "map-start-index": 9});
    let error = lab.qmp.refused("netdev_add", options("a", "one", &with));
    assert!(error.starts_with("failed to insert AF_XDP socket into map"), "{error}");
    let with = json!({"inhibit": true, "map-path": path.to_str()});
    lab.qmp.ok("netdev_add", options("one", "one", &with));
    wire.socket.send(&frame(BROADCAST, SOURCE, &[5; 80]));
    wait::until(wait::PATIENCE, || (lab.port("one").0 >= 1).then_some(())).expect("it comes by the map");
    std::fs::remove_file(&path).expect("unpins");
}

#[test]
fn sockets_of_somebody_else_are_used() {
    if !ready("sockets_of_somebody_else_are_used", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let wire = Wire::new(&lab.home, "one");
    let index = index_of(&lab, "one");
    let (program, socket) = lab.home.inside(|| {
        let program = Program::attach(index, None, &Filter::default(), 4).expect("attaches");
        (program, af_xdp::socket::create().expect("a socket"))
    });
    program.map().insert(0, socket.as_fd()).expect("an unbound socket enters");
    lab.qmp.execute_with("getfd", json!({"fdname": "xsk"}), &[socket.as_fd()]).expect("getfd");
    lab.qmp.ok("netdev_add", options("one", "one", &json!({"inhibit": true, "sock-fds": "xsk"})));
    wire.socket.send(&frame(BROADCAST, SOURCE, &[5; 80]));
    wait::until(wait::PATIENCE, || (lab.port("one").0 >= 1).then_some(())).expect("it comes by that socket");
}

#[test]
fn the_program_selects_what_the_filter_says() {
    if !ready("the_program_selects_what_the_filter_says", NEEDS) {
        return;
    }
    let map = XskMap::create(4).expect("a map");
    let mac = [2, 0, 0, 0, 0, 0xfe];
    let plain = frame(mac, SOURCE, &[0; 60]);
    let tagged = |tag: [u8; 4]| [&plain[..12], &tag, &plain[12..]].concat();
    let only = |mac, ethertype, vlan| Filter { mac, ethertype, vlan };
    let cases = [
        (only(None, None, None), plain.clone(), true),
        (only(Some(mac), None, None), plain.clone(), true),
        (only(Some([2, 0, 0, 0, 0, 0xff]), None, None), plain.clone(), false),
        (only(Some([3, 0, 0, 0, 0, 0xfe]), None, None), plain.clone(), false),
        (only(None, Some(0x88b5), None), plain.clone(), true),
        (only(None, Some(0x0800), None), plain.clone(), false),
        (only(None, None, Some(7)), plain.clone(), false),
        (only(None, None, Some(7)), tagged([0x81, 0, 0xe0, 7]), true),
        (only(None, None, Some(7)), tagged([0x88, 0xa8, 0, 7]), true),
        (only(None, None, Some(7)), tagged([0x81, 0, 0, 8]), false),
        (only(None, None, Some(0x107)), tagged([0x81, 0, 0x31, 7]), true),
        (only(Some(mac), Some(0x88b5), Some(7)), tagged([0x81, 0, 0, 7]), true),
        (only(Some(mac), Some(0x0800), Some(7)), tagged([0x81, 0, 0, 7]), false),
    ];
    // A map without sockets passes everything on: a socket that is not bound is enough to tell.
    let socket = af_xdp::socket::create().expect("a socket");
    map.insert(0, socket.as_fd()).expect("enters");
    for (filter, frame, want) in cases {
        let got = program::would_redirect(&map, &filter, &frame).expect("runs");
        assert_eq!(got, want, "{filter:?} and {:02x?}", &frame[..20]);
    }
}
