//! The way of frames from a thread to a worker, which puts them in: a ring for each direction, and the account of what is in them.

use super::RING;
use super::link::Link;
use crate::burst::Burst;
use crate::filter::{Direction, Settings};
use crate::mem::arena::Arena;
use crate::mem::records::{Reader, Writer, ring};
use crate::uring::Waker;
use crate::wire::vnet_hdr::VnetHdr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::Sender;

/// What the worker, the thread and control share.
#[derive(Debug)]
pub(in crate::filter) struct Flow {
    /// Wakes the thread, and ends it.
    pub(in crate::filter) link: Link,
    /// Frames in the rings; one that goes both ways is there twice.
    held: AtomicU64,
    /// The thread has a frame that is not in the rings.
    busy: AtomicBool,
}

impl Flow {
    /// Frames that were read and have not gone on.
    pub(in crate::filter) fn held(&self) -> u64 {
        // Read first: what is at hand is in the rings before it is at hand no more.
        let busy = self.busy.load(Ordering::Acquire);
        self.held.load(Ordering::Acquire) + u64::from(busy)
    }
}

/// A worker's end: lends frames that came.
#[derive(Debug)]
pub struct Inlet {
    flow: Arc<Flow>,
    rx: Reader,
    tx: Reader,
}

impl Inlet {
    fn reader(&mut self, direction: Direction) -> &mut Reader {
        match direction {
            Direction::Rx => &mut self.rx,
            Direction::Tx => &mut self.tx,
        }
    }

    /// As [`crate::filter::Filter::due`].
    pub fn due(&mut self, direction: Direction) -> usize {
        if self.reader(direction).is_empty() { 0 } else { usize::MAX }
    }

    /// As [`crate::filter::Filter::lend`].
    pub fn lend(&mut self, direction: Direction, want: usize, burst: &mut Burst) {
        self.reader(direction).lend(want, burst);
    }

    /// As [`crate::filter::Filter::took`].
    pub fn took(&mut self, direction: Direction, n: usize) {
        self.reader(direction).took(n);
    }

    /// As [`crate::filter::Filter::gone`].
    pub fn gone(&mut self, direction: Direction, n: usize) {
        self.reader(direction).done(n);
        self.flow.held.fetch_sub(n as u64, Ordering::Release);
        // It may wait for room.
        self.flow.link.nudge();
    }
}

/// The thread's end: hands frames over, one after the other.
#[derive(Debug)]
pub(in crate::filter) struct Feed {
    flow: Arc<Flow>,
    worker: Option<Arc<Waker>>,
    rx: Writer,
    tx: Writer,
    /// The directions, in the order of [`Direction::BOTH`], in which the frame at hand is not in its ring.
    owed: [bool; 2],
}

impl Feed {
    /// Both ends; the thread tells `worker` of frames. The sender is for the thread, and dropped at its end.
    pub(in crate::filter) fn new(
        arena: &Arc<Arena>,
        worker: Option<Arc<Waker>>,
    ) -> io::Result<(Self, Inlet, Sender<()>)> {
        let (link, running) = Link::new().map_err(io::Error::other)?;
        let flow = Arc::new(Flow { link, held: AtomicU64::new(0), busy: AtomicBool::new(false) });
        let (rx, rx_reader) = ring(arena, RING).map_err(io::Error::other)?;
        let (tx, tx_reader) = ring(arena, RING).map_err(io::Error::other)?;
        let inlet = Inlet { flow: flow.clone(), rx: rx_reader, tx: tx_reader };
        Ok((Self { flow, worker, rx, tx, owed: [false; 2] }, inlet, running))
    }

    pub(in crate::filter) const fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// From now on the next frame counts as held. The thread reads its settings behind this: it sees that they were switched off, or who did that
    /// finds a frame held.
    pub(in crate::filter) fn begin(&self) {
        self.flow.busy.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The frame at hand goes the ways that these settings name.
    pub(in crate::filter) fn owe(&mut self, settings: &Settings) {
        self.owed = Direction::BOTH.map(|direction| settings.goes(direction));
    }

    /// Puts the frame at hand into the rings where it is owed; whether there was room.
    pub(in crate::filter) fn pay(&mut self, hdr: VnetHdr, bytes: &[u8]) -> bool {
        for (owed, writer) in self.owed.iter_mut().zip([&mut self.rx, &mut self.tx]) {
            if *owed && writer.push_with(hdr, 1, bytes.len(), |to| to.copy_from_slice(bytes)) {
                *owed = false;
                // Before the worker can see it, and give it back.
                self.flow.held.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.owed == [false; 2]
    }

    /// Lets the worker see what was put in. Without room the frame at hand still is.
    pub(in crate::filter) fn show(&mut self, room: bool) {
        self.rx.publish();
        self.tx.publish();
        self.flow.busy.store(!room, Ordering::Release);
        if let Some(worker) = &self.worker {
            worker.nudge();
        }
    }
}
