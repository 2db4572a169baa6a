//! One leg of a measurement and what the machine did to it meanwhile.

use super::quads::moves;
use crate::canary::Canary;
use crate::compare::lab::Lab;
use crate::failure::Result;
use crate::{placement, proc};
use std::time::{Duration, Instant};

/// A leg counts as disturbed when the host, or another program, took a larger share than this of a CPU.
const MOST_LOST: f64 = 0.02;

/// How a leg went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Both CPUs were there all the time and shared a cache before and after.
    Near,
    /// As near, but they shared no cache.
    Far,
    /// They moved apart or together meanwhile.
    Moved,
    /// Time was lost.
    Disturbed,
}

/// A measured leg.
#[derive(Debug, Clone, Copy)]
pub struct Leg<T> {
    /// What was measured.
    pub value: T,
    /// How it went.
    pub state: State,
    /// Largest share of a CPU that the host took.
    pub lost: f64,
    /// Share of the time that the watched threads waited for a CPU.
    pub waited: f64,
}

/// Whether the CPUs share a cache right now: false when they are far apart, nothing when it cannot be told.
pub fn near(lab: &Lab) -> Option<bool> {
    let trip = placement::round_trip_ns(lab.dut_cpu, lab.load_cpu)?;
    Some(lab.any_placement || trip <= placement::FAR_NS)
}

/// Runs `measure` and says how it went. `pids` are the processes whose threads that move frames must not have waited for a CPU: that is what
/// involuntary switches cost, while the switches themselves are mostly those of the canary, which takes microseconds.
/// `tick` is the canary's.
///
/// # Errors
/// Those of `measure`.
pub fn watched<T>(
    lab: &Lab,
    tick: Duration,
    pids: &[u32],
    measure: impl FnOnce() -> Result<T>,
) -> Result<Leg<T>> {
    let waited = || pids.iter().map(|&pid| proc::waited_ns(pid, moves).unwrap_or(0)).collect::<Vec<u64>>();
    let before = near(lab);
    let canary = Canary::watch(&[lab.dut_cpu, lab.load_cpu], tick);
    let (start, queued) = (Instant::now(), waited());
    let value = measure();
    let longest = waited().iter().zip(&queued).map(|(now, then)| now.saturating_sub(*then)).max();
    let queued = longest.unwrap_or(0) as f64 / start.elapsed().as_nanos() as f64;
    let lost = canary.finish().unwrap_or(0.0);
    let after = near(lab);
    let state = match (before, after) {
        _ if lost > MOST_LOST || queued > MOST_LOST => State::Disturbed,
        (Some(true), Some(true)) => State::Near,
        (Some(false), Some(false)) => State::Far,
        _ => State::Moved,
    };
    Ok(Leg { value: value?, state, lost, waited: queued })
}
