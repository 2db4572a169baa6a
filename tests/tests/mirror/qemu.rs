//! Frames go from ours to QEMU's, and back.

use serde_json::json;
use tests::daemon::Program;
use tests::skip::{Need, ready};

use super::{LONGEST, Side, carries};

/// Lengths on both sides of all limits that there are.
fn lengths() -> Vec<usize> {
    (14..2100).chain((2100..65_535).step_by(997)).chain([65_535, LONGEST - 1, LONGEST]).collect()
}

/// The filter of one side writes to that of the other, which puts frames in.
fn chain(from: &mut Side, to: &mut Side, kind: &str, vnet: bool, what: &str) {
    let path = from.listens("out");
    from.filter(kind, &json!({"outdev": "out", "queue": "tx", "vnet_hdr_support": vnet}));
    to.connects("in", &path);
    to.filter("filter-redirector", &json!({"indev": "in", "queue": "tx", "vnet_hdr_support": vnet}));
    // Both know of the connection before the first frame: what comes earlier is nobody's.
    let there = |side: &mut Side| {
        let all = side.qmp.ok("query-chardev", json!({})).to_string();
        (!all.contains("disconnected")).then_some(())
    };
    for side in [&mut *from, &mut *to] {
        tests::wait::until(tests::wait::PATIENCE, || there(side)).expect("connected");
    }
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
