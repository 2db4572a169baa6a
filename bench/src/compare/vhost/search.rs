//! The zero-loss rate: RFC 2544's search, with the loss verification of ETSI GS NFV-TST 009, since a virtual machine that
//! freezes for milliseconds fakes losses.
//!
//! Frames are sent by the clock. Lost is what was due and did not arrive, whether a device dropped it (testpmd does, when the receiver's
//! ring is full) or took no more from the sender's ring (netdevd does): offered and delivered is one criterion for both.

use super::cases::Case;
use super::cycles::sides;
use super::load::{Got, Pktgen, Want};
use super::quads::Side;
use super::report::Row;
use super::watch::{State, near, watched};
use crate::compare::lab::{Lab, progress};
use crate::compare::stats::{Estimate, Spread, median};
use crate::failure::Result;
use std::time::{Duration, Instant};

/// Length of a trial. A device that the host stops for 50 microseconds has lost, and hosts do that ten times a second: of trials of 200 ms
/// hardly one is without.
const TRIAL: Duration = Duration::from_millis(25);
/// A look at the closed loop, and how long a machine in its far state is left alone.
const LOOK: Duration = Duration::from_millis(200);
/// Trials of a rate, and how many of them must lose nothing.
const TRIALS: usize = 10;
const LOSSLESS: usize = 8;
/// The canary's.
const TICK: Duration = Duration::from_millis(5);
/// Looks at the closed loop before the first search.
const LOOKS: usize = 4;
/// The search ends when its bounds are this close.
const WIDTH: f64 = 0.01;
/// A search may take this long.
const BUDGET: Duration = Duration::from_secs(180);
/// The load itself must not have been stopped for longer, in seconds; nothing is due while it is. The canary alone takes a millisecond.
const STALLED: f64 = 0.004;
/// Silence of a polling device, in seconds, that is the host's doing. The same for both, whatever the rate.
const STOPPED: f64 = 0.001;

/// How often the search is made.
#[must_use]
pub(super) fn rounds(quick: bool) -> usize {
    if quick { 1 } else { 7 }
}

/// What all of them may take for one case.
#[must_use]
pub(super) fn budget(quick: bool) -> Duration {
    BUDGET * rounds(quick) as u32
}

/// One search under way.
#[derive(Debug, Clone, Copy)]
struct Search {
    /// The highest rate that passed, frames a second.
    low: f64,
    /// The lowest rate that failed.
    high: f64,
    /// Trials of the present rate that lost nothing, and that lost something.
    good: usize,
    bad: usize,
    /// The load could not send the rate that failed last.
    bound: bool,
    /// Busy share of the load at the highest rate that passed.
    busy: f64,
}

/// What a trial showed.
#[derive(Debug, Clone, Copy)]
struct Trial {
    lossless: bool,
    /// The load was too slow.
    slow: bool,
    /// Busy share of the load.
    busy: f64,
}

impl Search {
    fn new(low: f64, high: f64) -> Self {
        Self { low, high, good: 0, bad: 0, bound: false, busy: f64::NAN }
    }

    /// The rate to try, or nothing when the bounds are close.
    fn rate(&self) -> Option<f64> {
        (self.high - self.low > WIDTH * self.high).then(|| f64::midpoint(self.low, self.high))
    }

    /// Books a trial.
    fn book(&mut self, trial: &Trial) {
        let Some(rate) = self.rate() else { return };
        if trial.lossless {
            self.good += 1;
        } else {
            self.bad += 1;
        }
        if self.good >= LOSSLESS {
            (self.low, self.good, self.bad) = (rate, 0, 0);
            self.busy = trial.busy;
        } else if self.bad > TRIALS - LOSSLESS {
            (self.high, self.good, self.bad) = (rate, 0, 0);
            self.bound = trial.slow;
        }
    }
}

/// What a search came to: frames a second of each side, whether the load was what bounded it, and its busy share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) rates: [f64; 2],
    pub(super) bound: [bool; 2],
    pub(super) busy: [f64; 2],
    /// Lossy trials that were not counted, since the device stood still.
    pub(super) excused: [u32; 2],
}

