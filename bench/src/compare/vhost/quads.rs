//! Two sides that take turns, A B B A, in short legs within a second: the ratio of each such quad stands alone, so that a machine
//! that changes from second to second falls on both sides alike.

use super::duts::Dut;
use super::load::Load;
use super::watch::{State, near, watched};
use crate::compare::lab::{Lab, progress};
use crate::compare::stats::{Estimate, Spread};
use crate::failure::{Context, Result};
use crate::sched;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

/// A device under test and its load. Both stand still while the other side is measured.
pub struct Side<L> {
    /// What is measured.
    pub dut: Box<dyn Dut>,
    /// What loads it.
    pub load: L,
}

/// Priorities of what may not wait: the load, threads that move frames, and above them those that answer questions on the same CPU.
const LOADS: i32 = 1;
const MOVES: i32 = 2;
const ANSWERS: i32 = 3;

/// Lets the calling thread, which asks, and those that it starts run before other programs.
pub fn before_others() {
    let _ = sched::real_time(ANSWERS); // without the right to it, more legs are disturbed
}

/// How names of threads that move frames begin, beside netdevd's: testpmd's, OVS's, QEMU's only one, those of VDE.
const MOVERS: [&str; 4] = ["rte-worker", "pmd-", "qemu-system", "vde_"];

/// The priority of a thread by its name: netdevd's workers are called `netdevd/w0c0`, testpmd's `rte-worker-1`, OVS's `pmd-c00/id:8`.
pub(in crate::compare) fn priority(name: &str) -> i32 {
    match name {
        "pktgen" => LOADS,
        name if name.contains("/w") || MOVERS.iter().any(|word| name.starts_with(word)) => MOVES,
        _ => ANSWERS,
    }
}

/// Whether a thread of this name makes or moves frames.
#[must_use]
pub fn moves(name: &str) -> bool {
    priority(name) <= MOVES
}

impl<L: Load> Side<L> {
    /// Puts them together, before other programs, and stops them. On a busy machine they would wait for a CPU in every leg.
    ///
    /// # Errors
    /// When one has ended.
    pub fn new(dut: impl Dut + 'static, load: L) -> Result<Self> {
        Self::of(Box::new(dut), load)
    }

    /// As [`Side::new`].
    ///
    /// # Errors
    /// The same.
    pub fn of(dut: Box<dyn Dut>, load: L) -> Result<Self> {
        let side = Self { dut, load };
        for pid in side.pids() {
            let _ = sched::real_time_threads(pid, priority);
        }
        side.freeze()?;
        Ok(side)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let send = |pid: u32| kill(Pid::from_raw(pid.cast_signed()), signal).context(self.dut.name());
        if self.load.spins() {
            send(self.load.pid())?;
        }
        send(self.dut.pid())
    }

    /// Stops it where it is.
    ///
    /// # Errors
    /// When it has ended.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// The processes that need a CPU of their own.
    #[must_use]
    pub fn pids(&self) -> [u32; 2] {
        [self.dut.pid(), self.load.pid()]
    }
}

/// How long to go on.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Near quads that are enough.
    pub enough: usize,
    /// Near quads below which there is no result.
    pub least: usize,
    /// Time after which no further quad begins.
    pub budget: Duration,
    /// The canary's.
    pub tick: Duration,
    /// How many of device and load, in this order, must not have waited for a CPU; one fewer where the load shares its own.
    pub watched: usize,
}

impl Plan {
    /// For the usual or a quick look, where one quad takes about `quad`.
    #[must_use]
    pub fn new(quick: bool, quad: Duration, tick: Duration) -> Self {
        let (enough, least) = if quick { (3, 2) } else { (15, 5) };
        // Disturbed legs are repeated, and a machine in its far state is waited for.
        Self { enough, least, budget: quad * enough as u32 * 4, tick, watched: 2 }
    }
}

