//! `compare qmp`: commands a second beside QEMU's, one by one and pipelined.

use crate::compare::lab::{Lab, progress, progress_done};
use crate::compare::peer::{Daemon, Peer};
use crate::compare::process::Process;
use crate::compare::stats::Spread;
use crate::compare::table::{Table, figure, ratio};
use crate::failure::{Context, Failure, Result};
use crate::load::qmp_rate::{self, Kind};
use crate::qmp::Qmp;
use crate::sched;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Commands sent together in the pipelined rows.
const PIPELINED: usize = 32;

/// How many times QEMU's rate netdevd must reach.
const WANT: f64 = 5.0;

/// A server that is measured. Its process ends with it.
#[derive(Debug)]
struct Server {
    name: &'static str,
    socket: PathBuf,
    process: Option<Process>,
}

impl Server {
    /// Commands a second. Only the server that is asked runs: one that polls would take the CPU from the others.
    fn rate(&self, lab: &Lab, kind: Kind, depth: usize, duration: Duration) -> Result<f64> {
        let client = || {
            sched::pin(lab.load_cpu)?;
            let mut qmp = Qmp::connect(&self.socket, Duration::from_secs(5))?;
            Ok(qmp_rate::measure(&mut qmp, kind, depth, duration)?.per_second)
        };
        self.process.iter().try_for_each(Process::thaw)?;
        let rate = std::thread::scope(|scope| scope.spawn(client).join());
        self.process.iter().try_for_each(Process::freeze)?;
        rate.map_err(|_| Failure::new("the client thread panicked"))?
    }
}

/// Runs the comparison and writes `qmp.json`.
///
/// # Errors
/// When a server fails, and with `check` when netdevd is below its target.
pub fn run(lab: &Lab, rounds: usize, slice: Duration, as_json: bool, check: bool) -> Result<()> {
    let servers = start_all(lab)?;
    let cases: Vec<(Kind, usize)> =
        Kind::ALL.into_iter().flat_map(|kind| [(kind, 1), (kind, PIPELINED)]).collect();
    // rates[case][server] holds one value a round.
    let mut rates = vec![vec![Vec::new(); servers.len()]; cases.len()];
    let mut disturbed = 0;
    for round in 0..rounds {
        for (&(kind, depth), rates) in cases.iter().zip(&mut rates) {
            for (server, rates) in servers.iter().zip(rates) {
                progress(&format!("round {}/{rounds}: {kind} by {depth} to {}", round + 1, server.name));
                let measured = lab.slice(Duration::from_millis(5), || server.rate(lab, kind, depth, slice));
                let measured = measured.context(server.name)?;
                disturbed += usize::from(!measured.clean());
                rates.push(measured.value);
            }
        }
    }
    progress_done();
    let rows: Vec<Value> =
        cases.iter().zip(&rates).map(|(&(kind, depth), rates)| row(kind, depth, &servers, rates)).collect();
    let report = json!({ "what": "compare qmp", "rounds": rounds, "disturbed": disturbed, "want": WANT, "rows": rows });
    let path = lab.reports.join("qmp.json");
    let text = serde_json::to_string_pretty(&report).context("report")?;
    std::fs::write(&path, &text).context(path.display())?;
    if as_json {
        println!("{text}");
    } else {
        print!("{}", table(&servers, &rows));
        println!(
            "\nCommands a second, medians of {rounds} rounds, disturbed slices {disturbed}.\n\
             echo: a bare socket that answers every line."
        );
        println!(
            "A ratio is the median of the rounds' ratios to QEMU; at least {WANT}x is wanted.\n{}",
            path.display()
        );
    }
    let ratios = rows.iter().flat_map(|row| row["times-qemu"].as_object().into_iter().flatten());
    let missed =
        ratios.filter(|(name, value)| name.starts_with("netdevd") && value["median"].as_f64() < Some(WANT));
    match check && missed.count() > 0 {
        true => Err(Failure::new(format!("below {WANT} times QEMU's rate"))),
        false => Ok(()),
    }
}

fn start_all(lab: &Lab) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for daemon in [Daemon::netdevd(lab), Daemon::netdevd_polling(lab), Daemon::qemu(lab)] {
        if let Some(why) = daemon.missing() {
            eprintln!("without {}: {why}", daemon.name());
            continue;
        }
        progress(&format!("starting {}", daemon.name()));
        let (process, socket) = daemon.launch(lab, &[])?;
        process.freeze()?;
        servers.push(Server { name: daemon.name(), socket, process: Some(process) });
    }
    let socket = lab.run.path().join("echo.sock");
    echo(&socket, lab.dut_cpu)?;
    servers.push(Server { name: "echo", socket, process: None });
    Ok(servers)
}

/// A server that answers every line with an empty return: what the socket and the wake-ups alone cost.
fn echo(path: &Path, cpu: usize) -> Result<()> {
    let listener = UnixListener::bind(path).context(path.display())?;
    std::thread::spawn(move || {
        let _ = sched::pin(cpu);
        for stream in listener.incoming().flatten() {
            let Ok(reader) = stream.try_clone() else { continue };
            let (mut reader, mut stream, mut line) = (BufReader::new(reader), stream, String::new());
            let mut answer = stream.write_all(b"{\"QMP\": {}}\r\n");
            while answer.is_ok() && reader.read_line(&mut line).is_ok_and(|length| length > 0) {
                line.clear();
                answer = stream.write_all(b"{\"return\": {}}\r\n");
            }
        }
    });
    Ok(())
}

fn row(kind: Kind, depth: usize, servers: &[Server], rates: &[Vec<f64>]) -> Value {
    let named = |name: &str| servers.iter().position(|server| server.name == name).map(|at| &rates[at]);
    let mut values = serde_json::Map::new();
    let mut ratios = serde_json::Map::new();
    for (server, own) in servers.iter().zip(rates) {
        values.insert(server.name.into(), Spread::of(own).map(|spread| spread.summary()).into());
        if let Some(qemu) = named("qemu").filter(|_| server.name != "qemu") {
            let quotients: Vec<f64> = own.iter().zip(qemu).map(|(ours, theirs)| ours / theirs).collect();
            ratios.insert(server.name.into(), Spread::of(&quotients).map(|spread| spread.summary()).into());
        }
    }
    json!({ "command": kind.to_string(), "depth": depth, "per-second": values, "times-qemu": ratios })
}

fn table(servers: &[Server], rows: &[Value]) -> Table {
    let mut table = Table::default();
    let compared: Vec<&str> =
        servers.iter().map(|server| server.name).filter(|name| name.starts_with("netdevd")).collect();
    let mut head = vec!["commands".to_string(), "at once".into()];
    head.extend(servers.iter().map(|server| server.name.to_string()));
    head.extend(compared.iter().map(|name| format!("{name}/qemu")));
    table.row(head);
    for row in rows {
        let cell = |group: &str, name: &str| row[group][name]["median"].as_f64().unwrap_or(f64::NAN);
        let mut cells = vec![row["command"].as_str().unwrap_or("").to_string(), row["depth"].to_string()];
        cells.extend(servers.iter().map(|server| figure(cell("per-second", server.name))));
        cells.extend(compared.iter().map(|name| ratio(cell("times-qemu", name))));
        table.row(cells);
    }
    table
}
