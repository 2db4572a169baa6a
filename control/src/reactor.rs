//! The event loop's parts: readiness (epoll), signals, timers and wake-ups as descriptors, all for one thread.
//!
//! Descriptors are watched level-triggered, so a handler may stop early and is called again. A [`Token`] says what a
//! descriptor is to its owner; the loop hands it back with what happened.

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Events taken from the kernel in one call.
const BATCH: usize = 64;

/// What a descriptor is to its owner: which part of the daemon, which object, and which descriptor of that object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// The part of the daemon that the event is for.
    pub part: Part,
    /// Distinguishes the descriptors of one object.
    pub role: u8,
    /// The object; numbers are never used twice, so that an event for a closed object finds nobody.
    pub object: u32,
}

/// Parts of the daemon that own descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Part {
    /// Signals.
    Signals,
    /// Work done off this thread has finished.
    Completion,
    /// Listeners, idle connections and timers of character devices.
    Chardev,
    /// Connections of monitors.
    Monitor,
    /// The metrics responder.
    Metrics,
    /// Connections of guests' VMMs.
    Nic,
    /// Connections to vhost-user back-ends.
    VhostUser,
    /// The kernel's word of network interfaces, and when to look at them without it.
    Links,
    /// Listeners and timers of `stream` and `socket` netdevs, and the ends of their connections.
    Streams,
    /// Streams to VDE switches, and when to look for those that went.
    Vde,
    /// When guests are announced next.
    Announce,
    /// Connections of comparisons that ended.
    Colo,
    /// The ends of connections of filters' chardevs.
    Filters,
    /// The ends of passt processes, what they say, and when to start them again.
    Passt,
    /// Processes of `user` netdevs that end, and when they are started again.
    User,
    /// Changes of vDPA devices, and their going.
    Vdpa,
    /// Rings of taps that stopped.
    VhostNet,
}

impl Token {
    /// A token.
    #[must_use]
    pub const fn new(part: Part, object: u32, role: u8) -> Self {
        Self { part, role, object }
    }

    fn pack(self) -> u64 {
        (self.part as u64) << 40 | u64::from(self.role) << 32 | u64::from(self.object)
    }

    fn unpack(data: u64) -> Option<Self> {
        let part = match (data >> 40) as u8 {
            0 => Part::Signals,
            1 => Part::Completion,
            2 => Part::Chardev,
            3 => Part::Monitor,
            4 => Part::Metrics,
            5 => Part::Nic,
            6 => Part::VhostUser,
            7 => Part::Links,
            8 => Part::Streams,
            9 => Part::Vde,
            10 => Part::Announce,
            11 => Part::Colo,
            12 => Part::Filters,
            13 => Part::Passt,
            14 => Part::User,
            15 => Part::Vdpa,
            16 => Part::VhostNet,
            _ => return None,
        };
        Some(Self { part, role: (data >> 32) as u8, object: data as u32 })
    }
}

/// What a watched descriptor is watched for. Hang-ups and errors are always told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    /// Tell when it can be read.
    pub read: bool,
    /// Tell when it can be written.
    pub write: bool,
}

impl Interest {
    /// Reading only.
    pub const READ: Self = Self { read: true, write: false };
    /// Neither: hang-ups and errors only.
    pub const NONE: Self = Self { read: false, write: false };

    fn flags(self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, self.read);
        flags.set(EpollFlags::EPOLLOUT, self.write);
        flags
    }
}

/// What happened to a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Whose it is.
    pub token: Token,
    /// It can be read (or has ended: reading tells).
    pub read: bool,
    /// It can be written.
    pub write: bool,
    /// Both directions are gone, or it is in error; or [`Reactor::watch_end`] was asked for, and nothing more comes.
    pub hangup: bool,
}

/// Watches descriptors.
#[derive(Debug)]
pub struct Reactor {
    epoll: Epoll,
}

impl Reactor {
    /// A reactor that watches nothing yet.
    ///
    /// # Errors
    /// The kernel's, when no descriptor is left.
    pub fn new() -> nix::Result<Self> {
        Ok(Self { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)? })
    }

    /// Begins to watch `fd`.
    ///
    /// # Errors
    /// `EPERM` for files that are always ready (regular files, `/dev/null`).
    pub fn watch(&self, fd: impl AsFd, token: Token, interest: Interest) -> nix::Result<()> {
        self.epoll.add(fd, EpollEvent::new(interest.flags(), token.pack()))
    }

    /// Begins to watch `fd` for reading, by edges: told of each time that something is written to it, so that nobody has to read it.
    ///
    /// # Errors
    /// As [`Reactor::watch`].
    pub fn watch_edges(&self, fd: impl AsFd, token: Token) -> nix::Result<()> {
        self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, token.pack()))
    }

    /// Begins to watch for the end of what comes from `fd`, told as a hang-up; nothing else is.
    ///
    /// # Errors
    /// As [`Reactor::watch`].
    pub fn watch_end(&self, fd: impl AsFd, token: Token) -> nix::Result<()> {
        self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLRDHUP, token.pack()))
    }

    /// Changes what a watched `fd` is watched for.
    ///
    /// # Errors
    /// `ENOENT` when it is not watched.
    pub fn change(&self, fd: impl AsFd, token: Token, interest: Interest) -> nix::Result<()> {
        self.epoll.modify(fd, &mut EpollEvent::new(interest.flags(), token.pack()))
    }

    /// Stops watching `fd`. Closing a descriptor's last copy does the same.
    pub fn forget(&self, fd: impl AsFd) {
        // Not watched is as good as forgotten.
        let _ = self.epoll.delete(fd);
    }

    /// Waits until something happens or `timeout` has passed (`None`: for ever), and appends what happened.
    ///
    /// # Errors
    /// The kernel's; an interrupted wait is not one.
    pub fn wait(&self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> nix::Result<()> {
        let mut events = [EpollEvent::empty(); BATCH];
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            Some(time) => {
                // Rounded up, so that a deadline has passed when the wait ends.
                let millis = time.as_micros().div_ceil(1000);
                EpollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX)).unwrap_or(EpollTimeout::MAX)
            }
        };
        let count = match self.epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            result => result?,
        };
        ready.extend(events.iter().take(count).filter_map(|event| {
            let flags = event.events();
            Some(Ready {
                token: Token::unpack(event.data())?,
                read: flags.contains(EpollFlags::EPOLLIN),
                write: flags.contains(EpollFlags::EPOLLOUT),
                hangup: flags
                    .intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR | EpollFlags::EPOLLRDHUP),
            })
        }));
        Ok(())
    }
}

