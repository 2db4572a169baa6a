//! Latency at 10, 50 and 90 % of testpmd's zero-loss rate, the same for both.

use super::cases::Case;
use super::cycles::sides;
use super::load::{Got, Want};
use super::quads::{Plan, interleave};
use super::report::Row;
use super::search::search;
use crate::compare::lab::Lab;
use crate::failure::{Failure, Result};
use std::time::Duration;

/// Counted time of a leg.
const LEG: Duration = Duration::from_millis(200);
/// What a quad takes with everything around its legs.
pub(super) const QUAD: Duration = Duration::from_millis(1200);
/// The canary's: its wake-ups are in the tail, the same for both.
const TICK: Duration = Duration::from_millis(50);

/// Quantiles, and at which loads how many times better is wanted of them (in the order of [`LOADS`]).
const QUANTILES: [(&str, usize, [Option<f64>; 3]); 3] = [
    ("p50 us", 0, [Some(1.0), Some(1.0), Some(1.0)]),
    ("p99 us", 1, [Some(1.0), Some(1.0), Some(2.0)]),
    ("p99.9 us", 2, [None, None, None]),
];

/// Shares of testpmd's zero-loss rate.
const LOADS: [f64; 3] = [0.1, 0.5, 0.9];

/// The rows of one case; `rate` is testpmd's zero-loss rate, and searched where it is not known.
///
/// # Errors
/// When a side fails, or no rate can be found.
pub(super) fn rows(lab: &Lab, case: &Case, rate: Option<f64>, quick: bool) -> Result<Vec<Row>> {
    let mut sides = sides(lab, case)?;
    let rate = match rate {
        Some(rate) => rate,
        None => {
            let label = format!("latency {}: testpmd's zero-loss rate", case.id());
            let found = search(lab, &label, &mut sides, None)?;
            let found = found.ok_or_else(|| Failure::new(format!("{label} was not found in time")))?;
            found.rates[1]
        }
    };
    let plan = Plan::new(quick, QUAD, TICK);
    let mut rows = Vec::new();
    for (at, load) in LOADS.into_iter().enumerate() {
        let rate = rate * load;
        let percent = format!("{:.0} %", load * 100.0);
        let label = format!("latency {} at {percent}", case.id());
        let quads = interleave(lab, &plan, &label, &mut sides, |side| {
            side.load.slice(&Want { rate: Some(rate), length: LEG, stamps: true, verify: false })
        })?;
        let lost = |got: &Got| got.lost / got.offered.max(1.0) * 100.0;
        let worst = |side| quads.side(side, lost).map_or(0.0, |spread| spread.max);
        let lossy = worst(0).max(worst(1)) > 0.0;
        let busy = |side| {
            quads.side(side, |got: &Got| got.busy).map_or("-".into(), |b| format!("{:.0}", 100.0 * b.median))
        };
        for (unit, quantile, wants) in QUANTILES {
            let pick = |got: &Got| got.latency_us[quantile];
            rows.push(Row {
                part: "latency",
                case: format!("{} at {percent}", case.name()),
                unit,
                less: true,
                ours: quads.side(0, pick),
                theirs: quads.side(1, pick),
                better: quads.ratio(pick).map(|estimate| estimate.inverse()),
                far: quads.far_ratio(pick).map(|estimate| estimate.inverse()),
                want: wants[at],
                samples: quads.near.len(),
                least: quads.least,
                note: match quantile {
                    0 => format!("{:.2} Mpps, load {}/{} % busy", rate / 1e6, busy(0), busy(1)),
                    1 if lossy => format!("lost up to {:.3}/{:.3} %", worst(0), worst(1)),
                    _ => String::new(),
                },
            });
        }
    }
    Ok(rows)
}
