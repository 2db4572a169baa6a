//! What a filter holds of one direction in one worker: a ring of frames, a bound, and its account.

use super::Direction;
use crate::burst::{Burst, Frame, Mask};
use crate::mem::arena::{Arena, ArenaError};
use crate::mem::records::{Reader, Record, Writer, ring};
use crate::port::counters::Counter;
use crossbeam::utils::CachePadded;
use std::sync::Arc;

/// What one worker did with the frames of one direction. One writer each; control reads.
#[derive(Debug, Default)]
pub(super) struct Account {
    kept: Counter,
    gone: Counter,
    dropped: Counter,
}

/// The accounts of all workers and directions.
#[derive(Debug, Default)]
pub(super) struct Accounts(Vec<Arc<CachePadded<Account>>>);

impl Accounts {
    fn sum(&self, of: impl Fn(&Account) -> &Counter) -> u64 {
        self.0.iter().map(|account| of(account).get()).sum()
    }

    /// Frames that are held now.
    pub(super) fn held(&self) -> u64 {
        // What has gone is read first: a frame that goes meanwhile counts as held, not the other way round.
        let gone = self.sum(|a| &a.gone);
        self.sum(|a| &a.kept).saturating_sub(gone)
    }

    /// By name, for users.
    pub(super) fn counters(&self) -> Vec<(&'static str, u64)> {
        let (held, released) = (self.held(), self.sum(|a| &a.gone));
        vec![("held", held), ("released", released), ("queue-full", self.sum(|a| &a.dropped))]
    }
}

/// The frames of one direction.
#[derive(Debug)]
pub(super) struct Hold {
    writer: Writer,
    reader: Reader,
    /// Frames that were not taken.
    waiting: u64,
    account: Arc<CachePadded<Account>>,
    /// Frames dropped since [`Hold::lost`] was asked.
    dropped: u64,
}

impl Hold {
    /// One of `bytes` bytes for each direction, in the order of [`Direction::BOTH`].
    pub(super) fn pair(
        arena: &Arc<Arena>,
        bytes: usize,
        accounts: &mut Accounts,
    ) -> Result<[Self; 2], ArenaError> {
        let mut one = || {
            let (writer, reader) = ring(arena, bytes)?;
            let account: Arc<CachePadded<Account>> = Arc::default();
            accounts.0.push(account.clone());
            Ok(Self { writer, reader, waiting: 0, account, dropped: 0 })
        };
        Ok([one()?, one()?])
    }

    /// Whether a frame may pass without overtaking another.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Frames that may be lent.
    pub(super) const fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Keeps copies of the selected frames; those beyond `most` frames or the ring's bytes are dropped.
    pub(super) fn keep(&mut self, burst: &Burst, mask: Mask, most: u64) {
        let mut kept = 0;
        for frame in mask.iter().filter_map(|i| burst.frames().get(i)) {
            if self.waiting + kept < most && self.writer.push(burst, frame) {
                kept += 1;
            }
        }
        self.kept(mask.count() as u64, kept);
    }

    /// Keeps a copy of one frame, changed by `change`.
    pub(super) fn keep_changed(
        &mut self,
        burst: &Burst,
        frame: &Frame,
        most: u64,
        change: impl FnOnce(&mut [u8]),
    ) {
        let room = self.waiting < most;
        let kept = room
            && self.writer.push_with(frame.hdr, frame.weight, frame.len(), |to| {
                burst.copy_out(frame, 0, to);
                change(to);
            });
        self.kept(1, kept.into());
    }

    fn kept(&mut self, all: u64, kept: u64) {
        self.writer.publish();
        self.waiting += kept;
        self.account.kept.add(kept);
        self.dropped += all - kept;
        self.account.dropped.add(all - kept);
    }

    /// Frames dropped since this was asked.
    pub(super) const fn lost(&mut self) -> u64 {
        std::mem::replace(&mut self.dropped, 0)
    }

    /// Lends the oldest frames, up to the first one that `goes` refuses.
    pub(super) fn lend(&mut self, want: usize, burst: &mut Burst, goes: impl FnMut(&Record<'_>) -> bool) {
        self.reader.lend_while(want, burst, goes);
    }

    /// Shows the oldest `n` frames that were not taken.
    pub(super) fn look(&self, n: usize, each: impl FnMut(&Record<'_>)) {
        self.reader.look(n, each);
    }

    /// The oldest `n` frames are on their way.
    pub(super) fn took(&mut self, n: usize) {
        self.reader.took(n);
        self.waiting = self.waiting.saturating_sub(n as u64);
    }

    /// The oldest `n` of those that were taken have gone.
    pub(super) fn gone(&mut self, n: usize) {
        self.reader.done(n);
        self.account.gone.add(n as u64);
    }
}

/// The index of a direction in what has one of a kind for each.
#[inline]
pub(super) const fn side(direction: Direction) -> usize {
    match direction {
        Direction::Rx => 0,
        Direction::Tx => 1,
    }
}
