//! `compare link`: the link between workers beside DPDK's `rte_ring`.
//!
//! `ring_perf_autotest` ("two physical cores") lets one core enqueue and another dequeue, and prints the TSC cycles of
//! one enqueue plus one dequeue an element. Here bursts go round a circle of two links, so in each lap each core makes
//! one push and one pop: the cycles of a lap on one core are the same sum.

use crate::compare::lab::{Lab, progress, progress_done};
use crate::compare::stats::Spread;
use crate::compare::table::{Table, figure, ratio};
use crate::failure::{Context, Failure, Result};
use crossbeam::queue::ArrayQueue;
use engine::mem::arena::{Arena, ArenaConfig};
use engine::mem::pool::Pool;
use engine::worker::clock::ticks;
use engine::worker::link::{LinkBurst, Links};
use serde_json::json;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::sched;

/// Elements a transfer, as `ring_perf_autotest` has them.
const BULKS: [usize; 2] = [8, 32];

/// Laps of one measurement: about 10 ms to 100 ms.
const LAPS: u32 = 200_000;

/// Bursts in circulation: enough to keep both cores busy.
const CIRCULATING: usize = 64;

/// One round: cycles an element for each of [`BULKS`].
#[derive(Debug, Clone, Copy)]
struct Round {
    ours: [f64; 2],
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
    let arena = Arena::new(&ArenaConfig::default()).context("arena")?;
    let mut pools = Pool::set(1, &arena).context("pool")?;
    let pool = pools.first_mut().ok_or_else(|| Failure::new("no pool"))?;
    let mut all = Vec::new();
    let (mut far, mut disturbed) = (0, 0);
    for round in 0..rounds {
        progress(&format!(
            "round {}/{rounds}: our link, then dpdk-test ring_perf_autotest (half a minute)",
            round + 1
        ));
        let slice = lab.slice(Duration::from_millis(5), || {
            let mut ours = [0.0; 2];
            for (value, bulk) in ours.iter_mut().zip(BULKS) {
                *value = circle(lab, pool, bulk)?;
            }
            let [single, multi] = ring_perf(lab)?;
            Ok(Round { ours, single, multi })
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
    ]);
    let (mut rows, mut missed) = (Vec::new(), false);
    for (at, bulk) in BULKS.into_iter().enumerate() {
        let spread = |pick: &dyn Fn(&Round) -> f64| Spread::of(&all.iter().map(pick).collect::<Vec<_>>());
        let ours = spread(&|round| round.ours[at]);
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
        ]);
        let summary = |spread: Option<Spread>| spread.map(|spread| spread.summary());
        rows.push(json!({
            "bulk": bulk, "link": summary(ours), "rte-ring-sp-sc": summary(single), "rte-ring-mp-mc": summary(multi),
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
            "\nTSC cycles of one push and one pop; medians of {rounds} rounds, CPUs far apart in {far}."
        );
        println!("{}", path.display());
    }
    match check && missed {
        true => Err(Failure::new("the link costs more than rte_ring")),
        false => Ok(()),
    }
}

fn pop(link: &ArrayQueue<LinkBurst>, stop: &AtomicBool) -> Option<LinkBurst> {
    loop {
        if let Some(burst) = link.pop() {
            return Some(burst);
        }
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        std::hint::spin_loop();
    }
}

/// TSC cycles of a push and a pop, an element, with bursts of `bulk` frames.
fn circle(lab: &Lab, pool: &mut Pool, bulk: usize) -> Result<f64> {
    let short = || Failure::new("a pool, burst or link is too small");
    let links = Links::new(2);
    let (there, back) = (links.get(0, 1).ok_or_else(short)?, links.get(1, 0).ok_or_else(short)?);
    for _ in 0..CIRCULATING {
        let mut burst = LinkBurst::new(0, 0);
        for _ in 0..bulk {
            burst.push(pool.take(64).ok_or_else(short)?).map_err(|_| short())?;
        }
        back.push(burst).map_err(|_| short())?;
    }
    let stop = AtomicBool::new(false);
    let cycles = std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = sched::pin(lab.load_cpu);
            while let Some(burst) = pop(there, &stop) {
                let _ = back.push(burst);
            }
        });
        let laps = scope.spawn(|| {
            let _ = sched::pin(lab.dut_cpu);
            let start = ticks();
            for _ in 0..LAPS {
                if let Some(burst) = pop(back, &stop) {
                    let _ = there.push(burst);
                }
            }
            let cycles = ticks() - start;
            stop.store(true, Ordering::Relaxed);
            cycles
        });
        laps.join().map_err(|_| Failure::new("the measuring thread panicked"))
    })?;
    for link in [there, back] {
        while let Some(mut burst) = link.pop() {
            burst.drain().for_each(|frame| pool.give(frame));
        }
    }
    Ok(cycles as f64 / f64::from(LAPS) / bulk as f64)
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
