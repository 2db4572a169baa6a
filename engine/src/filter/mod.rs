//! Filters: what may look at, drop, keep or put in frames on their way. One instance a worker, so that none locks.
//!
//! A filter that keeps frames puts them in again at its own place: they pass what stands behind it in the chain, and nothing twice. It asks to
//! be seen also while it is off ([`Settings`]), as frames that come later must not overtake those that it still holds.

pub mod bpf;
pub mod buffer;
pub mod channel;
pub mod dump;
mod hold;
pub mod limit;
pub mod matching;
pub mod mirror;
pub mod replay;
pub mod rewriter;
mod settings;
#[cfg(test)]
mod testing;

pub use settings::Settings;

use crate::burst::{Burst, Mask};
use crate::port::Turn;
use std::time::Duration;

/// Which way a frame passes the filter's netdev, in QEMU's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Sent to the netdev.
    Rx,
    /// Sent by the netdev.
    Tx,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Rx, Self::Tx];
}

/// One worker's instance of a filter.
pub trait Filter: Send {
    /// Sees the frames that `mask` selects and returns those that go on. Each frame comes once.
    fn frames(&mut self, turn: &mut Turn<'_>, direction: Direction, burst: &Burst, mask: Mask) -> Mask;

    /// Called now and then, and before the worker sleeps, so that nothing stays behind.
    fn tick(&mut self, turn: &mut Turn<'_>);

    /// Of `kept` frames that did not go on, how many are lost here: all of them, unless the filter puts them in again.
    fn lost(&mut self, kept: u64) -> u64 {
        kept
    }

    /// Whether the filter ever puts frames in. Asked once, when it is taken over.
    fn injects(&self) -> bool {
        false
    }

    /// Frames of this direction that may be put in now: any number that is not 0 where there are some.
    fn due(&mut self, _now: u64, _direction: Direction) -> usize {
        0
    }

    /// Lends at most `want` of them, oldest first; they stay valid until [`Filter::gone`].
    fn lend(&mut self, _turn: &mut Turn<'_>, _direction: Direction, _want: usize, _burst: &mut Burst) {}

    /// The first `n` of the frames that were lent last are on their way, and not lent again: what comes now overtakes nothing.
    fn took(&mut self, _direction: Direction, _n: usize) {}

    /// The oldest `n` of those that were taken have gone: their memory is free. Comes at the end of the turn.
    fn gone(&mut self, _turn: &mut Turn<'_>, _direction: Direction, _n: usize) {}

    /// When frames become due without anything else happening, in nanoseconds since the engine started: a worker that sleeps wakes for it.
    fn deadline(&self) -> Option<u64> {
        None
    }
}

/// Control's hold on a filter in force.
pub trait Handle: Send + Sync {
    /// The `status` or `queue` property changed. A filter that holds nothing need not know: it is not shown what it must not see.
    fn set(&self, _on: bool, _rx: bool, _tx: bool) {}

    /// A numeric property of the filter's own changed.
    fn tune(&self, _property: &str, _value: u64) {}

    /// Another pcap filter expression is in force from the next burst on; without one every frame matches.
    fn select(&self, _program: Option<bpf::Program>) {}

    /// Frames that it holds: one that goes is taken out of its chain when there are none.
    fn held(&self) -> u64 {
        0
    }

    /// Its end of the chardev that this property names (`indev`, `outdev`), if it has one.
    fn link(&self, _property: &str) -> Option<&channel::Link> {
        None
    }

    /// What it counts, by name, for users.
    fn counters(&self) -> Vec<(&'static str, u64)>;

    /// All instances have been dropped: finishes what is left to do, in at most `bound`. May block, and is not called by a worker.
    fn finish(&self, _bound: Duration) {}
}
