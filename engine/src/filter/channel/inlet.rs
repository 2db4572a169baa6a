//! Frames that come from a chardev.

use super::framing::{Fault, LONGEST, Parsed, parse};
use super::link::{Link, Woke};
use super::{BATCH, RING};
use crate::burst::Burst;
use crate::filter::{Direction, Settings};
use crate::mem::arena::Arena;
use crate::mem::records::{Reader, Writer, ring};
use crate::uring::Waker;
use crate::wire::vnet_hdr::VnetHdr;
use nix::errno::Errno;
use nix::poll::PollFlags;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// What the worker, the thread and control share.
#[derive(Debug)]
struct Shared {
    link: Link,
    settings: Arc<Settings>,
    /// Frames in the rings; one that goes both ways is there twice.
    held: AtomicU64,
    /// The thread has bytes that it could not hand on.
    stuck: AtomicBool,
    injected: AtomicU64,
    header: AtomicU64,
    empty: AtomicU64,
    cut: AtomicU64,
    detached: AtomicU64,
}

/// A worker's end: lends frames that came.
#[derive(Debug)]
pub struct Inlet {
    shared: Arc<Shared>,
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
        self.shared.held.fetch_sub(n as u64, Ordering::Release);
        // It may wait for room.
        self.shared.link.nudge();
    }
}

/// Control's hold on the thread.
#[derive(Debug)]
pub struct InletThread {
    shared: Arc<Shared>,
}

impl InletThread {
    /// Starts a thread that reads while `settings` are on, and tells `worker` of frames. `vnet`: records tell the length of a virtio-net header.
    ///
    /// # Errors
    /// No memory, no descriptor, no thread.
    pub fn start(
        arena: &Arc<Arena>,
        settings: &Arc<Settings>,
        vnet: bool,
        worker: Option<Arc<Waker>>,
    ) -> io::Result<(Self, Inlet)> {
        let (link, running) = Link::new().map_err(io::Error::other)?;
        let none = || AtomicU64::new(0);
        let shared = Arc::new(Shared {
            link,
            settings: settings.clone(),
            held: none(),
            stuck: AtomicBool::new(false),
            injected: none(),
            header: none(),
            empty: none(),
            cut: none(),
            detached: none(),
        });
        let (rx_writer, rx) = ring(arena, RING).map_err(io::Error::other)?;
        let (tx_writer, tx) = ring(arena, RING).map_err(io::Error::other)?;
        let theirs = shared.clone();
        thread::Builder::new().name("netdevd-chan".into()).spawn(move || {
            let run = Run {
                shared: &theirs,
                worker,
                rx: rx_writer,
                tx: tx_writer,
                vnet,
                file: None,
                buffer: vec![0; LONGEST + BATCH].into(),
                filled: 0..0,
                owed: None,
            };
            run.run();
            drop(running);
        })?;
        Ok((Self { shared: shared.clone() }, Inlet { shared, rx, tx }))
    }

    /// Control's end.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.shared.link
    }

    /// It was switched on: it reads anew, whatever came before, as in QEMU.
    pub fn attach(&self) {
        self.shared.link.detach(false);
        self.shared.link.wake();
    }

    /// The settings have changed.
    pub fn changed(&self) {
        self.shared.link.wake();
    }

    /// Frames that were read and have not gone on.
    #[must_use]
    pub fn held(&self) -> u64 {
        let stuck = self.shared.stuck.load(Ordering::Acquire);
        self.shared.held.load(Ordering::Acquire) + u64::from(stuck)
    }

    /// Frames handed on, and those lost, by name.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let Shared { injected, header, empty, cut, detached, .. } = &*self.shared;
        let all = [
            ("injected", injected),
            ("bad-header", header),
            ("empty", empty),
            ("cut-in", cut),
            ("detached", detached),
        ];
        all.map(|(name, count)| (name, count.load(Ordering::Relaxed))).into()
    }
}

/// A frame that is not in all rings where it must be.
struct Owed {
    hdr: VnetHdr,
    at: Range<usize>,
    rx: bool,
    tx: bool,
}

/// The thread.
struct Run<'s> {
    shared: &'s Shared,
    worker: Option<Arc<Waker>>,
    rx: Writer,
    tx: Writer,
    vnet: bool,
    file: Option<OwnedFd>,
    buffer: Box<[u8]>,
    /// Where in the buffer bytes are that nobody looked at.
    filled: Range<usize>,
    owed: Option<Owed>,
}

