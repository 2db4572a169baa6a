//! `compare af-xdp`: netdevd's `af-xdp` netdev on veth pairs beside DPDK's `net_af_xdp` and `net_af_packet` in testpmd, each on one
//! core, the same load on the other.
//!
//! On veth the kernel's own path costs far more than the rings (a transmitted frame becomes a buffer of the kernel's, and the sending
//! core carries it up to the other side), and the load, a packet socket, is slower than a good device. So what counts is the busy time a
//! frame, system calls included, as testpmd's `--record-core-cycles` and `query-net-stats` both count it: from a poll that found frames to
//! the end of their transmission. Only where a device sends as fast as it can do rates rank. What of that time is the program's own code
//! is measured apart ([`full`]).
//!
//! Quads and legs are those of `compare vhost` ([`super::vhost`]).

pub mod cases;
pub mod churn;
pub mod duts;
pub mod full;
pub mod lane;

use self::cases::{Case, Peer, Work};
use self::duts::{netdevd, testpmd};
use self::lane::{Lane, Veth};
use super::vhost::duts::{Account, Dut};
use super::vhost::quads::{LEG, Plan, Quads, Side, before_others, interleave};
use super::vhost::report::{How, Made, Row};
use crate::compare::lab::{Lab, progress};
use crate::compare::netns;
use crate::failure::{Failure, Result};
use std::time::{Duration, Instant};

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Fewer samples.
    pub quick: bool,
    /// Print JSON instead of the tables.
    pub json: bool,
    /// Fail when a target is missed or cannot be judged.
    pub check: bool,
    /// Only these parts (`rx`, `tx`, `forward`, `guest`, `full-forward`, `full-guest`); empty for all.
    pub parts: Vec<String>,
    /// Only these rows: a size (`64`), a peer (`xdp`, `xdp-nobudget`, `packet`), or both (`xdp-64`); empty for all.
    pub only: Vec<String>,
    /// A testpmd with `net_af_xdp` in netdevd's place: what the method itself makes of two that are the same.
    pub same: bool,
}

const PARTS: [&str; 6] = ["rx", "tx", "forward", "guest", "full-forward", "full-guest"];

/// What a quad takes with everything around its legs.
const QUAD: Duration = Duration::from_millis(2200);
/// The canary's.
const TICK: Duration = Duration::from_millis(5);
/// How long it may take until the first frame arrives.
const PATIENCE: Duration = Duration::from_secs(15);

const LEGEND: &str = "better: median over n near quads (A B B A within seconds) with its 95 % interval. rx: frames are dropped as they come. tx: as\n\
     fast as it can; netdevd's frames come from a guest's ring (nic and hub are in its figures), testpmd makes its own. forward: one way,\n\
     between two veth pairs. guest: from veth to a vhost-user guest. Cycles: TSC, of polls that found frames, system calls included;\n\
     receive work that the kernel does in polls without frames is not in testpmd's. No busy polling: on neither side. full: the device gets a part of its CPU, so\n\
     it is never idle: own cycles are user mode only (perf cpu-clock samples times CPU time, a delivered frame).";

/// What a leg gave: the device's account, and millions of frames a second that arrived and that the load sent.
#[derive(Debug, Clone, Copy)]
struct Sample {
    account: Account,
    mpps: f64,
    offered: f64,
}

/// Runs the comparison and writes `af-xdp.json` and `af-xdp.svg`.
///
/// # Errors
/// When the load fails, and with `check` when a target is missed.
pub fn run(lab: &Lab, options: &Options) -> Result<()> {
    if lab.dut_cpu == lab.load_cpu {
        return Err(Failure::new("two CPUs are needed"));
    }
    if let Some(part) = options.parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        return Err(Failure::new(format!("part {part}: {}; or churn alone", PARTS.join(", "))));
    }
    let wanted = |part: &&str| options.parts.is_empty() || options.parts.iter().any(|name| name == part);
    let named = |case: &Case| options.only.is_empty() || options.only.iter().any(|name| case.is(name));
    let cases = |part: &'static str| Case::of(part).into_iter().filter(named).map(move |case| (part, case));
    let all: Vec<(&'static str, Case)> = PARTS.into_iter().filter(wanted).flat_map(cases).collect();
    let plan = Plan::new(options.quick, QUAD, TICK);
    let most = (plan.budget + Duration::from_secs(10)) * all.len() as u32;
    eprintln!("at most {:.0} min, a third of that on a quiet machine", most.as_secs_f64() / 60.0);
    netns::sweep();
    before_others();
    let (quick, json, check) = (options.quick, options.json, options.check);
    Made::show(lab, &How { what: "af-xdp", quick, json, check, legend: LEGEND }, |made| {
        for (part, case) in all {
            lab.go_on()?;
            let rows = if part.starts_with("full") { full::rows } else { rows };
            let rows =
                sides(lab, options, &case).and_then(|mut sides| rows(lab, &plan, part, &case, &mut sides));
            made.add(lab, &format!("{part} {}", case.id()), rows)?;
        }
        Ok(())
    })
}

