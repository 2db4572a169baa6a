//! `compare idle`: what many idle taps cost, and how soon the first frame after a rest gets through.

use crate::compare::lab::{Lab, progress, progress_done};
use crate::compare::netns::{self, Namespace, ip_batch};
use crate::compare::peer::{Daemon, Peer, tap_on_hub};
use crate::compare::process::{Process, run as run_tool};
use crate::compare::stats::Spread;
use crate::compare::table::{Table, figure};
use crate::failure::{Context, Failure, Result};
use crate::proc;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Share of a core that idle taps may cost, in percent.
const WANT_CPU: f64 = 1.0;

/// Microseconds that the first frame may take longer than through a bare read and write, at the 99th percentile. What the
/// bare way takes is the machine's: the wake-up of a thread, and of a halted virtual CPU under it.
const WANT_P99_US: f64 = 100.0;

/// Rest between two frames, so that each is the first one after idle.
const REST_US: &str = "10000";

/// Turns that each peer takes with its first frames, so that all see the same moods of the host.
const ROUNDS: usize = 5;

/// A peer that is ready for first frames.
#[derive(Debug)]
struct Subject {
    name: &'static str,
    a: Namespace,
    b: Namespace,
    process: Option<Process>,
    /// CPU share while idle and seconds until it was ready, of a daemon.
    rest: Option<(f64, f64)>,
    /// What each round showed.
    rounds: Vec<Value>,
}

/// Runs it and writes `idle.json`.
///
/// # Errors
/// When a peer fails, and with `check` when netdevd misses a target.
pub fn run(lab: &Lab, taps: usize, seconds: f64, as_json: bool, check: bool) -> Result<()> {
    netns::sweep();
    let taps = taps.next_multiple_of(2).max(2);
    let mut subjects = vec![veth()?, bare(lab).context("bare")?];
    for daemon in [Daemon::netdevd(lab), Daemon::qemu(lab)] {
        match daemon.missing() {
            Some(why) => eprintln!("without {}: {why}", daemon.name()),
            None => subjects.push(one(lab, &daemon, taps, seconds).context(daemon.name())?),
        }
    }
    for round in 0..ROUNDS {
        for subject in &mut subjects {
            progress(&format!("round {}/{ROUNDS}: first frames through {}", round + 1, subject.name));
            let seen = first_frames(lab, &subject.a, &subject.b, seconds / ROUNDS as f64);
            subject.rounds.push(seen.context(subject.name)?);
            subject.process.as_mut().map_or(Ok(()), Process::check)?;
        }
    }
    progress_done();
    let rows: Vec<Value> = subjects.iter().map(Subject::row).collect();
    drop(subjects);
    let processing = Processing::of(&rows);
    let report = json!({
        "what": "compare idle", "taps": taps, "seconds": seconds, "rows": rows,
        "processing": processing.map(|own| json!({ "p50-us": own.p50_us, "p99-us": own.p99_us })),
    });
    let path = lab.reports.join("idle.json");
    let text = serde_json::to_string_pretty(&report).context("report")?;
    std::fs::write(&path, &text).context(path.display())?;
    if as_json {
        println!("{text}");
    } else {
        print!("{}", table(&rows));
        println!(
            "\n{taps} taps, two to a hub, idle for {seconds} s; then a frame every 10 ms, timed from before its"
        );
        println!(
            "send to the kernel's receive stamp. veth: what the kernel's own path takes. bare: a thread that"
        );
        println!(
            "sleeps in a blocking read of one tap and writes to the other, the floor of every way that sleeps."
        );
        if let Some(own) = processing {
            println!(
                "Processing (netdevd over bare): p50 {} µs, p99 {} µs.",
                figure(own.p50_us),
                figure(own.p99_us)
            );
        }
        println!(
            "Wanted: below {WANT_CPU} % of a core, processing p99 below {WANT_P99_US} µs.\n{}",
            path.display()
        );
    }
    let ours = rows.iter().find(|row| row["peer"] == "netdevd");
    let missed = ours.is_some_and(|row| row["cpu-percent"].as_f64() >= Some(WANT_CPU))
        || processing.is_some_and(|own| own.p99_us >= WANT_P99_US);
    if check && missed { Err(Failure::new("below target")) } else { Ok(()) }
}

/// What netdevd's own work adds to the first frame's way.
#[derive(Debug, Clone, Copy)]
struct Processing {
    p50_us: f64,
    p99_us: f64,
}

impl Processing {
    /// The median over the rounds of what netdevd took longer than the bare way, if both were measured.
    fn of(rows: &[Value]) -> Option<Self> {
        let rounds = |peer| rows.iter().find(|row| row["peer"] == peer)?["rounds"].as_array();
        let (ours, floor) = (rounds("netdevd")?, rounds("bare")?);
        let over = |name: &str| {
            let each = ours.iter().zip(floor);
            let each: Option<Vec<f64>> =
                each.map(|(ours, floor)| Some(ours[name].as_f64()? - floor[name].as_f64()?)).collect();
            Some(Spread::of(&each?)?.median)
        };
        Some(Self { p50_us: over("p50-us")?, p99_us: over("p99-us")? })
    }
}

impl Subject {
    fn new(name: &'static str, process: Option<Process>) -> Result<Self> {
        let (a, b) =
            (Namespace::create(&format!("idle-{name}-a"))?, Namespace::create(&format!("idle-{name}-b"))?);
        Ok(Self { name, a, b, process, rest: None, rounds: Vec::new() })
    }

    /// Gives each namespace its end.
    fn join(&self, ends: [&str; 2]) -> Result<()> {
        self.a.adopt(ends[0], 1)?;
        self.b.adopt(ends[1], 2)?;
        self.a.knows(ends[0], 2)
    }

