//! Frames that come from a chardev.

use super::framing::{Fault, LONGEST, Parsed, parse};
use super::link::{Link, Woke};
use super::{BATCH, Feed, Flow, Inlet};
use crate::filter::Settings;
use crate::mem::arena::Arena;
use crate::uring::Waker;
use crate::wire::vnet_hdr::VnetHdr;
use nix::errno::Errno;
use nix::poll::PollFlags;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// What the thread and control share.
#[derive(Debug)]
struct Shared {
    flow: Arc<Flow>,
    settings: Arc<Settings>,
    injected: AtomicU64,
    header: AtomicU64,
    empty: AtomicU64,
    cut: AtomicU64,
    detached: AtomicU64,
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
        let (feed, inlet, running) = Feed::new(arena, worker)?;
        let none = || AtomicU64::new(0);
        let shared = Arc::new(Shared {
            flow: feed.flow().clone(),
            settings: settings.clone(),
            injected: none(),
            header: none(),
            empty: none(),
            cut: none(),
            detached: none(),
        });
        let theirs = shared.clone();
        thread::Builder::new().name("netdevd-chan".into()).spawn(move || {
            let run = Run {
                shared: &theirs,
                feed,
                vnet,
                file: None,
                buffer: vec![0; LONGEST + BATCH].into(),
                filled: 0..0,
                owed: None,
            };
            run.run();
            drop(running);
        })?;
        Ok((Self { shared }, inlet))
    }

    /// Control's end.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.shared.flow.link
    }

    /// It was switched on: it reads anew, whatever came before, as in QEMU.
    pub fn attach(&self) {
        self.shared.flow.link.detach(false);
        self.shared.flow.link.wake();
    }

    /// The settings have changed.
    pub fn changed(&self) {
        self.shared.flow.link.wake();
    }

    /// Frames that were read and have not gone on.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.shared.flow.held()
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
}

/// The thread.
struct Run<'s> {
    shared: &'s Shared,
    feed: Feed,
    vnet: bool,
    file: Option<OwnedFd>,
    buffer: Box<[u8]>,
    /// Where in the buffer bytes are that nobody looked at.
    filled: Range<usize>,
    owed: Option<Owed>,
}

impl Run<'_> {
    fn run(mut self) {
        while !self.shared.flow.link.is_closing() {
            if let Some(file) = self.shared.flow.link.arrived() {
                self.file = Some(file);
            }
            let room = self.hand_on();
            let on = self.shared.settings.is_on();
            if !room {
                self.wait_for_room();
            } else if self.file.is_none() || !on {
                // Also the end of the connection waits, behind the data.
                let _ = self.shared.flow.link.rest(None, PollFlags::empty(), || false);
            } else if self.shared.flow.link.is_detached() {
                self.rest(PollFlags::empty());
            } else {
                self.read();
            }
        }
        self.hand_on();
        // It may have come and gone before this thread ran for the first time.
        if let Some(file) = self.shared.flow.link.arrived() {
            self.file = Some(file);
        }
        self.shared.flow.link.over(self.filled.is_empty() && self.owed.is_none() && self.file.is_some());
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
                    self.feed.owe(&self.shared.settings);
                    self.owed = Some(Owed { hdr, at: frame });
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
                    self.shared.flow.link.detach(true);
                }
            }
        }
        self.feed.show(room);
        room
    }

    /// Puts the frame that is owed into the rings; whether there was room.
    fn pay(&mut self) -> bool {
        let Some(Owed { hdr, at }) = &self.owed else { return true };
        let bytes = self.buffer.get(at.clone()).unwrap_or_default();
        let paid = self.feed.pay(*hdr, bytes);
        if paid {
            self.owed = None;
        }
        paid
    }

    fn wait_for_room(&mut self) {
        let shared = self.shared;
        let _ = shared.flow.link.rest(None, PollFlags::empty(), || self.hand_on());
    }

    fn rest(&mut self, wanted: PollFlags) {
        let file = self.file.as_ref().map(AsFd::as_fd);
        if self.shared.flow.link.rest(file, wanted, || false) == Woke::Gone {
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
        self.shared.flow.link.end();
    }
}
