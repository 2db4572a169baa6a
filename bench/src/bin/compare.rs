//! `compare`: netdevd beside its peers. `scripts/compare` builds and runs it.

use bench::args::Args;
use bench::compare::lab::{Lab, catch_signals};
use bench::compare::{
    af_xdp, churn, coalesce, filters, idle, link, qmp, soak, switch, tap, user, vhost, wire,
};
use bench::failure::{Failure, Result, exit};
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
scripts/compare tap    two namespaces joined by netdevd, QEMU's hub, the kernel's bridge, a veth pair:
                       TCP, UDP, ping; [--rounds 5] [--secs 1] [--quick] [--check] [--peer NAME]...
                       [--only WORKLOAD]...
scripts/compare qmp    QMP commands a second beside QEMU's; [--rounds 5] [--secs 1]
scripts/compare link   the link between workers beside DPDK's rte_ring
scripts/compare vhost  two nics on a hub beside testpmd with two vhost ports, the same load on both;
                       [--part cycles|zero-loss|latency|foreign|workers]... [--only split-64]... [--ring 1024] [--quick] [--check]
scripts/compare af-xdp af-xdp netdevs on veth pairs beside testpmd with net_af_xdp and net_af_packet;
                       [--part rx|tx|forward|guest|full-forward|full-guest]... [--only xdp-64]... [--quick] [--check] [--same]
                       --part churn: two interfaces at full rate for --secs (600), while netdevs come and go beside them
scripts/compare switch three nics on a learning switch beside OVS-DPDK, and beside a hub of two ports;
                       [--part unicast|static|flood|hub]... [--only split-64]... [--flooding] [--quick] [--check]
scripts/compare wire   socket, dgram, stream and l2tpv3 netdevs beside QEMU's, vde beside vde_plug2tap, vxlan beside the kernel's device;
                       [--part frames|tcp|vde|vxlan]... [--only dgram|tap-dgram|...]... [--spread] [--quick] [--check] [--same]
scripts/compare filters   64 bytes between two nics without and with a filter-dump, beside tcpdump on a veth and QEMU's filter-dump;
                       how exactly filter-limit holds its rate, and what filters cost that are off;
                       [--rate 5000000] [--part dump|tcpdump|qemu|limit|off]... [--quick] [--check]
scripts/compare user   a namespace behind a user netdev beside QEMU's, slirp4netns and pasta: TCP both ways at MTU 1500 and 65520, UDP,
                       short connections, and a profile of netdevd and of pasta; [--rounds 5] [--secs 1]
                       [--part tcp|udp|connect|profile]... [--only tcp-1500-in]... [--peer NAME]... [--quick] [--check]
scripts/compare kernel the kernel's devices, inside a guest: vhost-net beside a tap without it, vhost-vdpa beside the bare ioctls of a
                       simulated device; [--rounds 5] [--secs 2] [--frames 10000000] [--quick] [--check]
scripts/compare coalesce  a guest's datagrams into a tap, beside one write a datagram
scripts/compare soak   DPDK's guests and back-ends, and pktgen, for --secs (60) each: nothing lost, nothing changed; [--only dpdk-split-64]...
scripts/compare churn  netdevs and filters added and removed under traffic; [--pairs 10000]
scripts/compare idle   100 idle taps: CPU share, and the first frame after a rest; [--taps 100]
vhost, af-xdp, switch, wire and coalesce count only what was measured while both CPUs shared a cache; --any-placement counts all.
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
    let mut lab = Lab::open(args.value("--lock")?)?;
    lab.any_placement = args.flag("--any-placement");
    let quick = args.flag("--quick");
    let rounds = args.value("--rounds")?.unwrap_or(if quick { 2 } else { 5 });
    let secs: Option<f64> = args.value("--secs")?;
    let slice = Duration::from_secs_f64(secs.unwrap_or(1.0));
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
            let (parts, only) = (all(&mut args, "--part")?, all(&mut args, "--only")?);
            let ring = args.value("--ring")?;
            args.finish()?;
            vhost::run(&lab, &vhost::Options { quick, json, check, ring, parts, only })
        }
        Some("af-xdp") => {
            let (parts, only) = (all(&mut args, "--part")?, all(&mut args, "--only")?);
            let same = args.flag("--same");
            args.finish()?;
            let length = Duration::from_secs_f64(secs.unwrap_or(if quick { 20.0 } else { 600.0 }));
            if parts == ["churn"] {
                return af_xdp::churn::run(&lab, length, json);
            }
            af_xdp::run(&lab, &af_xdp::Options { quick, json, check, parts, only, same })
        }
        Some("switch") => {
            let (parts, only) = (all(&mut args, "--part")?, all(&mut args, "--only")?);
            let flooding = args.flag("--flooding");
            args.finish()?;
            switch::run(&lab, &switch::Options { quick, json, check, flooding, parts, only })
        }
        Some("wire") => {
            let (parts, only) = (all(&mut args, "--part")?, all(&mut args, "--only")?);
            let (same, spread) = (args.flag("--same"), args.flag("--spread"));
            args.finish()?;
            wire::run(&lab, &wire::Options { quick, json, check, parts, only, same, spread })
        }
        Some("user") => {
            let (parts, only) = (all(&mut args, "--part")?, all(&mut args, "--only")?);
            let peers = all(&mut args, "--peer")?;
            args.finish()?;
            user::run(&lab, &user::Options { rounds, slice, quick, json, check, parts, only, peers })
        }
        Some("filters") => {
            let parts = all(&mut args, "--part")?;
            let rate = args.value("--rate")?.unwrap_or(5e6);
            args.finish()?;
            filters::run(&lab, &filters::Options { quick, json, check, parts, rate })
        }
        Some("coalesce") => {
            args.finish()?;
            coalesce::run(&lab, quick, json, check)
        }
        Some("soak") => {
            let only = all(&mut args, "--only")?;
            args.finish()?;
            let length = Duration::from_secs_f64(secs.unwrap_or(if quick { 3.0 } else { 60.0 }));
            soak::run(&lab, length, &only, json)
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
        _ => Err(Failure::new(
            "tap, qmp, link, vhost, af-xdp, switch, wire, user, filters, coalesce, soak, churn or idle? (--help)",
        )),
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
