//! Small frames through one daemon, as many as it takes: how many arrive, and what each costs.

use super::cases::{Case, Way};
use super::duts::{Carrier, Program, Start, on_hub};
use super::load::{Look, Sink, Wire, raise};
use super::row;
use crate::compare::lab::{Lab, progress};
use crate::compare::netns::Namespace;
use crate::compare::vhost::duts::{Account, Dut};
use crate::compare::vhost::quads::{Plan, Side, interleave};
use crate::compare::vhost::report::Row;
use crate::failure::Result;
use engine::worker::clock::Clock;
use std::time::{Duration, Instant};

/// Counted time of a leg, and what a quad takes with everything around its legs.
const LEG: Duration = Duration::from_millis(300);
/// See above.
pub const QUAD: Duration = Duration::from_millis(2200);
/// The canary's.
pub const TICK: Duration = Duration::from_millis(5);
/// A device that is busy for less than this share of the time does not limit what arrives.
const SATURATED: f64 = 0.9;

/// What a leg gave.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Thousand frames a second that arrived.
    kfps: f64,
    /// The same of what was sent.
    offered: f64,
    /// Nanoseconds of the device's CPU that a frame took which arrived.
    ns: f64,
    /// The share of the time that it was busy.
    busy: f64,
}

/// The daemon of one side of a case, with its load, standing still.
///
/// # Errors
/// When it does not come up, or nothing gets through.
pub fn side(lab: &Lab, program: Program, case: &Case, word: &str) -> Result<Side<Wire>> {
    let inside = Namespace::create(word)?;
    let [from, to] = case.netdevs();
    let start = Start { program, cpu: lab.dut_cpu, inside: &inside };
    let dut = Carrier::start(lab, &start, &on_hub(0, [("a", from), ("b", to)]))?;
    raise(&inside, case.taps())?;
    let sink = match case.way {
        Way::In => Sink::tap(&inside, super::cases::TAPS[1])?,
        _ if case.reads() => Sink::Source,
        _ => Sink::unread(lab, &inside)?,
    };
    let load = Wire::start(lab, inside, &case.pktgen(), sink, None)?;
    ready(lab, Box::new(dut), load)
}

/// Puts a device and its load together when the first frame has come through.
///
/// # Errors
/// When none does.
pub fn ready(lab: &Lab, dut: Box<dyn Dut>, mut load: Wire) -> Result<Side<Wire>> {
    progress(&format!("{}: waiting for the first frame", dut.name()));
    load.await_first(lab, dut.name())?;
    Side::of(dut, load)
}

fn leg(side: &mut Side<Wire>, hz: f64) -> Result<Sample> {
    let (dut, load) = (&mut side.dut, &mut side.load);
    let (mut account, mut begun, mut secs) = (Account::default(), Instant::now(), 0.0);
    let arrived = load.run(LEG, |look| {
        match look {
            Look::Begin => {
                dut.begin()?;
                begun = Instant::now();
            }
            Look::End => {
                account = dut.end()?;
                secs = begun.elapsed().as_secs_f64();
            }
        }
        Ok(())
    })?;
    let busy = account.busy / hz / secs;
    let ns = busy * 1e6 / arrived.kfps;
    Ok(Sample { kfps: arrived.kfps, offered: arrived.offered, ns, busy })
}

/// Lets two sides take turns: a row of frames a second and one of CPU time a frame. The target is one of the first where both are busy
/// all the time; where one waits for the load, it is one of the second.
///
/// # Errors
/// When a side fails.
pub fn rows(
    lab: &Lab,
    plan: &Plan,
    part: &'static str,
    [id, name]: [String; 2],
    want: f64,
    sides: &mut [Side<Wire>; 2],
) -> Result<Vec<Row>> {
    let hz = Clock::calibrate().hz() as f64;
    let quads = interleave(lab, plan, &format!("{part} {id}"), sides, |side| leg(side, hz))?;
    let median = |side, pick: fn(&Sample) -> f64| quads.side(side, pick).map_or(f64::NAN, |s| s.median);
    let busy = [0, 1].map(|side| median(side, |sample| sample.busy));
    let offered = [0, 1].map(|side| median(side, |sample| sample.offered));
    let saturated = busy.iter().all(|busy| *busy >= SATURATED);
    let percent = busy.map(|busy| format!("{:.0}", 100.0 * busy)).join("/");
    let sent = offered.map(|sent| format!("{sent:.0}")).join("/");
    let limit = if saturated { "" } else { ": the load was a limit" };
    let note = if quads.near.is_empty() {
        "all quads disturbed".into()
    } else {
        format!("busy {percent} %, sent {sent}{limit}")
    };
    Ok(vec![
        Row {
            want: saturated.then_some(want),
            note,
            ..row(part, &name, "k frames/s", &quads, |sample| sample.kfps)
        },
        Row {
            want: (!saturated).then_some(want),
            ..row(part, &name, "ns of CPU/frame", &quads, |sample| sample.ns)
        },
    ])
}