impl Run<'_> {
    fn run(mut self) {
        while !self.shared.link.is_closing() {
            if let Some(file) = self.shared.link.arrived() {
                self.file = Some(file);
            }
            let room = self.hand_on();
            let on = self.shared.settings.is_on();
            if !room {
                self.wait_for_room();
            } else if self.file.is_none() || !on {
                // Also the end of the connection waits, behind the data.
                let _ = self.shared.link.rest(None, PollFlags::empty(), || false);
            } else if self.shared.link.is_detached() {
                self.rest(PollFlags::empty());
            } else {
                self.read();
            }
        }
        self.hand_on();
        // It may have come and gone before this thread ran for the first time.
        if let Some(file) = self.shared.link.arrived() {
            self.file = Some(file);
        }
        self.shared.link.over(self.filled.is_empty() && self.owed.is_none() && self.file.is_some());
    }

    /// Takes the buffer apart; whether all of it found room.
    fn hand_on(&mut self) -> bool {
        let mut room = self.pay();
        while room {
            let at = self.filled.start;
            let Some(bytes) = self.buffer.get(self.filled.clone()) else { break };
            match parse(bytes, self.vnet) {
                Parsed::More => break,
                Parsed::Frame(hdr, frame) => {
                    let frame = at + frame.start..at + frame.end;
                    self.filled.start = frame.end;
                    self.shared.injected.fetch_add(1, Ordering::Relaxed);
                    let settings = &self.shared.settings;
                    let (rx, tx) = (settings.goes(Direction::Rx), settings.goes(Direction::Tx));
                    self.owed = Some(Owed { hdr, at: frame, rx, tx });
                    room = self.pay();
                }
                Parsed::Skip(fault, end) => {
                    self.filled.start = at + end;
                    let count = match fault {
                        Fault::Empty => &self.shared.empty,
                        Fault::Header => &self.shared.header,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Parsed::TooLong => {
                    self.filled = 0..0;
                    self.shared.detached.fetch_add(1, Ordering::Relaxed);
                    self.shared.link.detach(true);
                }
            }
        }
        self.rx.publish();
        self.tx.publish();
        self.shared.stuck.store(!room, Ordering::Release);
        if let Some(worker) = &self.worker {
            worker.nudge();
        }
        room
    }

    /// Puts the frame that is owed into the rings; whether there was room.
    fn pay(&mut self) -> bool {
        let Some(Owed { hdr, at, rx, tx }) = &mut self.owed else { return true };
        let bytes = self.buffer.get(at.clone()).unwrap_or_default();
        for (owed, writer) in [(rx, &mut self.rx), (tx, &mut self.tx)] {
            if *owed && writer.push_with(*hdr, 1, bytes.len(), |to| to.copy_from_slice(bytes)) {
                *owed = false;
                // Before the worker can see it, and give it back.
                self.shared.held.fetch_add(1, Ordering::Relaxed);
            }
        }
        if matches!(self.owed, Some(Owed { rx: false, tx: false, .. })) {
            self.owed = None;
        }
        self.owed.is_none()
    }

    fn wait_for_room(&mut self) {
        let shared = self.shared;
        let _ = shared.link.rest(None, PollFlags::empty(), || self.hand_on());
    }

    fn rest(&mut self, wanted: PollFlags) {
        let file = self.file.as_ref().map(AsFd::as_fd);
        if self.shared.link.rest(file, wanted, || false) == Woke::Gone {
            self.end();
        }
    }

    fn read(&mut self) {
        if self.filled.start != 0 {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
        let (Some(file), Some(room)) = (&self.file, self.buffer.get_mut(self.filled.end..)) else { return };
        match nix::unistd::read(file, room) {
            Ok(0) => self.end(),
            Ok(n) => self.filled.end += n,
            Err(Errno::EAGAIN | Errno::EINTR) => self.rest(PollFlags::POLLIN),
            Err(_gone) => self.end(),
        }
    }

    /// The connection is over: the beginning of a frame is lost with it.
    fn end(&mut self) {
        self.file = None;
        if !self.filled.is_empty() {
            self.shared.cut.fetch_add(1, Ordering::Relaxed);
        }
        self.filled = 0..0;
        self.shared.link.end();
    }
}
