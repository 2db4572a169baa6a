//! `qmprate`: QMP commands a second of any server on a unix socket. Prints one JSON line.

use bench::args::Args;
use bench::failure::{Failure, Result, exit};
use bench::load::qmp_rate::{self, Kind};
use bench::qmp::Qmp;
use bench::sched;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
qmprate SOCKET [--kind netdev_add/del|query-commands] [--depth 1] [--secs 1] [--cpu N]
    Sends commands in groups of --depth, the next group when the last is answered. netdev_add/del adds
    and deletes hubports of hub 77; query-commands only asks.";

fn main() -> ExitCode {
    exit("qmprate", run())
}

fn run() -> Result<()> {
    let mut args = Args::from_env();
    if args.flag("--help") {
        println!("{HELP}");
        return Ok(());
    }
    if let Some(cpu) = args.value("--cpu")? {
        sched::pin(cpu)?;
    }
    let kind = args.value("--kind")?.unwrap_or(Kind::Hubport);
    let depth = args.value("--depth")?.unwrap_or(1);
    let duration = Duration::from_secs_f64(args.value("--secs")?.unwrap_or(1.0));
    let socket = args.word().map(PathBuf::from).ok_or_else(|| Failure::new("which socket? (--help)"))?;
    args.finish()?;
    let mut qmp = Qmp::connect(&socket, Duration::from_secs(5))?;
    let rate = qmp_rate::measure(&mut qmp, kind, depth, duration)?;
    let mut summary = rate.times.summary();
    summary["per-second"] = rate.per_second.into();
    println!("{summary}");
    Ok(())
}
