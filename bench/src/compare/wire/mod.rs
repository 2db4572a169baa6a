//! `compare wire`: netdevs that go over a wire (`socket`, `stream`, `dgram`, `l2tpv3`, `vde`, `vxlan`) beside QEMU's, beside VDE's own plugs and
//! beside the kernel's VXLAN device.
//!
//! `frames`: 64 bytes through one daemon with two netdevs on a hub, alone on its core, from a source and to a sink on the other one: an unread
//! socket, a tap's counter, or for a stream a reader that discards. QEMU's cost is the CPU time of its process; netdevd looks for
//! frames all the time, so its cost is what it counts itself, from a poll that found frames to the end of their transmission. `vde`: the
//! same between a tap and a `vde_switch`. `tcp` and `vxlan`: one flow of iperf3 between two hosts, with a daemon on each.
//!
//! Quads and legs are those of `compare vhost` ([`super::vhost`]).

pub mod cases;
pub mod duts;
pub mod frames;
pub mod hosts;
mod jobs;
pub mod load;
pub mod tcp;
pub mod turns;
pub mod vde;

use self::jobs::Job;
use self::turns::Turns;
use super::vhost::quads::{Plan, Quads, before_others};
use super::vhost::report::{How, Made, Row};
use crate::compare::lab::Lab;
use crate::compare::netns;
use crate::failure::{Failure, Result};
use std::time::Duration;

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Fewer samples.
    pub quick: bool,
    /// Print JSON instead of the tables.
    pub json: bool,
    /// Fail when a target is missed or cannot be judged.
    pub check: bool,
    /// Only these parts (`frames`, `tcp`, `vde`, `vxlan`); empty for all.
    pub parts: Vec<String>,
    /// Only these rows: a transport (`dgram`), of `frames` and `vde` also a way (`tap-dgram`, `dgram-dgram`, `dgram-tap`); empty for all.
    pub only: Vec<String>,
    /// The peer in netdevd's place (of `vde`: QEMU): what the method itself makes of two that are the same.
    pub same: bool,
    /// Of `tcp` and `vxlan`: a CPU for each host, with its daemon and its program.
    pub spread: bool,
}

const PARTS: [&str; 4] = ["frames", "tcp", "vde", "vxlan"];

const LEGEND: &str = "better: median over n near quads (A B B A within seconds) with its 95 % interval. frames, vde: 64 bytes, one way; the\n\
     target is one of frames a second where the load is more than they can do; where it is too slow for that, one of those\n\
     that half a CPU does (it is taken away for 0.5 ms of each), else of CPU time a frame that arrives (QEMU, plugs: of the process;\n\
     netdevd: busy ticks). The vde_switch has the load's CPU. tcp, vxlan: iperf3, one flow, inner MTU 1500, both hosts over one veth\n\
     pair; no-gso: packets of the tunnel are cut before they cross it, on both sides.";

/// Runs the comparison and writes `wire.json` and `wire.svg`.
///
/// # Errors
/// When the load fails, and with `check` when a target is missed.
pub fn run(lab: &Lab, options: &Options) -> Result<()> {
    if lab.dut_cpu == lab.load_cpu {
        return Err(Failure::new("two CPUs are needed"));
    }
    if let Some(part) = options.parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        return Err(Failure::new(format!("part {part}: {}", PARTS.join(", "))));
    }
    let wanted = |part: &&str| options.parts.is_empty() || options.parts.iter().any(|name| name == part);
    let named = |job: &Job| options.only.is_empty() || options.only.iter().any(|word| job.is(word));
    let jobs = |part: &'static str| Job::of(part).into_iter().filter(named).map(move |job| (part, job));
    let all: Vec<(&'static str, Job)> = PARTS.into_iter().filter(wanted).flat_map(jobs).collect();
    let plan = Plan::new(options.quick, frames::QUAD, frames::TICK);
    let turns = Turns::new(options.quick, tcp::QUAD);
    let budget = |job: &Job| match job {
        Job::Frames(_) | Job::Vde(_) => plan.budget * 2,
        Job::Tcp(_) | Job::Vxlan(..) => turns.budget,
    };
    let most: Duration = all.iter().map(|(_, job)| budget(job) + Duration::from_secs(10)).sum();
    eprintln!("at most {:.0} min, a third of that on a quiet machine", most.as_secs_f64() / 60.0);
    netns::sweep();
    before_others();
    let (quick, json, check) = (options.quick, options.json, options.check);
    Made::show(lab, &How { what: "wire", quick, json, check, legend: LEGEND }, |made| {
        for (part, job) in all {
            lab.go_on()?;
            let rows = job.rows(lab, options, part, &plan, &turns);
            made.add(lab, &format!("{part} {}", job.id()), rows)?;
        }
        Ok(())
    })
}

/// The row of one figure, without a target or a note.
fn row<T: Copy>(
    part: &'static str,
    name: &str,
    unit: &'static str,
    quads: &Quads<T>,
    pick: impl Fn(&T) -> f64 + Copy,
) -> Row {
    let less = unit.starts_with("ns");
    let turned = |estimate: crate::compare::stats::Estimate| if less { estimate.inverse() } else { estimate };
    Row {
        part,
        case: name.to_owned(),
        unit,
        less,
        ours: quads.side(0, pick),
        theirs: quads.side(1, pick),
        better: quads.ratio(pick).map(turned),
        far: quads.far_ratio(pick).map(turned),
        want: None,
        samples: quads.near.len(),
        least: quads.least,
        note: String::new(),
    }
}
