//! `compare switch`: three nics on one learning switch beside OVS-DPDK with three vhost-user ports, each on one core, the same load
//! on the other: `pktgen` as all three guests, with one or many stations behind each (3, 66 or 4098 in all).
//!
//! Unicast goes from each station to one behind either other port, one frame each in turn, when all addresses are known; a flood goes from
//! one port to stations that nobody knows, so it leaves twice. OVS switches as `NORMAL` does, and once more with one static flow a port,
//! which is the least that it can do. The part `hub` sets the same switch beside what does not look at addresses: two nics on a
//! hub of two ports.
//!
//! Methods are those of `compare vhost` ([`super::vhost`]): busy cycles a frame, quads, near placement.

pub mod cases;
pub mod duts;
pub mod ovs;
pub mod unixctl;

use self::cases::{Case, PORTS};
use self::duts::{hub, settle, switch};
use self::ovs::Ovs;
use super::vhost::duts::{Account, Dut};
use super::vhost::load::{Got, Pktgen, Want};
use super::vhost::quads::{LEG, Plan, Quads, Side, before_others, interleave};
use super::vhost::report::{How, Made, Row};
use crate::compare::lab::Lab;
use crate::compare::netns;
use crate::compare::stats::{Estimate, Spread};
use crate::failure::{Failure, Result};
use std::time::Duration;

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Fewer samples, fewer rows.
    pub quick: bool,
    /// Print JSON instead of the tables.
    pub json: bool,
    /// Fail when a target is missed or cannot be judged.
    pub check: bool,
    /// A flooding hub in the place of the switch.
    pub flooding: bool,
    /// Only these parts (`unicast`, `static`, `flood`, `hub`); empty for all.
    pub parts: Vec<String>,
    /// Only these rows (`split-64`, `packed-4096`, ...); empty for all.
    pub only: Vec<String>,
}

const PARTS: [&str; 4] = ["unicast", "static", "flood", "hub"];

/// What a quad takes with everything around its legs.
const QUAD: Duration = Duration::from_millis(1200);
/// The canary's.
const TICK: Duration = Duration::from_millis(5);
/// How many times fewer busy cycles a frame than OVS's are wanted.
const FEWER: f64 = 2.0;
/// How many more than those of the hub are allowed.
const MORE: f64 = 35.0;

const LEGEND: &str = "better: median over n near quads (A B B A within seconds) with its 95 % interval. Cycles: TSC, from a poll that found\n\
     frames to the end of their transmission, a frame that came in (OVS: pmd-stats-show, processing cycles). n MACs: stations\n\
     in all, evenly behind the three ports and at least one behind each. Where the load is busy all the time it bounds the rate.";

/// A leg: what the device counted, and what the load saw.
type Sample = (Account, Got);

/// Runs the comparison and writes `switch.json` and `switch.svg`.
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
    let named = |case: &Case| options.only.is_empty() || options.only.contains(&case.id());
    let cases = |part: &'static str| Case::of(part).into_iter().filter(named).map(move |case| (part, case));
    let all: Vec<(&'static str, Case)> = PARTS.into_iter().filter(wanted).flat_map(cases).collect();
    // Threads of OVS's that look after its flows have the load's CPU.
    let plan = Plan { watched: 1, ..Plan::new(options.quick, QUAD, TICK) };
    let most = (plan.budget + Duration::from_secs(15)) * all.len() as u32;
    eprintln!("at most {:.0} min, a third of that on a quiet machine", most.as_secs_f64() / 60.0);
    netns::sweep();
    before_others();
    let (quick, json, check) = (options.quick, options.json, options.check);
    Made::show(lab, &How { what: "switch", quick, json, check, legend: LEGEND }, |made| {
        for (part, case) in all {
            lab.go_on()?;
            let rows = rows(lab, options, &plan, part, &case);
            made.add(lab, &format!("{part} {}", case.id()), rows)?;
        }
        Ok(())
    })
}

/// One slice of a case.
fn slice(load: &mut Pktgen, case: &Case, length: Duration) -> Result<Got> {
    let want = Want { rate: None, length, stamps: false, verify: false };
    if case.floods() { load.forward(&want) } else { load.slice(&want) }
}

