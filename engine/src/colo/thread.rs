//! The thread of one comparison: it waits for four sockets and its own wake-up, and never for one alone.

use super::compare::{Comparer, Side, Sink};
use super::counters::{Count, Counters};
use super::framing::Reader;
use super::outbox::{Outbox, Put};
use super::settings::Settings;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{MsgFlags, recv};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Bytes read with one call.
const READ: usize = 64 << 10;
/// Reads of one socket before the others have their turn.
const READS: usize = 4;
/// How long the end waits for `outdev` to take what is left.
const DRAIN: Duration = Duration::from_millis(500);

/// The sockets of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Frames of the primary come here.
    Primary,
    /// Frames of the secondary come here.
    Secondary,
    /// Frames go out here.
    Out,
    /// Texts come and go here.
    Notify,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Primary, Self::Secondary, Self::Out, Self::Notify];
}

/// What control and the thread share.
#[derive(Debug)]
struct Shared {
    settings: Arc<Settings>,
    counters: Arc<Counters>,
    /// Sockets that were connected, for the thread to take.
    given: Mutex<Vec<(Role, OwnedFd)>>,
    stop: AtomicBool,
    thread: EventFd,
    /// Connections that ended, for control to see.
    ended: [AtomicBool; Role::ALL.len()],
    /// Readers that gave up.
    detached: [AtomicBool; Role::ALL.len()],
    /// An eventfd of control's.
    control: Arc<OwnedFd>,
}

/// A comparison that runs, held by control. Dropping it ends it.
#[derive(Debug)]
pub struct Compare {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Compare {
    /// Starts the thread. `vnet` says whether frames that arrive carry the length of their virtio-net header; `control` is an eventfd that is written to
    /// when a connection has ended or a reader gave up.
    ///
    /// # Errors
    /// No thread or no descriptor could be made.
    pub fn start(settings: Arc<Settings>, vnet: bool, control: Arc<OwnedFd>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            settings: settings.clone(),
            counters: Arc::default(),
            given: Mutex::default(),
            stop: AtomicBool::new(false),
            thread: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            ended: Default::default(),
            detached: Default::default(),
            control,
        });
        let ports = Ports {
            shared: shared.clone(),
            outbox: Outbox::default(),
            notices: Outbox::default(),
            sockets: Default::default(),
        };
        let comparer = Comparer::new(settings, shared.counters.clone());
        let runner = Runner {
            comparer,
            ports,
            readers: [Reader::new(vnet), Reader::new(vnet), Reader::new(vnet)],
            buffer: vec![0; READ],
            start: Instant::now(),
            next_scan: Instant::now(),
        };
        let thread = thread::Builder::new().name("colo-compare".into()).spawn(move || runner.run())?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Gives the thread a connected stream socket.
    pub fn connect(&self, role: Role, socket: OwnedFd) {
        self.shared.given.lock().unwrap_or_else(PoisonError::into_inner).push((role, socket));
        // Full only if it is to wake anyway.
        let _ = self.shared.thread.write(1);
    }

    /// The connections that ended since the last call.
    #[must_use]
    pub fn take_ended(&self) -> Vec<Role> {
        let ended = |role: &Role| {
            flag(&self.shared.ended, *role).is_some_and(|flag| flag.swap(false, Ordering::AcqRel))
        };
        Role::ALL.into_iter().filter(ended).collect()
    }

    /// Whether the reader of that socket gave up for good, since a frame was longer than any may be.
    #[must_use]
    pub fn is_detached(&self, role: Role) -> bool {
        flag(&self.shared.detached, role).is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// What can be changed.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// What it counts, by name.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.shared.counters.list()
    }

    /// Ends it: what is held of the primary goes out, as far as `outdev` takes it within half a second.
    pub fn finish(&self) {
        self.shared.stop.store(true, Ordering::Release);
        let _ = self.shared.thread.write(1);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the thread has been told; there is nothing to do about it here.
            let _ = thread.join();
        }
    }
}

impl Drop for Compare {
    fn drop(&mut self) {
        self.finish();
    }
}

