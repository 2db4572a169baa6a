//! What filters that are off add to a frame between two nics, beside a chain that is empty.

use super::Options;
use super::dump::start;
use crate::compare::lab::Lab;
use crate::compare::stats::{Estimate, Spread};
use crate::compare::vhost::cases::Case;
use crate::compare::vhost::duts::{Account, Dut, Home};
use crate::compare::vhost::load::{Pktgen, Want};
use crate::compare::vhost::quads::{LEG, Plan, Quads, Side, interleave};
use crate::compare::vhost::report::Row;
use crate::failure::Result;
use crate::qmp::Qmp;
use serde_json::json;
use std::time::Duration;

const QUAD: Duration = Duration::from_millis(2000);
const TICK: Duration = Duration::from_millis(5);

/// One row for filters that hold nothing, which the plan leaves out, and one for filters that stay in the chain.
///
/// # Errors
/// When netdevd or the load fails.
pub(super) fn rows(lab: &Lab, options: &Options) -> Result<Vec<Row>> {
    let file = "/dev/null";
    let left_out = [
        json!({"qom-type": "filter-dump", "id": "d", "netdev": "h0", "file": file, "status": "off"}),
        json!({"qom-type": "filter-match", "id": "m", "netdev": "h1", "match": "udp", "action": "drop", "status": "off"}),
    ];
    let stay = [
        json!({"qom-type": "filter-limit", "id": "l", "netdev": "h0", "bps": 1000, "status": "off"}),
        json!({"qom-type": "filter-buffer", "id": "b", "netdev": "h1", "interval": 1000, "status": "off"}),
    ];
    let mut rows = Vec::new();
    for (name, filters) in [("a dump and a match", left_out), ("a limit and a buffer", stay)] {
        let mut sides = [side(lab, &filters)?, side(lab, &[])?];
        let plan = Plan::new(options.quick, QUAD, TICK);
        let quads =
            interleave(lab, &plan, &format!("off, {name}"), &mut sides, |side| leg(side, options.rate))?;
        rows.push(row(name, &quads));
    }
    Ok(rows)
}

fn side(lab: &Lab, filters: &[serde_json::Value]) -> Result<Side<Pktgen>> {
    let home = Home::new(lab, 2)?;
    let socket = home.path().join("off.sock");
    let netdevd = start(lab, home, &socket)?;
    let load = Pktgen::start(lab, &Case::small().remove(0).pktgen(), netdevd.sockets())?;
    let mut qmp = Qmp::connect(&socket, Duration::from_secs(5))?;
    for filter in filters {
        qmp.execute("object-add", filter.clone())?;
    }
    Side::new(netdevd, load)
}

fn leg(side: &mut Side<Pktgen>, rate: f64) -> Result<Account> {
    side.dut.begin()?;
    side.load.forward(&Want { rate: Some(rate), length: LEG, stamps: false, verify: false })?;
    side.dut.end()
}

fn row(name: &str, quads: &Quads<Account>) -> Row {
    let mean = |legs: &[Account; 2]| legs.iter().map(Account::cycles).sum::<f64>() / 2.0;
    let added: Vec<f64> = quads.near.iter().map(|[with, without]| mean(with) - mean(without)).collect();
    let added = Spread::of(&added).map_or(f64::NAN, |spread| spread.median);
    Row {
        ours: quads.side(0, Account::cycles),
        theirs: quads.side(1, Account::cycles),
        better: quads.ratio(Account::cycles).map(|ratio: Estimate| ratio.inverse()),
        note: format!("{added:+.2} cycles a frame, as the median of the quads"),
        ..Row::of("off", name, ("cycles/frame", true), quads)
    }
}
