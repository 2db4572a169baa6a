//! The same with a generator of other authors: testpmd as two guests, 512 frames a port going round for ever.
//!
//! It costs about as much a frame as a device does, so it bounds the rate; the cycles of the device are what counts.

use super::cases::{Case, RING};
use super::duts::{Account, Dut, Netdevd, Testpmd};
use super::load::VirtioUser;
use super::quads::{LEG, Plan, Side, interleave};
use super::report::Row;
use crate::compare::lab::Lab;
use crate::failure::Result;
use engine::worker::clock::Clock;
use std::time::Duration;

/// What a quad takes with everything around its legs.
pub(super) const QUAD: Duration = Duration::from_millis(2500);
/// The canary's.
const TICK: Duration = Duration::from_millis(5);

/// Which rings this generator is run with.
#[must_use]
pub(super) fn cases() -> Vec<Case> {
    let of = |size, packed, mergeable, in_order| Case { size, packed, mergeable, in_order, ring: RING };
    vec![
        of(64, false, true, false),
        of(64, true, true, false),
        of(64, true, false, true),
        of(1518, false, true, false),
        of(1518, true, true, false),
    ]
}

/// The rows of one case.
///
/// # Errors
/// When a side fails.
pub(super) fn rows(lab: &Lab, case: &Case, quick: bool) -> Result<Vec<Row>> {
    let hz = Clock::calibrate().hz() as f64;
    let netdevd = Netdevd::start(lab)?;
    let load = VirtioUser::start(lab, case, 1, netdevd.sockets())?;
    let ours = Side::new(netdevd, load)?;
    let testpmd = Testpmd::start(lab, case)?;
    let load = VirtioUser::start(lab, case, 1, testpmd.sockets())?;
    let mut sides = [ours, Side::new(testpmd, load)?];
    let plan = Plan::new(quick, QUAD, TICK);
    let label = format!("foreign {}", case.id());
    let quads = interleave(lab, &plan, &label, &mut sides, |side| {
        side.dut.begin()?;
        let [mpps, busy] = side.load.count(LEG, hz)?;
        let account = side.dut.end()?;
        Ok((account, mpps, busy))
    })?;
    type Sample = (Account, f64, f64);
    let cycles = |sample: &Sample| sample.0.cycles();
    let mpps = |sample: &Sample| sample.1;
    let busy = |side| {
        quads
            .side(side, |sample: &Sample| sample.2)
            .map_or("-".into(), |s| format!("{:.0}", 100.0 * s.median))
    };
    let row = |unit, less| Row::of("foreign", &case.name(), (unit, less), &quads);
    Ok(vec![
        Row {
            ours: quads.side(0, cycles),
            theirs: quads.side(1, cycles),
            better: quads.ratio(cycles).map(|estimate| estimate.inverse()),
            far: quads.far_ratio(cycles).map(|estimate| estimate.inverse()),
            ..row("cycles/frame", true)
        },
        Row {
            ours: quads.side(0, mpps),
            theirs: quads.side(1, mpps),
            better: quads.ratio(mpps),
            far: quads.far_ratio(mpps),
            note: format!("load {}/{} % busy", busy(0), busy(1)),
            ..row("Mpps", false)
        },
    ])
}
