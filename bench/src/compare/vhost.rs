//! `compare vhost`: two nics on a hub of two ports beside DPDK's testpmd with two `net_vhost` ports, each on one core, loaded
//! both ways by the same light guest (`pktgen`) on the other.
//!
//! What counts is the busy time a frame: from a poll that found frames to the end of their transmission, as testpmd's
//! `--record-core-cycles` and `query-net-stats` both count it.

use crate::compare::lab::{Lab, progress, progress_done};
use crate::compare::process::Process;
use crate::compare::stats::Spread;
use crate::compare::table::{Table, figure, ratio};
use crate::failure::{Context, Failure, Result};
use crate::qmp::Qmp;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Before the load is even.
const WARM: Duration = Duration::from_millis(300);
/// How long is counted.
const COUNTED: Duration = Duration::from_millis(700);

/// A row of the table.
struct Case {
    name: &'static str,
    /// Options of `pktgen`.
    options: &'static [&'static str],
    /// How many times fewer cycles are wanted.
    want: f64,
}

const CASES: &[Case] = &[
    Case { name: "split, 64 B", options: &["--size", "64"], want: 2.0 },
    Case { name: "packed, 64 B", options: &["--size", "64", "--packed"], want: 1.7 },
    Case { name: "split, not mergeable, 64 B", options: &["--size", "64", "--no-mergeable"], want: 2.0 },
    Case { name: "split, 256 B", options: &["--size", "256"], want: 1.5 },
    Case { name: "split, 1518 B", options: &["--size", "1518"], want: 1.5 },
    Case { name: "packed, 1518 B", options: &["--size", "1518", "--packed"], want: 1.5 },
];

/// What one leg came to.
#[derive(Debug, Clone, Copy)]
struct Leg {
    /// Busy cycles a frame.
    cycles: f64,
    /// Million frames a second, both directions.
    mpps: f64,
    /// Busy share of the load.
    load: f64,
}

/// Runs the comparison and writes `vhost.json`.
///
/// # Errors
/// When a peer fails, and with `check` when a target is missed.
pub fn run(lab: &Lab, rounds: usize, as_json: bool, check: bool) -> Result<()> {
    if lab.dut_cpu == lab.load_cpu {
        return Err(Failure::new("two CPUs are needed"));
    }
    let mut table = Table::default();
    table.row([
        "ring, frame",
        "cycles a frame",
        "testpmd",
        "fewer",
        "want",
        "Mpps",
        "testpmd",
        "more",
        "load busy",
        "testpmd's",
    ]);
    let (mut rows, mut missed, mut far, mut slices) = (Vec::new(), false, 0, 0);
    for case in CASES {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            progress(&format!("{}: round {}/{rounds}", case.name, round + 1));
            let slice =
                lab.slice(Duration::from_millis(50), || Ok((netdevd(lab, case)?, testpmd(lab, case)?)))?;
            far += usize::from(slice.far());
            slices += 1;
            ours.push(slice.value.0);
            theirs.push(slice.value.1);
        }
        let of = |legs: &[Leg], pick: fn(&Leg) -> f64| Spread::of(&legs.iter().map(pick).collect::<Vec<_>>());
        let times = |pick: fn(&Leg, &Leg) -> f64| {
            Spread::of(&ours.iter().zip(&theirs).map(|(a, b)| pick(a, b)).collect::<Vec<_>>())
        };
        let fewer = times(|a, b| b.cycles / a.cycles);
        let more = times(|a, b| a.mpps / b.mpps);
        let median = |spread: Option<Spread>| spread.map_or(f64::NAN, |spread| spread.median);
        let short = median(fewer) < case.want;
        missed |= short;
        table.row([
            case.name.to_owned(),
            figure(median(of(&ours, |leg| leg.cycles))),
            figure(median(of(&theirs, |leg| leg.cycles))),
            ratio(median(fewer)),
            format!("{}{}", ratio(case.want), if short { " MISS" } else { "" }),
            figure(median(of(&ours, |leg| leg.mpps))),
            figure(median(of(&theirs, |leg| leg.mpps))),
            ratio(median(more)),
            format!("{:.0} %", 100.0 * median(of(&ours, |leg| leg.load))),
            format!("{:.0} %", 100.0 * median(of(&theirs, |leg| leg.load))),
        ]);
        let summary = |spread: Option<Spread>| spread.map(|spread| spread.summary());
        rows.push(json!({
            "case": case.name, "want": case.want, "times-fewer-cycles": summary(fewer), "times-more-mpps": summary(more),
            "netdevd-cycles": summary(of(&ours, |leg| leg.cycles)), "testpmd-cycles": summary(of(&theirs, |leg| leg.cycles)),
            "netdevd-mpps": summary(of(&ours, |leg| leg.mpps)), "testpmd-mpps": summary(of(&theirs, |leg| leg.mpps)),
        }));
    }
    progress_done();
    let report =
        json!({"what": "compare vhost", "rounds": rounds, "slices": slices, "far": far, "rows": rows});
    let path = lab.reports.join("vhost.json");
    let text = serde_json::to_string_pretty(&report).context("report")?;
    std::fs::write(&path, &text).context(path.display())?;
    if as_json {
        println!("{text}");
    } else {
        print!("{table}");
        println!(
            "\nTSC cycles from a poll that found frames to the end of their transmission; medians of {rounds} rounds, in {far} of \
             {slices} slices\nthe CPUs shared no cache. Load: pktgen on both sockets, both ways, as fast as its rings take frames. \
             Where the load is\nbusy all the time, it and not the switch bounds the rate."
        );
        println!("{}", path.display());
    }
    match check && missed {
        true => Err(Failure::new("a target is missed")),
        false => Ok(()),
    }
}

