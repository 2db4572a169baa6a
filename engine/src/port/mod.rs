//! The contract that every backend fulfils: a port is one or more queue pairs, each an [`RxQueue`] and a [`TxQueue`].
//!
//! One turn of a worker, for one source:
//!
//! 1. `rx` lends a burst; nothing is copied.
//! 2. Filters and the switch decide; `tx` of each destination takes frames. A ring-like destination copies at once; a
//!    file-like one queues one request a frame that *names* the lent bytes.
//! 3. `flush` of every destination that was written, then one `io_uring_enter` for all of them, then `settle`: what the
//!    kernel refused for now was copied into the destination's backlog, what can never go was dropped by name.
//! 4. `release` tells the source how many went: those buffers are its own again, the rest is lent anew next time.
//! 5. One memory fence, then `notify` of every queue that was written or given back: who sleeps is woken.

pub mod backlog;
pub mod counters;
pub mod lanes;
pub mod pace;
pub mod testing;
mod wake;

pub use wake::{Doze, Source};

use crate::burst::{Burst, Head, Mask};
use crate::mem::pool::Pool;
use crate::uring::FdIo;
use counters::{DropReason, PortCounters};
use std::os::fd::RawFd;
use std::sync::Arc;

/// Names a queue of a port for as long as it exists; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u64);

/// What a worker hands to its ports in a turn.
pub struct Turn<'w> {
    /// Nanoseconds since the engine started, read once a turn.
    pub now: u64,
    /// The worker's io_uring (or its batched-syscall stand-in).
    pub io: &'w mut FdIo,
    /// The worker's pool of frame buffers.
    pub pool: &'w mut Pool,
}

/// What a receiver can take; the offload stage makes frames fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps {
    /// The receiver completes partial checksums.
    pub csum: bool,
    /// The receiver takes TCP/IPv4 frames to be segmented.
    pub tso4: bool,
    /// The receiver takes TCP/IPv6 frames to be segmented.
    pub tso6: bool,
    /// The receiver takes TCP frames with CWR to be segmented (ECN).
    pub ecn: bool,
    /// The receiver takes UDP/IPv4 frames to be fragmented.
    pub ufo: bool,
    /// The receiver takes UDP frames to be segmented.
    pub uso: bool,
    /// A large frame costs the receiver much less than its segments: coalesce toward it.
    pub coalesce: bool,
}

impl Caps {
    /// A receiver that takes only whole wire frames.
    pub const NONE: Self =
        Self { csum: false, tso4: false, tso6: false, ecn: false, ufo: false, uso: false, coalesce: false };
}

