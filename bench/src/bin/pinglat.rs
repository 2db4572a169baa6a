//! `pinglat`: round trips and one-way times with their percentiles. Prints one JSON line.

use bench::args::Args;
use bench::failure::{Failure, Result, exit};
use bench::load::ping::{self, Pace, Trips};
use bench::sched;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
pinglat icmp --to ADDR [--secs 1] [--interval-us 0] [--size 56] [--cpu N]
    Round trips to the kernel's ICMP echo (net.ipv4.ping_group_range must include this group).
pinglat udp --to ADDR:PORT [the same options]
    Round trips to `pinglat echo`.
pinglat echo --at ADDR:PORT [--cpu N]
    Answers every datagram; an empty one ends it.
pinglat oneway --from NETNS --in NETNS --to ADDR:PORT [--interval-us 20000] [the same options]
    Single frames from a socket in one namespace to one in the other, up to the kernel's receive stamp.";

fn main() -> ExitCode {
    exit("pinglat", run())
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
    let mode = args.word();
    let rest = if mode.as_deref() == Some("oneway") { 20_000 } else { 0 };
    let pace = Pace {
        duration: Duration::from_secs_f64(args.value("--secs")?.unwrap_or(1.0)),
        interval: Duration::from_micros(args.value("--interval-us")?.unwrap_or(rest)),
        size: args.value("--size")?.unwrap_or(56),
    };
    let trips: Trips = match mode.as_deref() {
        Some("icmp") => {
            let to: Ipv4Addr = needed(&mut args, "--to")?;
            args.finish()?;
            ping::icmp(SocketAddrV4::new(to, 0), pace)?
        }
        Some("udp") => {
            let to = needed(&mut args, "--to")?;
            args.finish()?;
            ping::udp(to, pace)?
        }
        Some("echo") => {
            let at = needed(&mut args, "--at")?;
            args.finish()?;
            return ping::echo(at);
        }
        Some("oneway") => {
            let (from, there): (String, String) = (needed(&mut args, "--from")?, needed(&mut args, "--in")?);
            let to = needed(&mut args, "--to")?;
            args.finish()?;
            ping::one_way(&from, &there, to, pace)?
        }
        _ => return Err(Failure::new("icmp, udp, echo or oneway? (--help)")),
    };
    println!("{}", trips.summary());
    Ok(())
}

fn needed<T: std::str::FromStr>(args: &mut Args, name: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    args.value(name)?.ok_or_else(|| Failure::new(format!("{name} is missing (--help)")))
}
