//! `netdevctl stats`: what `query-net-stats` counts, as tables.

use super::Failure;
use super::layout::Table;
use super::number::{mean, percent, short};
use engine::port::counters::DropReason;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The reply of `query-net-stats`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Stats {
    pub(super) tsc_hz: u64,
    pub(super) workers: Vec<Worker>,
    pub(super) ports: Vec<Port>,
    /// Of a daemon that is older than it, 0.
    #[serde(default)]
    pub(super) filter_gone: u64,
}

/// A worker; core -1 if it is not pinned.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(super) struct Worker {
    pub(super) worker: i64,
    pub(super) core: i64,
    pub(super) turns: u64,
    pub(super) frames: u64,
    pub(super) ticks: Ticks,
}

/// Where a worker's time went, in cycles of the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Ticks {
    pub(super) busy: u64,
    pub(super) empty: u64,
    pub(super) back_pressured: u64,
    pub(super) housekeeping: u64,
}

impl Ticks {
    /// All of it: the time awake.
    pub(super) fn sum(&self) -> f64 {
        [self.busy, self.empty, self.back_pressured, self.housekeeping].iter().map(|n| *n as f64).sum()
    }
}

/// A queue of a netdev, nic or hub port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) queue: i64,
    pub(super) rx_frames: u64,
    pub(super) rx_bytes: u64,
    pub(super) tx_frames: u64,
    pub(super) tx_bytes: u64,
    pub(super) drops: BTreeMap<String, u64>,
}

impl Port {
    /// Frames dropped for whatever reason.
    pub(super) fn dropped(&self) -> u64 {
        self.drops.values().sum()
    }
}

impl Stats {
    /// Reads the reply.
    ///
    /// # Errors
    /// [`Failure::Connection`]: it has another shape.
    pub(super) fn read(reply: &Value) -> Result<Self, Failure> {
        Self::deserialize(reply).map_err(|e| Failure::Connection(format!("query-net-stats: {e}")))
    }
}

/// The counters as tables: workers, ports, and drops where there are some. Counts are exact where there is room.
pub(super) fn totals(stats: &Stats, columns: Option<usize>) -> String {
    let exact: fn(u64) -> String = |n| n.to_string();
    let brief: fn(u64) -> String = |n| short(n as f64);
    let fitting = |make: &dyn Fn(fn(u64) -> String) -> Table| {
        let table = make(exact);
        let fits = columns.is_none_or(|columns| table.width() <= columns);
        if fits { table } else { make(brief) }.text(columns)
    };
    let mut text = fitting(&|count| workers(stats, count));
    if !stats.ports.is_empty() {
        text.push('\n');
        text.push_str(&fitting(&|count| ports(stats, count)));
    }
    let dropped = |port: &Port| port.drops.iter().map(|(reason, n)| (reason.clone(), *n)).collect();
    text += &drops("drops", &stats.ports, dropped, exact, columns);
    if stats.filter_gone != 0 {
        text += &format!("\n{} frames went with filters that held them\n", stats.filter_gone);
    }
    text
}

/// Shares are of the time awake: sleep is not counted.
fn workers(stats: &Stats, count: fn(u64) -> String) -> Table {
    let titles =
        ["worker", "core", "turns", "frames", "busy%", "empty%", "blocked%", "upkeep%", "cycles/frame"];
    let mut table = Table::new(titles);
    for w in &stats.workers {
        let share = |ticks: u64| percent(ticks as f64, w.ticks.sum());
        table.row([
            w.worker.to_string(),
            core(w.core),
            count(w.turns),
            count(w.frames),
            share(w.ticks.busy),
            share(w.ticks.empty),
            share(w.ticks.back_pressured),
            share(w.ticks.housekeeping),
            mean(w.ticks.busy as f64, w.frames as f64),
        ]);
    }
    table
}

