//! Where a stack's time goes, by `perf record -e cpu-clock`: what the kernel, libslirp, the C library and the programs themselves take of
//! the device's CPU while TCP goes through, with the functions on top.

use super::load::{Kind, Workload, gbits, iperf_command};
use super::stacks::{Site, Stack};
use crate::compare::lab::{Lab, progress};
use crate::compare::process::run;
use crate::compare::table::{Table, figure};
use crate::failure::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

/// Samples a second of each CPU.
const RATE: &str = "5000";
/// Functions that are shown.
const TOP: usize = 12;
/// Where the time is, in the order of the table.
const PLACES: [&str; 5] = ["kernel", "libslirp", "libc", "own", "idle"];

/// Samples of one function on the device's CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    count: u64,
    /// The thread's name.
    thread: String,
    place: &'static str,
    function: String,
}

/// What one workload through one stack showed.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) stack: &'static str,
    pub(super) workload: &'static str,
    gbits: f64,
    /// The share of the load's CPU that was idle.
    load_idle: f64,
    lines: Vec<Line>,
}

/// Profiles of netdevd and of pasta, which is ahead of it or next to it, go into `profiles` as they come.
///
/// # Errors
/// When one cannot be recorded, and an interrupt.
pub(super) fn all(
    lab: &Lab,
    length: Duration,
    workloads: &[&Workload],
    sites: &[Site],
    profiles: &mut Vec<Profile>,
) -> Result<()> {
    for workload in workloads {
        for site in sites.iter().filter(|site| site.mtu == workload.mtu) {
            if matches!(site.stack, Stack::Netdevd | Stack::Pasta) {
                progress(&format!("profile of {} through {}", workload.id, site.stack.name()));
                let _lock = lab.hold()?;
                lab.go_on()?;
                profiles.extend(Profile::of(lab, site, workload, length).context(site.stack.name())?);
            }
        }
    }
    Ok(())
}

impl Profile {
    /// Records one run.
    ///
    /// # Errors
    /// When perf, iperf3 or the stack fails.
    fn of(lab: &Lab, site: &Site, workload: &Workload, length: Duration) -> Result<Option<Self>> {
        let Kind::Tcp { back } = workload.kind else { return Ok(None) };
        let data = lab.run.path().join("perf.data");
        let load = iperf_command(lab, site, length, back);
        let mut record = Command::new("perf");
        record.args(["record", "-q", "-a", "-e", "cpu-clock", "-F", RATE, "-o"]).arg(&data).arg("--");
        record.arg(load.get_program()).args(load.get_args());
        let gbits = gbits(&run(&mut record)?)?;
        let mut report = Command::new("perf");
        report.args([
            "report",
            "--stdio",
            "-q",
            "--no-children",
            "-F",
            "sample,cpu,comm,dso,sym",
            "-t",
            ";",
            "-i",
        ]);
        let (lines, load_idle) = parse(&run(report.arg(&data))?, lab.dut_cpu);
        Ok(Some(Self { stack: site.stack.name(), workload: workload.id, gbits, load_idle, lines }))
    }

    fn total(&self) -> f64 {
        self.lines.iter().map(|line| line.count).sum::<u64>().max(1) as f64
    }

    /// Percent of the CPU, by thread and place.
    fn shares(&self) -> BTreeMap<(&str, &'static str), f64> {
        let mut shares = BTreeMap::new();
        for line in &self.lines {
            let thread = if line.place == "idle" { "" } else { line.thread.as_str() };
            *shares.entry((thread, line.place)).or_default() += line.count as f64 * 100.0 / self.total();
        }
        shares
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let shares = self.shares();
        let mut table = Table::default();
        table.row(
            std::iter::once(format!("{} {}", self.stack, self.workload))
                .chain(PLACES.map(|place| format!("{place} %"))),
        );
        let mut threads: Vec<&str> =
            shares.keys().map(|(thread, _)| *thread).filter(|thread| !thread.is_empty()).collect();
        threads.dedup();
        let of = |thread: &str, place| shares.get(&(thread, place)).copied().unwrap_or(0.0);
        let busy = |thread: &str| PLACES.iter().map(|place| of(thread, place)).sum::<f64>();
        for thread in threads.into_iter().filter(|thread| busy(thread) >= 1.0) {
            table
                .row(std::iter::once(thread.to_owned()).chain(PLACES.map(|place| figure(of(thread, place)))));
        }
        let all = |place: &str| {
            shares.iter().filter(|((_, at), _)| *at == place).map(|(_, share)| share).sum::<f64>()
        };
        table.row(std::iter::once("all".to_owned()).chain(PLACES.map(|place| figure(all(place)))));
        let top: Vec<String> =
            self.top().map(|(share, line)| format!("{} {share:.1}", line.function)).collect();
        format!(
            "{table}{} Gbit/s, the load's CPU idle {:.0} %; {}\n",
            figure(self.gbits),
            self.load_idle * 100.0,
            top.join(", ")
        )
    }