fn flag(flags: &[AtomicBool; Role::ALL.len()], role: Role) -> Option<&AtomicBool> {
    flags.get(role as usize)
}

/// The sockets, and what waits for them.
struct Ports {
    shared: Arc<Shared>,
    sockets: [Option<OwnedFd>; Role::ALL.len()],
    outbox: Outbox,
    notices: Outbox,
}

impl Ports {
    fn socket(&self, role: Role) -> Option<&OwnedFd> {
        self.sockets.get(role as usize).and_then(Option::as_ref)
    }

    fn waits(&self, role: Role) -> bool {
        match role {
            Role::Out => !self.outbox.is_empty(),
            Role::Notify => !self.notices.is_empty(),
            Role::Primary | Role::Secondary => false,
        }
    }

    /// Sends what the two that are written to take; gives those whose connection ended.
    fn send(&mut self) -> impl Iterator<Item = Role> + use<> {
        let [_, _, out, notify] = &self.sockets;
        let failed = |outbox: &mut Outbox, socket: &Option<OwnedFd>| {
            socket.as_ref().is_some_and(|socket| outbox.send(socket).is_err())
        };
        let out = failed(&mut self.outbox, out).then_some(Role::Out);
        let notify = failed(&mut self.notices, notify).then_some(Role::Notify);
        out.into_iter().chain(notify)
    }

    /// Closes a connection; what was to be sent over it is lost.
    fn close(&mut self, role: Role) {
        let (lost, count) = match role {
            Role::Out => (self.outbox.clear(), Count::OutdevGone),
            Role::Notify => (self.notices.clear(), Count::NotifyLost),
            Role::Primary | Role::Secondary => (0, Count::OutdevGone),
        };
        self.shared.counters.add(count, lost as u64);
        if let Some(socket) = self.sockets.get_mut(role as usize) {
            *socket = None;
        }
    }

    fn tell(&self, flags: &[AtomicBool; Role::ALL.len()], role: Role) {
        if let Some(flag) = flag(flags, role) {
            flag.store(true, Ordering::Release);
        }
        // Full only if control is to wake anyway.
        let _ = nix::unistd::write(&*self.shared.control, &1u64.to_ne_bytes());
    }
}

impl Sink for Ports {
    fn release(&mut self, frame: &[u8], vnet_len: u32) {
        let count = match self.socket(Role::Out) {
            None => Count::OutdevGone,
            Some(_) => match self.outbox.put(frame, self.shared.settings.vnet().then_some(vnet_len)) {
                Put::Taken => return,
                Put::Full => Count::OutdevFull,
            },
        };
        self.shared.counters.add(count, 1);
    }

    fn notify(&mut self, text: &'static str) {
        // Without the length of a virtio-net header, whatever the setting, as in QEMU.
        if self.socket(Role::Notify).is_none() || self.notices.put(text.as_bytes(), None) == Put::Full {
            self.shared.counters.add(Count::NotifyLost, 1);
        }
    }
}

struct Runner {
    comparer: Comparer,
    ports: Ports,
    /// Of primary, secondary, texts.
    readers: [Reader; 3],
    buffer: Vec<u8>,
    start: Instant,
    next_scan: Instant,
}

