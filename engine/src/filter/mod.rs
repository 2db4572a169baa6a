//! Filters: what may look at, drop or keep frames on their way. One instance a worker, so that none locks.

pub mod bpf;
pub mod dump;
pub mod matching;

use crate::burst::{Burst, Mask};
use crate::port::Turn;

/// Which way a frame passes the filter's netdev, in QEMU's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Sent to the netdev.
    Rx,
    /// Sent by the netdev.
    Tx,
}

/// One worker's instance of a filter.
pub trait Filter: Send {
    /// Sees the frames that `mask` selects and returns those that go on. Each frame comes once.
    fn frames(&mut self, turn: &mut Turn<'_>, direction: Direction, burst: &Burst, mask: Mask) -> Mask;

    /// Called now and then, and before the worker sleeps, so that nothing stays behind.
    fn tick(&mut self, turn: &mut Turn<'_>);
}
