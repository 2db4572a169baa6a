//! The text form of the counters (OpenMetrics 1.0, <https://openmetrics.io>).

use engine::port::counters::DropReason;
use engine::{QueueStats, WorkerStats};
use std::fmt::{Display, Write};

/// A client and its queues.
#[derive(Debug, Clone, Copy)]
pub struct Port<'a> {
    /// Its name. A netdev and a nic may share one, so the type is a label too.
    pub name: &'a str,
    /// Its type in the schema, for example `tap`.
    pub driver: &'a str,
    /// Counters by queue.
    pub queues: &'a [QueueStats],
}

/// What a filter counts.
#[derive(Debug, Clone)]
pub struct FilterCounters<'a> {
    /// Id of the filter.
    pub object: &'a str,
    /// Its type in the schema, for example `filter-dump`.
    pub driver: &'a str,
    /// The netdev that it sits on.
    pub port: &'a str,
    /// Frames, by what became of them.
    pub counters: Vec<(&'static str, u64)>,
}

/// The counters as text, `# EOF` at the end.
///
/// Every drop reason of every queue is there from the start, zero or not: a series that appears with its first drop
/// hides that drop from `rate()`.
#[must_use]
pub fn openmetrics(
    tsc_hz: u64,
    workers: &[WorkerStats],
    ports: &[Port<'_>],
    filters: &[FilterCounters<'_>],
    filter_gone: u64,
) -> String {
    let mut text = Text(String::new());
    text.family(
        "netdevd_tsc_hertz",
        "gauge",
        Some("hertz"),
        "Ticks a second of the clock that workers count by.",
    );
    text.sample("netdevd_tsc_hertz", &[], tsc_hz);
    text.workers(workers);
    text.ports(ports);
    text.drops(ports);
    if !filters.is_empty() {
        text.filters(filters);
    }
    text.family(
        "netdevd_filter_gone_frames",
        "counter",
        None,
        "Frames that filters still held when they were removed; most had waited for their receiver for two seconds.",
    );
    text.sample("netdevd_filter_gone_frames_total", &[], filter_gone);
    text.0.push_str("# EOF\n");
    text.0
}

/// The output, a line at a time. Writing to a string cannot fail.
struct Text(String);

impl Text {
    /// The description of a metric family; its samples follow.
    fn family(&mut self, name: &str, kind: &str, unit: Option<&str>, help: &str) {
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
        if let Some(unit) = unit {
            let _ = writeln!(self.0, "# UNIT {name} {unit}");
        }
        let _ = writeln!(self.0, "# HELP {name} {}", escaped(help));
    }

    /// One sample.
    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: u64) {
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"{}\"", escaped(&value.to_string()));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn workers(&mut self, workers: &[WorkerStats]) {
        // The core of a worker that is not pinned is -1, as in query-net-stats.
        let core = |w: &WorkerStats| w.core.map_or(-1, usize::cast_signed);
        self.family("netdevd_worker_turns", "counter", None, "Rounds of a worker over its queues.");
        for (index, w) in workers.iter().enumerate() {
            let labels: [(&str, &dyn Display); 2] = [("worker", &index), ("core", &core(w))];
            self.sample("netdevd_worker_turns_total", &labels, w.turns);
        }
        self.family("netdevd_worker_frames", "counter", None, "Frames that a worker moved.");
        for (index, w) in workers.iter().enumerate() {
            let labels: [(&str, &dyn Display); 2] = [("worker", &index), ("core", &core(w))];
            self.sample("netdevd_worker_frames_total", &labels, w.frames);
        }
        let help = "Where a worker's time went, in ticks of the clock of netdevd_tsc_hertz. busy: from a poll that \
                    returned frames to the end of their transmission. empty: nothing to do. back-pressured: frames \
                    waited, no destination had room. housekeeping: plan changes and upkeep. Sleep is not counted.";
        self.family("netdevd_worker_ticks", "counter", None, help);
        for (index, w) in workers.iter().enumerate() {
            for (regime, ticks) in [
                ("busy", w.busy),
                ("empty", w.empty),
                ("back-pressured", w.back_pressured),
                ("housekeeping", w.housekeeping),
            ] {
                let labels: [(&str, &dyn Display); 3] =
                    [("worker", &index), ("core", &core(w)), ("regime", &regime)];
                self.sample("netdevd_worker_ticks_total", &labels, ticks);
            }
        }
    }

    fn ports(&mut self, ports: &[Port<'_>]) {
        // An info metric carries the worker, so that the counters' own labels never change.
        self.family("netdevd_port", "info", None, "The worker that owns a queue.");
        for (port, index, queue) in queues(ports) {
            if let Some(worker) = queue.worker {
                let labels: [(&str, &dyn Display); 4] =
                    [("port", &port.name), ("type", &port.driver), ("queue", &index), ("worker", &worker)];
                self.sample("netdevd_port_info", &labels, 1);
            }
        }
        type Read = fn(&QueueStats) -> u64;
        let families: [(&str, Option<&str>, &str, Read); 4] = [
            ("netdevd_port_rx_frames", None, "Frames that entered here.", |q| q.rx_frames),
            ("netdevd_port_rx_bytes", Some("bytes"), "Bytes of frames that entered here.", |q| q.rx_bytes),
            ("netdevd_port_tx_frames", None, "Frames that left here.", |q| q.tx_frames),
            ("netdevd_port_tx_bytes", Some("bytes"), "Bytes of frames that left here.", |q| q.tx_bytes),
        ];
        for (name, unit, help, read) in families {
            self.family(name, "counter", unit, help);
            let total = format!("{name}_total");
            for (port, index, queue) in queues(ports) {
                let labels: [(&str, &dyn Display); 3] =
                    [("port", &port.name), ("type", &port.driver), ("queue", &index)];
                self.sample(&total, &labels, read(queue));
            }
        }
    }

    fn drops(&mut self, ports: &[Port<'_>]) {
        let mut help = "Frames that should have left here and did not, by reason.".to_owned();
        for reason in DropReason::ALL {
            let _ = write!(help, " {}: {}", reason.name(), reason.sentence());
        }
        self.family("netdevd_port_drops", "counter", None, &help);
        for (port, index, queue) in queues(ports) {
            for reason in DropReason::ALL {
                let counted = queue.drops.iter().find(|(r, _)| *r == reason).map_or(0, |(_, n)| *n);
                let labels: [(&str, &dyn Display); 4] = [
                    ("port", &port.name),
                    ("type", &port.driver),
                    ("queue", &index),
                    ("reason", &reason.name()),
                ];
                self.sample("netdevd_port_drops_total", &labels, counted);
            }
        }
    }

    fn filters(&mut self, filters: &[FilterCounters<'_>]) {
        self.family(
            "netdevd_filter_frames",
            "counter",
            None,
            "Frames that a filter saw, by what became of them.",
        );
        for filter in filters {
            for (what, count) in &filter.counters {
                let labels: [(&str, &dyn Display); 4] = [
                    ("object", &filter.object),
                    ("type", &filter.driver),
                    ("port", &filter.port),
                    ("what", what),
                ];
                self.sample("netdevd_filter_frames_total", &labels, *count);
            }
        }
    }
}

/// Every queue with its port and index.
fn queues<'p>(ports: &'p [Port<'p>]) -> impl Iterator<Item = (&'p Port<'p>, usize, &'p QueueStats)> {
    ports
        .iter()
        .flat_map(|port| port.queues.iter().enumerate().map(move |(index, queue)| (port, index, queue)))
}

/// Label values and help texts escape backslash, newline and quote.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}
