//! `tapwire`: carries frames from one tap to another in the least way there is. Says `ready`, then runs until it is ended.

use bench::args::Args;
use bench::failure::{Failure, Result, exit};
use bench::load::wire;
use bench::sched;
use std::process::ExitCode;

const HELP: &str = "\
tapwire --from TAP --to TAP [--cpu N]
    Makes both taps, sleeps in a blocking read of the first and writes each frame to the second.";

fn main() -> ExitCode {
    exit("tapwire", run())
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
    let mut name = |option| {
        args.value::<String>(option)?.ok_or_else(|| Failure::new(format!("{option} is missing (--help)")))
    };
    let (from, to) = (wire::tap(&name("--from")?)?, wire::tap(&name("--to")?)?);
    args.finish()?;
    println!("ready");
    wire::carry(from, to)
}
