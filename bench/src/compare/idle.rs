//! `compare idle`: what many idle taps cost, and how soon the first frame after a rest gets through.

use crate::compare::lab::{Lab, progress, progress_done};
use crate::compare::netns::{self, Namespace, ip_batch};
use crate::compare::peer::{Daemon, Peer, tap_on_hub};
use crate::compare::process::{Process, run as run_tool};
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

/// Runs it and writes `idle.json`.
///
/// # Errors
/// When a peer fails, and with `check` when netdevd misses a target.
pub fn run(lab: &Lab, taps: usize, seconds: f64, as_json: bool, check: bool) -> Result<()> {
    netns::sweep();
    let taps = taps.next_multiple_of(2).max(2);
    let mut rows = vec![veth(lab, seconds)?, bare(lab, seconds).context("bare")?];
    for daemon in [Daemon::netdevd(lab), Daemon::qemu(lab)] {
        match daemon.missing() {
            Some(why) => eprintln!("without {}: {why}", daemon.name()),
            None => rows.push(one(lab, &daemon, taps, seconds).context(daemon.name())?),
        }
    }
    progress_done();
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
    /// The percentiles of netdevd less those of the bare way, if both were measured.
    fn of(rows: &[Value]) -> Option<Self> {
        let first = |peer| rows.iter().find(|row| row["peer"] == peer).map(|row| &row["first-frame"]);
        let (ours, floor) = (first("netdevd")?, first("bare")?);
        let over = |name: &str| Some(ours[name].as_f64()? - floor[name].as_f64()?);
        Some(Self { p50_us: over("p50-us")?, p99_us: over("p99-us")? })
    }
}

/// A daemon with `taps` taps: CPU over `seconds`, then the first frames.
fn one(lab: &Lab, daemon: &Daemon, taps: usize, seconds: f64) -> Result<Value> {
    progress(&format!("{}: {taps} taps", daemon.name()));
    let (a, b) = (Namespace::create("idle-a")?, Namespace::create("idle-b")?);
    let names: Vec<String> = (0..taps).map(|tap| format!("n{}i{tap}", std::process::id())).collect();
    let words: Vec<String> = names
        .iter()
        .enumerate()
        .flat_map(|(tap, name)| tap_on_hub(&format!("t{tap}"), name, tap / 2))
        .collect();
    let start = Instant::now();
    let (mut process, _socket) = daemon.launch(lab, &words)?;
    let ready = start.elapsed().as_secs_f64();
    a.adopt(&names[0], 1)?;
    b.adopt(&names[1], 2)?;
    a.knows(&names[0], 2)?;
    let away: String =
        names[2..].iter().map(|name| format!("link set {name} netns {}\n", a.name())).collect();
    let up: String = names[2..].iter().map(|name| format!("link set {name} up\n")).collect();
    ip_batch(None, &away)?;
    ip_batch(Some(&a), &up)?;
    std::thread::sleep(Duration::from_secs(1));
    progress(&format!("{}: idle for {seconds} s", daemon.name()));
    let cpu = lab.slice(Duration::from_millis(20), || {
        let (before, start) = (proc::cpu_ns(process.pid())?, Instant::now());
        std::thread::sleep(Duration::from_secs_f64(seconds));
        Ok((proc::cpu_ns(process.pid())? - before) as f64 / start.elapsed().as_nanos() as f64)
    })?;
    progress(&format!("{}: first frames", daemon.name()));
    let first = first_frames(lab, &a, &b, seconds)?;
    process.check()?;
    Ok(json!({
        "peer": daemon.name(), "cpu-percent": cpu.value * 100.0, "first-frame": first, "ready-seconds": ready,
        "clean": cpu.clean(),
    }))
}

/// The kernel's own path, for the same frames.
fn veth(lab: &Lab, seconds: f64) -> Result<Value> {
    progress("veth: first frames");
    let (a, b) = (Namespace::create("idle-a")?, Namespace::create("idle-b")?);
    let ports = ["a", "b"].map(|end| format!("n{}v{end}", std::process::id()));
    netns::ip(&format!("link add name {} type veth peer name {}", ports[0], ports[1]))?;
    a.adopt(&ports[0], 1)?;
    b.adopt(&ports[1], 2)?;
    a.knows(&ports[0], 2)?;
    Ok(json!({ "peer": "veth", "first-frame": first_frames(lab, &a, &b, seconds)? }))
}

/// A thread that sleeps in a read, then writes, on the CPU that the daemons have.
fn bare(lab: &Lab, seconds: f64) -> Result<Value> {
    progress("bare: first frames");
    let (a, b) = (Namespace::create("idle-a")?, Namespace::create("idle-b")?);
    let ports = ["a", "b"].map(|end| format!("n{}w{end}", std::process::id()));
    let mut command = std::process::Command::new(lab.tool("tapwire"));
    command.args(["--from", &ports[0], "--to", &ports[1], "--cpu", &lab.dut_cpu.to_string()]);
    let mut process = Process::spawn(command, "tapwire", lab.run.path())?;
    process.wait_for("ready")?;
    a.adopt(&ports[0], 1)?;
    b.adopt(&ports[1], 2)?;
    a.knows(&ports[0], 2)?;
    let first = first_frames(lab, &a, &b, seconds)?;
    process.check()?;
    Ok(json!({ "peer": "bare", "first-frame": first }))
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
    table.row(["", "CPU while idle, %", "first frame p50, µs", "p99", "p99.9", "lost", "ready after, s"]);
    for row in rows {
        let number = |value: &Value| figure(value.as_f64().unwrap_or(f64::NAN));
        let first = &row["first-frame"];
        table.row([
            row["peer"].as_str().unwrap_or("").to_string(),
            number(&row["cpu-percent"]),
            number(&first["p50-us"]),
            number(&first["p99-us"]),
            number(&first["p999-us"]),
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
        let row = |peer, p50, p99| json!({ "peer": peer, "first-frame": { "p50-us": p50, "p99-us": p99 } });
        let rows = [row("bare", 60.0, 150.0), row("qemu", 90.0, 200.0), row("netdevd", 70.5, 180.0)];
        let own = Processing::of(&rows).unwrap();
        assert_eq!((own.p50_us, own.p99_us), (10.5, 30.0));
        assert!(Processing::of(&rows[..2]).is_none());
    }
}
