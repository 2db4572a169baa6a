//! `compare`: netdevd beside its peers. `scripts/compare` builds and runs it.

use bench::args::Args;
use bench::compare::lab::{Lab, catch_signals};
use bench::compare::{churn, idle, link, qmp, tap, vhost};
use bench::failure::{Failure, Result, exit};
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
scripts/compare tap    two namespaces joined by netdevd, QEMU's hub, the kernel's bridge, a veth pair:
                       TCP, UDP, ping; [--rounds 5] [--secs 1] [--quick] [--check] [--peer NAME]...
                       [--only WORKLOAD]...
scripts/compare qmp    QMP commands a second beside QEMU's; [--rounds 5] [--secs 1]
scripts/compare link   the link between workers beside DPDK's rte_ring
scripts/compare vhost  two nics on a hub beside testpmd with two vhost ports, the same load on both
scripts/compare churn  netdevs and filters added and removed under traffic; [--pairs 10000]
scripts/compare idle   100 idle taps: CPU share, and the first frame after a rest; [--taps 100]
All: --json prints the report instead of the table; --lock FILE keeps measurements apart.
Reports go to target/compare. $QEMU names another QEMU.";

fn main() -> ExitCode {
    exit("compare", run())
}

fn run() -> Result<()> {
    let mut args = Args::from_env();
    if args.flag("--help") {
        println!("{HELP}");
        return Ok(());
    }
    catch_signals()?;
    let lab = Lab::open(args.value("--lock")?)?;
    let quick = args.flag("--quick");
    let rounds = args.value("--rounds")?.unwrap_or(if quick { 2 } else { 5 });
    let slice = Duration::from_secs_f64(args.value("--secs")?.unwrap_or(1.0));
    let json = args.flag("--json");
    let check = args.flag("--check");
    match args.word().as_deref() {
        Some("tap") => {
            let (peers, only) = (all(&mut args, "--peer")?, all(&mut args, "--only")?);
            args.finish()?;
            tap::run(&lab, &tap::Options { rounds, slice, json, check, peers, only })
        }
        Some("qmp") => {
            args.finish()?;
            qmp::run(&lab, rounds, slice, json, check)
        }
        Some("link") => {
            args.finish()?;
            link::run(&lab, rounds.min(3), json, check)
        }
        Some("vhost") => {
            args.finish()?;
            vhost::run(&lab, rounds, json, check)
        }
        Some("churn") => {
            let pairs = args.value("--pairs")?.unwrap_or(if quick { 500 } else { 10_000 });
            let peer = args.value::<String>("--peer")?.unwrap_or_else(|| "netdevd".into());
            args.finish()?;
            churn::run(&lab, &peer, pairs, json)
        }
        Some("idle") => {
            let taps = args.value("--taps")?.unwrap_or(100);
            args.finish()?;
            idle::run(&lab, taps, if quick { 2.0 } else { 10.0 }, json, check)
        }
        _ => Err(Failure::new("tap, qmp, link, vhost, churn or idle? (--help)")),
    }
}

/// All values of an option that may come several times.
fn all(args: &mut Args, name: &str) -> Result<Vec<String>> {
    let mut values = Vec::new();
    while let Some(value) = args.value(name)? {
        values.push(value);
    }
    Ok(values)
}
