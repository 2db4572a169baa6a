//! Small frames through one daemon, as many as it takes: how many arrive, and what each costs.

use super::cases::{Case, Way};
use super::duts::{Carrier, Program, Start, on_hub};
use super::load::{Look, Sink, Wire, raise};
use super::row;
use crate::compare::af_xdp::full::Taking;
use crate::compare::lab::{Lab, progress};
use crate::compare::netns::Namespace;
use crate::compare::vhost::duts::{Account, Dut};
use crate::compare::vhost::quads::{LEG, Plan, Quads, Side, interleave};
use crate::compare::vhost::report::Row;
use crate::failure::Result;
use engine::worker::clock::Clock;
use std::time::{Duration, Instant};

/// What a quad takes with everything around its legs.
/// See above.
pub const QUAD: Duration = Duration::from_millis(2200);
/// The canary's.
pub const TICK: Duration = Duration::from_millis(5);
/// A device that is busy for less than this share of the time does not limit what arrives.
const SATURATED: f64 = 0.9;
/// How often the device's CPU is taken away, and for how long, where the load is too slow for all of it: so short that queues of sockets and taps
/// hold what comes meanwhile.
const TAKEN: [Duration; 2] = [Duration::from_micros(1000), Duration::from_micros(500)];

/// What a leg gave.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Thousand frames a second that arrived.
    kfps: f64,
    /// The same of what was sent.
    offered: f64,
    /// Nanoseconds of the device's CPU that a frame took which arrived.
    pub ns: f64,
    /// The share of the time that it was busy.
    busy: f64,
    /// Whether more was there than it took.
    more: bool,
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

/// What a device does for some time.
///
/// # Errors
/// When it or its load fails.
pub fn leg(side: &mut Side<Wire>, hz: f64) -> Result<Sample> {
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
    Ok(Sample { kfps: arrived.kfps, offered: arrived.offered, ns, busy, more: arrived.more })
}

/// What most legs of a side were like.
fn mostly(quads: &Quads<Sample>, side: usize, is: fn(&Sample) -> bool) -> bool {
    quads.side(side, |sample| f64::from(u8::from(is(sample)))).is_some_and(|share| share.median > 0.5)
}

fn note(quads: &Quads<Sample>) -> String {
    if quads.near.is_empty() {
        return "all quads disturbed".into();
    }
    let both = |times: f64, pick: fn(&Sample) -> f64| {
        let median = |side| quads.side(side, pick).map_or(f64::NAN, |spread| times * spread.median);
        format!("{:.0}/{:.0}", median(0), median(1))
    };
    let limit = match [0, 1].map(|side| mostly(quads, side, |sample| sample.more)) {
        [true, true] => "",
        [false, true] => ": the load was our limit",
        [true, false] => ": the load was the peer's limit",
        [false, false] => ": the load was the limit",
    };
    format!(
        "sent {}, busy {} %{limit}",
        both(1.0, |sample| sample.offered),
        both(100.0, |sample| sample.busy)
    )
}

/// Whether frames a second say what was asked: the peer had more than it could do, and so had we, or we are good enough without it.
fn tells(quads: &Quads<Sample>, want: f64, busy: f64) -> bool {
    let full = |side| {
        let more = mostly(quads, side, |sample| sample.more);
        more && quads.side(side, |sample| sample.busy).is_some_and(|share| share.median >= busy)
    };
    let enough = || quads.ratio(|sample| sample.kfps).is_some_and(|better| better.median >= want);
    full(1) && (full(0) || enough())
}

/// Lets two sides take turns: a row of frames a second and one of CPU time a frame. The target is one of the first where that
/// `tells`. Where the load was too slow, the device gets a half of its CPU, and the target is one of what arrives then; where even that is
/// too much, it is one of CPU time.
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
    let label = format!("{part} {id}");
    let quads = interleave(lab, plan, &label, sides, |side| leg(side, hz))?;
    let told = quads.near.is_empty() || tells(&quads, want, SATURATED);
    let frames = row(part, &name, "k frames/s", &quads, |sample| sample.kfps);
    let frames = Row { want: told.then_some(want), note: note(&quads), ..frames };
    let cost = row(part, &name, "ns of CPU/frame", &quads, |sample| sample.ns);
    if told {
        return Ok(vec![frames, cost]);
    }
    // The device waits for its CPU, which is what this is about.
    let plan = Plan { watched: 0, ..*plan };
    let halves = interleave(lab, &plan, &format!("{label}, half a CPU"), sides, |side| {
        let _taking = Taking::start(lab.dut_cpu, TAKEN);
        leg(side, hz)
    })?;
    let told = halves.near.is_empty() || tells(&halves, want, 0.0);
    let half = row(part, &name, "k frames/s, half a CPU", &halves, |sample| sample.kfps);
    let half = Row { want: told.then_some(want), note: note(&halves), ..half };
    Ok(vec![frames, Row { want: (!told).then_some(want), ..cost }, half])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kfps: f64, busy: f64, more: bool) -> Sample {
        Sample { kfps, offered: kfps, ns: 1.0, busy, more }
    }

    fn quads(ours: Sample, theirs: Sample) -> Quads<Sample> {
        Quads {
            near: vec![[[ours; 2], [theirs; 2]]; 3],
            far: Vec::new(),
            repeated: 0,
            took: [0.0; 2],
            least: 1,
        }
    }

    #[test]
    fn a_rate_tells_when_the_load_did_not_limit_it() {
        let full = |kfps| sample(kfps, 1.0, true);
        assert!(tells(&quads(full(2.0), full(2.0)), 3.0, 0.9));
        // We could do more, but that is good enough.
        assert!(tells(&quads(sample(7.0, 1.0, false), full(2.0)), 3.0, 0.9));
        assert!(!tells(&quads(sample(5.0, 1.0, false), full(2.0)), 3.0, 0.9));
        assert!(!tells(&quads(full(5.0), sample(5.0, 1.0, false)), 3.0, 0.9), "the peer could do more");
        assert!(
            !tells(&quads(full(5.0), sample(5.0, 0.5, true)), 3.0, 0.9),
            "the peer waited for something else"
        );
    }
}