    fn top(&self) -> impl Iterator<Item = (f64, &Line)> {
        let busy = self.lines.iter().filter(|line| line.place != "idle").take(TOP);
        busy.map(|line| (line.count as f64 * 100.0 / self.total(), line))
    }

    /// For reports.
    pub(super) fn summary(&self) -> Value {
        let shares: Vec<Value> = self
            .shares()
            .into_iter()
            .map(|((thread, place), share)| json!({ "thread": thread, "place": place, "percent": share }))
            .collect();
        let top: Vec<Value> = self
            .top()
            .map(
                |(share, line)| json!({ "function": line.function, "thread": line.thread, "percent": share }),
            )
            .collect();
        json!({
            "peer": self.stack, "workload": self.workload, "gbits": self.gbits, "load-cpu-idle": self.load_idle,
            "shares": shares, "top": top,
        })
    }
}

/// Which of [`PLACES`].
fn place(thread: &str, object: &str, function: &str) -> &'static str {
    match object {
        _ if thread == "swapper" && function.contains("idle") || function.ends_with("_halt") => "idle",
        _ if object.starts_with('[') => "kernel",
        _ if object.starts_with("libslirp") => "libslirp",
        _ if object.starts_with("libc.") || object.starts_with("libc-") || object.starts_with("libglib") => {
            "libc"
        }
        _ => "own",
    }
}

/// Reads `perf report -F sample,cpu,comm,dso,sym -t ';'`: what ran on `cpu`, most first, and the share of the other CPUs that was idle.
fn parse(text: &str, cpu: usize) -> (Vec<Line>, f64) {
    let mut lines = Vec::new();
    let (mut others, mut idle) = (0, 0);
    for line in text.lines() {
        let mut fields = line.split(';').map(str::trim);
        let (Some(Ok(count)), Some(Ok(at))) =
            (fields.next().map(str::parse::<u64>), fields.next().map(str::parse::<usize>))
        else {
            continue;
        };
        let (Some(thread), Some(object), Some(symbol)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        // `[k] name` of the kernel, `[.] name` of a program.
        let function = symbol.split_once("] ").map_or(symbol, |(_, name)| name);
        let place = place(thread, object, function);
        if at == cpu {
            lines.push(Line { count, thread: thread.to_owned(), place, function: function.to_owned() });
        } else {
            others += count;
            idle += if place == "idle" { count } else { 0 };
        }
    }
    lines.sort_by_key(|line| std::cmp::Reverse(line.count));
    (lines, f64::from(u32::try_from(idle).unwrap_or(u32::MAX)) / others.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
 60  ;000;netdevd-user   ;libslirp.so.0.4.0 ;[.] tcp_input
 25  ;000;netdevd-user   ;[kernel.kallsyms] ;[k] rep_movs_alternative
 10  ;000;swapper        ;[kernel.kallsyms] ;[k] pv_native_safe_halt
  5  ;000;worker-0       ;netdevd           ;[.] engine::worker::turn
 30  ;001;iperf3         ;[kernel.kallsyms] ;[k] rep_movs_alternative
 10  ;001;swapper        ;[kernel.kallsyms] ;[k] default_idle_call
junk
";

    #[test]
    fn samples_are_told_apart_by_cpu_thread_and_place() {
        let (lines, load_idle) = parse(TEXT, 0);
        assert_eq!(load_idle, 0.25);
        let profile = Profile { stack: "netdevd", workload: "tcp", gbits: 5.0, load_idle, lines };
        let shares = profile.shares();
        let want = [
            (("", "idle"), 10.0),
            (("netdevd-user", "kernel"), 25.0),
            (("netdevd-user", "libslirp"), 60.0),
            (("worker-0", "own"), 5.0),
        ];
        assert_eq!(shares.into_iter().collect::<Vec<_>>(), want);
        let text = profile.text();
        assert!(
            text.contains("tcp_input 60.0, rep_movs_alternative 25.0, engine::worker::turn 5.0"),
            "{text}"
        );
        assert_eq!(profile.summary()["top"].as_array().map(Vec::len), Some(3));
    }
}
