//! Busy cycles a frame and frames a second, closed loop with the light guest.

use super::cases::{Case, LARGE};
use super::duts::{Account, Netdevd, Testpmd};
use super::load::{Got, Pktgen, Want};
use super::quads::{LEG, Plan, Quads, Side, interleave};
use super::report::Row;
use crate::compare::lab::Lab;
use crate::compare::stats::Spread;
use crate::failure::Result;
use std::time::Duration;

/// What a quad takes with everything around its legs.
pub(super) const QUAD: Duration = Duration::from_millis(1000);
/// The canary's.
const TICK: Duration = Duration::from_millis(5);

/// Both sides with the light guest on them, standing still.
///
/// # Errors
/// When one does not come up.
pub(super) fn sides(lab: &Lab, case: &Case) -> Result<[Side<Pktgen>; 2]> {
    let netdevd = Netdevd::start(lab)?;
    let words = case.pktgen();
    let load = Pktgen::start(lab, &words, super::duts::Dut::sockets(&netdevd))?;
    let ours = Side::new(netdevd, load)?;
    let testpmd = Testpmd::start(lab, case)?;
    let load = Pktgen::start(lab, &words, super::duts::Dut::sockets(&testpmd))?;
    Ok([ours, Side::new(testpmd, load)?])
}

/// A leg: what the device counted, and what the load saw.
pub(super) type Sample = (Account, Got);

/// The rows of one case.
///
/// # Errors
/// When a side fails.
pub(super) fn rows(lab: &Lab, case: &Case, quick: bool) -> Result<Vec<Row>> {
    let mut sides = sides(lab, case)?;
    let plan = Plan::new(quick, QUAD, TICK);
    let label = format!("cycles {}", case.id());
    let quads = interleave(lab, &plan, &label, &mut sides, |side| {
        side.dut.begin()?;
        let want = Want { rate: None, length: LEG, stamps: false, verify: false };
        let got = side.load.slice(&want)?;
        Ok((side.dut.end()?, got))
    })?;
    Ok(cycle_rows("cycles", case, &quads))
}

fn cycle_rows(part: &'static str, case: &Case, quads: &Quads<Sample>) -> Vec<Row> {
    let cycles = |sample: &Sample| sample.0.cycles();
    let mpps = |sample: &Sample| sample.1.mpps;
    let percent = |side, pick: fn(&Sample) -> f64| {
        quads.side(side, pick).map_or("-".into(), |spread: Spread| format!("{:.0}", 100.0 * spread.median))
    };
    let busy = |side| percent(side, |sample| sample.1.busy);
    let dropped = |side| percent(side, |sample| sample.0.dropped / sample.0.frames.max(1.0));
    let row = |unit, less| Row::of(part, &case.name(), (unit, less), quads);
    let mut rows = vec![
        Row {
            ours: quads.side(0, cycles),
            theirs: quads.side(1, cycles),
            better: quads.ratio(cycles).map(|estimate| estimate.inverse()),
            far: quads.far_ratio(cycles).map(|estimate| estimate.inverse()),
            want: case.fewer_cycles(),
            note: format!("dropped {}/{} %", dropped(0), dropped(1)),
            ..row("cycles/frame", true)
        },
        Row {
            ours: quads.side(0, mpps),
            theirs: quads.side(1, mpps),
            better: quads.ratio(mpps),
            far: quads.far_ratio(mpps),
            want: case.more_frames(),
            note: format!("load {}/{} % busy", busy(0), busy(1)),
            ..row("Mpps", false)
        },
    ];
    if case.size >= 1518 {
        let gbits = |sample: &Sample| case.gbits(sample.1.mpps);
        let note = if case.size == LARGE { "TSO frames" } else { "" }.to_owned();
        rows.push(Row {
            ours: quads.side(0, gbits),
            theirs: quads.side(1, gbits),
            better: quads.ratio(gbits),
            note,
            ..row("Gbit/s", false)
        });
    }
    rows
}