/// Searches both sides' rates, trial by trial in turn. Nothing when it could not be done in its time.
///
/// # Errors
/// When a side fails.
pub(super) fn search(
    lab: &Lab,
    label: &str,
    sides: &mut [Side<Pktgen>; 2],
    start: Option<[f64; 2]>,
) -> Result<Option<Found>> {
    let (mut until, mut void) = (Instant::now() + BUDGET, Void::default());
    let mut excused = [0; 2];
    let mut all = match start {
        // A search after another one begins around what that one found.
        Some(rates) => rates.map(|rate| Search::new(rate * 0.8, rate * 1.25)),
        None => {
            let mut all = [Search::new(0.0, 0.0); 2];
            for (side, search) in sides.iter_mut().zip(&mut all) {
                *search = Search::new(0.0, closed_loop(lab, side)? * 1.1);
            }
            all
        }
    };
    while all.iter().any(|search| search.rate().is_some()) {
        if Instant::now() > until {
            return Ok(None);
        }
        for at in 0..2 {
            let Some(rate) = all[at].rate() else { continue };
            let [ours, theirs] = all.map(|search| search.low / 1e6);
            progress(&format!(
                "{label}: at least {ours:.2} and {theirs:.2} Mpps, trying {:.2}; void: {void}",
                rate / 1e6
            ));
            let before = void.still;
            if let Some(trial) = trial(lab, &mut sides[at], rate, &mut until, &mut void)? {
                all[at].book(&trial);
            }
            excused[at] += void.still - before;
        }
    }
    Ok(Some(Found {
        rates: all.map(|search| search.low),
        bound: all.map(|search| search.bound),
        busy: all.map(|search| search.busy),
        excused,
    }))
}

/// Frames a second as fast as they are taken: the best of a few looks, since most of what can go wrong makes it slower.
fn closed_loop(lab: &Lab, side: &mut Side<Pktgen>) -> Result<f64> {
    let want = Want { rate: None, length: LOOK, stamps: false, verify: false };
    let mut best: f64 = 0.0;
    for _ in 0..LOOKS {
        lab.go_on()?;
        let _lock = lab.hold()?;
        side.thaw()?;
        let got = side.load.slice(&want);
        side.freeze()?;
        best = best.max(got?.mpps * 1e6);
    }
    Ok(best)
}

/// Trials that say nothing, by what was wrong.
#[derive(Debug, Clone, Copy, Default)]
struct Void {
    far: u32,
    moved: u32,
    disturbed: u32,
    stalled: u32,
    /// Frames were lost while a device stood still.
    still: u32,
}

impl std::fmt::Display for Void {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { far, moved, disturbed, stalled, still } = self;
        write!(
            f,
            "{far} far, {moved} moved, {disturbed} disturbed, {stalled} with the load and {still} with the device stopped"
        )
    }
}

/// Whether the device was stopped by the host, though it polls: nothing came back for longer than a device of any speed is silent by itself,
/// and no more was lost than that explains. Shorter pauses count as the device's own, and cost a faster one more. (It would excuse a
/// device that stops by itself for so long; how often it does is told.)
fn still(got: &Got, rate: f64) -> bool {
    got.lost > 0.0 && got.silent > STOPPED && got.lost <= 4.0 * got.silent * rate
}

/// Whether a rate loses nothing; no answer when the machine disturbed it.
fn trial(
    lab: &Lab,
    side: &mut Side<Pktgen>,
    rate: f64,
    until: &mut Instant,
    void: &mut Void,
) -> Result<Option<Trial>> {
    lab.go_on()?;
    let (_lock, waited) = lab.hold_timed()?;
    *until += waited;
    if near(lab) == Some(false) {
        std::thread::sleep(LOOK);
        void.far += 1;
        return Ok(None);
    }
    side.thaw()?;
    let want = Want { rate: Some(rate), length: TRIAL, stamps: false, verify: false };
    let pids = side.pids();
    let leg = watched(lab, TICK, &pids, || side.load.slice(&want));
    side.freeze()?;
    let leg = leg?;
    let got = leg.value;
    let wrong = match leg.state {
        State::Near if got.stalled > STALLED => &mut void.stalled,
        State::Near if still(&got, rate) => &mut void.still,
        State::Near => {
            // A thousandth of what was due may be skipped: the start of a slice is never even.
            let slow = got.slow > got.offered / 1000.0;
            return Ok(Some(Trial { lossless: got.lost == 0.0 && !slow, slow, busy: got.busy }));
        }
        State::Far => &mut void.far,
        State::Moved => &mut void.moved,
        State::Disturbed => &mut void.disturbed,
    };
    *wrong += 1;
    Ok(None)
}

