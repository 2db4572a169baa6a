//! `compare wire`: netdevs that go over a wire (`socket`, `stream`, `dgram`, `l2tpv3`, `vde`, `vxlan`) beside QEMU's, beside VDE's own plugs and
//! beside the kernel's VXLAN device.
//!
//! `frames`: 64 bytes through one daemon with two netdevs on a hub, alone on its core, from a source and to a sink on the other one: an unread
//! socket, a tap's counter, or for a stream a reader that discards. QEMU's cost is the CPU time of its process; netdevd looks for
//! frames all the time, so its cost is what it counts itself, from a poll that found frames to the end of their transmission. `vde`: the
//! same through a `vde_switch`. `tcp` and `vxlan`: one flow of iperf3 between two hosts, with a daemon on each.
//!
//! Quads and legs are those of `compare vhost` ([`super::vhost`]).

pub mod cases;
pub mod duts;
pub mod frames;
pub mod hosts;
pub mod load;
pub mod tcp;
pub mod turns;
pub mod vde;

use self::cases::{Case, Transport};
use self::duts::{Program, without_qemu};
use self::hosts::{Setup, Tunnel};
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
    /// Only these rows: a transport (`dgram`), of `frames` also a way (`tap-dgram`, `dgram-dgram`, `dgram-tap`); empty for all.
    pub only: Vec<String>,
    /// The peer in netdevd's place (of `vde`: QEMU): what the method itself makes of two that are the same.
    pub same: bool,
    /// Of `tcp` and `vxlan`: a CPU for each host, with its daemon and its program.
    pub spread: bool,
}

const PARTS: [&str; 4] = ["frames", "tcp", "vde", "vxlan"];

/// How many times the TCP throughput of QEMU is wanted, and of the kernel's VXLAN device with tunnel segmentation offload and without.
const TCP: f64 = 3.0;
const VXLAN: [(&str, bool, f64); 2] = [("gso", true, 0.6), ("no-gso", false, 1.0)];

const LEGEND: &str = "better: median over n near quads (A B B A within seconds) with its 95 % interval. frames, vde: 64 bytes, one way; the\n\
     target is one of frames a second where both sides are busy all the time, else one of CPU time a frame that arrives (QEMU, plugs: of\n\
     the process; netdevd: busy ticks of its worker). The vde_switch runs on the load's CPU. tcp, vxlan: iperf3, one flow, inner\n\
     MTU 1500, both hosts over one veth pair; no-gso: packets of the tunnel are cut before they cross it, on both sides.";

/// A row that is still to be measured.
enum Job {
    Frames(Case),
    Tcp(Transport),
    Vde,
    Vxlan(&'static str, bool, f64),
}

impl Job {
    fn of(part: &str) -> Vec<Self> {
        match part {
            "frames" => Case::all().into_iter().map(Self::Frames).collect(),
            "tcp" => Transport::OF_QEMU.into_iter().map(Self::Tcp).collect(),
            "vde" => vec![Self::Vde],
            _ => VXLAN
                .into_iter()
                .map(|(word, segmentation, want)| Self::Vxlan(word, segmentation, want))
                .collect(),
        }
    }

    fn id(&self) -> String {
        match self {
            Self::Frames(case) => case.id(),
            Self::Tcp(transport) => transport.word().into(),
            Self::Vde => "vde".into(),
            Self::Vxlan(word, ..) => (*word).into(),
        }
    }

    fn is(&self, word: &str) -> bool {
        match self {
            Self::Frames(case) => case.is(word),
            _ => self.id() == word,
        }
    }
}

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
        Job::Frames(_) | Job::Vde => plan.budget,
        Job::Tcp(_) | Job::Vxlan(..) => turns.budget,
    };
    let most: Duration = all.iter().map(|(_, job)| budget(job) + Duration::from_secs(10)).sum();
    eprintln!("at most {:.0} min, a third of that on a quiet machine", most.as_secs_f64() / 60.0);
    netns::sweep();
    before_others();
    let mut made = Made::default();
    for (part, job) in all {
        lab.go_on()?;
        let rows = rows(lab, options, part, &job, &plan, &turns);
        made.add(lab, &format!("{part} {}", job.id()), rows)?;
    }
    let (quick, json, check) = (options.quick, options.json, options.check);
    made.publish(lab, &How { what: "wire", quick, json, check, legend: LEGEND })
}

fn rows(
    lab: &Lab,
    options: &Options,
    part: &'static str,
    job: &Job,
    plan: &Plan,
    turns: &Turns,
) -> Result<Vec<Row>> {
    let qemu = matches!(job, Job::Frames(_) | Job::Tcp(_)) || options.same && matches!(job, Job::Vde);
    if let Some(why) = without_qemu(lab).filter(|_| qemu) {
        return Err(Failure::new(why));
    }
    let ours = |program| if options.same { Program::Qemu } else { program };
    let hosts = |tunnel, segmentation| Setup { tunnel, segmentation, spread: options.spread };
    match job {
        Job::Frames(case) => {
            // Whoever measures meanwhile would be disturbed by what polls here.
            let lock = lab.hold()?;
            let first = frames::side(lab, ours(Program::Polling), case, "ours")?;
            let mut sides = [first, frames::side(lab, Program::Qemu, case, "theirs")?];
            drop(lock);
            frames::rows(lab, plan, part, [case.id(), case.name()], case.wanted(), &mut sides)
        }
        Job::Vde => {
            let lock = lab.hold()?;
            let first = vde::side(lab, Some(ours(Program::Polling)), "ours")?;
            let mut sides = [first, vde::side(lab, None, "theirs")?];
            drop(lock);
            let name = "tap -> vde_switch -> tap".into();
            frames::rows(lab, plan, part, [job.id(), name], vde::WANT, &mut sides)
        }
        Job::Tcp(transport) => {
            let by = |program| hosts(Tunnel::Daemons(program, *transport), true);
            let names = [job.id(), transport.name().into()];
            tcp::rows(lab, turns, part, names, TCP, [by(ours(Program::Netdevd)), by(Program::Qemu)])
        }
        Job::Vxlan(word, segmentation, want) => {
            let netdevd = Tunnel::Daemons(Program::Netdevd, Transport::Vxlan);
            let first = if options.same { Tunnel::Kernel } else { netdevd };
            let names = [job.id(), format!("tunnel {word}")];
            tcp::rows(
                lab,
                turns,
                part,
                names,
                *want,
                [first, Tunnel::Kernel].map(|by| hosts(by, *segmentation)),
            )
        }
    }
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