/// Quads as they came: the two legs of each side.
#[derive(Debug, Clone, Default)]
pub struct Quads<T> {
    /// Those in which the CPUs shared a cache.
    pub near: Vec<[[T; 2]; 2]>,
    /// Those in which they did not.
    pub far: Vec<[[T; 2]; 2]>,
    /// Legs that were measured again.
    pub repeated: usize,
    /// What disturbed the last of them: the shares of a CPU that the host and other programs took.
    pub took: [f64; 2],
    /// Near quads below which there is no result.
    pub least: usize,
}

/// Counted time of most legs. Short: a host that takes a CPU away for 12 ms ten times a second leaves few longer ones as they were.
pub const LEG: Duration = Duration::from_millis(80);
/// A leg is measured this often before its quad is given up.
const TRIES: usize = 4;
/// Far quads that are kept beside the near ones.
const FAR_KEPT: usize = 5;
/// How long a machine in its far state is left alone.
const FAR_REST: Duration = Duration::from_millis(250);

/// Lets the sides take turns until there are enough near quads, or the time is over.
///
/// # Errors
/// Those of `measure`, and an interrupt.
pub fn interleave<L: Load, T: Copy>(
    lab: &Lab,
    plan: &Plan,
    label: &str,
    sides: &mut [Side<L>; 2],
    mut measure: impl FnMut(&mut Side<L>) -> Result<T>,
) -> Result<Quads<T>> {
    let mut quads =
        Quads { near: Vec::new(), far: Vec::new(), repeated: 0, took: [0.0; 2], least: plan.least };
    let mut until = Instant::now() + plan.budget;
    let mut turn = 0;
    while quads.near.len() < plan.enough && Instant::now() < until {
        lab.go_on()?;
        let (_lock, waited) = lab.hold_timed()?;
        until += waited;
        progress(&format!(
            "{label}: {} of {} near quads, {} far, {} legs repeated (the last lost {:.1} % to the host, {:.1} % to others)",
            quads.near.len(),
            plan.enough,
            quads.far.len(),
            quads.repeated,
            100.0 * quads.took[0],
            100.0 * quads.took[1],
        ));
        if quads.far.len() >= FAR_KEPT && near(lab) == Some(false) {
            std::thread::sleep(FAR_REST);
            continue;
        }
        turn += 1;
        let order = if turn % 2 == 0 { [0, 1, 1, 0] } else { [1, 0, 0, 1] };
        let Some((state, legs)) = quad(lab, plan, &order, sides, &mut measure, &mut quads)? else {
            continue;
        };
        let of = |side: usize| {
            let mut mine = legs.iter().filter(|(at, _)| *at == side).map(|(_, value)| *value);
            mine.next().zip(mine.next()).map(|(first, second)| [first, second])
        };
        if let (Some(ours), Some(theirs)) = (of(0), of(1)) {
            let kept = if state == State::Near { &mut quads.near } else { &mut quads.far };
            kept.push([ours, theirs]);
        }
    }
    Ok(quads)
}

type Legs<T> = Vec<(usize, T)>;

/// Four legs that all went alike; nothing when one could not be had.
fn quad<L: Load, T: Copy>(
    lab: &Lab,
    plan: &Plan,
    order: &[usize; 4],
    sides: &mut [Side<L>; 2],
    measure: &mut impl FnMut(&mut Side<L>) -> Result<T>,
    quads: &mut Quads<T>,
) -> Result<Option<(State, Legs<T>)>> {
    let mut all: Option<State> = None;
    let mut legs = Vec::new();
    for &at in order {
        let mut tries = 0;
        loop {
            lab.go_on()?;
            let side = &mut sides[at];
            side.thaw()?;
            let all_pids = side.pids();
            let pids = all_pids.get(..plan.watched).unwrap_or(&all_pids);
            let leg = watched(lab, plan.tick, pids, || measure(side));
            sides[at].freeze()?;
            let leg = leg?;
            let alike = all.is_none_or(|state| state == leg.state);
            if matches!(leg.state, State::Near | State::Far) && alike {
                all = Some(leg.state);
                legs.push((at, leg.value));
                break;
            }
            quads.repeated += 1;
            quads.took = [leg.lost, leg.waited];
            tries += 1;
            // A machine that has moved for good makes another quad.
            if tries == TRIES || matches!(leg.state, State::Near | State::Far) {
                return Ok(None);
            }
        }
    }
    Ok(all.map(|state| (state, legs)))
}