/// `-` for a worker that is not pinned.
pub(super) fn core(core: i64) -> String {
    if core < 0 { "-".to_owned() } else { core.to_string() }
}

fn ports(stats: &Stats, count: fn(u64) -> String) -> Table {
    let mut table = Table::new(["port", "queue", "rx frames", "rx bytes", "tx frames", "tx bytes", "drops"]);
    for p in &stats.ports {
        table.row([
            p.name.clone(),
            p.queue.to_string(),
            count(p.rx_frames),
            count(p.rx_bytes),
            count(p.tx_frames),
            count(p.tx_bytes),
            count(p.dropped()),
        ]);
    }
    table
}

/// A table of drops by port and reason, each with its sentence; nothing where nothing was dropped.
pub(super) fn drops<N>(
    title: &str,
    ports: &[Port],
    dropped: impl Fn(&Port) -> Vec<(String, N)>,
    shown: impl Fn(N) -> String,
    columns: Option<usize>,
) -> String {
    let mut table = Table::new(["port", "queue", title, "reason", "why"]);
    for port in ports {
        for (reason, n) in dropped(port) {
            let known = DropReason::ALL.into_iter().find(|known| known.name() == reason);
            let why = known.map_or("", DropReason::sentence).to_owned();
            table.row([port.name.clone(), port.queue.to_string(), shown(n), reason, why]);
        }
    }
    match table.is_empty() {
        true => String::new(),
        false => format!("\n{}", table.text(columns)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    /// Two workers, a tap and a hub port, after `n` units of traffic.
    pub(in crate::ctl) fn sample(n: u64) -> Value {
        json!({"tsc-hz": 1_000_000_000, "workers": [
            {"worker": 0, "core": 2, "turns": n * 10, "frames": n * 4,
             "ticks": {"busy": n * 1000, "empty": n * 2500, "back-pressured": 0, "housekeeping": n * 500}},
            {"worker": 1, "core": -1, "turns": 0, "frames": 0,
             "ticks": {"busy": 0, "empty": 0, "back-pressured": 0, "housekeeping": 0}},
        ], "ports": [
            {"name": "t0", "queue": 0, "rx-frames": n * 4, "rx-bytes": n * 400, "tx-frames": n, "tx-bytes": n * 60,
             "drops": {"leg-full": n * 2}},
            {"name": "h0", "queue": 0, "rx-frames": 0, "rx-bytes": 0, "tx-frames": 0, "tx-bytes": 0, "drops": {}},
        ]})
    }

    #[test]
    fn totals_are_exact_where_there_is_room() {
        let stats = Stats::read(&sample(1_000_000)).unwrap();
        assert_eq!(
            totals(&stats, Some(100)),
            "\
worker  core     turns   frames  busy%  empty%  blocked%  upkeep%  cycles/frame
     0     2  10000000  4000000   25.0    62.5       0.0     12.5           250
     1     -         0        0      -       -         -        -             -

port  queue  rx frames   rx bytes  tx frames  tx bytes    drops
t0        0    4000000  400000000    1000000  60000000  2000000
h0        0          0          0          0         0        0

port  queue    drops  reason    why
t0        0  2000000  leg-full  The backlog of this hub leg was full (hub-backlog=).
"
        );
    }

    #[test]
    fn totals_are_shortened_to_fit_80_columns() {
        let stats = Stats::read(&sample(1 << 44)).unwrap();
        let text = totals(&stats, Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("70.4T") && !text.contains("7.04e"), "{text}");
    }

    #[test]
    fn what_went_with_filters_is_told() {
        let mut reply = sample(1);
        reply["filter-gone"] = json!(3);
        let text = totals(&Stats::read(&reply).unwrap(), None);
        assert!(text.ends_with("\n3 frames went with filters that held them\n"), "{text}");
    }

    #[test]
    fn another_shape_is_refused() {
        assert_eq!(Stats::read(&json!({"workers": []})).unwrap_err().status(), 2);
    }
}
