//! Frames go from ours to QEMU's, and back.

use serde_json::json;
use tests::daemon::Program;
use tests::skip::{Need, ready};

use super::{LONGEST, Side, carries, connect, frame, receive, send};

/// Lengths on both sides of all limits that there are.
fn lengths() -> Vec<usize> {
    (14..2100).chain((2100..65_535).step_by(997)).chain([65_535, LONGEST - 1, LONGEST]).collect()
}

/// Waits until all chardevs know of their connections: what comes earlier is nobody's.
fn connected(side: &mut Side) {
    let there = || {
        let all = side.qmp.ok("query-chardev", json!({})).to_string();
        (!all.contains("disconnected")).then_some(())
    };
    tests::wait::until(tests::wait::PATIENCE, there).expect("connected");
}

/// The filter of one side writes to that of the other, which puts frames in.
fn chain(from: &mut Side, to: &mut Side, kind: &str, vnet: bool, what: &str) {
    let path = from.listens("out");
    from.filter(kind, &json!({"outdev": "out", "queue": "tx", "vnet_hdr_support": vnet}));
    to.connects("in", &path);
    to.filter("filter-redirector", &json!({"indev": "in", "queue": "tx", "vnet_hdr_support": vnet}));
    [&mut *from, &mut *to].into_iter().for_each(connected);
    let places: &[_] = if kind == "filter-mirror" { &[&to.far, &from.far] } else { &[&to.far] };
    carries(&from.near, places, &lengths(), what);
}

fn both(test: &str, kind: &str) {
    if !ready(test, &[Need::Oracle]) {
        return;
    }
    for vnet in [false, true] {
        for (first, second) in [(Program::Netdevd, Program::Oracle), (Program::Oracle, Program::Netdevd)] {
            let (mut from, mut to) = (Side::new(first, &[]), Side::new(second, &[]));
            chain(&mut from, &mut to, kind, vnet, &format!("{kind}, vnet {vnet}, from {first:?}"));
        }
    }
}

#[test]
fn row_102_what_one_mirrors_the_other_puts_in() {
    both("row_102_what_one_mirrors_the_other_puts_in", "filter-mirror");
}

#[test]
fn row_103_what_one_redirects_the_other_puts_in() {
    both("row_103_what_one_redirects_the_other_puts_in", "filter-redirector");
}

#[test]
fn ours_understands_ours() {
    for vnet in [false, true] {
        let (mut from, mut to) = (Side::ours(), Side::ours());
        chain(&mut from, &mut to, "filter-redirector", vnet, "from ours to ours");
    }
}

/// What a filter puts in passes the filters behind it in its chain; those of the netdev's peer too with us, while QEMU goes past them.
#[test]
fn what_a_filter_puts_in_is_seen_at_the_peer_too_which_qemu_goes_past() {
    for (program, needs) in [(Program::Netdevd, &[][..]), (Program::Oracle, &[Need::Oracle])] {
        if !ready("what_a_filter_puts_in_is_seen_at_the_peer_too_which_qemu_goes_past", needs) {
            continue;
        }
        let mut side = Side::new(program, &[]);
        let [inside, seen] = ["in", "seen"].map(|id| side.listens(id));
        side.filter("filter-redirector", &json!({"indev": "in", "queue": "tx"}));
        let mirror = json!({"qom-type": "filter-mirror", "id": "m", "netdev": "near-port", "queue": "rx", "outdev": "seen"});
        side.qmp.ok("object-add", mirror);
        let (mut inside, mut seen) = (connect(&inside), connect(&seen));
        connected(&mut side);
        let (injected, sent) = (frame(100, 1), frame(100, 2));
        send(&mut inside, &injected);
        assert!(receive(&mut &side.far) == injected, "{program:?}: put in");
        side.passes(&sent);
        if program == Program::Netdevd {
            assert!(receive(&mut seen) == injected, "seen at the peer");
        }
        assert!(receive(&mut seen) == sent, "{program:?}: seen as it was sent");
    }
}

/// What a filter holds or puts in does not leave by a link that is cut, and is counted there; QEMU's passes.
#[test]
fn a_cut_link_lets_nothing_out_that_a_filter_puts_in_which_qemu_does() {
    for (program, needs) in [(Program::Netdevd, &[][..]), (Program::Oracle, &[Need::Oracle])] {
        if !ready("a_cut_link_lets_nothing_out_that_a_filter_puts_in_which_qemu_does", needs) {
            continue;
        }
        let mut side = Side::new(program, &[]);
        let inside = side.listens("in");
        side.filter("filter-redirector", &json!({"indev": "in", "queue": "tx"}));
        let mut inside = connect(&inside);
        connected(&mut side);
        side.qmp.ok("set_link", json!({"name": "near", "up": false}));
        send(&mut inside, &frame(100, 1));
        if program == Program::Netdevd {
            tests::nics::await_drop(&mut side.qmp, "near", "link-down", 1);
            side.qmp.ok("set_link", json!({"name": "near", "up": true}));
            side.passes(&frame(100, 2));
        } else {
            assert!(receive(&mut &side.far) == frame(100, 1));
        }
    }
}

/// A redirector that was made off reads nothing until it is on; QEMU 10.0's reads at once.
#[test]
fn a_redirector_that_is_made_off_lets_frames_wait_which_qemu_does_not() {
    for (program, needs) in [(Program::Netdevd, &[][..]), (Program::Oracle, &[Need::Oracle])] {
        if !ready("a_redirector_that_is_made_off_lets_frames_wait_which_qemu_does_not", needs) {
            continue;
        }
        let mut side = Side::new(program, &[]);
        let inside = side.listens("in");
        side.filter("filter-redirector", &json!({"indev": "in", "queue": "tx", "status": "off"}));
        let mut inside = connect(&inside);
        connected(&mut side);
        send(&mut inside, &frame(100, 1));
        if program == Program::Netdevd {
            side.passes(&frame(100, 2));
            side.set("status", &json!("on"));
        }
        assert!(receive(&mut &side.far) == frame(100, 1), "{program:?}");
    }
}