impl<T: Copy> Quads<T> {
    /// The same quads of something else; `of` gets the side (0 ours, 1 theirs) and what was measured.
    pub fn map<U>(&self, of: impl Fn(usize, &T) -> U) -> Quads<U> {
        let turn = |quads: &[[[T; 2]; 2]]| -> Vec<[[U; 2]; 2]> {
            let side = |at: usize, legs: &[T; 2]| [of(at, &legs[0]), of(at, &legs[1])];
            quads.iter().map(|quad| [side(0, &quad[0]), side(1, &quad[1])]).collect()
        };
        let Self { repeated, took, least, .. } = *self;
        Quads { near: turn(&self.near), far: turn(&self.far), repeated, took, least }
    }

    /// Whether there are enough near ones for a result.
    #[must_use]
    pub fn result(&self) -> bool {
        self.near.len() >= self.least.max(1)
    }

    /// A figure of one side (0 ours, 1 theirs) over the near legs.
    pub fn side(&self, side: usize, pick: impl Fn(&T) -> f64) -> Option<Spread> {
        let values: Vec<f64> = self.near.iter().flat_map(|quad| quad[side].iter().map(&pick)).collect();
        Spread::of(&values)
    }

    /// How many times larger the figure is with us than with them, quad by quad.
    pub fn ratio(&self, pick: impl Fn(&T) -> f64) -> Option<Estimate> {
        Estimate::of(&Self::ratios(&self.near, pick))
    }

    /// As [`Quads::ratio`], of the far ones.
    pub fn far_ratio(&self, pick: impl Fn(&T) -> f64) -> Option<Estimate> {
        Estimate::of(&Self::ratios(&self.far, pick))
    }

    fn ratios(quads: &[[[T; 2]; 2]], pick: impl Fn(&T) -> f64) -> Vec<f64> {
        // The geometric mean of a side's two legs cancels a drift within the quad.
        let mean = |legs: &[T; 2]| (pick(&legs[0]) * pick(&legs[1])).sqrt();
        quads.iter().map(|[ours, theirs]| mean(ours) / mean(theirs)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_move_frames_are_known_by_their_names() {
        assert!(
            ["pktgen", "netdevd/w0c0", "rte-worker-1", "pmd-c00/id:8", "qemu-system-x86"]
                .into_iter()
                .all(moves)
        );
        assert!(!["netdevd", "revalidator6", "ovs-vswitchd", "vhost-events"].into_iter().any(moves));
    }

    #[test]
    fn a_ratio_is_the_median_of_the_quads_own() {
        let near = vec![[[4.0, 1.0], [1.0, 1.0]], [[3.0, 3.0], [1.0, 1.0]], [[100.0, 100.0], [1.0, 1.0]]];
        let quads = Quads { near, far: Vec::new(), repeated: 0, took: [0.0; 2], least: 3 };
        assert_eq!(quads.ratio(|v| *v).map(|e| e.median), Some(3.0));
        let theirs_doubled = quads.map(|side, v| *v * (side + 1) as f64);
        assert_eq!(theirs_doubled.ratio(|v| *v).map(|e| e.median), Some(1.5));
        assert_eq!(quads.side(0, |v| *v).map(|s| s.max), Some(100.0));
        assert!(quads.result() && quads.far_ratio(|v| *v).is_none());
        assert!(!Quads { least: 4, ..quads }.result());
    }
}