/// Starts the load, calls `begin` and `end` around what counts, and reads the load's own account.
fn load<T>(
    lab: &Lab,
    case: &Case,
    sockets: &[PathBuf; 2],
    mut begin: impl FnMut() -> Result<T>,
    end: impl FnOnce(T) -> Result<f64>,
) -> Result<Leg> {
    let mut command = Command::new(lab.tool("pktgen"));
    let secs = (WARM + COUNTED + WARM).as_secs_f64().to_string();
    command.args(sockets).args(case.options);
    command.args([
        "--cpu",
        &lab.load_cpu.to_string(),
        "--warm",
        &WARM.as_secs_f64().to_string(),
        "--secs",
        &secs,
    ]);
    let process = Process::spawn(command, "pktgen", lab.run.path())?;
    // The load connects and warms up; then the measurement lies well within its time.
    std::thread::sleep(WARM + WARM);
    let before = begin()?;
    std::thread::sleep(COUNTED);
    let cycles = end(before)?;
    let said = process.finish(Duration::from_secs(20))?;
    let line = said.lines().find(|line| line.starts_with('{')).unwrap_or_default();
    let report: Value = serde_json::from_str(line).context("pktgen's report")?;
    let number = |name: &str| report[name].as_f64().unwrap_or(f64::NAN);
    Ok(Leg { cycles, mpps: number("mpps"), load: number("busy") })
}

fn sockets(directory: &Path) -> [PathBuf; 2] {
    [directory.join("n0.sock"), directory.join("n1.sock")]
}

fn netdevd(lab: &Lab, case: &Case) -> Result<Leg> {
    let directory = tempfile::tempdir_in(lab.run.path()).context("a directory")?;
    let sockets = sockets(directory.path());
    let qmp = directory.path().join("qmp.sock");
    let mut command = Command::new(lab.binaries.join("netdevd"));
    command.args(["-cores", &lab.dut_cpu.to_string(), "-idle", "poll"]);
    command.args(["-qmp", &format!("unix:{},server=on,wait=off", qmp.display())]);
    for (number, socket) in sockets.iter().enumerate() {
        command.args(["-netdev", &format!("hubport,id=h{number},hubid=0")]);
        command.args(["-netdev", &format!("nic,id=n{number},netdev=h{number},addr={}", socket.display())]);
    }
    let _daemon = Process::spawn(command, "netdevd", directory.path())?;
    let mut qmp = Qmp::connect(&qmp, Duration::from_secs(10))?;
    let mut read = || -> Result<[f64; 2]> {
        let stats = qmp.execute("query-net-stats", json!({}))?;
        let sum = |pick: &dyn Fn(&Value) -> Option<f64>| -> f64 {
            stats["workers"].as_array().into_iter().flatten().filter_map(pick).sum()
        };
        Ok([sum(&|w| w["ticks"]["busy"].as_f64()), sum(&|w| w["frames"].as_f64())])
    };
    let before = std::cell::RefCell::new(&mut read);
    load(
        lab,
        case,
        &sockets,
        || (before.borrow_mut())(),
        |[busy, frames]| {
            let [later, more] = (before.borrow_mut())()?;
            Ok((later - busy) / (more - frames).max(1.0))
        },
    )
}

