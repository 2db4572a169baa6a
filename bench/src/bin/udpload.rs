//! `udpload`: a UDP sender and sink for measurements. Prints one JSON line.

use bench::args::Args;
use bench::failure::{Context, Failure, Result, exit};
use bench::load::send::{self, Load};
use bench::load::sink::{Reader, Unread};
use bench::{proc, sched};
use std::io::{Read, Write};
use std::net::SocketAddrV4;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const HELP: &str = "\
udpload send --to ADDR:PORT [--size 64] [--secs 1] [--flows 1] [--uso] [--rate DATAGRAMS/S] [--cpu N]
             [--until-eof]
    Sends UDP datagrams of --size bytes of payload: singly (sendmmsg), or with --uso many in one
    UDP_SEGMENT send. Flow n goes to PORT+n, one datagram of each flow in turn. With --until-eof the
    end of standard input ends it before its time.
udpload sink --at ADDR:PORT [--flows 1] [--cpu N]
    Holds PORT.. open and never reads: the kernel counts what arrives (RcvbufErrors). Ends when its
    standard input does, and prints what arrived.
udpload sink --at ADDR:PORT --read [--gro] [--cpu N]
    Reads instead (recvmmsg), with --gro many datagrams at once (UDP_GRO).";

fn main() -> ExitCode {
    exit("udpload", run())
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
    match args.word().as_deref() {
        Some("send") => sender(args),
        Some("sink") => sink(args),
        _ => Err(Failure::new("send or sink? (--help)")),
    }
}

fn sender(mut args: Args) -> Result<()> {
    let size = args.value("--size")?.unwrap_or(64);
    let load = Load {
        to: args.value("--to")?.ok_or_else(|| Failure::new("--to ADDR:PORT is missing"))?,
        size,
        flows: args.value("--flows")?.unwrap_or(1),
        segments: if args.flag("--uso") { send::most_segments(size) } else { 1 },
        rate: args.value("--rate")?,
        duration: Duration::from_secs_f64(args.value("--secs")?.unwrap_or(1.0)),
    };
    let until_end = args.flag("--until-eof");
    args.finish()?;
    let stop = if until_end { set_at_end() } else { Arc::default() };
    println!("{}", send::run(&load, &stop)?.summary());
    Ok(())
}

fn sink(mut args: Args) -> Result<()> {
    let at: SocketAddrV4 = args.value("--at")?.ok_or_else(|| Failure::new("--at ADDR:PORT is missing"))?;
    let flows = args.value("--flows")?.unwrap_or(1);
    let (read, gro) = (args.flag("--read"), args.flag("--gro"));
    args.finish()?;
    let before = proc::udp(std::process::id())?;
    let total = if read {
        let reader = Reader::bind(at, gro)?;
        ready()?;
        let ended = set_at_end();
        let mut total = 0;
        while !ended.load(Ordering::Relaxed) {
            total += reader.read_some()?;
        }
        total
    } else {
        let _unread = Unread::bind(at, flows)?;
        ready()?;
        wait_for_end();
        0
    };
    let after = proc::udp(std::process::id())?;
    let (arrived, dropped) = (after.arrived() - before.arrived(), after.rcvbuf_errors - before.rcvbuf_errors);
    println!("{}", serde_json::json!({ "read": total, "arrived": arrived, "rcvbuf-errors": dropped }));
    Ok(())
}

/// Tells whoever started us that the ports are open.
fn ready() -> Result<()> {
    println!("ready");
    std::io::stdout().flush().context("standard output")
}

fn wait_for_end() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// A flag that the end of standard input sets.
fn set_at_end() -> Arc<AtomicBool> {
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    std::thread::spawn(move || {
        wait_for_end();
        flag.store(true, Ordering::Relaxed);
    });
    ended
}
