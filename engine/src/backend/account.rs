//! What a transmitting half did since its counters were written, by every reason.

use crate::burst::{Burst, Mask};
use crate::port::counters::{DropReason, PortCounters};

/// Frames that went, and frames that cannot go.
#[derive(Debug, Default)]
pub(super) struct Account {
    frames: u64,
    bytes: u64,
    drops: [u64; DropReason::ALL.len()],
    dropped: bool,
}

impl Account {
    /// Frames that stand for `weight` went.
    #[inline]
    pub(super) const fn sent(&mut self, weight: u64, bytes: u64) {
        self.frames += weight;
        self.bytes += bytes;
    }

    /// Frames that stand for `weight` can never go.
    #[inline]
    pub(super) fn drop(&mut self, reason: DropReason, weight: u64) {
        if let Some(count) = self.drops.get_mut(reason as usize) {
            *count += weight;
            self.dropped = true;
        }
    }

    /// All of them are for a file that takes nothing; how many they are.
    pub(super) fn refuse(&mut self, burst: &Burst, mask: Mask) -> usize {
        let frames = mask.iter().filter_map(|i| burst.frames().get(i));
        self.drop(DropReason::NotConnected, frames.map(|frame| u64::from(frame.weight)).sum());
        mask.count()
    }

    /// Writes it to the counters and begins anew.
    pub(super) fn settle(&mut self, counters: &PortCounters) {
        if self.bytes > 0 {
            counters.tx.frames.add(self.frames);
            counters.tx.bytes.add(self.bytes);
            (self.frames, self.bytes) = (0, 0);
        }
        if self.dropped {
            for (reason, count) in DropReason::ALL.into_iter().zip(&mut self.drops) {
                if *count > 0 {
                    counters.count_drop(reason, std::mem::take(count));
                }
            }
            self.dropped = false;
        }
    }
}
