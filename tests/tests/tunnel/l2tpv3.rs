//! `l2tpv3` and QEMU 10.0's: the same bytes on the wire, and each takes what the other sends.

use super::NEEDS;
use super::ends::{Ours, Theirs, datagram, mirrored, numbered, options, udp};
use serde_json::{Value, json};
use tests::skip::{Need, ready};

/// A tunnel over UDP, from our side.
fn over_udp() -> Value {
    json!({"src": "127.0.0.1", "dst": "127.0.0.1", "udp": true, "srcport": "5001", "dstport": "5002", "txsession": 0x0102_0304})
}

/// What a header may hold, with its length over UDP and the bytes of it that QEMU leaves as they were.
fn variants() -> Vec<(Value, usize, usize)> {
    let cookies = json!({"txcookie": 0xc1c2_c3c4_c5c6_c7c8_u64, "rxcookie": 0xd1d2_d3d4_d5d6_d7d8_u64});
    let with = |base: &Value, more: &Value| {
        let mut all = base.as_object().cloned().unwrap();
        all.extend(more.as_object().cloned().unwrap());
        Value::Object(all)
    };
    let short = json!({"txcookie": 0xc1c2_c3c4_u32, "rxcookie": 0xd1d2_d3d4_u32});
    vec![
        (json!({}), 8, 0),
        (json!({"rxsession": 9}), 8, 0),
        (json!({"counter": true}), 12, 0),
        (json!({"counter": true, "pincounter": true}), 12, 0),
        (json!({"pincounter": true, "offset": 4}), 12, 4),
        (short.clone(), 12, 0),
        (with(&cookies, &json!({"cookie64": true})), 16, 0),
        (with(&cookies, &json!({"cookie64": false})), 16, 0),
        (json!({"offset": 5}), 13, 5),
        (
            with(
                &cookies,
                &json!({"cookie64": true, "counter": true, "offset": 256, "rxsession": 0xffff_ffff_u32}),
            ),
            276,
            256,
        ),
    ]
}

#[test]
fn our_datagrams_are_those_of_qemu() {
    if !ready("our_datagrams_are_those_of_qemu", &[NEEDS, &[Need::Oracle]].concat()) {
        return;
    }
    let mut ours = Ours::new();
    let mut theirs = Theirs::new(&ours.lab.home);
    let wire = udp(&ours.lab.home, "127.0.0.1:5002");
    for (more, header, unknown) in variants() {
        let our = options(&over_udp(), &more);
        let mut their = our.clone();
        their.insert("srcport".into(), json!("5003"));
        ours.tunnel(&our);
        theirs.tunnel(&their);
        for mark in 1..=3 {
            let frame = numbered(100, mark);
            ours.leg.socket.send(&frame);
            let (sent, known) = (datagram(&wire), header - unknown);
            theirs.send(&frame);
            let expected = datagram(&wire);
            assert_eq!(sent[..known], expected[..known], "the header with {more}");
            assert_eq!(sent[known..header], vec![0; unknown], "the offset with {more}");
            assert_eq!(sent[header..], expected[header..], "the frame with {more}");
            assert!(sent[header..] == frame, "the frame with {more}");
        }
    }
}

/// Sends frames of many sizes both ways.
fn exchange(ours: &Ours, theirs: &Theirs, sizes: &[usize], what: &str) {
    for (mark, &size) in sizes.iter().enumerate() {
        let frame = numbered(size, mark as u8);
        // Zeros follow the short ones of a tap.
        let whole = |came: &[u8], len: usize| {
            came.len() == len && came.starts_with(&frame) && came[size..].iter().all(|&byte| byte == 0)
        };
        ours.leg.socket.send(&frame);
        assert!(whole(&theirs.receive(), size.max(60)), "{size} bytes to QEMU: {what}");
        theirs.send(&frame);
        assert!(whole(&ours.receive(), size), "{size} bytes from QEMU: {what}");
    }
}

