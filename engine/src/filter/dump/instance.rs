//! The worker's side: copies records into a chunk.

use super::chunk::Chunk;
use super::writer::Shared;
use super::{CHUNKS, LINGER, pcap};
use crate::burst::{Burst, Mask};
use crate::filter::bpf::Matcher;
use crate::filter::{Direction, Filter};
use crate::port::Turn;
use crate::port::counters::Counter;
use std::sync::Arc;

/// What one instance counts; it is their only writer.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Frames that passed.
    pub(super) seen: Counter,
    /// Frames put into chunks.
    pub(super) captured: Counter,
    /// Frames for which there was no chunk.
    pub(super) lost: Counter,
}

/// One worker's instance.
pub(super) struct Instance {
    shared: Arc<Shared>,
    /// Its number.
    index: usize,
    /// Which frames are wanted.
    matcher: Matcher,
    counts: Arc<Counts>,
    /// The chunk being filled.
    chunk: Option<Chunk>,
    /// Empty ones, the one that came back last on top: its lines are still in a cache.
    spare: Vec<Chunk>,
    /// When the chunk's first record came.
    since: u64,
    /// The time of a turn, as records have it.
    time: (u64, pcap::Time),
}

impl Instance {
    pub(super) fn new(shared: Arc<Shared>, index: usize, matcher: Matcher, counts: Arc<Counts>) -> Self {
        let spare = Vec::with_capacity(CHUNKS);
        let time = (0, pcap::Time::of(shared.epoch));
        Self { shared, index, matcher, counts, chunk: None, spare, since: 0, time }
    }

    /// Puts the selected frames into chunks; how many found none.
    fn record(&mut self, now: u64, burst: &Burst, mask: Mask) -> u64 {
        if self.time.0 != now {
            self.time = (now, pcap::Time::of(self.shared.epoch + now));
        }
        let (when, snaplen, mut lost) = (self.time.1, self.shared.snaplen as usize, 0);
        for i in mask.iter() {
            let Some(frame) = burst.frames().get(i) else { break };
            let kept = frame.len().min(snaplen);
            let pushed = self.chunk.as_mut().is_some_and(|chunk| chunk.push(when, kept, burst, frame));
            if !pushed {
                self.next(now);
                let pushed = self.chunk.as_mut().is_some_and(|chunk| chunk.push(when, kept, burst, frame));
                lost += u64::from(!pushed);
            }
        }
        lost
    }

    /// Hands the chunk over and takes an empty one, if there is one.
    #[cold]
    fn next(&mut self, now: u64) {
        self.hand_over();
        self.shared.take_back(self.index, &mut self.spare);
        self.chunk = if self.shared.failed() { None } else { self.spare.pop() };
        self.since = now;
    }

    fn hand_over(&mut self) {
        if let Some(chunk) = self.chunk.take() {
            self.shared.full(chunk);
        }
    }
}

impl Filter for Instance {
    fn frames(&mut self, turn: &mut Turn<'_>, _direction: Direction, burst: &Burst, mask: Mask) -> Mask {
        self.counts.seen.add(mask.count() as u64);
        let wanted = self.matcher.select(burst, mask);
        if !wanted.is_empty() {
            let lost = self.record(turn.now, burst, wanted);
            self.counts.captured.add(wanted.count() as u64 - lost);
            if lost != 0 {
                self.counts.lost.add(lost);
            }
        }
        mask
    }

    fn tick(&mut self, turn: &mut Turn<'_>) {
        if self.chunk.is_some() && turn.now.saturating_sub(self.since) > LINGER {
            self.hand_over();
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.hand_over();
        self.shared.leave();
    }
}
