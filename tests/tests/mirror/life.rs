//! What mirrors and redirectors do, and what they do when nobody is there, or somebody who is no good.

use std::io::Write;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use tests::daemon::Program;
use tests::skip::{Need, ready};

use super::{LONGEST, Side, carries, connect, filter, frame, reads, receive, record, send};

/// Nothing comes: what is sent now by another way comes first.
fn quiet_at(side: &Side, at: &UnixStream, how: impl FnOnce(&Side)) {
    how(side);
    let mark = receive(&mut &*at);
    assert!(mark == frame(77, 9), "only the mark comes, not {} bytes", mark.len());
}

/// Waits until the chardevs know that somebody is there, or nobody.
fn is_connected(side: &mut Side, wanted: bool) {
    let mut all = || side.qmp.ok("query-chardev", json!({})).to_string();
    let found = tests::wait::until(tests::wait::PATIENCE, || {
        (all().contains("disconnected") != wanted).then_some(())
    });
    found.expect("noticed");
}

fn mark_to_far(side: &Side) {
    send(&mut &side.near, &frame(77, 9));
}

#[test]
fn row_102_a_mirror_writes_records_and_loses_by_name_while_nobody_is_there() {
    for vnet in [false, true] {
        let mut side = Side::ours();
        let path = side.listens("c");
        side.filter("filter-mirror", &json!({"outdev": "c", "vnet_hdr_support": vnet}));
        for number in 0..10 {
            side.passes(&frame(100, number));
        }
        side.counts("not-connected", 10);
        for round in 0..3 {
            let mut peer = connect(&path);
            is_connected(&mut side, true);
            for (number, length) in [14, 60, 1514, 9000, 65_535, LONGEST].into_iter().enumerate() {
                let one = frame(length, number + round);
                side.passes(&one);
                reads(&mut peer, &record(&one, vnet));
                // The other way, the netdev is the receiver.
                send(&mut &side.far, &one);
                assert!(receive(&mut &side.near) == one);
                reads(&mut peer, &record(&one, vnet));
            }
            // With a frame half read, it goes: the next one begins with a whole frame.
            side.passes(&frame(60_000, 1));
            reads(&mut peer, &record(&frame(60_000, 1), vnet)[..10]);
            drop(peer);
            is_connected(&mut side, false);
        }
        assert_eq!(side.count("ring-full"), 0);
        // In force at once.
        let mut peer = connect(&path);
        side.set("vnet_hdr_support", &json!(!vnet));
        let again = tests::wait::until(tests::wait::PATIENCE, || {
            let before = side.count("sent");
            side.passes(&frame(100, 0));
            (0..50).any(|_| side.count("sent") > before).then_some(())
        });
        again.expect("the new peer is there");
        reads(&mut peer, &record(&frame(100, 0), !vnet));
    }
}

#[test]
fn a_peer_that_does_not_read_costs_copies_only() {
    let mut side = Side::ours();
    let path = side.listens("c");
    let _peer = connect(&path);
    side.filter("filter-mirror", &json!({"outdev": "c"}));
    // Far more than ring, buffer and socket hold.
    carries(&side.near, &[&side.far], &[9000; 2000], "past a peer that does not read");
    assert!(side.count("ring-full") > 0);
    let (sent, full) = (side.count("sent"), side.count("ring-full"));
    assert!(sent + full <= 2000, "{sent} sent, {full} lost");
    side.qmp.ok("object-del", json!({"id": "f"}));
    side.passes(&frame(60, 1));
    side.qmp.ok("chardev-remove", json!({"id": "c"}));
}

#[test]
fn a_mirror_to_null_swallows() {
    let mut side = Side::ours();
    side.qmp.ok("chardev-add", json!({"id": "c", "backend": {"type": "null", "data": {}}}));
    side.filter("filter-mirror", &json!({"outdev": "c"}));
    side.passes(&frame(60, 1));
    side.counts("sent", 1);
    assert_eq!(side.count("not-connected"), 0);
}