/// The receiving half of a queue pair: frames that the outside sent.
pub trait RxQueue: Send {
    /// Called once on the worker that now owns the queue: register the file, arm receives.
    fn start(&mut self, turn: &mut Turn<'_>);

    /// Whether there is nothing to take, told by one load: an empty ring is not worth the rest. May be false for no reason.
    fn is_empty(&mut self) -> bool {
        false
    }

    /// Begins to load what is there, as far as a burst reaches; how many frames that is, 0 where nobody knows. Comes before [`RxQueue::rx`], if
    /// there is something.
    fn peek(&mut self) -> usize {
        0
    }

    /// Appends at most `want` frames to `burst`. They stay valid until [`RxQueue::release`].
    fn rx(&mut self, turn: &mut Turn<'_>, want: usize, burst: &mut Burst);

    /// The first `taken` frames of the last burst have gone; the rest must be lent again, in the same order.
    fn release(&mut self, turn: &mut Turn<'_>, taken: usize);

    /// Wakes the outside if it waits for what was given back; the worker has fenced since ([`std::sync::atomic::Ordering::SeqCst`]).
    fn notify(&mut self);

    /// Begins (first call) or goes on with stopping: cancel requests, reap completions. True when neither kernel nor
    /// peer can touch this queue's memory any more; only then is it handed back to control.
    fn stop(&mut self, turn: &mut Turn<'_>) -> bool;

    /// How the worker learns of frames.
    fn source(&self) -> Source;

    /// Whether frames are waiting that need no further event (for the last look before sleep).
    fn pending(&self) -> bool;

    /// The worker is about to sleep: ask the outside for wake-ups, then look once more.
    fn doze(&mut self) -> Doze {
        if self.pending() { Doze::Stay } else { Doze::Sleep }
    }

    /// The worker is awake: no wake-ups, please.
    fn rise(&mut self) {}

    /// Frames that the queue itself had to drop since the last call, by reason (truncated, malformed).
    fn drops(&mut self) -> Option<(DropReason, u64)> {
        None
    }

    /// Why the transport gives nothing any more, as an errno; 0 while it works.
    fn trouble(&self) -> i32 {
        0
    }
}

/// The transmitting half of a queue pair: frames for the outside.
pub trait TxQueue: Send {
    /// Called once on the worker that now owns the queue.
    fn start(&mut self, turn: &mut Turn<'_>);

    /// What this receiver can take now.
    fn caps(&self) -> Caps;

    /// Frames that [`TxQueue::tx`] would take now: all that are known of, if these are `want` or more. 0 is back-pressure: the source is
    /// left alone.
    fn room(&mut self, turn: &mut Turn<'_>, want: usize) -> usize;

    /// Whether the outside has so much before it that it sees nothing sooner by being given it sooner.
    fn is_behind(&mut self) -> bool {
        false
    }

    /// Takes the frames of `burst` that `mask` selects, in order; returns how many (a prefix of the selection).
    /// A frame that can never go counts as taken and is reported by [`TxQueue::settle`] as dropped.
    fn tx(&mut self, turn: &mut Turn<'_>, burst: &Burst, mask: Mask) -> usize;

    /// As [`TxQueue::tx`], of frames whose first bytes are those of `heads`, by place in the burst, and not what lies there now. Nothing, with
    /// nothing done, where the queue has no way to do so: it gets them as [`TxQueue::tx`] takes them.
    fn tx_headed(&mut self, _: &mut Turn<'_>, _: &Burst, _: Mask, heads: &[Head]) -> Option<usize> {
        let _ = heads;
        None
    }

    /// Publishes what was taken, so that who looks sees it. Comes after each burst that is delivered, and at the end of the turn
    /// for what had waited. File-like queues have nothing to do here.
    fn flush(&mut self, turn: &mut Turn<'_>);

    /// Wakes the outside if it waits for what was published; the worker has fenced since ([`std::sync::atomic::Ordering::SeqCst`]).
    fn notify(&mut self);

    /// After the turn's submission: account completions, keep refused frames, retry kept ones.
    fn settle(&mut self, turn: &mut Turn<'_>, counters: &PortCounters);

    /// As [`RxQueue::stop`].
    fn stop(&mut self, turn: &mut Turn<'_>) -> bool;

    /// Called once [`TxQueue::stop`] has said true: what was taken and never went is dropped by name.
    fn stopped(&mut self, _counters: &PortCounters) {}

    /// The worker is about to sleep while frames wait for this receiver: ask for a wake-up when it makes room, then look once more.
    /// [`Doze::Nap`] where nobody can promise one.
    fn doze(&mut self) -> Doze {
        Doze::Nap
    }

    /// The worker is awake: no wake-ups, please.
    fn rise(&mut self) {}

    /// Whether frames wait for the receiver (it will signal; the worker may sleep).
    fn blocked(&self) -> bool {
        false
    }
}

/// One queue pair on its way from control to a worker and back.
pub struct Queue {
    /// Its name for life.
    pub id: QueueId,
    /// Receiving half.
    pub rx: Box<dyn RxQueue>,
    /// Transmitting half.
    pub tx: Box<dyn TxQueue>,
    /// Counters, shared with whoever shows them.
    pub counters: Arc<PortCounters>,
    /// The file behind the queue, for messages; -1 where there is none.
    pub fd: RawFd,
}
