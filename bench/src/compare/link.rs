//! `compare link`: the link between workers beside DPDK's `rte_ring`.
//!
//! `ring_perf_autotest` ("two physical cores") lets one core enqueue and another dequeue, and prints the TSC cycles an
//! element of both together. [`stream`] counts the same of our link; beside it stands the whole way
//! of a frame ([`lap`]), which has no counterpart there. Ours is measured before and after theirs,
//! since the figures follow the distance of the CPUs, which a host may change meanwhile.

use crate::compare::lab::{Lab, progress, progress_done};
use crate::compare::stats::Spread;
use crate::compare::table::{Table, figure, ratio};
use crate::failure::{Context, Failure, Result};
use crate::link::{Cost, lap, pools, stream};
use engine::mem::pool::Pool;
use serde_json::json;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Elements a transfer, as `ring_perf_autotest` has them.
const BULKS: [usize; 2] = [8, 32];

/// Bursts of one measurement, as `ring_perf_autotest` has them.
const BURSTS: u32 = 1 << 15;

/// Measurements of which the median counts (a few milliseconds each), before and after `ring_perf_autotest`.
const TRIES: usize = 15;

/// One round: cycles an element for each of [`BULKS`].
#[derive(Debug, Clone, Copy)]
struct Round {
    ours: [f64; 2],
    whole: [f64; 2],
    single: [f64; 2],
    multi: [f64; 2],
}

/// Runs the comparison and writes `link.json`.
///
/// # Errors
/// Without `dpdk-test`, with one CPU, and with `check` when the link costs more than the ring.
pub fn run(lab: &Lab, rounds: usize, as_json: bool, check: bool) -> Result<()> {
    if lab.dut_cpu == lab.load_cpu {
        return Err(Failure::new("two CPUs are needed"));
    }
    let mut pools = pools()?;
    let mut all = Vec::new();
    let (mut far, mut disturbed) = (0, 0);
    for round in 0..rounds {
        progress(&format!(
            "round {}/{rounds}: our link, then dpdk-test ring_perf_autotest (half a minute)",
            round + 1
        ));
        let slice = lab.slice(Duration::from_millis(5), || {
            let before = figures(lab, &mut pools)?;
            let [single, multi] = ring_perf(lab)?;
            let after = figures(lab, &mut pools)?;
            let mean = |what: usize| [0, 1].map(|at| f64::midpoint(before[what][at], after[what][at]));
            Ok(Round { ours: mean(0), whole: mean(1), single, multi })
        })?;
        far += usize::from(slice.far());
        disturbed += usize::from(!slice.clean());
        all.push(slice.value);
    }
    progress_done();
    let mut table = Table::default();
    table.row([
        "cycles an element, two cores",
        "link",
        "rte_ring SP/SC",
        "rte_ring MP/MC",
        "link better than SP/SC",
        "link, the frame's whole way",
    ]);
    let (mut rows, mut missed) = (Vec::new(), false);
    for (at, bulk) in BULKS.into_iter().enumerate() {
        let spread = |pick: &dyn Fn(&Round) -> f64| Spread::of(&all.iter().map(pick).collect::<Vec<_>>());
        let ours = spread(&|round| round.ours[at]);
        let whole = spread(&|round| round.whole[at]);
        let single = spread(&|round| round.single[at]);
        let multi = spread(&|round| round.multi[at]);
        let better = spread(&|round| round.single[at] / round.ours[at]);
        let median = |spread: Option<Spread>| spread.map_or(f64::NAN, |spread| spread.median);
        missed |= median(better) < 1.0;
        table.row([
            format!("bulk {bulk}"),
            figure(median(ours)),
            figure(median(single)),
            figure(median(multi)),
            ratio(median(better)),
            figure(median(whole)),
        ]);
        let summary = |spread: Option<Spread>| spread.map(|spread| spread.summary());
        rows.push(json!({
            "bulk": bulk, "link": summary(ours), "whole-way": summary(whole),
            "rte-ring-sp-sc": summary(single), "rte-ring-mp-mc": summary(multi),
            "times-better-than-sp-sc": summary(better),
        }));
    }
    let report = json!({ "what": "compare link", "unit": "TSC cycles", "rounds": rounds, "far": far, "disturbed": disturbed, "rows": rows });
    let path = lab.reports.join("link.json");
    let text = serde_json::to_string_pretty(&report).context("report")?;
    std::fs::write(&path, &text).context(path.display())?;
    if as_json {
        println!("{text}");
    } else {
        print!("{table}");
        println!(
            "\nTSC cycles of sender and receiver together, waiting included; medians of {rounds} rounds, CPUs far apart in \
             {far}.\nLink and rings: one core enqueues handles, another dequeues them. The whole way: copied into a pool \
             buffer,\nsent, read, given back and taken in again."
        );
        println!("{}", path.display());
    }
    match check && missed {
        true => Err(Failure::new("the link costs more than rte_ring")),
        false => Ok(()),
    }
}

