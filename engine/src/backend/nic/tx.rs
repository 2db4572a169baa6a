//! To the guest: one copy into the buffers of its receive ring.

use super::open::Shared;
use super::options::Features;
use super::put::{Put, log, put_any, put_run};
use super::rx::notify;
use crate::backend::signal::Signal;
use crate::backend::tally::Tally;
use crate::burst::{BURST, Burst, Head, Mask};
use crate::mem::guest::GuestMemory;
use crate::port::counters::PortCounters;
use crate::port::{Caps, Doze, Turn, TxQueue};
use crate::uring::Bell;
use crate::virtq::inflight::{InflightRing, show};
use crate::virtq::{Access, CHAINS, DeviceRing, Found, RingConfig, RingFault};
use std::sync::Arc;

/// The transmitting half of a nic's queue pair.
pub(super) struct NicTx<R> {
    ring: Option<R>,
    /// What the guest takes now.
    pub(super) features: Features,
    /// Chains that were looked at and not yet filled: what they say is read once.
    found: Found,
    /// Entries of the ring.
    size: u16,
    tally: Tally,
    /// Chains that there were when a frame needed more.
    starved: usize,
    kick: Signal,
    call: Option<Bell>,
    inflight: Option<InflightRing>,
    shared: Arc<Shared>,
    memory: Option<Arc<GuestMemory>>,
}

impl<R: DeviceRing> NicTx<R> {
    pub(super) fn new(ring: Option<R>, features: Features, config: &RingConfig, shared: Arc<Shared>) -> Self {
        Self {
            ring,
            features,
            size: config.size,
            kick: Signal::new(config.kick.as_ref()),
            call: config.call.as_ref().map(Bell::new),
            inflight: config.inflight.clone(),
            memory: Some(config.memory.clone()),
            ..Self::absent(shared)
        }
    }

    /// A half whose ring does not run: frames for it are dropped by name.
    pub(super) fn absent(shared: Arc<Shared>) -> Self {
        Self {
            ring: None,
            features: Features::of(0),
            found: Found::new(),
            size: 0,
            tally: Tally::default(),
            starved: 0,
            kick: Signal::default(),
            call: None,
            inflight: None,
            shared,
            memory: None,
        }
    }
}

impl<R: DeviceRing> NicTx<R> {
    /// Looks for chains until there are `want`.
    #[inline]
    fn look(&mut self, want: usize) -> Result<(), RingFault> {
        let held = self.found.chains().len();
        match &mut self.ring {
            Some(ring) if held < want => ring.look(want - held, Access::Write, &mut self.found),
            _ => Ok(()),
        }
    }

    /// Gives the frames from the `skip`th selected one on to as many chains each as it needs; how many went.
    #[inline(never)]
    fn put_rest<'h>(
        &mut self,
        burst: &Burst,
        mask: Mask,
        skip: usize,
        head: impl Fn(usize) -> Option<&'h Head>,
    ) -> usize {
        let mut taken = 0;
        let frames =
            mask.iter().skip(skip).filter_map(|i| burst.frames().get(i).map(|frame| (frame, head(i))));
        for (frame, head) in frames {
            // All that there is: a frame of 64 KiB takes dozens of chains.
            let looked = self.look(CHAINS);
            let Some(ring) = &mut self.ring else { break };
            match put_any(&self.found, &self.features, burst, frame, head) {
                Put::Done(chains) => {
                    let mut left = self.features.header + frame.len();
                    for chain in self.found.chains().iter().take(chains) {
                        let written = left.min(chain.len as usize);
                        left -= written;
                        ring.give(chain, written as u32);
                    }
                    self.log(chains);
                    self.found.drop_front(chains);
                    self.tally.frames += u64::from(frame.weight);
                    self.tally.bytes += frame.len() as u64;
                }
                Put::Short if looked.is_err() => {
                    let Err(fault) = looked else { break };
                    self.fail(fault);
                    break; // from the next look on they are dropped by name
                }
                // The ring is as full of buffers as it can be: it will never hold this frame.
                Put::Short if self.found.chains().len() >= CHAINS.min(usize::from(self.size)) => {
                    self.tally.too_long += u64::from(frame.weight);
                }
                Put::Short => {
                    self.starved = self.found.chains().len();
                    break;
                }
                Put::Never => {
                    self.tally.too_long += u64::from(frame.weight);
                }
            }
            taken += 1;
        }
        taken
    }

    /// As [`TxQueue::tx`]; `head` has the first bytes of the frames whose own are not to be read again.
    #[inline]
    pub(super) fn give<'h>(
        &mut self,
        burst: &Burst,
        mask: Mask,
        head: impl Fn(usize) -> Option<&'h Head>,
    ) -> usize {
        let Some(ring) = &mut self.ring else {
            return self.tally.refuse(burst, mask);
        };
        self.starved = 0;
        if self.found.chains().len() < mask.count() {
            // Segments of a large frame are more than were asked for. A fault is met again below.
            let _ = ring.look(mask.count() - self.found.chains().len(), Access::Write, &mut self.found);
        }
        let header = self.features.header;
        let lent = burst.frames();
        let run = if mask == burst.all() {
            let frames = lent.iter().enumerate().map(|(i, frame)| (frame, head(i)));
            put_run(ring, &self.found, header, burst, frames)
        } else {
            let frames = mask.iter().filter_map(|i| lent.get(i).map(|frame| (frame, head(i))));
            put_run(ring, &self.found, header, burst, frames)
        };
        self.tally.frames += run.frames;
        self.tally.bytes += run.bytes;
        self.log(run.chains);
        self.found.drop_front(run.chains);
        if run.chains == mask.count() {
            return run.chains;
        }
        run.chains + self.put_rest(burst, mask, run.chains, head)
    }

    /// Marks what was written to the oldest chains in the dirty log, if there is one.
    #[inline]
    fn log(&self, count: usize) {
        if let Some(memory) = self.memory.as_deref().filter(|memory| memory.logs()) {
            log(memory, &self.found, count);
        }
    }

    /// The ring makes no sense: it ends here.
    #[cold]
    fn fail(&mut self, fault: RingFault) {
        if let Some(ring) = self.ring.take() {
            self.shared.stop(ring.position());
        }
        self.found.clear();
        self.shared.fail(fault);
    }
}

