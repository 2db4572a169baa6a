//! What control and the thread of a chardev share.

use crate::uring::{IoError, Waker};
use nix::poll::{PollFd, PollFlags, poll, ppoll};
use nix::sys::time::TimeSpec;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Control's end of a chardev's thread.
#[derive(Debug)]
pub struct Link {
    /// Wakes the thread.
    waker: Waker,
    /// A connection that the thread has not taken yet.
    arrived: Mutex<Option<OwnedFd>>,
    /// There is a connection, taken or not.
    connected: AtomicBool,
    /// The connection has ended, and control was told and has not looked yet.
    ended: AtomicBool,
    /// What came made no sense, and is read no more.
    detached: AtomicBool,
    closing: AtomicBool,
    /// The thread has ended between two frames, so that somebody else can go on with the connection.
    clean: AtomicBool,
    /// The thread has said its last word.
    finished: AtomicBool,
    /// Written to when control is to look.
    tell: OnceLock<Arc<OwnedFd>>,
    /// Its sender is the thread's, and gone when the thread has ended.
    over: Mutex<Receiver<()>>,
}

/// Why a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woke {
    /// There may be something to do.
    Look,
    /// The connection is gone.
    Gone,
}

impl Link {
    /// Without a connection; the sender is for the thread, and dropped at its end.
    pub(in crate::filter) fn new() -> Result<(Self, Sender<()>), IoError> {
        let (running, over) = channel();
        let link = Self {
            waker: Waker::new()?,
            arrived: Mutex::new(None),
            connected: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            detached: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            clean: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            tell: OnceLock::new(),
            over: Mutex::new(over),
        };
        Ok((link, running))
    }

    /// From now on `tell`, an eventfd, is written to when [`Link::take_end`] has something to say.
    pub fn report_to(&self, tell: &Arc<OwnedFd>) {
        let _ = self.tell.set(tell.clone());
    }

    /// Somebody is at the other end of this file, which must not block.
    pub fn connect(&self, file: OwnedFd) {
        *self.arrived.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        self.connected.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether somebody is at the other end.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Whether a connection has ended since the last call.
    #[must_use]
    pub fn take_end(&self) -> bool {
        self.ended.swap(false, Ordering::AcqRel)
    }

    /// Whether what came made no sense, and nothing is read any more.
    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Relaxed)
    }

    /// The thread is to come to its end.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Waits for the thread's end, at most that long; whether somebody else can go on with the connection.
    #[must_use]
    pub fn wait(&self, bound: Duration) -> bool {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is ever sent: the end of the only sender is the end of the thread.
        let ended = over.recv_timeout(bound) == Err(RecvTimeoutError::Disconnected);
        (ended || self.is_over()) && self.clean.load(Ordering::Acquire)
    }

    /// Whether the thread has ended, or is about to and uses the connection no more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    pub(in crate::filter) fn wake(&self) {
        self.waker.wake();
    }

    /// Cheaper than [`Link::wake`], for who has made work visible that the thread looks for when it has announced sleep.
    pub(in crate::filter) fn nudge(&self) {
        self.waker.nudge();
    }

    pub(in crate::filter) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// The connection that came since the last look.
    pub(super) fn arrived(&self) -> Option<OwnedFd> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The thread has closed its connection.
    pub(super) fn end(&self) {
        self.connected.store(false, Ordering::Release);
        self.ended.store(true, Ordering::Release);
        self.tell();
    }

    pub(super) fn detach(&self, detached: bool) {
        self.detached.store(detached, Ordering::Relaxed);
        if detached {
            self.tell();
        }
    }

    /// The thread's last word.
    pub(in crate::filter) fn over(&self, clean: bool) {
        self.clean.store(clean, Ordering::Release);
        self.finished.store(true, Ordering::Release);
        self.tell();
    }

    fn tell(&self) {
        if let Some(tell) = self.tell.get() {
            // Ours alone, and non-blocking: one that is full has told already.
            let _ = nix::unistd::write(&**tell, &1u64.to_ne_bytes());
        }
    }

    /// Sleeps until somebody wakes the thread, or the file is ready, or has ended; not at all where `again` finds something to do.
    pub(super) fn rest(
        &self,
        file: Option<BorrowedFd<'_>>,
        wanted: PollFlags,
        again: impl FnOnce() -> bool,
    ) -> Woke {
        self.sleep(file, wanted, None, again)
    }

    /// As [`Link::rest`], without a file, and no longer than `bound`, if that is given.
    pub(in crate::filter) fn pause(&self, bound: Option<Duration>, again: impl FnOnce() -> bool) {
        let _ = self.sleep(None, PollFlags::empty(), bound, again);
    }

    fn sleep(
        &self,
        file: Option<BorrowedFd<'_>>,
        wanted: PollFlags,
        bound: Option<Duration>,
        again: impl FnOnce() -> bool,
    ) -> Woke {
        let mut woke = Woke::Look;
        if self.waker.announce() && !again() {
            let own = PollFd::new(self.waker.as_fd(), PollFlags::POLLIN);
            let mut both = [own, PollFd::new(file.unwrap_or(self.waker.as_fd()), wanted)];
            let used = if file.is_some() { 2 } else { 1 };
            // A signal ends it early, and that is as good.
            let _ = ppoll(both.get_mut(..used).unwrap_or_default(), bound.map(TimeSpec::from), None);
            let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
            let told =
                both.get(1).filter(|_| used == 2).and_then(PollFd::revents).unwrap_or(PollFlags::empty());
            // What can still be read comes first; reading tells the end.
            if told.intersects(gone) && !told.intersects(wanted) {
                woke = Woke::Gone;
            }
        }
        self.waker.rise();
        self.waker.acknowledge();
        woke
    }
}

/// Waits until a file takes bytes, until `end` at most.
pub(super) fn writable(file: BorrowedFd<'_>, end: Instant) -> bool {
    let left = end.saturating_duration_since(Instant::now()).as_millis();
    let Ok(left @ 1..) = u16::try_from(left) else { return false };
    poll(&mut [PollFd::new(file, PollFlags::POLLOUT)], left).is_ok_and(|ready| ready > 0)
}
