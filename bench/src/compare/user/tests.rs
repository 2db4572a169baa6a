//! Which workloads are chosen, and what is a miss.

use super::*;
use crate::compare::stats::Spread;

fn options(parts: &[&str], only: &[&str]) -> Options {
    let words = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    Options {
        rounds: 1,
        slice: Duration::from_secs(1),
        quick: true,
        json: false,
        check: false,
        parts: words(parts),
        only: words(only),
        peers: Vec::new(),
    }
}

#[test]
fn parts_and_names_choose_the_workloads() {
    let count = |parts: &[&str], only: &[&str]| {
        let options = options(parts, only);
        let all = load::ALL.iter().filter(|workload| options.wants(workload));
        (all.clone().count(), all.filter(|workload| options.wants_part(workload)).count())
    };
    assert_eq!(count(&[], &[]), (7, 7));
    assert_eq!(count(&["profile"], &[]), (4, 0), "TCP is profiled, and not measured");
    assert_eq!(count(&["profile", "connect"], &["tcp-1500", "connect"]), (3, 1));
}

#[test]
fn connections_that_get_slower_are_a_miss_whatever_others_do() {
    let workload = load::ALL.iter().find(|workload| workload.is("connect")).unwrap();
    let row = |median| Row {
        metric: workload.metrics[FLAT],
        values: vec![("netdevd", Spread { median, min: median, max: median })],
        ratios: Vec::new(),
    };
    assert!(falls(&row(0.5)) && !falls(&row(0.97)));
    let others = Row { metric: workload.metrics[0], ..row(0.5) };
    assert!(!falls(&others), "a rate is no ratio");
}
