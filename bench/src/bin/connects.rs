//! `connects`: short TCP connections one after the other, for measurements. Prints one JSON line.

use bench::args::Args;
use bench::failure::{Context, Failure, Result, exit};
use bench::load::connects;
use std::io::Write;
use std::net::SocketAddrV4;
use std::process::ExitCode;

const HELP: &str = "\
connects run --to ADDR:PORT [--count 10000]
    Connects, reads a byte and the end, closes; again and again. The rate of all, of the first and of the last thousand.
connects serve --at ADDR:PORT
    Says a byte to whoever connects, and closes. Ends by a signal.";

fn main() -> ExitCode {
    exit("connects", run())
}

fn run() -> Result<()> {
    let mut args = Args::from_env();
    if args.flag("--help") {
        println!("{HELP}");
        return Ok(());
    }
    let mode = args.word();
    let address = |args: &mut Args, name: &str| -> Result<SocketAddrV4> {
        args.value(name)?.ok_or_else(|| Failure::new(format!("{name} ADDR:PORT is missing")))
    };
    match mode.as_deref() {
        Some("run") => {
            let to = address(&mut args, "--to")?;
            let count = args.value("--count")?.unwrap_or(10_000);
            args.finish()?;
            println!("{}", connects::run(to, count)?.summary());
            Ok(())
        }
        Some("serve") => {
            let at = address(&mut args, "--at")?;
            args.finish()?;
            connects::serve(at, || {
                println!("ready");
                std::io::stdout().flush().context("standard output")
            })
        }
        _ => Err(Failure::new("run or serve? (--help)")),
    }
}