/// The row of one case, and what testpmd's rate is.
///
/// # Errors
/// When a side fails.
pub(super) fn rows(lab: &Lab, case: &Case, quick: bool) -> Result<(Vec<Row>, Option<f64>)> {
    let mut sides = sides(lab, case)?;
    let mut found: Vec<Found> = Vec::new();
    for round in 0..rounds(quick) {
        let label = format!("zero-loss {} search {}/{}", case.id(), round + 1, rounds(quick));
        let start = found.last().map(|found| found.rates);
        found.extend(search(lab, &label, &mut sides, start)?);
    }
    let rates = |side: usize| -> Vec<f64> { found.iter().map(|found| found.rates[side] / 1e6).collect() };
    let ratios: Vec<f64> = found.iter().map(|found| found.rates[0] / found.rates[1]).collect();
    let bound = |side: usize| found.iter().any(|found| found.bound[side]);
    let bounds = match [bound(0), bound(1)] {
        [false, false] => "",
        [true, false] => ", it bounds netdevd",
        [false, true] => ", it bounds testpmd",
        [true, true] => ", it bounds both",
    };
    let busy = |side: usize| median(&found.iter().map(|found| found.busy[side] * 100.0).collect::<Vec<_>>());
    let excused = |side: usize| found.iter().map(|found| found.excused[side]).sum::<u32>();
    let excused = format!("excused {}/{} trials", excused(0), excused(1));
    let row = Row {
        part: "zero-loss",
        case: case.name(),
        unit: "Mpps",
        less: false,
        ours: Spread::of(&rates(0)),
        theirs: Spread::of(&rates(1)),
        better: Estimate::of(&ratios),
        far: None,
        want: case.more_lossless(),
        samples: found.len(),
        least: if quick { 1 } else { 3 },
        note: format!("load {:.0}/{:.0} % busy{bounds}; {excused}", busy(0), busy(1)),
    };
    let theirs = row.theirs.map(|spread| spread.median * 1e6);
    Ok((vec![row], theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A search of a device that loses nothing up to `limit`, except for every seventh trial.
    fn found(limit: f64, noisy: bool) -> f64 {
        let mut search = Search::new(0.0, 20.0);
        let mut trial = 0;
        while let Some(rate) = search.rate() {
            trial += 1;
            let lossless = rate <= limit && !(noisy && trial % 7 == 0);
            search.book(&Trial { lossless, slow: false, busy: 0.5 });
        }
        search.low
    }

    #[test]
    fn a_pause_excuses_what_it_can_lose_and_no_more() {
        let got = |lost, silent| Got {
            all_secs: 0.21,
            mpps: 10.0,
            offered: 2.1e6,
            sent: 0.0,
            received: 0.0,
            lost,
            slow: 0.0,
            stalled: 0.0,
            silent,
            full: 0.0,
            busy: 0.5,
            latency_us: [0.0; 3],
            damage: [0.0; 2],
        };
        let excused = |lost, silent| still(&got(lost, silent), 10e6);
        assert!(excused(12e3, 1.2e-3));
        assert!(!excused(900.0, 150e-6), "a device may be that slow by itself");
        assert!(!excused(100_000.0, 1.2e-3), "far more than was due then");
        assert!(!excused(0.0, 1.2e-3), "nothing to excuse");
    }

    #[test]
    fn the_rate_is_found_within_the_width_in_spite_of_false_losses() {
        for noisy in [false, true] {
            let rate = found(13.7, noisy);
            assert!((13.5..=13.7).contains(&rate), "{rate}, noisy {noisy}");
        }
    }
}