/// Signals as a descriptor. Make it before the first thread: threads inherit the blocked mask.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks `signals` in this thread and receives them here instead.
    ///
    /// # Errors
    /// The kernel's.
    pub fn block(signals: &[Signal]) -> nix::Result<Self> {
        let mask: SigSet = signals.iter().copied().collect();
        mask.thread_block()?;
        Ok(Self(SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// The next signal that has arrived and the process that sent it.
    pub fn take(&mut self) -> Option<(Signal, u32)> {
        let info = self.0.read_signal().ok().flatten()?;
        Some((Signal::try_from(info.ssi_signo.cast_signed()).ok()?, info.ssi_pid))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A one-shot timer as a descriptor.
#[derive(Debug)]
pub struct Timer(TimerFd);

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// The kernel's, when no descriptor is left.
    pub fn new() -> nix::Result<Self> {
        Ok(Self(TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?))
    }

    /// Fires once after `delay` (at least a microsecond, since zero would unset it).
    ///
    /// # Errors
    /// The kernel's.
    pub fn set(&self, delay: Duration) -> nix::Result<()> {
        let delay = delay.max(Duration::from_micros(1));
        self.0.set(Expiration::OneShot(TimeSpec::from_duration(delay)), TimerSetTimeFlags::empty())
    }

    /// Takes note that it fired, so that it does not stay ready. False: it was set again after it had been seen to fire.
    pub fn acknowledge(&self) -> bool {
        let mut count = [0; 8];
        nix::unistd::read(self.0.as_fd(), &mut count).is_ok()
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Wakes the loop from another thread.
#[derive(Debug)]
pub struct Wake(EventFd);

impl Wake {
    /// A wake-up that has not been used.
    ///
    /// # Errors
    /// The kernel's, when no descriptor is left.
    pub fn new() -> nix::Result<Self> {
        Ok(Self(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?))
    }

    /// Makes the descriptor readable. Any thread.
    pub fn wake(&self) {
        // Only a full counter could fail, and then it is readable already.
        let _ = self.0.write(1);
    }

    /// Makes it unreadable again. Call before looking at what was announced.
    pub fn acknowledge(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_kernel() {
        for part in [
            Part::Signals,
            Part::Completion,
            Part::Chardev,
            Part::Monitor,
            Part::Metrics,
            Part::Nic,
            Part::VhostUser,
            Part::Links,
            Part::Streams,
            Part::Vde,
            Part::Vdpa,
            Part::VhostNet,
            Part::Announce,
            Part::Colo,
            Part::Filters,
            Part::Passt,
            Part::User,
        ] {
            let token = Token::new(part, u32::MAX - 1, 200);
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
        assert_eq!(Token::unpack(u64::MAX), None);
    }

    #[test]
    fn a_wake_from_another_thread_is_seen_once() {
        let reactor = Reactor::new().unwrap();
        let wake = std::sync::Arc::new(Wake::new().unwrap());
        let token = Token::new(Part::Completion, 0, 0);
        reactor.watch(&*wake, token, Interest::READ).unwrap();
        let other = std::sync::Arc::clone(&wake);
        std::thread::spawn(move || other.wake()).join().unwrap();
        let mut ready = Vec::new();
        reactor.wait(None, &mut ready).unwrap();
        assert_eq!(ready.len(), 1);
        assert_eq!(ready[0].token, token);
        wake.acknowledge();
        ready.clear();
        reactor.wait(Some(Duration::ZERO), &mut ready).unwrap();
        assert!(ready.is_empty());
    }

    #[test]
    fn edges_are_told_each_time_without_a_read() {
        let reactor = Reactor::new().unwrap();
        let wake = Wake::new().unwrap();
        reactor.watch_edges(&wake, Token::new(Part::Nic, 3, 1)).unwrap();
        for _ in 0..3 {
            wake.wake();
            let mut ready = Vec::new();
            reactor.wait(Some(Duration::from_secs(5)), &mut ready).unwrap();
            assert_eq!(ready.len(), 1);
            ready.clear();
            reactor.wait(Some(Duration::ZERO), &mut ready).unwrap();
            assert!(ready.is_empty());
        }
    }

    #[test]
    fn a_timer_fires_once() {
        let reactor = Reactor::new().unwrap();
        let timer = Timer::new().unwrap();
        reactor.watch(&timer, Token::new(Part::Chardev, 1, 2), Interest::READ).unwrap();
        timer.set(Duration::ZERO).unwrap();
        let mut ready = Vec::new();
        reactor.wait(Some(Duration::from_secs(5)), &mut ready).unwrap();
        assert_eq!(ready.len(), 1);
        assert!(timer.acknowledge());
        assert!(!timer.acknowledge());
        ready.clear();
        reactor.wait(Some(Duration::from_millis(2)), &mut ready).unwrap();
        assert!(ready.is_empty());
    }
}
