//! What a comparison counts, by name.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// Frames of the primary that arrived.
    Primary,
    /// Frames of the secondary that arrived.
    Secondary,
    /// Frames of the primary that went out.
    Released,
    /// Of those, frames of kinds that are not compared.
    Passed,
    /// Frames of the secondary of such kinds: dropped.
    Ignored,
    /// IPv4 frames whose headers make no sense: treated as those that are not compared.
    Malformed,
    /// Checkpoints asked for since frames differ.
    Mismatch,
    /// Checkpoints asked for since a frame waited too long.
    Timeout,
    /// Checkpoints made.
    Checkpoint,
    /// Frames dropped since the connection holds as many as it may.
    QueueFull,
    /// Frames that went with a connection that made room in the table.
    TableFull,
    /// Frames dropped since all connections together hold as much as they may.
    MemoryFull,
    /// Released frames lost since `outdev` is not read.
    OutdevFull,
    /// Released frames lost since nobody is at the other end of `outdev`, or went before all was sent.
    OutdevGone,
    /// Texts lost since nobody is at the other end of `notify_dev`, or does not read.
    NotifyLost,
    /// Texts on `notify_dev` that mean nothing here.
    Unknown,
    /// Readers that gave up: a frame was longer than any may be.
    Oversized,
    /// Connections that ended within a frame.
    Truncated,
}

/// Names, in the order of [`Count`].
const NAMES: [&str; 18] = [
    "primary",
    "secondary",
    "released",
    "passed",
    "secondary-ignored",
    "malformed",
    "mismatch",
    "timeout",
    "checkpoint",
    "queue-full",
    "table-full",
    "memory-full",
    "outdev-full",
    "outdev-gone",
    "notify-lost",
    "unknown-instruction",
    "oversized",
    "truncated",
];

/// The counters of one comparison. One thread writes, anybody reads.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; NAMES.len()]);

impl Counters {
    pub(super) fn add(&self, count: Count, number: u64) {
        if let Some(counter) = self.0.get(count as usize) {
            counter.fetch_add(number, Ordering::Relaxed);
        }
    }

    /// All of them, with their names.
    #[must_use]
    pub fn list(&self) -> Vec<(&'static str, u64)> {
        NAMES.into_iter().zip(self.0.iter().map(|counter| counter.load(Ordering::Relaxed))).collect()
    }
}