impl Runner {
    fn run(mut self) {
        self.set_scan();
        loop {
            let events = self.wait(self.next_scan.saturating_duration_since(Instant::now()));
            // Set again by whoever writes after this read.
            let _ = self.ports.shared.thread.read();
            for (role, event) in Role::ALL.into_iter().zip(events) {
                if event.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
                    self.read(role);
                }
            }
            self.take_given();
            if self.next_scan <= Instant::now() {
                self.comparer.scan(self.now(), &mut self.ports);
                self.set_scan();
            }
            self.send();
            if self.ports.shared.stop.load(Ordering::Acquire) {
                return self.end();
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn set_scan(&mut self) {
        let cycle = self.ports.shared.settings.cycle().max(1);
        self.next_scan = Instant::now() + Duration::from_millis(cycle.into());
    }

    /// Waits until something happens to a socket, at most `limit`; says what.
    fn wait(&self, limit: Duration) -> [PollFlags; Role::ALL.len()] {
        let mut fds = vec![PollFd::new(self.ports.shared.thread.as_fd(), PollFlags::POLLIN)];
        let mut roles = Vec::with_capacity(Role::ALL.len());
        for role in Role::ALL {
            let Some(socket) = self.ports.socket(role) else { continue };
            let mut wanted = PollFlags::POLLIN;
            wanted.set(PollFlags::POLLOUT, self.ports.waits(role));
            fds.push(PollFd::new(socket.as_fd(), wanted));
            roles.push(role);
        }
        // Rounded up, or the last millisecond would be spent turning.
        let limit = limit + Duration::from_micros(999);
        // A signal ends the wait early; then nothing has happened yet.
        let _ = poll(&mut fds, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
        let mut events = [PollFlags::empty(); Role::ALL.len()];
        for (role, fd) in roles.into_iter().zip(fds.iter().skip(1)) {
            if let Some(event) = events.get_mut(role as usize) {
                *event = fd.revents().unwrap_or(PollFlags::empty());
            }
        }
        events
    }

    fn take_given(&mut self) {
        let given =
            std::mem::take(&mut *self.ports.shared.given.lock().unwrap_or_else(PoisonError::into_inner));
        for (role, socket) in given {
            self.close(role);
            if let Some(place) = self.ports.sockets.get_mut(role as usize) {
                *place = Some(socket);
            }
        }
    }

    /// Reads what arrived, but not for ever.
    fn read(&mut self, role: Role) {
        for _ in 0..READS {
            let Some(socket) = self.ports.socket(role) else { return };
            match recv(socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return self.ended(role),
                Ok(count) => {
                    self.arrived(role, count);
                    if count < READ {
                        return;
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                Err(_) => return self.ended(role),
            }
        }
    }

    fn arrived(&mut self, role: Role, count: usize) {
        if flag(&self.ports.shared.detached, role).is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return;
        }
        let now = self.now();
        let Self { comparer, ports, readers: [primary, secondary, texts], buffer, .. } = self;
        let bytes = buffer.get(..count).unwrap_or_default();
        let fed = match role {
            Role::Primary => {
                primary.feed(bytes, |frame, len| comparer.frame(Side::Primary, frame, len, now, ports))
            }
            Role::Secondary => {
                secondary.feed(bytes, |frame, len| comparer.frame(Side::Secondary, frame, len, now, ports))
            }
            Role::Notify => texts.feed(bytes, |text, _| comparer.instruction(text, ports)),
            // Nobody is to say anything there.
            Role::Out => Ok(()),
        };
        if fed.is_err() {
            ports.shared.counters.add(Count::Oversized, 1);
            ports.tell(&ports.shared.detached, role);
        }
    }

    fn send(&mut self) {
        for role in self.ports.send() {
            self.ended(role);
        }
    }

    fn ended(&mut self, role: Role) {
        self.close(role);
        self.ports.tell(&self.ports.shared.ended, role);
    }

    fn close(&mut self, role: Role) {
        let [primary, secondary, texts] = &mut self.readers;
        let reader = match role {
            Role::Primary => Some(primary),
            Role::Secondary => Some(secondary),
            Role::Notify => Some(texts),
            Role::Out => None,
        };
        if let Some(reader) = reader {
            self.ports.shared.counters.add(Count::Truncated, u64::from(reader.inside()));
            reader.restart();
        }
        self.ports.close(role);
    }

    /// What is held of the primary goes out, as far as its receiver takes it in time.
    fn end(mut self) {
        [Role::Primary, Role::Secondary].into_iter().for_each(|role| self.close(role));
        self.comparer.flush(&mut self.ports);
        let end = Instant::now() + DRAIN;
        self.send();
        while self.ports.waits(Role::Out) && Instant::now() < end {
            self.wait(end.saturating_duration_since(Instant::now()));
            let _ = self.ports.shared.thread.read();
            self.send();
        }
        Role::ALL.into_iter().for_each(|role| self.ports.close(role));
    }
}
