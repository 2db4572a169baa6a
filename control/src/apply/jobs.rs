//! Work off the control thread: each job has a thread of its own, a ticket, and a time limit.
//!
//! One file descriptor says that something ended or ran out of time: an epoll of an eventfd and a timerfd, so that
//! whoever waits needs to know of one only.

use super::{OpenFilter, Opened, Plugged, Vdpa};
use crate::model::ClientId;
use crate::passt::{LaunchError, Started as StartedPasst};
use crate::qmp::error::QmpError;
use crate::user::Started;
use crate::user::forwarded::Forwarded;
use engine::filter::bpf::Program;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use usernet::protocol::Answer;

/// Names a command that is still under way; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What a job brings back.
pub enum Product {
    /// A backend.
    Opened(Result<Opened, QmpError>),
    /// A port of a VDE switch.
    Vde(Result<Plugged, QmpError>),
    /// A passt.
    Passt(Result<StartedPasst, LaunchError>),
    /// The process of a `user` netdev, with its network.
    User(Result<Box<Started>, QmpError>),
    /// A forward from the host, which a process of a `user` netdev has; or why it has not.
    Forwarded(Result<Forwarded, String>),
    /// What processes of `user` netdevs answered.
    Answers(Vec<(ClientId, Result<Answer, String>)>),
    /// A vDPA device.
    Vdpa(Result<Vdpa, QmpError>),
    /// A filter.
    Filter(Result<OpenFilter, QmpError>),
    /// A filter that is to go has let go of what it held, or its time was up.
    Drained,
    /// A compiled filter expression.
    Program(Result<Program, QmpError>),
    /// A chardev, in the form that only its maker knows.
    Chardev(Box<dyn Any + Send>),
    /// The address of a name.
    Address(Result<SocketAddrV4, QmpError>),
    /// Nothing: something was closed.
    Closed,
}

/// The jobs under way.
pub struct Jobs {
    last: u64,
    deadlines: BTreeMap<Ticket, Instant>,
    sender: mpsc::Sender<(Ticket, Product)>,
    receiver: mpsc::Receiver<(Ticket, Product)>,
    event: Arc<EventFd>,
    timer: TimerFd,
    poll: Epoll,
}

/// How a job ended.
pub enum Ended {
    /// With its product.
    Done(Ticket, Product),
    /// Not yet, but nobody waits any longer.
    TimedOut(Ticket),
    /// Long after it timed out; the product must still be closed, off the control thread.
    TooLate(Product),
}

impl Jobs {
    /// No job yet.
    ///
    /// # Errors
    /// The kernel has no descriptor for us.
    pub fn new() -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let event = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        poll.add(&event, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        poll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
        Ok(Self { last: 0, deadlines: BTreeMap::new(), sender, receiver, event, timer, poll })
    }

    /// Readable when [`Jobs::ended`] has something to say.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.poll.0.as_fd()
    }

    /// Whether jobs are under way.
    #[must_use]
    pub fn busy(&self) -> bool {
        !self.deadlines.is_empty()
    }

    /// Starts a job on a thread of its own.
    ///
    /// # Errors
    /// No thread could be made; the job was not run.
    pub fn start(
        &mut self,
        limit: Duration,
        job: impl FnOnce() -> Product + Send + 'static,
    ) -> io::Result<Ticket> {
        self.last += 1;
        let ticket = Ticket(self.last);
        let (sender, event) = (self.sender.clone(), Arc::clone(&self.event));
        std::thread::Builder::new().name("netdevd-job".into()).spawn(move || {
            // Receiver gone or counter full: the daemon ends, or is woken anyway.
            let _ = sender.send((ticket, job()));
            let _ = event.write(1);
        })?;
        self.deadlines.insert(ticket, Instant::now() + limit);
        self.arm();
        Ok(ticket)
    }

    /// What ended or ran out of time since the last call.
    pub fn ended(&mut self) -> Vec<Ended> {
        // Both only say that there is something; which, the channel and the clock say.
        let _ = self.event.read();
        let mut all = Vec::new();
        while let Ok((ticket, product)) = self.receiver.try_recv() {
            all.push(match self.deadlines.remove(&ticket) {
                Some(_) => Ended::Done(ticket, product),
                None => Ended::TooLate(product),
            });
        }
        let now = Instant::now();
        let late: Vec<Ticket> =
            self.deadlines.iter().filter(|(_, at)| **at <= now).map(|(t, _)| *t).collect();
        for ticket in late {
            self.deadlines.remove(&ticket);
            all.push(Ended::TimedOut(ticket));
        }
        self.arm();
        all
    }

    /// Sets the timer to the nearest deadline; setting it also clears an expiration.
    fn arm(&self) {
        let armed = match self.deadlines.values().min() {
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
                let once = Expiration::OneShot(TimeSpec::from_duration(left));
                self.timer.set(once, TimerSetTimeFlags::empty())
            }
            None => self.timer.unset(),
        };
        if let Err(error) = armed {
            tracing::warn!("time limits of jobs cannot be kept: {error}");
        }
    }
}
