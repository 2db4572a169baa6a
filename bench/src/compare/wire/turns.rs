//! Two sides that take turns, A B B A, as [`crate::compare::vhost::quads`] has them, but in slices of a second with programs that come and go:
//! a side that nobody asks for anything rests by itself.

use crate::compare::lab::{Lab, Slice, progress};
use crate::compare::vhost::quads::Quads;
use crate::failure::Result;
use std::time::{Duration, Instant};

/// How long to go on.
#[derive(Debug, Clone, Copy)]
pub struct Turns {
    /// Near quads that are enough.
    pub enough: usize,
    /// Near quads below which there is no result.
    pub least: usize,
    /// Time after which no further quad begins.
    pub budget: Duration,
}

impl Turns {
    /// For the usual or a quick look, where one quad takes about `quad`.
    #[must_use]
    pub fn new(quick: bool, quad: Duration) -> Self {
        let (enough, least) = if quick { (2, 1) } else { (9, 5) };
        Self { enough, least, budget: quad * enough as u32 * 3 }
    }
}

/// The canary's tick.
const TICK: Duration = Duration::from_millis(5);
/// Far quads that are kept beside the near ones.
const FAR_KEPT: usize = 5;

/// Lets the sides take turns until there are enough near quads, or the time is over.
///
/// # Errors
/// Those of `measure`, and an interrupt.
pub fn take<S, T: Copy>(
    lab: &Lab,
    turns: &Turns,
    label: &str,
    sides: &mut [S; 2],
    mut measure: impl FnMut(&mut S) -> Result<T>,
) -> Result<Quads<T>> {
    let (near, far) = (Vec::new(), Vec::new());
    let mut quads = Quads { near, far, repeated: 0, took: [0.0; 2], least: turns.least };
    let until = Instant::now() + turns.budget;
    let mut turn = 0;
    while quads.near.len() < turns.enough && Instant::now() < until {
        turn += 1;
        progress(&format!(
            "{label}: {} of {} near quads, {} far, {} disturbed",
            quads.near.len(),
            turns.enough,
            quads.far.len(),
            quads.repeated,
        ));
        let order = if turn % 2 == 0 { [0, 1, 1, 0] } else { [1, 0, 0, 1] };
        let mut legs: [Vec<Slice<T>>; 2] = [Vec::new(), Vec::new()];
        for at in order {
            legs[at].push(lab.slice(TICK, || measure(&mut sides[at]))?);
        }
        match state(&legs, lab.any_placement) {
            None => quads.repeated += 1,
            Some(far) => {
                let [Some(ours), Some(theirs)] = legs.map(|legs| pair(&legs)) else { continue };
                if !far {
                    quads.near.push([ours, theirs]);
                } else if quads.far.len() < FAR_KEPT {
                    quads.far.push([ours, theirs]);
                }
            }
        }
    }
    Ok(quads)
}

fn pair<T: Copy>(legs: &[Slice<T>]) -> Option<[T; 2]> {
    match legs {
        [first, second] => Some([first.value, second.value]),
        _ => None,
    }
}

/// Whether all slices were clean and alike: nothing if not, else whether the CPUs were far apart, unless that is all the same.
fn state<T>(legs: &[Vec<Slice<T>>; 2], any_placement: bool) -> Option<bool> {
    let mut all = legs.iter().flatten();
    let far = |slice: &Slice<T>| slice.far() && !any_placement;
    let first = far(all.clone().next()?);
    let alike = all.all(|slice| slice.clean() && far(slice) == first);
    alike.then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(trips: [f64; 2], lost: f64) -> Slice<u8> {
        Slice { value: 7, lost: Some(lost), others: 0.0, round_trip_ns: trips.map(Some) }
    }

    #[test]
    fn a_quad_counts_only_when_all_its_slices_went_alike() {
        let (near, far, torn) = (slice([50.0; 2], 0.0), slice([300.0; 2], 0.0), slice([50.0; 2], 0.5));
        let quad = |one: &Slice<u8>, last: &Slice<u8>| {
            [vec![one.clone(), one.clone()], vec![one.clone(), last.clone()]]
        };
        assert_eq!(state(&quad(&near, &near), false), Some(false));
        assert_eq!(state(&quad(&near, &far), false), None);
        assert_eq!(state(&quad(&near, &torn), false), None);
        assert_eq!(state(&quad(&far, &far), false), Some(true));
        assert_eq!(state(&quad(&far, &far), true), Some(false));
        assert_eq!(pair(&[near.clone(), near]), Some([7, 7]));
    }
}
