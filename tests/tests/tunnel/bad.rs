//! What a tunnel gets that is none of its own, and what the user may get wrong.

use super::NEEDS;
use super::ends::{Ours, numbered, options, udp};
use serde_json::json;
use tests::skip::ready;
use tests::wait;

/// Waits until the tunnel has dropped so many frames for a reason.
fn await_drops(ours: &mut Ours, reason: &str, count: u64) {
    let dropped = wait::until(wait::PATIENCE, || (ours.dropped(reason) == count).then_some(()));
    assert!(dropped.is_some(), "{reason}: {} instead of {count}", ours.dropped(reason));
}

#[test]
fn what_is_not_of_the_session_is_dropped_by_name() {
    if !ready("what_is_not_of_the_session_is_dropped_by_name", NEEDS) {
        return;
    }
    let mut ours = Ours::new();
    let base = json!({"src": "127.0.0.1", "dst": "127.0.0.1", "udp": true, "srcport": "5001", "dstport": "5002",
        "txsession": 1, "rxsession": 0x0a0b_0c0d, "txcookie": 3, "rxcookie": 0x1122_3344_5566_7788_u64, "cookie64": true});
    ours.tunnel(&options(&base, &json!({})));
    // A port that is not the other end's: nobody looks at it.
    let stranger = udp(&ours.lab.home, "127.0.0.1:5099");
    let frame = numbered(80, 1);
    let good: Vec<u8> =
        [&[0, 3, 0, 0][..], &[0x0a, 0x0b, 0x0c, 0x0d], &0x1122_3344_5566_7788_u64.to_be_bytes(), &frame]
            .concat();
    let send = |bytes: &[u8]| stranger.send_to(bytes, "127.0.0.1:5001").expect("it is sent");
    let changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    send(&changed(7));
    await_drops(&mut ours, "wrong-session", 1);
    send(&changed(8));
    send(&changed(15));
    await_drops(&mut ours, "wrong-cookie", 2);
    for len in [1, 4, 15, 16] {
        send(&good[..len]);
    }
    await_drops(&mut ours, "short-header", 4);
    send(&[]);
    await_drops(&mut ours, "malformed", 1);
    for bytes in [good.clone(), changed(0), changed(1)] {
        send(&bytes);
        assert!(ours.receive() == frame, "cookie and session are right, and nothing else counts");
    }
    let (rx, _, drops) = ours.lab.port("t");
    assert_eq!((rx, drops), (3, 8), "frames in, frames dropped");
}

#[test]
fn a_closed_port_at_the_other_end_harms_nothing() {
    if !ready("a_closed_port_at_the_other_end_harms_nothing", NEEDS) {
        return;
    }
    let mut ours = Ours::new();
    let base = json!({"src": "127.0.0.1", "dst": "127.0.0.1", "udp": true, "srcport": "5001", "dstport": "5002", "txsession": 1});
    ours.tunnel(&options(&base, &json!({})));
    for mark in 0..20 {
        ours.leg.socket.send(&numbered(100, mark));
    }
    let gone = wait::until(wait::PATIENCE, || (ours.lab.port("t").1 >= 20).then_some(()));
    assert!(gone.is_some(), "{:?}", ours.lab.port("t"));
    let late = udp(&ours.lab.home, "127.0.0.1:5002");
    ours.leg.socket.send(&numbered(100, 77));
    assert!(super::ends::datagram(&late)[8..] == numbered(100, 77), "a peer that comes gets what follows");
}

#[test]
fn a_tunnel_that_cannot_be_opened_says_why_and_leaves_its_name_free() {
    if !ready("a_tunnel_that_cannot_be_opened_says_why_and_leaves_its_name_free", NEEDS) {
        return;
    }
    let mut ours = Ours::new();
    let busy = udp(&ours.lab.home, "0.0.0.0:4789");
    let mut add = |more| ours.lab.qmp.refused("netdev_add", more);
    let vxlan = |remote: &str| json!({"type": "vxlan", "id": "t", "remote": remote, "vni": 1});
    assert_eq!(add(vxlan("127.0.0.1")), "could not bind 0.0.0.0:4789: Address already in use");
    assert_eq!(add(vxlan("")), "could not resolve remote '': Name or service not known");
    assert_eq!(
        add(vxlan("239.1.1.1")),
        "remote '239.1.1.1' is a multicast group; a vxlan netdev has one other end"
    );
    let mut local = vxlan("127.0.0.1");
    local["local"] = json!("::1");
    assert_eq!(add(local), "could not resolve local '::1': Address family for hostname not supported");
    let mut number = vxlan("127.0.0.1");
    number["vni"] = json!(1 << 24);
    assert_eq!(add(number), "Parameter 'vni' expects a value of at most 16777215");
    drop(busy);
    // Programs that other tests start have a copy of the socket for a moment.
    let added = || ours.lab.qmp.execute("netdev_add", vxlan("127.0.0.1")).ok();
    wait::until(wait::PATIENCE, added).expect("the port is free again, and so is the name");
    ours.lab.qmp.ok("netdev_del", json!({"id": "t"}));
    ours.lab.qmp.ok("netdev_add", vxlan("::1"));
    let state = ours.lab.qmp.ok("query-netdev", json!({"name": "t"}));
    assert_eq!(state[0]["transport"]["info"], "vxlan: vni=1,remote=[::1]:4789", "{state}");
    assert_eq!(state[0]["transport"]["state"], "ready", "{state}");
}
