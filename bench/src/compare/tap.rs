//! `compare tap`: two namespaces joined by netdevd, QEMU's hub, the kernel's bridge, a veth pair.

use crate::compare::account::Engine;
use crate::compare::lab::{Lab, Slice, progress, progress_done};
use crate::compare::pair::Pair;
use crate::compare::stats::{Spread, times_better};
use crate::compare::table::{Table, figure, ratio};
use crate::compare::workload::{ALL, Metric, Observation, Workload};
use crate::compare::{netns, peer, plot};
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

/// One slice with where it belongs.
#[derive(Debug, Clone)]
pub struct Record {
    /// Which round.
    pub round: usize,
    /// Which workload.
    pub workload: &'static str,
    /// Which peer.
    pub peer: &'static str,
    /// What it gave.
    pub slice: Slice<Observation>,
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
    let rows = rows(&workloads, &names, &records);
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

/// One metric over all rounds and peers.
#[derive(Debug)]
pub struct Row {
    /// What it is.
    pub metric: Metric,
    /// Values by peer, in the order of the peers' names.
    pub values: Vec<(&'static str, Spread)>,
    /// How many times better netdevd (or else the first peer) is than each other one, over the rounds.
    pub ratios: Vec<(&'static str, Spread)>,
}

impl Row {
    fn missed(&self) -> bool {
        let against_qemu = self.ratios.iter().find(|(peer, _)| *peer == "qemu");
        let ours = self.values.first().is_some_and(|(peer, _)| *peer == "netdevd");
        ours && against_qemu.is_some_and(|(_, ratio)| ratio.median < self.metric.want)
    }

    fn value(&self, peer: &str) -> Option<&Spread> {
        self.values.iter().find(|(name, _)| *name == peer).map(|(_, spread)| spread)
    }

    fn ratio(&self, peer: &str) -> Option<&Spread> {
        self.ratios.iter().find(|(name, _)| *name == peer).map(|(_, spread)| spread)
    }
}

fn rows(workloads: &[&Workload], names: &[&str], records: &[Record]) -> Vec<Row> {
    let metrics = workloads.iter().flat_map(|workload| {
        workload.metrics.iter().enumerate().map(move |(index, metric)| (workload.id, index, metric))
    });
    metrics
        .map(|(id, index, metric)| {
            let of = |name: &str| {
                records
                    .iter()
                    .filter(|record| record.workload == id && record.peer == name)
                    .collect::<Vec<_>>()
            };
            let own_name = |name: &str| of(name).first().map(|record| record.peer);
            let values = names.iter().filter_map(|name| {
                let values: Vec<f64> =
                    of(name).iter().map(|record| record.slice.value.values[index]).collect();
                Some((own_name(name)?, Spread::of(&values)?))
            });
            let ours = names.first().map(|name| of(name)).unwrap_or_default();
            let ratios = names.iter().skip(1).filter_map(|name| {
                let theirs = of(name);
                Some((own_name(name)?, Spread::of(&round_ratios(&ours, &theirs, index, metric.less))?))
            });
            Row { metric: *metric, values: values.collect(), ratios: ratios.collect() }
        })
        .collect()
}

/// The ratios of the rounds in which both slices were clean and the CPUs equally far apart; of all when those are few.
fn round_ratios(ours: &[&Record], theirs: &[&Record], index: usize, less: bool) -> Vec<f64> {
    let mut all = Vec::new();
    let mut good = Vec::new();
    for our in ours {
        let Some(their) = theirs.iter().find(|their| their.round == our.round) else { continue };
        let better = times_better(our.slice.value.values[index], their.slice.value.values[index], less);
        all.push(better);
        if our.slice.clean() && their.slice.clean() && our.slice.far() == their.slice.far() {
            good.push(better);
        }
    }
    if good.len() * 2 >= all.len() { good } else { all }
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
    let (json_path, svg_path) = (lab.reports.join("tap.json"), lab.reports.join("tap.svg"));
    let text = serde_json::to_string_pretty(&document).context("report")?;
    std::fs::write(&json_path, &text).context(json_path.display())?;
    let group = |row: &Row| plot::Group {
        label: row.metric.label.to_owned(),
        unit: row.metric.unit,
        less: row.metric.less,
        values: row.values.clone(),
    };
    let groups: Vec<plot::Group> = rows.iter().map(group).collect();
    std::fs::write(&svg_path, plot::bars(&groups)).context(svg_path.display())?;
    if options.json {
        println!("{text}");
        return Ok(());
    }
    print!("{}", table(names, rows));
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
    println!("\n{}\n{}", json_path.display(), svg_path.display());
    Ok(())
}

fn table(names: &[&str], rows: &[Row]) -> Table {
    let mut table = Table::default();
    let ours = names.first().copied().unwrap_or("");
    let others: Vec<&str> = names.iter().skip(1).copied().filter(|name| *name != "veth").collect();
    let mut head = vec![String::new(), "unit".into()];
    head.extend(names.iter().map(ToString::to_string));
    head.extend(others.iter().map(|name| format!("/{name}")));
    if ours == "netdevd" {
        head.push("want".into());
    }
    table.row(head);
    for row in rows {
        let mut cells = vec![row.metric.label.to_string(), row.metric.unit.to_string()];
        cells.extend(
            names.iter().map(|name| row.value(name).map_or("-".into(), |value| figure(value.median))),
        );
        cells.extend(others.iter().map(|name| {
            row.ratio(name).map_or("-".into(), |spread| {
                let (median, min, max) = (ratio(spread.median), figure(spread.min), figure(spread.max));
                if *name == "qemu" { format!("{median} ({min}-{max})") } else { median }
            })
        }));
        if ours == "netdevd" {
            cells.push(format!("{}{}", ratio(row.metric.want), if row.missed() { " MISS" } else { "" }));
        }
        table.row(cells);
    }
    table
}

fn document(
    lab: &Lab,
    options: &Options,
    rows: &[Row],
    records: &[Record],
    losses: &BTreeMap<&str, Losses>,
) -> Value {
    let spreads = |list: &[(&str, Spread)]| {
        list.iter()
            .map(|(name, spread)| (name.to_string(), spread.summary()))
            .collect::<serde_json::Map<_, _>>()
    };
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "row": row.metric.label, "unit": row.metric.unit, "less-is-better": row.metric.less,
                "want": row.metric.want, "values": spreads(&row.values), "times-better-than": spreads(&row.ratios),
            })
        })
        .collect();
    let slices: Vec<Value> = records
        .iter()
        .map(|record| {
            json!({
                "round": record.round, "workload": record.workload, "peer": record.peer,
                "values": record.slice.value.values, "offered": record.slice.value.offered,
                "peer-cpu": record.slice.value.cpu, "lost-share": record.slice.lost, "others": record.slice.others,
                "round-trip-ns": record.slice.round_trip_ns, "clean": record.slice.clean(),
            })
        })
        .collect();
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
        "dut-cpu": lab.dut_cpu, "load-cpu": lab.load_cpu, "rows": rows, "account": losses, "slices": slices,
    })
}