/// Cycles an element for each of [`BULKS`]: of handles, and of the whole way.
fn figures(lab: &Lab, pools: &mut [Pool; 2]) -> Result<[[f64; 2]; 2]> {
    let cpus = [lab.dut_cpu, lab.load_cpu];
    let mut median = |what: fn(&mut [Pool; 2], [usize; 2], usize, u32) -> Result<Cost>, bulk: usize| {
        let elements = f64::from(BURSTS) * bulk as f64;
        let tries = (0..TRIES).map(|_| Ok(what(pools, cpus, bulk, BURSTS)?.cycles as f64 / elements));
        let tries = tries.collect::<Result<Vec<_>>>()?;
        Ok::<_, Failure>(Spread::of(&tries).map_or(f64::NAN, |spread| spread.median))
    };
    let [a, b] = BULKS;
    Ok([[median(stream, a)?, median(stream, b)?], [median(lap, a)?, median(lap, b)?]])
}

/// Runs `ring_perf_autotest`; cycles an element for each of [`BULKS`], SP/SC and MP/MC.
fn ring_perf(lab: &Lab) -> Result<[[f64; 2]; 2]> {
    let lcores = format!("0@{},1@{}", lab.dut_cpu, lab.load_cpu);
    let mut child = Command::new("timeout")
        .args(["120", "dpdk-test", "--no-huge", "--no-pci", "--no-shconf", "-m", "256", "--lcores", &lcores])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("timeout")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(b"ring_perf_autotest\nquit\n").context("dpdk-test")?;
    }
    let output = child.wait_with_output().context("dpdk-test")?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).ok_or_else(|| {
        Failure::new(
            "no figures from dpdk-test; Debian has it in the package dpdk-dev (apt-get install dpdk-dev)",
        )
    })
}

/// Picks the legacy API's figures for two physical cores.
fn parse(text: &str) -> Option<[[f64; 2]; 2]> {
    let section = text.split("### Testing using two physical cores ###").nth(1)?;
    let value = |kind: &str, bulk: usize| {
        let head = format!("legacy APIs: {kind}: bulk (size: {bulk}):");
        section.lines().find_map(|line| line.trim().strip_prefix(&head)?.trim().parse::<f64>().ok())
    };
    let pair = |kind| Some([value(kind, BULKS[0])?, value(kind, BULKS[1])?]);
    Some([pair("SP/SC")?, pair("MP/MC")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_two_physical_cores_are_found() {
        let text = "### Testing bulk enq/deq ###\nlegacy APIs: SP/SC: bulk (size: 8): 27.30\n\
                    ### Testing using two physical cores ###\n\
                    legacy APIs: SP/SC: bulk (size: 8): 18.60\nlegacy APIs: MP/MC: bulk (size: 8): 50.60\n\
                    legacy APIs: SP/SC: bulk (size: 32): 8.57\nlegacy APIs: MP/MC: bulk (size: 32): 12.32\n\
                    ### Testing using two physical cores ###\nelem APIs: SP/SC: bulk (size: 8): 1\n";
        assert_eq!(parse(text), Some([[18.60, 8.57], [50.60, 12.32]]));
        assert_eq!(parse("nothing"), None);
    }
}