/// testpmd, told what to do by its standard input; what it prints is read at its end.
struct Testpmd(Child);

impl Testpmd {
    fn say(&mut self, line: &str) -> Result<()> {
        let input = self.0.stdin.as_mut().ok_or_else(|| Failure::new("testpmd's input is closed"))?;
        writeln!(input, "{line}").context("testpmd")
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn testpmd(lab: &Lab, case: &Case) -> Result<Leg> {
    let directory = tempfile::tempdir_in(lab.run.path()).context("a directory")?;
    let sockets = sockets(directory.path());
    let out = directory.path().join("testpmd.log");
    let file = std::fs::File::create(&out).context(out.display())?;
    let lcores = format!("0@{0},1@{0}", lab.dut_cpu);
    let mut command = Command::new("dpdk-testpmd");
    command.args(["--lcores", &lcores, "--no-pci", "--in-memory", "--single-file-segments", "-m", "512"]);
    command.args(["--file-prefix", "netdevd-compare"]);
    for (number, socket) in sockets.iter().enumerate() {
        command.args(["--vdev", &format!("net_vhost{number},iface={},queues=1", socket.display())]);
    }
    command.args([
        "--",
        "-i",
        "--record-core-cycles",
        "--nb-cores=1",
        "--forward-mode=io",
        "--txd=1024",
        "--rxd=1024",
    ]);
    let child = command.stdin(Stdio::piped()).stdout(file).stderr(Stdio::null()).spawn();
    let mut child = Testpmd(child.context("dpdk-testpmd")?);
    let until = Instant::now() + Duration::from_secs(20);
    while !sockets.iter().all(|socket| socket.exists()) {
        if Instant::now() > until || child.0.try_wait().context("dpdk-testpmd")?.is_some() {
            return Err(Failure::new(
                "dpdk-testpmd did not start; it needs free hugepages (vm.nr_hugepages=512)",
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.say("start")?;
    let child = std::cell::RefCell::new(child);
    let leg = load(
        lab,
        case,
        &sockets,
        || child.borrow_mut().say("clear fwd stats all"),
        |()| child.borrow_mut().say("show fwd stats all").map(|()| f64::NAN),
    )?;
    let mut child = child.into_inner();
    child.say("stop")?;
    child.say("quit")?;
    drop(child.0.stdin.take());
    let until = Instant::now() + Duration::from_secs(10);
    while child.0.try_wait().context("dpdk-testpmd")?.is_none() {
        if Instant::now() > until {
            return Err(Failure::new("dpdk-testpmd did not end"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let text = std::fs::read_to_string(&out).context(out.display())?;
    let cycles = cycles(&text).ok_or_else(|| Failure::new("testpmd printed no cycles a packet"))?;
    Ok(Leg { cycles, ..leg })
}

/// The first figure that `show fwd stats all` printed.
fn cycles(text: &str) -> Option<f64> {
    let rest = text.split("CPU cycles/packet=").nth(1)?;
    rest.split(|c: char| !(c.is_ascii_digit() || c == '.')).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_first_figure_of_testpmd_counts() {
        let text = "testpmd> show fwd stats all\n  CPU cycles/packet=162.37 (total cycles=1 / total RX packets=2) at 2596 MHz Clock\n  CPU cycles/packet=170.00 (";
        assert_eq!(super::cycles(text), Some(162.37));
        assert_eq!(super::cycles("nothing"), None);
    }
}
