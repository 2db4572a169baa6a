//! Two nics on two workers: every frame is copied to a pool buffer, crosses the link between the workers, and is copied again.
//!
//! Stands beside the same two nics on one worker. Where there are only two CPUs, the load shares the second worker's, so the workers
//! sleep when idle, and rates say nothing; what counts is the busy time of both workers a frame.

use super::cases::Case;
use super::duts::{Account, Dut, Netdevd, NetdevdSetup};
use super::load::{Got, Pktgen, Want};
use super::quads::{Plan, Side, interleave};
use super::report::Row;
use crate::compare::lab::Lab;
use crate::failure::Result;
use std::time::Duration;

/// Counted time of a leg.
const LEG: Duration = Duration::from_millis(200);
const QUAD: Duration = Duration::from_millis(1200);
/// The canary's.
const TICK: Duration = Duration::from_millis(5);
/// Frames a second: few enough that the load and the worker on its CPU both have time.
const RATE: f64 = 200_000.0;
/// What a row takes at most.
pub(super) const LONGEST: Duration = Duration::from_secs(75);

/// The row of one case.
///
/// # Errors
/// When a side fails.
pub(super) fn rows(lab: &Lab, case: &Case, quick: bool) -> Result<Vec<Row>> {
    let both = format!("{},{}", lab.dut_cpu, lab.load_cpu);
    let side = |cores: String| -> Result<Side<Pktgen>> {
        let netdevd = Netdevd::with(lab, &NetdevdSetup { cores, idle: "adaptive", queues: 1 })?;
        let load = Pktgen::start(lab, &case.pktgen(), netdevd.sockets())?;
        Side::new(netdevd, load)
    };
    let mut sides = [side(both)?, side(lab.dut_cpu.to_string())?];
    let plan = Plan { least: 2, watched: 1, ..Plan::new(quick, QUAD, TICK) };
    let label = format!("workers {}", case.id());
    let quads = interleave(lab, &plan, &label, &mut sides, |side| {
        side.dut.begin()?;
        let got = side.load.slice(&Want { rate: Some(RATE), length: LEG, stamps: false, verify: false })?;
        Ok((side.dut.end()?, got))
    })?;
    type Sample = (Account, Got);
    let cycles = |sample: &Sample| sample.0.cycles();
    let lost = |sample: &Sample| sample.1.lost;
    let lost = |side| quads.side(side, lost).map_or(f64::NAN, |spread| spread.max);
    Ok(vec![Row {
        part: "workers",
        case: format!("{}, 2 workers / 1", case.name()),
        unit: "cycles/frame",
        less: true,
        ours: quads.side(0, cycles),
        theirs: quads.side(1, cycles),
        better: quads.ratio(cycles).map(|estimate| estimate.inverse()),
        far: quads.far_ratio(cycles).map(|estimate| estimate.inverse()),
        want: None,
        samples: quads.near.len(),
        least: quads.least,
        note: format!(
            "at {:.1} Mpps, where the fixed cost of a turn weighs; the load shares a worker's CPU; lost {:.0}/{:.0}",
            RATE / 1e6,
            lost(0),
            lost(1)
        ),
    }])
}
