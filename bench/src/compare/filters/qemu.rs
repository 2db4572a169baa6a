//! QEMU without a guest, two `dgram` netdevs on a hub, with its filter-dump and without.

use super::dump::Ours;
use super::{Options, memory};
use crate::compare::lab::Lab;
use crate::compare::netns::Namespace;
use crate::compare::stats::{Estimate, Spread};
use crate::compare::vhost::quads::{Plan, Side, interleave};
use crate::compare::vhost::report::Row;
use crate::compare::wire::cases::{Case, Transport, Way};
use crate::compare::wire::duts::{Carrier, Program, Start, on_hub, without_qemu};
use crate::compare::wire::frames::{leg, ready};
use crate::compare::wire::load::{Sink, Wire};
use crate::failure::{Failure, Result};
use std::time::Duration;

/// What a quad takes with everything around its legs.
const QUAD: Duration = Duration::from_millis(2200);
const TICK: Duration = Duration::from_millis(5);

/// The row.
///
/// # Errors
/// Without QEMU, or when it fails.
pub(super) fn rows(lab: &Lab, options: &Options, ours: &Ours) -> Result<Vec<Row>> {
    if let Some(why) = without_qemu(lab) {
        return Err(Failure::new(why));
    }
    let place = memory()?;
    let file = place.path().join("qemu.pcap");
    let dump = ["-object".to_owned(), format!("filter-dump,id=d,netdev=a,file={}", file.display())];
    let mut sides = [side(lab, "qd", &dump)?, side(lab, "qp", &[])?];
    let plan = Plan::new(options.quick, QUAD, TICK);
    let hz = engine::worker::clock::Clock::calibrate().hz() as f64;
    let quads = interleave(lab, &plan, "qemu", &mut sides, |side| leg(side, hz).map(|sample| sample.ns))?;
    let mean = |legs: &[f64; 2]| legs.iter().sum::<f64>() / 2.0;
    let added: Vec<f64> = quads.near.iter().map(|[with, without]| mean(with) - mean(without)).collect();
    let times: Vec<f64> = added.iter().map(|theirs| theirs / ours.added_ns.median).collect();
    let Estimate { median, low, high } = ours.added_ns;
    Ok(vec![Row {
        part: "qemu",
        case: "64 bytes".into(),
        unit: "ns added/frame",
        less: true,
        ours: Some(Spread { median, min: low, max: high }),
        theirs: Spread::of(&added),
        better: Estimate::of(&times),
        far: None,
        want: None,
        samples: quads.near.len(),
        least: quads.least,
        note: "of the core that moves frames; ours has a writer beside it".into(),
    }])
}

fn side(lab: &Lab, word: &str, more: &[String]) -> Result<Side<Wire>> {
    let inside = Namespace::create(word)?;
    let case = Case { way: Way::Through, transport: Transport::Dgram, bundled: false };
    let [from, to] = case.netdevs();
    let mut words = on_hub(0, [("a", from), ("b", to)]);
    words.extend_from_slice(more);
    let start = Start { program: Program::Qemu, cpu: lab.dut_cpu, inside: &inside };
    let dut = Carrier::start(lab, &start, &words)?;
    let sink = Sink::unread(lab, &inside)?;
    let load = Wire::start(lab, inside, &case.pktgen(), sink, None)?;
    ready(lab, Box::new(dut), load)
}
