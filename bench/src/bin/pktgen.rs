//! `pktgen`: a light guest on vhost-user sockets, for measurements. Prints one JSON line.

use bench::args::Args;
use bench::failure::{Failure, Result, exit};
use bench::pktgen::{Report, Run, Shape, run};
use bench::sched;
use engine::virtq::packed::PackedDriver;
use engine::virtq::split::SplitDriver;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
pktgen SOCKET... [--size 64] [--ring 256] [--packed] [--no-mergeable] [--in-order] [--secs 1] [--warm 0.5] [--cpu N]
    A guest on each vhost-user socket: transmits frames of --size bytes as fast as they are taken, and takes what
    comes. Two sockets joined by a switch are loaded both ways.";

fn main() -> ExitCode {
    exit("pktgen", start())
}

fn start() -> Result<()> {
    let mut args = Args::from_env();
    if args.flag("--help") {
        println!("{HELP}");
        return Ok(());
    }
    if let Some(cpu) = args.value("--cpu")? {
        sched::pin(cpu)?;
    }
    let shape = Shape {
        ring: args.value("--ring")?.unwrap_or(256),
        packed: args.flag("--packed"),
        mergeable: !args.flag("--no-mergeable"),
        in_order: args.flag("--in-order"),
        size: args.value("--size")?.unwrap_or(64),
    };
    let duration = Duration::from_secs_f64(args.value("--secs")?.unwrap_or(1.0));
    let warm = Duration::from_secs_f64(args.value("--warm")?.unwrap_or(0.5));
    let mut sockets = Vec::new();
    while let Some(word) = args.word() {
        sockets.push(PathBuf::from(word));
    }
    args.finish()?;
    if sockets.is_empty() {
        return Err(Failure::new("no socket (--help)"));
    }
    let job = Run { sockets, shape, duration, warm };
    let Report { secs, sent, received, busy, cycles } =
        if shape.packed { run::<PackedDriver>(&job)? } else { run::<SplitDriver>(&job)? };
    println!(
        "{}",
        serde_json::json!({
            "secs": secs, "sent": sent, "received": received, "mpps": received as f64 / secs / 1e6,
            "busy": busy, "cycles": cycles,
        })
    );
    Ok(())
}
