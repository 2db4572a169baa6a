//! What was found, for people and for programs.

use super::books::Memory;
use super::visitors::Visit;
use super::{Outcome, SIZES};
use crate::compare::table::{Table, figure};
use serde_json::{Value, json};

/// What is wrong, in words.
pub(super) fn faults(outcome: &Outcome) -> Vec<String> {
    let mut faults = Vec::new();
    let mut check = |good: bool, what: String| {
        if !good {
            faults.push(what);
        }
    };
    let [_, changed] = outcome.steady.damage;
    check(changed == 0.0, format!("{changed} frames arrived changed"));
    let (received, arrived) = (outcome.steady.received, outcome.account.arrived() as f64);
    check(
        received > 0.0 && received == arrived,
        format!("{received} frames compared of {arrived} that arrived"),
    );
    let unnamed = outcome.account.unnamed();
    check(unnamed == 0, format!("{unnamed} frames lost without a name"));
    let unseen = outcome.account.unseen();
    check(unseen == [0, 0], format!("{unseen:?} frames that neither netdevd nor the kernel counts"));
    for memory in &outcome.memory {
        check(
            memory.missing() == 0 && memory.lost == 0,
            format!("chunks of UMEM {}: {memory:?}", memory.number),
        );
    }
    check(!outcome.memory.is_empty(), "netdevd names no UMEM".into());
    let quiet = outcome.visits.iter().filter(|visit| visit.received == 0).count();
    check(quiet == 0, format!("{quiet} of {} visitors got no frame", outcome.visits.len()));
    let changed: u64 = outcome.visits.iter().map(|visit| visit.changed).sum();
    check(changed == 0, format!("{changed} frames of visitors arrived changed"));
    let left: usize = outcome.visits.iter().map(|visit| visit.programs_left).sum();
    check(left == 0, format!("{left} programs left by visitors"));
    let [there, after] = outcome.programs;
    check(there == 3, format!("{there} programs before the daemon was killed, not 3"));
    check(after == 0, format!("{after} programs left by a daemon that was killed"));
    faults
}

pub(super) fn summary(outcome: &Outcome, faults: &[String]) -> Value {
    let visits = &outcome.visits;
    json!({
        "what": "compare af-xdp churn", "seconds": outcome.secs, "sizes": SIZES,
        "steady": {
            "received": outcome.steady.received, "changed": outcome.steady.damage[1], "mpps-by-second": outcome.rates,
            "account": outcome.account.summary(),
        },
        "visits": visits.len(),
        "visitors-received": visits.iter().map(|visit| visit.received).sum::<u64>(),
        "visitors-changed": visits.iter().map(|visit| visit.changed).sum::<u64>(),
        "longest-command-ms": longest(visits),
        "umems": outcome.memory.iter().map(Memory::summary).collect::<Value>(),
        "programs": {"before-kill": outcome.programs[0], "after-kill": outcome.programs[1]},
        "faults": faults,
    })
}

fn longest(visits: &[Visit]) -> f64 {
    visits.iter().map(|visit| visit.longest.as_secs_f64() * 1e3).fold(0.0, f64::max)
}

pub(super) fn show(outcome: &Outcome) {
    print!("{}", outcome.account.table());
    println!("\nkernel: what its own counters say was dropped on the way there. unnamed = in - out - named.");
    let mut rates = outcome.rates.clone();
    rates.sort_by(f64::total_cmp);
    let [missing, changed] = outcome.steady.damage;
    let mut table = Table::default();
    table.row(["steady path", ""]);
    table.row(["seconds", &figure(outcome.secs)]);
    table.row(["Mpps, slowest second", &figure(rates.first().copied().unwrap_or(0.0))]);
    table.row(["Mpps, median", &figure(rates.get(rates.len() / 2).copied().unwrap_or(0.0))]);
    table.row(["M frames compared", &figure(outcome.steady.received / 1e6)]);
    table.row(["changed", &format!("{changed:.0}")]);
    table.row(["numbers not seen (dropped on the way)", &format!("{missing:.0}")]);
    println!("\n{table}");
    let visits = &outcome.visits;
    let sum = |pick: fn(&Visit) -> u64| visits.iter().map(pick).sum::<u64>().to_string();
    let mut table = Table::default();
    table.row(["visitors (af-xdp of two queues, nic)", ""]);
    table.row(["came and went", &visits.len().to_string()]);
    table.row(["frames sent", &sum(|visit| visit.sent)]);
    table.row(["frames received", &sum(|visit| visit.received)]);
    table.row(["changed", &sum(|visit| visit.changed)]);
    table.row(["longest command, ms", &figure(longest(visits))]);
    println!("{table}");
    let mut table = Table::default();
    table.row(["UMEM", "chunks", "free", "receiving", "sending", "lost", "missing"]);
    for memory in &outcome.memory {
        table.row(memory.row());
    }
    let [there, left] = outcome.programs;
    println!("{table}\nXDP programs: {there} before the daemon was killed, {left} after");
}
