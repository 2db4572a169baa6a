//! What peers gave in turns: rows of figures with ratios, their table, their report.

use crate::compare::lab::Slice;
use crate::compare::plot;
use crate::compare::stats::{Spread, times_better};
use crate::compare::table::{Table, figure, ratio};
use crate::compare::workload::{Metric, Observation};
use serde_json::{Value, json};

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
    /// Whether netdevd is less better than QEMU than it must be.
    pub fn missed(&self) -> bool {
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

/// The rows of workloads, each with its metrics, over what peers gave; the first name is the one that the others are compared with.
pub fn rows(workloads: &[(&'static str, &'static [Metric])], names: &[&str], records: &[Record]) -> Vec<Row> {
    let metrics = workloads.iter().flat_map(|(id, metrics)| {
        metrics.iter().enumerate().map(move |(index, metric)| (*id, index, metric))
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

/// The rows for a plot.
pub fn groups(rows: &[Row]) -> Vec<plot::Group> {
    let group = |row: &Row| plot::Group {
        label: row.metric.label.to_owned(),
        unit: row.metric.unit,
        less: row.metric.less,
        values: row.values.clone(),
    };
    rows.iter().map(group).collect()
}

/// The rows for people: medians of all, and how many times better the first one is.
pub fn table(names: &[&str], rows: &[Row]) -> Table {
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
            let want = if row.metric.want > 0.0 { ratio(row.metric.want) } else { "-".into() };
            cells.push(format!("{want}{}", if row.missed() { " MISS" } else { "" }));
        }
        table.row(cells);
    }
    table
}

/// The rows for a report.
pub fn rows_summary(rows: &[Row]) -> Vec<Value> {
    let spreads = |list: &[(&str, Spread)]| {
        list.iter()
            .map(|(name, spread)| (name.to_string(), spread.summary()))
            .collect::<serde_json::Map<_, _>>()
    };
    let row = |row: &Row| {
        json!({
            "row": row.metric.label, "unit": row.metric.unit, "less-is-better": row.metric.less,
            "want": row.metric.want, "values": spreads(&row.values), "times-better-than": spreads(&row.ratios),
        })
    };
    rows.iter().map(row).collect()
}

/// Every slice for a report.
pub fn slices_summary(records: &[Record]) -> Vec<Value> {
    let slice = |record: &Record| {
        json!({
            "round": record.round, "workload": record.workload, "peer": record.peer,
            "values": record.slice.value.values, "offered": record.slice.value.offered,
            "peer-cpu": record.slice.value.cpu, "lost-share": record.slice.lost, "others": record.slice.others,
            "round-trip-ns": record.slice.round_trip_ns, "clean": record.slice.clean(),
        })
    };
    records.iter().map(slice).collect()
}