fn rows(lab: &Lab, options: &Options, plan: &Plan, part: &'static str, case: &Case) -> Result<Vec<Row>> {
    let start = |mut dut: Box<dyn Dut>, copies: u32| -> Result<Side<Pktgen>> {
        let mut load = Pktgen::start(lab, &case.pktgen(), dut.sockets())?;
        settle(lab, dut.as_mut(), || slice(&mut load, case, LEG), copies)?;
        Side::of(dut, load)
    };
    let copies = |floods: bool| if floods { PORTS - 1 } else { 1 };
    let copies = [copies(options.flooding || case.floods()), copies(case.floods())];
    // Whoever measures meanwhile would be disturbed by what polls here.
    let lock = lab.hold()?;
    let ours = start(Box::new(switch(lab, options.flooding)?), copies[0])?;
    let theirs = match part {
        "hub" => start(Box::new(hub(lab)?), copies[1])?,
        _ => start(Box::new(Ovs::start(lab, part == "static")?), copies[1])?,
    };
    drop(lock);
    let mut sides = [ours, theirs];
    let quads = interleave(lab, plan, &format!("{part} {}", case.id()), &mut sides, |side| {
        side.dut.begin()?;
        let got = slice(&mut side.load, case, LEG)?;
        Ok((side.dut.end()?, got))
    })?;
    Ok(vec![cycles(part, case, &quads), rates(part, case, &quads, copies)])
}

fn cycles(part: &'static str, case: &Case, quads: &Quads<Sample>) -> Row {
    let cycles = |sample: &Sample| sample.0.cycles();
    let (ours, theirs) = (quads.side(0, cycles), quads.side(1, cycles));
    let more = ours.zip(theirs).map(|(ours, theirs)| ours.median - theirs.median);
    let beside = theirs.map(|theirs| theirs.median / (theirs.median + MORE));
    let (want, note) = match part {
        "hub" => (beside, format!("{:+.0} cycles, {MORE:+.0} allowed", more.unwrap_or(f64::NAN))),
        "unicast" if case.macs == 64 => (Some(FEWER), String::new()),
        _ => (None, String::new()),
    };
    Row {
        ours,
        theirs,
        better: quads.ratio(cycles).map(|estimate: Estimate| estimate.inverse()),
        far: quads.far_ratio(cycles).map(|estimate: Estimate| estimate.inverse()),
        want,
        note,
        ..row(part, case, "cycles/frame", quads)
    }
}

fn rates(part: &'static str, case: &Case, quads: &Quads<Sample>, copies: [u32; 2]) -> Row {
    let mpps = |sample: &Sample| sample.1.mpps;
    let percent = |spread: Option<Spread>| spread.map_or("-".into(), |s| format!("{:.0}", 100.0 * s.median));
    let busy = |side| percent(quads.side(side, |sample: &Sample| sample.1.busy));
    let lost = |side: usize| {
        let arrived = |got: &Got| got.received / (got.sent * f64::from(copies[side])).max(1.0);
        percent(quads.side(side, |sample: &Sample| (1.0 - arrived(&sample.1)).max(0.0)))
    };
    // OVS counts what it had to ask about a flow; that there is none shows that it had learned.
    let upcalls = quads.side(1, |sample| sample.0.dropped).filter(|_| part != "hub");
    let upcalls = upcalls.map_or(String::new(), |spread| format!(", upcalls {:.0}", spread.max));
    Row {
        ours: quads.side(0, mpps),
        theirs: quads.side(1, mpps),
        better: quads.ratio(mpps),
        far: quads.far_ratio(mpps),
        note: format!("load {}/{} % busy, lost {}/{} %{upcalls}", busy(0), busy(1), lost(0), lost(1)),
        ..row(part, case, "Mpps out", quads)
    }
}

fn row(part: &'static str, case: &Case, unit: &'static str, quads: &Quads<Sample>) -> Row {
    Row::of(part, &case.name(), (unit, unit.starts_with("cycles")), quads)
}