impl<R: DeviceRing> TxQueue for NicTx<R> {
    fn start(&mut self, turn: &mut Turn<'_>) {
        self.kick.start(turn.io);
    }

    fn caps(&self) -> Caps {
        self.features.caps
    }

    #[inline]
    fn room(&mut self, _turn: &mut Turn<'_>, want: usize) -> usize {
        if self.ring.is_none() {
            return usize::MAX;
        }
        // Those that were looked at when nobody waited do; else as many at once as a burst may need.
        let held = self.found.chains().len();
        if held >= want {
            return held;
        }
        match (self.look(want.clamp(BURST, CHAINS)), self.found.chains().len()) {
            (Err(fault), 0) => {
                self.fail(fault);
                usize::MAX
            }
            // What lies behind a fault is looked at again when the chains before it are filled.
            (_, n) => n,
        }
    }

    /// Drivers give buffers back soon, Linux' when 32 have been read: where more are missing, and a quarter of the ring, they have not been read yet.
    fn is_behind(&mut self) -> bool {
        let missing = (self.size / 4).max(64);
        self.ring.as_mut().is_some_and(|ring| !ring.reaches(self.size.saturating_sub(missing)))
    }

    fn tx(&mut self, _turn: &mut Turn<'_>, burst: &Burst, mask: Mask) -> usize {
        self.give(burst, mask, |_| None)
    }

    fn tx_headed(
        &mut self,
        _turn: &mut Turn<'_>,
        burst: &Burst,
        mask: Mask,
        heads: &[Head],
    ) -> Option<usize> {
        Some(self.give(burst, mask, |i| heads.get(i)))
    }

    fn flush(&mut self, _turn: &mut Turn<'_>) {
        if let Some(ring) = &mut self.ring {
            show(ring, self.inflight.as_ref());
        }
    }

    fn notify(&mut self) {
        if self.ring.as_mut().is_some_and(DeviceRing::asks) {
            notify(self.call.as_mut());
        }
    }

    fn settle(&mut self, _turn: &mut Turn<'_>, counters: &PortCounters) {
        self.tally.settle(counters);
        // For what comes next. A fault is met again by the frame that it concerns.
        let _ = self.look(BURST);
    }

    fn doze(&mut self) -> Doze {
        let Some(ring) = &mut self.ring else { return Doze::Stay };
        ring.want_kicks(true);
        match ring.available(self.starved + 1) {
            Ok(n) if n > self.starved => Doze::Stay,
            Ok(_) => self.kick.doze(),
            // A fault is found, and named, in the next turn.
            Err(_) => Doze::Stay,
        }
    }

    fn rise(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.want_kicks(false);
        }
    }

    fn stop(&mut self, turn: &mut Turn<'_>) -> bool {
        if !self.kick.stop(turn.io) {
            return false;
        }
        if let Some(ring) = self.ring.take() {
            self.shared.stop(ring.position());
        }
        true
    }
}