/// netdevd and the peer of a case, each with veth pairs and a load of its own, standing still.
fn sides(lab: &Lab, options: &Options, case: &Case) -> Result<[Side<Veth>; 2]> {
    // Whoever measures meanwhile would be disturbed by what polls here.
    let _lock = lab.hold()?;
    let lane = Lane::create("ours")?;
    let ours = if options.same {
        side(lab, case, Box::new(testpmd(lab, &lane, case, Peer::Xdp, "same")?), lane, false)?
    } else {
        side(lab, case, Box::new(netdevd(lab, &lane, case)?), lane, case.work == Work::Transmit)?
    };
    let lane = Lane::create("theirs")?;
    let theirs = testpmd(lab, &lane, case, case.peer, "dut")?;
    Ok([ours, side(lab, case, Box::new(theirs), lane, false)?])
}

fn side(lab: &Lab, case: &Case, mut dut: Box<dyn Dut>, lane: Lane, guest: bool) -> Result<Side<Veth>> {
    let mut load = Veth::start(lab, lane, case, guest, dut.sockets())?;
    let until = Instant::now() + PATIENCE;
    loop {
        lab.go_on()?;
        progress(&format!("{}: waiting for the first frame", dut.name()));
        if leg(dut.as_mut(), &mut load, TICK * 10)?.mpps > 0.0 {
            return Side::of(dut, load);
        }
        if Instant::now() > until {
            return Err(Failure::new(format!("{}: no frame arrived", dut.name())));
        }
    }
}

/// One leg.
fn leg(dut: &mut dyn Dut, load: &mut Veth, length: Duration) -> Result<Sample> {
    dut.begin()?;
    load.begin()?;
    let sent = load.run(length)?;
    let account = dut.end()?;
    let (mpps, offered) = load.end(sent, account.frames)?;
    Ok(Sample { account, mpps, offered })
}

fn rows(
    lab: &Lab,
    plan: &Plan,
    part: &'static str,
    case: &Case,
    sides: &mut [Side<Veth>; 2],
) -> Result<Vec<Row>> {
    let quads = interleave(lab, plan, &format!("{part} {}", case.id()), sides, |side| {
        leg(side.dut.as_mut(), &mut side.load, LEG)
    })?;
    let cycles = |sample: &Sample| sample.account.cycles();
    let mpps = |sample: &Sample| sample.mpps;
    let percent = |side, pick: fn(&Sample) -> f64| {
        quads.side(side, pick).map_or("-".into(), |spread| format!("{:.0}", 100.0 * spread.median))
    };
    let lost = |side| percent(side, |sample| 1.0 - sample.mpps / sample.offered);
    let note = match case.work {
        Work::Transmit => String::new(),
        Work::Receive => "netdevd's with the system calls that fetched them".into(),
        _ => format!("of what was sent {}/{} % lost", lost(0), lost(1)),
    };
    let [fewer, more] = case.wanted();
    Ok(vec![
        Row {
            ours: quads.side(0, cycles),
            theirs: quads.side(1, cycles),
            better: quads.ratio(cycles).map(|estimate| estimate.inverse()),
            far: quads.far_ratio(cycles).map(|estimate| estimate.inverse()),
            want: fewer,
            ..row(part, case, "cycles/frame", &quads)
        },
        Row {
            ours: quads.side(0, mpps),
            theirs: quads.side(1, mpps),
            better: quads.ratio(mpps),
            far: quads.far_ratio(mpps),
            want: more,
            note,
            ..row(part, case, "Mpps", &quads)
        },
    ])
}

/// A row without figures.
fn row<T: Copy>(part: &'static str, case: &Case, unit: &'static str, quads: &Quads<T>) -> Row {
    Row::of(part, &case.name(), (unit, !unit.starts_with("Mpps")), quads)
}