    fn row(&self) -> Value {
        let median = |name: &str| {
            let each: Vec<f64> = self.rounds.iter().filter_map(|round| round[name].as_f64()).collect();
            Spread::of(&each).map(|spread| spread.median)
        };
        let lost: u64 = self.rounds.iter().filter_map(|round| round["lost"].as_u64()).sum();
        let first = json!({
            "p50-us": median("p50-us"), "p90-us": median("p90-us"), "p99-us": median("p99-us"), "lost": lost,
        });
        json!({
            "peer": self.name, "cpu-percent": self.rest.map(|(cpu, _)| cpu * 100.0),
            "ready-seconds": self.rest.map(|(_, ready)| ready), "first-frame": first, "rounds": self.rounds,
        })
    }
}

/// A daemon with `taps` taps: its CPU share over `seconds`, then it is ready for first frames.
fn one(lab: &Lab, daemon: &Daemon, taps: usize, seconds: f64) -> Result<Subject> {
    progress(&format!("{}: {taps} taps", daemon.name()));
    let prefix = format!("n{}{}", std::process::id(), &daemon.name()[..1]);
    let names: Vec<String> = (0..taps).map(|tap| format!("{prefix}{tap}")).collect();
    let words: Vec<String> = names
        .iter()
        .enumerate()
        .flat_map(|(tap, name)| tap_on_hub(&format!("t{tap}"), name, tap / 2))
        .collect();
    let start = Instant::now();
    let (process, _socket) = daemon.launch(lab, &words)?;
    let ready = start.elapsed().as_secs_f64();
    let pid = process.pid();
    let mut subject = Subject::new(daemon.name(), Some(process))?;
    subject.join([&names[0], &names[1]])?;
    let a = &subject.a;
    let away: String =
        names[2..].iter().map(|name| format!("link set {name} netns {}\n", a.name())).collect();
    let up: String = names[2..].iter().map(|name| format!("link set {name} up\n")).collect();
    ip_batch(None, &away)?;
    ip_batch(Some(a), &up)?;
    std::thread::sleep(Duration::from_secs(1));
    progress(&format!("{}: idle for {seconds} s", daemon.name()));
    let cpu = lab.slice(Duration::from_millis(20), || {
        let (before, start) = (proc::cpu_ns(pid)?, Instant::now());
        std::thread::sleep(Duration::from_secs_f64(seconds));
        Ok((proc::cpu_ns(pid)? - before) as f64 / start.elapsed().as_nanos() as f64)
    })?;
    subject.rest = Some((cpu.value, ready));
    Ok(subject)
}

/// The kernel's own path.
fn veth() -> Result<Subject> {
    let subject = Subject::new("veth", None)?;
    let ports = ["a", "b"].map(|end| format!("n{}v{end}", std::process::id()));
    netns::ip(&format!("link add name {} type veth peer name {}", ports[0], ports[1]))?;
    subject.join([&ports[0], &ports[1]])?;
    Ok(subject)
}

/// A thread that sleeps in a read, then writes, on the CPU that the daemons have.
fn bare(lab: &Lab) -> Result<Subject> {
    let ports = ["a", "b"].map(|end| format!("n{}w{end}", std::process::id()));
    let mut command = std::process::Command::new(lab.tool("tapwire"));
    command.args(["--from", &ports[0], "--to", &ports[1], "--cpu", &lab.dut_cpu.to_string()]);
    let mut process = Process::spawn(command, "tapwire", lab.run.path())?;
    process.wait_for("ready")?;
    let subject = Subject::new("bare", Some(process))?;
    subject.join([&ports[0], &ports[1]])?;
    Ok(subject)
}

fn first_frames(lab: &Lab, a: &Namespace, b: &Namespace, seconds: f64) -> Result<Value> {
    let to = format!("{}:20000", netns::address(2));
    let slice = lab.slice(Duration::from_millis(20), || {
        let mut command = std::process::Command::new(lab.tool("pinglat"));
        command.args(["oneway", "--from", a.name(), "--in", b.name(), "--to", &to, "--interval-us", REST_US]);
        command.args(["--secs", &seconds.to_string(), "--cpu", &lab.load_cpu.to_string()]);
        run_tool(&mut command)
    })?;
    serde_json::from_str(slice.value.trim()).context("pinglat")
}

fn table(rows: &[Value]) -> Table {
    let mut table = Table::default();
    table.row(["", "CPU while idle, %", "first frame p50, µs", "p90", "p99", "lost", "ready after, s"]);
    for row in rows {
        let number = |value: &Value| figure(value.as_f64().unwrap_or(f64::NAN));
        let first = &row["first-frame"];
        table.row([
            row["peer"].as_str().unwrap_or("").to_string(),
            number(&row["cpu-percent"]),
            number(&first["p50-us"]),
            number(&first["p90-us"]),
            number(&first["p99-us"]),
            first["lost"].to_string(),
            number(&row["ready-seconds"]),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processing_is_what_netdevd_takes_longer_than_the_bare_way() {
        let round = |p50, p99| json!({ "p50-us": p50, "p99-us": p99 });
        let row = |peer, rounds: [Value; 3]| json!({ "peer": peer, "rounds": rounds });
        let rows = [
            row("bare", [round(60.0, 150.0), round(90.0, 300.0), round(60.0, 150.0)]),
            row("qemu", [round(90.0, 200.0), round(90.0, 200.0), round(90.0, 200.0)]),
            row("netdevd", [round(70.5, 180.0), round(100.0, 250.0), round(99.0, 190.0)]),
        ];
        let own = Processing::of(&rows).unwrap();
        assert_eq!((own.p50_us, own.p99_us), (10.5, 30.0));
        assert!(Processing::of(&rows[..2]).is_none());
    }
}