#[test]
fn row_103_a_redirector_steals_and_loses_while_nobody_is_there() {
    let mut side = Side::ours();
    let path = side.listens("c");
    side.filter("filter-redirector", &json!({"outdev": "c", "queue": "tx"}));
    send(&mut &side.near, &frame(60, 1));
    side.counts("not-connected", 1);
    let mut peer = connect(&path);
    let mut number = 0;
    let there = tests::wait::until(tests::wait::PATIENCE, || {
        let before = side.count("sent") + side.count("not-connected");
        number += 1;
        send(&mut &side.near, &frame(60, number));
        while side.count("sent") + side.count("not-connected") == before {}
        (side.count("sent") == 1).then_some(())
    });
    there.expect("the peer is there");
    reads(&mut peer, &record(&frame(60, number), false));
    for number in 0..10 {
        send(&mut &side.near, &frame(200, number));
        reads(&mut peer, &record(&frame(200, number), false));
    }
    // The other direction is not its own, and off, all passes.
    send(&mut &side.far, &frame(61, 1));
    assert!(receive(&mut &side.near) == frame(61, 1));
    side.set("status", &json!("off"));
    quiet_at(&side, &side.far, mark_to_far);
    side.set("status", &json!("on"));
    side.set("queue", &json!("rx"));
    side.passes(&frame(62, 1));
    send(&mut &side.far, &frame(63, 1));
    reads(&mut peer, &record(&frame(63, 1), false));
}

#[test]
fn row_103_a_redirector_puts_in_what_comes_and_lets_it_wait_while_off() {
    let mut side = Side::ours();
    let path = side.listens("c");
    side.filter("filter-redirector", &json!({"indev": "c", "queue": "tx"}));
    let mut peer = connect(&path);
    let mut puts = |bytes: &[u8]| peer.write_all(bytes).expect("it reads");
    // Whole, and byte by byte.
    for (number, length) in [14, 60, 1514, 65_535, LONGEST].into_iter().enumerate() {
        puts(&record(&frame(length, number), false));
        assert!(receive(&mut &side.far) == frame(length, number), "{length} bytes from the netdev");
    }
    for byte in record(&frame(60, 7), false) {
        puts(&[byte]);
    }
    assert!(receive(&mut &side.far) == frame(60, 7));
    side.set("queue", &json!("rx"));
    puts(&record(&frame(70, 1), false));
    assert!(receive(&mut &side.near) == frame(70, 1), "to the netdev");
    side.set("queue", &json!("all"));
    puts(&record(&frame(71, 1), false));
    assert!(receive(&mut &side.near) == frame(71, 1), "to the netdev");
    assert!(receive(&mut &side.far) == frame(71, 1), "from the netdev");
    // Off, it waits where it is, and all passes.
    side.set("status", &json!("off"));
    for number in 0..5 {
        puts(&record(&frame(72, number), false));
    }
    quiet_at(&side, &side.far, mark_to_far);
    assert_eq!(side.count("injected"), 8);
    side.set("status", &json!("on"));
    for number in 0..5 {
        for at in [&side.near, &side.far] {
            assert!(receive(&mut &*at) == frame(72, number), "what waited");
        }
    }
    // A peer that goes amid a frame, and one that comes after it.
    puts(&[0, 0, 1, 0, 5]);
    drop(peer);
    side.counts("cut-in", 1);
    let mut peer = connect(&path);
    peer.write_all(&record(&frame(73, 1), false)).expect("it reads");
    assert!(receive(&mut &side.far) == frame(73, 1), "a peer that came later");
    side.qmp.ok("object-del", json!({"id": "f"}));
}

#[test]
fn headers_come_and_go_with_their_lengths() {
    let mut side = Side::ours();
    let path = side.listens("c");
    side.filter("filter-redirector", &json!({"indev": "c", "queue": "tx", "vnet_hdr_support": true}));
    let mut peer = connect(&path);
    let mut put = |header: usize, frame: &[u8]| {
        let head = vec![0; header];
        let len = ((header + frame.len()) as u32).to_be_bytes();
        let all = [&len[..], &(header as u32).to_be_bytes(), &head, frame].concat();
        peer.write_all(&all).expect("it reads");
    };
    for header in [0, 10, 12] {
        put(header, &frame(60, header));
        assert!(receive(&mut &side.far) == frame(60, header), "a header of {header} bytes");
    }
    put(11, &frame(60, 1));
    put(0, &[]);
    put(12, &[]);
    put(12, &frame(61, 1));
    assert!(receive(&mut &side.far) == frame(61, 1));
    assert_eq!([side.count("bad-header"), side.count("empty"), side.count("injected")], [1, 2, 4]);
}

