//! The stack's sockets, in an epoll of their own.
//!
//! libslirp names every socket and what it awaits before each wait. Only what has changed since the last time is told to the kernel,
//! and only what is ready is looked at, so that a thousand idle connections cost a walk through memory and no more.

use crate::fds::borrowed;
use crate::ffi;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::{AsFd, BorrowedFd, RawFd};

/// Sockets that are taken from the kernel at once.
const READY: usize = 256;

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// What the stack awaits; what the kernel was told.
    wanted: i32,
    told: i32,
    /// What has happened.
    ready: i32,
}

/// The set.
#[derive(Debug)]
pub(crate) struct Set {
    epoll: Epoll,
    /// By the socket's number.
    places: Vec<Place>,
    /// The sockets of this wait and of the last.
    now: Vec<RawFd>,
    before: Vec<RawFd>,
    ready: Vec<RawFd>,
}

const PAIRS: [(i32, EpollFlags); 5] = [
    (ffi::POLL_IN, EpollFlags::EPOLLIN),
    (ffi::POLL_OUT, EpollFlags::EPOLLOUT),
    (ffi::POLL_PRI, EpollFlags::EPOLLPRI),
    (ffi::POLL_ERR, EpollFlags::EPOLLERR),
    (ffi::POLL_HUP, EpollFlags::EPOLLHUP),
];

fn to_kernel(events: i32) -> EpollFlags {
    PAIRS.iter().filter(|(bit, _)| events & bit != 0).fold(EpollFlags::empty(), |all, (_, flag)| all | *flag)
}

fn from_kernel(flags: EpollFlags) -> i32 {
    PAIRS.iter().filter(|(_, flag)| flags.contains(*flag)).fold(0, |all, (bit, _)| all | bit)
}

impl Set {
    pub(crate) fn new() -> Result<Set, Errno> {
        Ok(Set {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            places: Vec::new(),
            now: Vec::new(),
            before: Vec::new(),
            ready: Vec::new(),
        })
    }

    /// Becomes readable when a socket is ready.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    fn place(&mut self, socket: RawFd) -> Option<&mut Place> {
        let at = usize::try_from(socket).ok()?;
        if at >= self.places.len() {
            self.places.resize(at + 1, Place::default());
        }
        self.places.get_mut(at)
    }

    /// Begins to name what is awaited.
    pub(crate) fn begin(&mut self) {
        std::mem::swap(&mut self.now, &mut self.before);
        self.now.clear();
        for at in 0..self.before.len() {
            let socket = self.before[at];
            if let Some(place) = self.place(socket) {
                place.wanted = 0;
            }
        }
    }

    /// A socket and what it awaits; the answer is what [`Set::happened`] is asked with.
    pub(crate) fn want(&mut self, socket: RawFd, events: i32) -> i32 {
        let Some(place) = self.place(socket) else { return -1 };
        place.wanted = events;
        place.ready = 0;
        self.now.push(socket);
        socket
    }

    /// All that were named.
    pub(crate) fn sockets(&self) -> &[RawFd] {
        &self.now
    }

    /// Whether the stack awaits to write to it.
    pub(crate) fn wants_to_write(&self, socket: RawFd) -> bool {
        let place = usize::try_from(socket).ok().and_then(|at| self.places.get(at));
        place.is_some_and(|place| place.wanted & ffi::POLL_OUT != 0)
    }

    /// Tells the kernel what has changed.
    pub(crate) fn tell(&mut self) {
        for old in [true, false] {
            for at in 0..if old { self.before.len() } else { self.now.len() } {
                let socket = if old { self.before[at] } else { self.now[at] };
                let Some(&mut Place { wanted, told, .. }) = self.place(socket) else { continue };
                if wanted != told {
                    self.change(socket, wanted, told);
                }
            }
        }
    }

    fn change(&mut self, socket: RawFd, wanted: i32, told: i32) {
        let mut event = EpollEvent::new(to_kernel(wanted), u64::try_from(socket).unwrap_or_default());
        let done = if wanted == 0 {
            self.epoll.delete(borrowed(socket))
        } else if told == 0 {
            match self.epoll.add(borrowed(socket), event) {
                Err(Errno::EEXIST) => self.epoll.modify(borrowed(socket), &mut event),
                done => done,
            }
        } else {
            match self.epoll.modify(borrowed(socket), &mut event) {
                Err(Errno::ENOENT) => self.epoll.add(borrowed(socket), event),
                done => done,
            }
        };
        if let Some(place) = self.place(socket) {
            place.told = if done.is_ok() { wanted } else { 0 };
        }
    }

    /// Takes from the kernel what is ready.
    pub(crate) fn take(&mut self) {
        for at in 0..self.ready.len() {
            let socket = self.ready[at];
            if let Some(place) = self.place(socket) {
                place.ready = 0;
            }
        }
        self.ready.clear();
        let mut events = [EpollEvent::empty(); READY];
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in events.iter().take(count) {
            let Ok(socket) = RawFd::try_from(event.data()) else { continue };
            if let Some(place) = self.place(socket) {
                place.ready = from_kernel(event.events());
                self.ready.push(socket);
            }
        }
    }

    /// What has happened to a socket.
    pub(crate) fn happened(&self, socket: RawFd) -> i32 {
        let place = usize::try_from(socket).ok().and_then(|at| self.places.get(at));
        place.map_or(0, |place| place.ready)
    }

    /// Sockets that could be written to when the stack was served last.
    pub(crate) fn written(&self) -> impl Iterator<Item = RawFd> {
        self.ready.iter().copied().filter(|&socket| self.happened(socket) & ffi::POLL_OUT != 0)
    }

    /// The stack closes a socket.
    pub(crate) fn closed(&mut self, socket: RawFd) {
        let Some(place) = self.place(socket) else { return };
        let told = std::mem::take(place).told;
        if told != 0 {
            let _ = self.epoll.delete(borrowed(socket));
        }
    }
}
