//! What `filter-limit` lets pass of more than it may, beside what was asked for, from 1 Mbit/s to 10 Gbit/s.

use super::Options;
use super::dump::start;
use crate::compare::lab::{Lab, progress};
use crate::compare::stats::{Estimate, Spread};
use crate::compare::vhost::cases::Case;
use crate::compare::vhost::duts::{Dut, Home};
use crate::compare::vhost::load::{Load, Pktgen, Want};
use crate::compare::vhost::report::Row;
use crate::compare::vhost::watch::{State, watched};
use crate::failure::Result;
use crate::qmp::Qmp;
use serde_json::json;
use std::time::Duration;

/// Bits a second, and the bytes of the frames that carry them: small ones where large ones would be too few to count by.
const RATES: [(u64, usize); 5] =
    [(1_000_000, 64), (10_000_000, 64), (100_000_000, 64), (1_000_000_000, 1518), (10_000_000_000, 1518)];
/// How much more is offered.
const OFFERED: f64 = 1.3;
/// How far from the rate it may be.
const ACCURACY: f64 = 0.02;
/// Frames that pass at least while it counts: a burst of some more or less is then a small part of what is allowed.
const FRAMES: f64 = 5000.0;
/// Time that the others count.
const LENGTH: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(5);

/// A row a rate.
///
/// # Errors
/// When netdevd or the load fails.
pub(super) fn rows(lab: &Lab, options: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (bits, size) in RATES {
        let case = Case { size, ..Case::small().remove(0) }.with_ring(1024);
        let home = Home::new(lab, 2)?;
        let socket = home.path().join("limit.sock");
        let netdevd = start(lab, home, &socket)?;
        let mut load = Pktgen::start(lab, &case.pktgen(), netdevd.sockets())?;
        let mut qmp = Qmp::connect(&socket, Duration::from_secs(5))?;
        let frames = bits as f64 / 8.0 / size as f64;
        // What waits is no more than a fiftieth of a second, so that a slice soon ends.
        let queue = (frames / 50.0).clamp(64.0, 1000.0) as u64;
        let limit = json!({"qom-type": "filter-limit", "id": "l", "netdev": "h0", "bps": bits / 8, "queue-limit": queue});
        qmp.execute("object-add", limit)?;
        let length = LENGTH.max(Duration::from_secs_f64(FRAMES / frames));
        let want = Want { rate: Some(frames * OFFERED), length, stamps: false, verify: false };
        let samples = if options.quick { 2 } else { 5 };
        let pids = [netdevd.pid(), Load::pid(&load)];
        let (mut measured, mut again) = (Vec::new(), 0);
        while measured.len() < samples {
            lab.go_on()?;
            let mbits = bits / 1_000_000;
            progress(&format!(
                "limit, {mbits} Mbit/s: {} of {samples} samples, {again} disturbed",
                measured.len()
            ));
            let _lock = lab.hold()?;
            let leg = watched(lab, TICK, &pids, || load.forward(&want))?;
            // Where the CPUs are does not matter here; a machine that is never undisturbed still gets its figures.
            if leg.state == State::Disturbed && again < 3 * samples {
                again += 1;
                continue;
            }
            measured.push(leg.value.mpps * 1e6 * size as f64 * 8.0 / 1e6);
        }
        rows.push(row(bits as f64 / 1e6, size, &measured));
    }
    Ok(rows)
}

/// `measured` megabits a second, of `set`.
fn row(set: f64, size: usize, measured: &[f64]) -> Row {
    let off: Vec<f64> = measured.iter().map(|rate| (rate / set - 1.0).abs()).collect();
    let exact: Vec<f64> = off.iter().map(|off| 1.0 - off).collect();
    let most = off.iter().copied().fold(0.0, f64::max);
    Row {
        part: "limit",
        case: format!("{set:.0} Mbit/s, {size} bytes"),
        unit: "Mbit/s",
        less: false,
        ours: Spread::of(measured),
        theirs: Spread::of(&[set]),
        better: Estimate::of(&exact),
        far: None,
        want: Some(1.0 - ACCURACY),
        samples: measured.len(),
        least: 2,
        note: format!("off by {:.2} % at most, {:.0} % offered", 100.0 * most, 100.0 * OFFERED),
    }
}

#[cfg(test)]
mod tests {
    use super::row;

    #[test]
    fn a_rate_may_be_off_by_two_percent_either_way() {
        for (measured, missed) in [(100.0, false), (98.1, false), (101.9, false), (97.9, true), (102.1, true)]
        {
            assert_eq!(row(100.0, 64, &[measured; 3]).missed(), missed, "{measured}");
        }
    }
}
