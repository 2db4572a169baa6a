//! What a transmitting half did since its counters were written.

use crate::burst::{Burst, Mask};
use crate::port::counters::{DropReason, PortCounters};

/// Frames that went, and frames that cannot go.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) frames: u64,
    pub(super) bytes: u64,
    /// Frames that no buffer can ever hold.
    pub(super) too_long: u64,
    /// Frames for a ring that does not run.
    stopped: u64,
}

impl Tally {
    /// All of them are for a ring that does not run; how many they are.
    pub(super) fn refuse(&mut self, burst: &Burst, mask: Mask) -> usize {
        let frames = mask.iter().filter_map(|i| burst.frames().get(i));
        self.stopped += frames.map(|frame| u64::from(frame.weight)).sum::<u64>();
        mask.count()
    }

    /// Writes it to the counters and begins anew.
    pub(super) fn settle(&mut self, counters: &PortCounters) {
        let Self { frames, bytes, too_long, stopped } = std::mem::take(self);
        if bytes > 0 {
            counters.tx.frames.add(frames);
            counters.tx.bytes.add(bytes);
        }
        if stopped > 0 {
            counters.count_drop(DropReason::NotConnected, stopped);
        }
        if too_long > 0 {
            counters.count_drop(DropReason::TooLong, too_long);
        }
    }
}