#[test]
fn frames_pass_between_qemu_and_ours() {
    if !ready("frames_pass_between_qemu_and_ours", &[NEEDS, &[Need::Oracle]].concat()) {
        return;
    }
    let mut ours = Ours::new();
    ours.leg.place.ip("link set leg mtu 16000");
    let mut theirs = Theirs::new(&ours.lab.home);
    let udp6 = json!({"src": "fd00::1", "dst": "fd00::2", "udp": true, "ipv6": true, "srcport": "5001", "dstport": "5002", "txsession": 1});
    let ip4 = json!({"src": "127.0.0.1", "dst": "127.0.0.2", "txsession": 2});
    let ip6 = json!({"src": "fd00::1", "dst": "fd00::2", "ipv6": true, "txsession": 3});
    for (more, ..) in variants() {
        for base in [over_udp(), udp6.clone(), ip4.clone(), ip6.clone()] {
            let our = options(&base, &more);
            ours.tunnel(&our);
            theirs.tunnel(&mirrored(&our));
            exchange(&ours, &theirs, &[14, 15, 60, 1500, 15_000], &format!("{base} {more}"));
        }
    }
    let info = ours.lab.qmp.ok("human-monitor-command", json!({"command-line": "info network"}));
    assert!(info.as_str().is_some_and(|text| text.contains("type=l2tpv3,l2tpv3: connected")), "{info}");
}

#[test]
fn bursts_pass_between_qemu_and_ours_in_order() {
    if !ready("bursts_pass_between_qemu_and_ours_in_order", &[NEEDS, &[Need::Oracle]].concat()) {
        return;
    }
    let mut ours = Ours::new();
    let mut theirs = Theirs::new(&ours.lab.home);
    let our = options(&over_udp(), &json!({"counter": true, "txcookie": 1, "rxcookie": 2, "rxsession": 7}));
    ours.tunnel(&our);
    theirs.tunnel(&mirrored(&our));
    // Runs of one length, with others between: the former leave and arrive as one message.
    let sizes = [100, 100, 100, 700, 700, 60, 1400, 1400, 1400, 1400, 90, 100, 100, 100];
    for round in 0..20u8 {
        let frames: Vec<_> = sizes.iter().map(|&size| numbered(size, round)).collect();
        frames.iter().for_each(|frame| ours.leg.socket.send(frame));
        for frame in &frames {
            assert!(theirs.receive() == *frame, "to QEMU, round {round}");
        }
        frames.iter().for_each(|frame| theirs.send(frame));
        for frame in &frames {
            assert!(ours.receive() == *frame, "from QEMU, round {round}");
        }
    }
    assert!(theirs.is_quiet(), "no frame comes twice");
}

#[test]
fn every_size_passes_between_two_of_ours() {
    if !ready("every_size_passes_between_two_of_ours", NEEDS) {
        return;
    }
    let mut ours = Ours::new();
    ours.leg.place.ip("link set leg mtu 65521");
    let far = tests::lab::Leg::new(&mut ours.lab, "far");
    far.place.ip("link set far mtu 65521");
    ours.lab.hub(2, &["far"]);
    let base = options(&over_udp(), &json!({"counter": true}));
    ours.tunnel(&base);
    let mut other = mirrored(&base);
    other.insert("id".into(), json!("u"));
    ours.lab.qmp.ok("netdev_add", Value::Object(other));
    ours.lab.hub(2, &["u"]);
    // The longest datagram of UDP over IPv4 has 65,507 bytes, 12 of them our header.
    let longest = 65_507 - 12;
    let steps = (14..2000).step_by(7).chain((2000..longest).step_by(997)).chain(longest - 3..=longest);
    for size in steps {
        let frame = numbered(size, size.to_le_bytes()[0]);
        ours.leg.socket.send(&frame);
        let came = far.socket.receive(tests::wait::PATIENCE).expect("a frame comes");
        assert!(came.starts_with(&frame) && came[size..].iter().all(|&byte| byte == 0), "{size} bytes");
    }
    ours.leg.socket.send(&numbered(longest + 1, 0));
    let dropped = tests::wait::until(tests::wait::PATIENCE, || (ours.dropped("too-long") == 1).then_some(()));
    dropped.expect("one byte more does not fit, and is dropped by name");
    let frame = numbered(longest, 9);
    ours.leg.socket.send(&frame);
    assert!(far.socket.receive(tests::wait::PATIENCE).is_some_and(|came| came == frame), "it goes on");
}
