//! To a guest that may not take every frame: what its filter refuses is dropped by name before a buffer is used.
//!
//! A frame may lie in another guest's memory, which that guest can change at any time. So the bytes that decide are copied once, and
//! what arrives begins with that copy: no sender brings a guest a frame that its filter refuses.

use super::filter::{Mode, RxFilter, head};
use super::options::{Features, NetFeatures};
use super::published::Published;
use super::tx::NicTx;
use crate::burst::{BURST, Burst, HEAD, Head, Mask};
use crate::port::counters::{DropReason, PortCounters};
use crate::port::{Caps, Doze, Turn, TxQueue};
use crate::virtq::DeviceRing;
use std::sync::Arc;

/// The transmitting half of a nic's queue pair, behind the guest's filter.
pub(super) struct SelectiveTx<R> {
    tx: NicTx<R>,
    /// What the guest asked for, and what was last read of it.
    published: Arc<Published>,
    version: u64,
    filter: Box<RxFilter>,
    /// The guest does not take every frame.
    filters: bool,
    /// What decided on the frames of a burst, by their place in it.
    heads: Box<[Head; BURST]>,
    /// Frames that it did not take.
    refused: u64,
    /// Features agreed on.
    agreed: u64,
}

impl<R: DeviceRing> SelectiveTx<R> {
    pub(super) fn new(tx: NicTx<R>, agreed: u64, published: Arc<Published>) -> Self {
        let mut this = Self {
            tx,
            published,
            // No version is odd when it is read: the first look finds news.
            version: u64::MAX,
            filter: Box::new(RxFilter::new([0; 6])),
            filters: false,
            heads: Box::new([[0; HEAD]; BURST]),
            refused: 0,
            agreed,
        };
        this.learn();
        this
    }

    /// Reads what the guest asked for, if that changed.
    #[inline]
    fn learn(&mut self) {
        if self.version != self.published.version()
            && let Some((version, filter, offloads)) = self.published.read()
        {
            self.tx.features = Features::of(self.agreed & (offloads | !NetFeatures::GUEST_OFFLOADS));
            self.filters = !filter.mode(Mode::Promiscuous);
            (self.version, *self.filter) = (version, filter);
        }
    }

    /// As `tx`, for a guest that does not take every frame. `given` are the first bytes of frames on which somebody else decided before.
    #[inline(never)]
    fn select(&mut self, burst: &Burst, mask: Mask, given: Option<&[Head]>) -> usize {
        let Self { tx, filter, heads, .. } = self;
        let mut wanted = Mask::NONE;
        for i in mask.iter() {
            if let (Some(frame), Some(place)) = (burst.frames().get(i), heads.get_mut(i)) {
                let given = given.and_then(|heads| heads.get(i).copied());
                *place = given.unwrap_or_else(|| head(burst, frame));
                wanted.0 |= u64::from(filter.takes(*place)) << i;
            }
        }
        let taken = if wanted.is_empty() { 0 } else { tx.give(burst, wanted, |i| heads.get(i)) };
        // All in front of the first that is wanted and did not go are done with.
        let stuck = wanted.iter().nth(taken);
        let mut gone = 0;
        for i in mask.iter().take_while(|i| stuck.is_none_or(|stuck| *i < stuck)) {
            gone += 1;
            if !wanted.has(i) {
                self.refused += burst.frames().get(i).map_or(0, |frame| u64::from(frame.weight));
            }
        }
        gone
    }
}

impl<R: DeviceRing> TxQueue for SelectiveTx<R> {
    fn start(&mut self, turn: &mut Turn<'_>) {
        self.tx.start(turn);
    }

    #[inline]
    fn caps(&self) -> Caps {
        self.tx.caps()
    }

    #[inline]
    fn room(&mut self, turn: &mut Turn<'_>, want: usize) -> usize {
        self.learn();
        self.tx.room(turn, want)
    }

    #[inline]
    fn tx(&mut self, turn: &mut Turn<'_>, burst: &Burst, mask: Mask) -> usize {
        if self.filters { self.select(burst, mask, None) } else { self.tx.tx(turn, burst, mask) }
    }

    #[inline]
    fn tx_headed(&mut self, turn: &mut Turn<'_>, burst: &Burst, mask: Mask, heads: &[Head]) -> Option<usize> {
        if self.filters {
            return Some(self.select(burst, mask, Some(heads)));
        }
        self.tx.tx_headed(turn, burst, mask, heads)
    }

    #[inline]
    fn flush(&mut self, turn: &mut Turn<'_>) {
        self.tx.flush(turn);
    }

    #[inline]
    fn notify(&mut self) {
        self.tx.notify();
    }

    #[inline]
    fn settle(&mut self, turn: &mut Turn<'_>, counters: &PortCounters) {
        self.tx.settle(turn, counters);
        if self.refused > 0 {
            counters.count_drop(DropReason::RxFilter, std::mem::take(&mut self.refused));
        }
    }

    fn stop(&mut self, turn: &mut Turn<'_>) -> bool {
        self.tx.stop(turn)
    }

    fn doze(&mut self) -> Doze {
        self.tx.doze()
    }

    fn rise(&mut self) {
        self.tx.rise();
    }

    fn is_behind(&mut self) -> bool {
        self.tx.is_behind()
    }

    fn blocked(&self) -> bool {
        self.tx.blocked()
    }
}
