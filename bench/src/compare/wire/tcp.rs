//! One TCP flow through a tunnel, at an MTU of 1500: through a daemon on both sides, or the kernel's VXLAN device.

use super::hosts::{Flow, Hosts, Setup};
use super::row;
use super::turns::{Turns, take};
use crate::compare::lab::Lab;
use crate::compare::vhost::report::Row;
use crate::failure::Result;
use std::time::Duration;

/// Seconds of a leg; iperf3 knows no fractions.
const SECS: u32 = 1;
/// What a quad takes with everything around its legs.
pub const QUAD: Duration = Duration::from_millis(7000);

/// The row of two setups, ours first.
///
/// # Errors
/// When a side fails.
pub fn rows(
    lab: &Lab,
    turns: &Turns,
    part: &'static str,
    [id, name]: [String; 2],
    want: f64,
    setups: [Setup; 2],
) -> Result<Vec<Row>> {
    // Whoever measures meanwhile would be disturbed by what starts here.
    let lock = lab.hold()?;
    let [ours, theirs] = setups;
    let mut sides = [Hosts::join(lab, &ours, "ours")?, Hosts::join(lab, &theirs, "theirs")?];
    // The first flow finds cold neighbours and small windows.
    for side in &mut sides {
        side.flow(SECS)?;
    }
    drop(lock);
    let quads = take(lab, turns, &format!("{part} {id}"), &mut sides, |side| side.flow(SECS))?;
    let cpu =
        |side| quads.side(side, |flow: &Flow| flow.cpu).map_or(f64::NAN, |spread| 100.0 * spread.median);
    let note = if quads.near.is_empty() {
        "all quads disturbed".into()
    } else {
        format!("daemons' CPU {:.0}/{:.0} %", cpu(0), cpu(1))
    };
    Ok(vec![Row { want: Some(want), note, ..row(part, &name, "Gbit/s", &quads, |flow| flow.gbits) }])
}
