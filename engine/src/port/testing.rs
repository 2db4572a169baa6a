//! A port whose outside is a pair of queues in this process: for tests and benches of everything between ports.

#![allow(unsafe_code)] // lends the bytes of vectors that it holds

use super::counters::PortCounters;
use super::{Caps, Doze, Queue, QueueId, RxQueue, Source, Turn, TxQueue};
use crate::burst::{Burst, Mask, Seg};
use crate::wire::vnet_hdr::VnetHdr;
use crossbeam::queue::ArrayQueue;
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A frame outside the engine.
pub type OutsideFrame = (VnetHdr, Vec<u8>);

/// The other end of a test port.
#[derive(Debug, Clone)]
pub struct Outside {
    /// Frames for the engine to receive.
    pub sent: Arc<ArrayQueue<OutsideFrame>>,
    /// Frames that the engine transmitted.
    pub received: Arc<ArrayQueue<OutsideFrame>>,
    /// How many of them were there at the last flush: what a ring's other side would see.
    pub shown: Arc<AtomicUsize>,
    /// Vectors for the engine to transmit into; without one it allocates.
    pub spare: Arc<ArrayQueue<Vec<u8>>>,
    /// Vectors that the engine has received from; it drops what does not fit.
    pub used: Arc<ArrayQueue<Vec<u8>>>,
}

/// Makes a test port that holds `depth` frames each way and takes what `caps` says.
#[must_use]
pub fn port(id: QueueId, depth: usize, caps: Caps) -> (Queue, Outside) {
    let ring = || Arc::new(ArrayQueue::new(depth));
    // Twice as many, since some are in the hands of whoever moves them from one ring to the other.
    let vectors = || Arc::new(ArrayQueue::new(depth * 2));
    let outside =
        Outside { sent: ring(), received: ring(), spare: vectors(), used: vectors(), shown: Arc::default() };
    let rx =
        TestRx { from: outside.sent.clone(), used: outside.used.clone(), lent: VecDeque::with_capacity(64) };
    let (to, spare) = (outside.received.clone(), outside.spare.clone());
    let tx = TestTx { to, spare, shown: outside.shown.clone(), caps, frames: 0, bytes: 0 };
    let counters = Arc::new(PortCounters::default());
    (Queue { id, rx: Box::new(rx), tx: Box::new(tx), counters, fd: -1 }, outside)
}

struct TestRx {
    from: Arc<ArrayQueue<OutsideFrame>>,
    used: Arc<ArrayQueue<Vec<u8>>>,
    lent: VecDeque<OutsideFrame>,
}

impl RxQueue for TestRx {
    fn start(&mut self, _turn: &mut Turn<'_>) {}

    fn rx(&mut self, _turn: &mut Turn<'_>, want: usize, burst: &mut Burst) {
        while self.lent.len() < want {
            let Some(frame) = self.from.pop() else { break };
            self.lent.push_back(frame);
        }
        for (hdr, bytes) in self.lent.iter_mut().take(want) {
            let Some(ptr) = NonNull::new(bytes.as_mut_ptr()) else { return };
            // SAFETY: the vector stays in `lent`, unchanged, until `release`.
            let seg = unsafe { Seg::new(ptr, bytes.len() as u32) };
            if !burst.push(*hdr, &[seg]) {
                return;
            }
        }
    }

    fn release(&mut self, _turn: &mut Turn<'_>, taken: usize) {
        for (_, bytes) in self.lent.drain(..taken.min(self.lent.len())) {
            let _ = self.used.push(bytes);
        }
    }

    fn notify(&mut self) {}

    fn stop(&mut self, _turn: &mut Turn<'_>) -> bool {
        true
    }

    fn source(&self) -> Source {
        Source::Polled
    }

    fn pending(&self) -> bool {
        !self.lent.is_empty() || !self.from.is_empty()
    }

    fn doze(&mut self) -> Doze {
        Doze::Stay // a test's outside wakes nobody
    }
}

struct TestTx {
    to: Arc<ArrayQueue<OutsideFrame>>,
    spare: Arc<ArrayQueue<Vec<u8>>>,
    shown: Arc<AtomicUsize>,
    caps: Caps,
    frames: u64,
    bytes: u64,
}

impl TxQueue for TestTx {
    fn start(&mut self, _turn: &mut Turn<'_>) {}

    fn caps(&self) -> Caps {
        self.caps
    }

    fn room(&mut self, _turn: &mut Turn<'_>, _want: usize) -> usize {
        self.to.capacity() - self.to.len()
    }

    fn tx(&mut self, _turn: &mut Turn<'_>, burst: &Burst, mask: Mask) -> usize {
        for (done, i) in mask.iter().enumerate() {
            let Some(frame) = burst.frames().get(i) else { return done };
            let mut bytes = self.spare.pop().unwrap_or_default();
            bytes.resize(frame.len(), 0);
            burst.copy_out(frame, 0, &mut bytes);
            if self.to.push((frame.hdr, bytes)).is_err() {
                return done;
            }
            self.frames += u64::from(frame.weight);
            self.bytes += frame.len() as u64;
        }
        mask.count()
    }

    fn notify(&mut self) {}

    fn flush(&mut self, _turn: &mut Turn<'_>) {
        self.shown.store(self.to.len(), Ordering::Relaxed);
    }

    fn settle(&mut self, _turn: &mut Turn<'_>, counters: &PortCounters) {
        counters.tx.frames.add(std::mem::take(&mut self.frames));
        counters.tx.bytes.add(std::mem::take(&mut self.bytes));
    }

    fn stop(&mut self, _turn: &mut Turn<'_>) -> bool {
        true
    }
}
