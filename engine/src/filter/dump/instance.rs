//! The worker's side: copies records into a chunk.

use super::writer::Shared;
use super::{CHUNK, LINGER, pcap};
use crate::burst::{Burst, Mask};
use crate::filter::{Direction, Filter};
use crate::port::Turn;
use std::sync::Arc;

/// One worker's instance.
pub(super) struct Instance {
    shared: Arc<Shared>,
    /// The chunk being filled; capacity [`CHUNK`], never grown.
    chunk: Option<Vec<u8>>,
    /// When the chunk's first record came.
    since: u64,
}

impl Instance {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, chunk: None, since: 0 }
    }

    fn record(&mut self, now: u64, burst: &Burst, index: usize) -> bool {
        let Some(frame) = burst.frames().get(index) else { return true };
        let kept = frame.len().min(self.shared.snaplen as usize);
        let need = pcap::RECORD_HEADER + kept;
        if self.chunk.as_ref().is_some_and(|c| c.len() + need > CHUNK) {
            self.hand_over();
        }
        if self.chunk.is_none() {
            self.chunk = self.shared.empty();
            self.since = now;
        }
        let Some(chunk) = self.chunk.as_mut() else { return false };
        let when = self.shared.epoch + now;
        chunk.extend_from_slice(&pcap::record_header(when, kept as u32, frame.len() as u32));
        let at = chunk.len();
        chunk.resize(at + kept, 0);
        if let Some(room) = chunk.get_mut(at..) {
            burst.copy_out(frame, 0, room);
        }
        true
    }

    fn hand_over(&mut self) {
        if let Some(chunk) = self.chunk.take() {
            self.shared.full(chunk);
        }
    }
}

impl Filter for Instance {
    fn frames(&mut self, turn: &mut Turn<'_>, _direction: Direction, burst: &Burst, mask: Mask) -> Mask {
        let mut lost = 0;
        for i in mask.iter() {
            if !self.record(turn.now, burst, i) {
                lost += 1;
            }
        }
        self.shared.count(mask.count() as u64 - lost, lost);
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