#[test]
fn row_108_a_record_too_long_is_the_last_one_until_it_is_switched_on_again() {
    let mut programs = vec![Program::Netdevd];
    if ready("row_108 on QEMU", &[Need::Oracle]) {
        programs.push(Program::Oracle);
    }
    for program in programs {
        for length in [LONGEST as u32 + 1, u32::MAX] {
            let mut side = Side::new(program, &[]);
            let path = side.listens("c");
            let mut peer = connect(&path);
            side.filter("filter-redirector", &json!({"indev": "c", "queue": "tx"}));
            peer.write_all(&record(&frame(60, 1), false)).expect("it reads");
            assert!(receive(&mut &side.far) == frame(60, 1));
            peer.write_all(&length.to_be_bytes()).expect("it reads");
            peer.write_all(&vec![0; LONGEST + 1]).expect("it reads");
            if program == Program::Netdevd {
                side.counts("detached", 1);
            }
            peer.write_all(&record(&frame(61, 1), false)).expect("there is room");
            quiet_at(&side, &side.far, mark_to_far);
            side.qmp.ok("object-del", json!({"id": "f"}));
        }
    }
    let mut side = Side::ours();
    let path = side.listens("c");
    let mut peer = connect(&path);
    side.filter("filter-redirector", &json!({"indev": "c", "queue": "tx"}));
    peer.write_all(&[0xff; 4]).expect("it reads");
    side.counts("detached", 1);
    side.set("status", &json!("off"));
    side.set("status", &json!("on"));
    peer.write_all(&record(&frame(61, 1), false)).expect("it reads");
    assert!(receive(&mut &side.far) == frame(61, 1), "read again");
}

#[test]
fn row_108_a_chardev_has_one_user() {
    let mut sides = vec![Side::ours()];
    if ready("row_108 on QEMU", &[Need::Oracle]) {
        sides.push(Side::new(Program::Oracle, &[]));
    }
    let said = sides.iter_mut().map(|side| {
        side.listens("c1");
        side.listens("c2");
        side.filter("filter-mirror", &json!({"outdev": "c1"}));
        let mut said: Vec<String> = Vec::new();
        let mut refused = |kind: &str, more: Value| {
            let mut all = filter(kind, &more);
            all["id"] = json!("g");
            said.push(side.qmp.refused("object-add", all));
        };
        refused("filter-mirror", json!({"outdev": "c1"}));
        refused("filter-redirector", json!({"indev": "c1"}));
        refused("filter-redirector", json!({"indev": "c1", "outdev": "nope"}));
        refused("filter-redirector", json!({"indev": "c2", "outdev": "c1"}));
        refused("filter-redirector", json!({"indev": "c2", "outdev": "nope"}));
        said.push(side.qmp.refused("chardev-remove", json!({"id": "c1"})));
        // What was refused has left nothing in use.
        side.qmp.ok("chardev-remove", json!({"id": "c2"}));
        side.qmp.ok("object-del", json!({"id": "f"}));
        side.filter("filter-redirector", &json!({"indev": "c1"}));
        for (property, value) in [("indev", "zz"), ("outdev", "yy")] {
            side.set(property, &json!(value));
        }
        for property in ["indev", "outdev", "vnet_hdr_support"] {
            let get = json!({"path": "/objects/f", "property": property});
            said.push(side.qmp.ok("qom-get", get).to_string());
        }
        let no = json!({"path": "/objects/f", "property": "vnet_hdr_support", "value": "on"});
        said.push(side.qmp.refused("qom-set", no));
        // It goes with its netdev.
        side.qmp.ok("netdev_del", json!({"id": "near"}));
        side.qmp.ok("chardev-remove", json!({"id": "c1"}));
        said
    });
    let said: Vec<_> = said.collect();
    assert_eq!(said[0][0], "chardev 'c1' is already in use");
    assert!(said.iter().all(|one| *one == said[0]), "{said:#?}");
}

#[test]
fn a_client_over_tcp_connects_again() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port().to_string();
    let mut side = Side::ours();
    let addr = json!({"type": "inet", "data": {"host": "127.0.0.1", "port": port}});
    let data = json!({"addr": addr, "server": false, "reconnect-ms": 20});
    let backend = json!({"type": "socket", "data": data});
    side.qmp.ok("chardev-add", json!({"id": "c", "backend": backend}));
    side.filter("filter-mirror", &json!({"outdev": "c"}));
    for round in 0..3 {
        let (mut peer, _) = listener.accept().expect("it connects");
        peer.set_read_timeout(Some(tests::wait::PATIENCE)).expect("a timeout");
        // Until its frames come, those that pass are lost, or end the connection that has gone.
        let sent = tests::wait::until(tests::wait::PATIENCE, || {
            let before = side.count("sent");
            side.passes(&frame(100, round));
            (0..50).any(|_| side.count("sent") > before).then_some(())
        });
        sent.expect("it is used");
        reads(&mut peer, &record(&frame(100, round), false));
        // Bytes that nobody reads make it a reset, which the next frame meets.
        drop(peer);
        tests::wait::until(tests::wait::PATIENCE, || {
            side.passes(&frame(60, 1));
            side.qmp.ok("query-chardev", json!({})).to_string().contains("disconnected").then_some(())
        })
        .expect("its end is noticed");
    }
}
