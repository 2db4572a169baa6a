//! `compare tap`: two namespaces joined by netdevd, QEMU's hub, the kernel's bridge, a veth pair.

use crate::compare::account::Engine;
use crate::compare::lab::{Lab, progress, progress_done};
use crate::compare::pair::Pair;
use crate::compare::rounds::{self, Record, Row};
use crate::compare::saved::Saved;
use crate::compare::workload::{ALL, Workload};
use crate::compare::{netns, peer};
use crate::failure::{Context, Failure, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often each peer takes its turn.
    pub rounds: usize,
    /// Length of one slice.
    pub slice: Duration,
    /// Print JSON instead of the table.
    pub json: bool,
    /// Fail when netdevd misses a target.
    pub check: bool,
    /// Only these peers; empty for all.
    pub peers: Vec<String>,
    /// Only workloads whose id starts with one of these; empty for all.
    pub only: Vec<String>,
}

/// Losses of one workload through netdevd, all its slices together.
#[derive(Debug, Clone, Default)]
struct Losses {
    engine: Engine,
    /// Frames that the queue of a tap had no room for before netdevd could read them.
    tap_queue: u64,
    /// Datagrams that found the socket's queue full (the sink never reads: nearly all of them).
    rcvbuf: u64,
}

/// Runs the comparison and writes `tap.json` and `tap.svg`.
///
/// # Errors
/// When a peer fails, and with `check` when a target is missed.
pub fn run(lab: &Lab, options: &Options) -> Result<()> {
    netns::sweep();
    let mut pairs = join_all(lab, options)?;
    let workloads: Vec<&Workload> = ALL
        .iter()
        .filter(|workload| {
            options.only.is_empty() || options.only.iter().any(|id| workload.id.starts_with(id))
        })
        .collect();
    let mut records = Vec::new();
    let mut losses: BTreeMap<&str, Losses> = BTreeMap::new();
    for round in 0..options.rounds {
        for workload in &workloads {
            for turn in 0..pairs.len() {
                // Another peer begins in every round, so that none always follows the same one.
                let at = (turn + round) % pairs.len();
                let pair = &mut pairs[at];
                progress(&format!(
                    "round {}/{}: {} through {}",
                    round + 1,
                    options.rounds,
                    workload.id,
                    pair.name
                ));
                let before = pair.counters()?;
                let slice = lab
                    .slice(workload.tick(), || workload.measure(lab, pair, options.slice))
                    .context(pair.name)?;
                let after = pair.counters()?;
                if let (Some(then), Some(now)) = (before.engine, after.engine) {
                    let sum = losses.entry(workload.id).or_default();
                    sum.engine.add(&now.since(&then));
                    sum.tap_queue += after.queue_drops - before.queue_drops;
                    sum.rcvbuf += after.udp.rcvbuf_errors - before.udp.rcvbuf_errors;
                }
                records.push(Record { round, workload: workload.id, peer: pair.name, slice });
            }
        }
    }
    progress_done();
    let names: Vec<&str> = pairs.iter().map(|pair| pair.name).collect();
    drop(pairs);
    let metrics: Vec<_> = workloads.iter().map(|workload| (workload.id, workload.metrics)).collect();
    let rows = rounds::rows(&metrics, &names, &records);
    report(lab, options, &names, &rows, &records, &losses)?;
    let missed: Vec<&str> = rows.iter().filter(|row| row.missed()).map(|row| row.metric.label).collect();
    match options.check && !missed.is_empty() {
        true => Err(Failure::new(format!("below target: {}", missed.join("; ")))),
        false => Ok(()),
    }
}

fn join_all(lab: &Lab, options: &Options) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for peer in peer::all(lab) {
        let named = options.peers.iter().any(|name| name == peer.name());
        if !options.peers.is_empty() && !named {
            continue;
        }
        match peer.missing() {
            Some(why) if named => return Err(Failure::new(why)),
            Some(why) => eprintln!("without {}: {why}", peer.name()),
            None => {
                progress(&format!("starting {}", peer.name()));
                pairs.push(Pair::join(lab, peer.as_ref()).context(peer.name())?);
            }
        }
    }
    match pairs.is_empty() {
        true => Err(Failure::new("no peer to measure")),
        false => Ok(pairs),
    }
}

fn report(
    lab: &Lab,
    options: &Options,
    names: &[&str],
    rows: &[Row],
    records: &[Record],
    losses: &BTreeMap<&str, Losses>,
) -> Result<()> {
    let document = document(lab, options, rows, records, losses);
    let saved = Saved::write(lab, "tap", &document, &rounds::groups(rows))?;
    if options.json {
        println!("{}", saved.text);
        return Ok(());
    }
    print!("{}", rounds::table(names, rows));
    let disturbed = records.iter().filter(|record| !record.slice.clean()).count();
    let far = records.iter().filter(|record| record.slice.far()).count();
    println!(
        "\nMedians of {} rounds. /qemu, /bridge: how many times better {} is, the median of the rounds' own\n\
         ratios (least-largest). far: the CPUs share no cache. CPU {} is under test, CPU {} makes the load.\n\
         Slices {}, disturbed by the host or other programs {disturbed}, far {far}.",
        options.rounds,
        names.first().copied().unwrap_or(""),
        lab.dut_cpu,
        lab.load_cpu,
        records.len(),
    );
    if !losses.is_empty() {
        println!(
            "\nnetdevd's account (frames; in = out + named drops), and what kernel queues dropped beside it:"
        );
        for (workload, sum) in losses {
            println!("  {workload}: {}", sum.engine.line());
            println!(
                "      tap queues full before netdevd: {}; UDP RcvbufErrors: {}",
                sum.tap_queue, sum.rcvbuf
            );
        }
    }
    println!("\n{saved}");
    Ok(())
}

fn document(
    lab: &Lab,
    options: &Options,
    rows: &[Row],
    records: &[Record],
    losses: &BTreeMap<&str, Losses>,
) -> Value {
    let losses: serde_json::Map<_, _> = losses
        .iter()
        .map(|(workload, sum)| {
            let account = json!({
                "netdevd": sum.engine.summary(), "tap-queue-drops": sum.tap_queue, "rcvbuf-errors": sum.rcvbuf,
            });
            (workload.to_string(), account)
        })
        .collect();
    json!({
        "what": "compare tap", "rounds": options.rounds, "slice-seconds": options.slice.as_secs_f64(),
        "dut-cpu": lab.dut_cpu, "load-cpu": lab.load_cpu, "rows": rounds::rows_summary(rows), "account": losses,
        "slices": rounds::slices_summary(records),
    })
}
