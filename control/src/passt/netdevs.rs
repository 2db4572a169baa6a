//! All `passt` netdevs: which process is whose, and when one is started again.

use super::process::Process;
use super::said;
use crate::model::ClientId;
use crate::options::netdev::PasstOptions;
use crate::reactor::{Interest, Part, Reactor, Ready, Timer, Token, Wake};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The object number of the timer.
const TIMER: u32 = 0;
/// The roles of a netdev's descriptors.
const ENDED: u8 = 0;
const SAID: u8 = 1;

/// Time after which one is started again that has ended soon after its start; twice as long after each, up to eight seconds. One that has
/// served for a while is started again at once, as in QEMU.
const AGAIN: Duration = Duration::from_millis(250);
const DOUBLINGS: u32 = 5;
/// What counts as a while.
const SERVED: Duration = Duration::from_secs(10);

/// A passt that runs.
struct Running {
    pid: u32,
    since: Instant,
    /// Readable when it ends.
    _ended: Option<OwnedFd>,
    /// What it says, where it can.
    said: Option<OwnedFd>,
}

/// One netdev.
struct Entry {
    client: ClientId,
    name: String,
    options: Arc<PasstOptions>,
    /// Its number among `vhost-user` netdevs.
    rings: Option<u32>,
    running: Option<Running>,
    /// Why none runs.
    trouble: Option<String>,
    /// When it is started again; nothing while it runs, or is being started.
    due: Option<Instant>,
    /// Times that it ended soon, or did not start.
    failures: u32,
}

/// Something that is to be done.
pub enum Happened {
    /// The passt of that client has ended.
    Ended(ClientId),
    /// One is to be started for that client.
    Again(ClientId, Arc<PasstOptions>),
}

/// All of them, by numbers that are never used twice.
pub struct Passts {
    reactor: Rc<Reactor>,
    entries: BTreeMap<u32, Entry>,
    last: u32,
    timer: Timer,
    stop: Arc<Wake>,
}

impl Passts {
    /// None yet; the reactor tells of [`Part::Passt`].
    ///
    /// # Errors
    /// The kernel's, when no descriptor is left.
    pub fn new(reactor: Rc<Reactor>) -> io::Result<Self> {
        let timer = Timer::new()?;
        reactor.watch(&timer, Token::new(Part::Passt, TIMER, 0), Interest::READ)?;
        Ok(Self { reactor, entries: BTreeMap::new(), last: TIMER, timer, stop: Arc::new(Wake::new()?) })
    }

    /// What ends all launches that are under way.
    #[must_use]
    pub fn stop(&self) -> Arc<Wake> {
        self.stop.clone()
    }

    /// Adds a netdev without a passt; `rings` is its number among `vhost-user` netdevs, if it is one.
    pub fn add(&mut self, client: ClientId, name: &str, options: Arc<PasstOptions>, rings: Option<u32>) {
        self.last += 1;
        let name = name.to_owned();
        let entry =
            Entry { client, name, options, rings, running: None, trouble: None, due: None, failures: 0 };
        self.entries.insert(self.last, entry);
    }

    /// A netdev goes; its process is ended elsewhere.
    pub fn remove(&mut self, client: ClientId) {
        self.entries.retain(|_, entry| entry.client != client);
    }

    /// Begins to watch a passt. False: its netdev has gone meanwhile.
    pub fn started(&mut self, client: ClientId, process: &Process, said: Option<OwnedFd>) -> bool {
        let Some((number, entry)) = self.entries.iter_mut().find(|(_, entry)| entry.client == client) else {
            return false;
        };
        let watch = |fd: &OwnedFd, role| {
            self.reactor
                .watch(fd, Token::new(Part::Passt, *number, role), Interest::READ)
                .map_err(io::Error::from)
        };
        let ended = process.watch().and_then(|fd| watch(&fd, ENDED).map(|()| fd));
        // Then the end of its connection alone tells.
        let ended =
            ended.inspect_err(|e| tracing::warn!("netdev '{}': passt is not watched: {e}", entry.name));
        let said = said.filter(|fd| watch(fd, SAID).is_ok());
        entry.running = Some(Running { pid: process.pid(), since: Instant::now(), _ended: ended.ok(), said });
        entry.trouble = None;
        entry.due = None;
        true
    }

    /// A passt has ended, or is of no more use: it will be started again. False: that was known.
    pub fn lost(&mut self, client: ClientId, why: &str) -> bool {
        let Some(entry) = self.entries.values_mut().find(|entry| entry.client == client) else {
            return false;
        };
        let Some(running) = entry.running.take() else { return false };
        tracing::warn!("netdev '{}': passt, process {}: {why}; it is started again", entry.name, running.pid);
        if running.since.elapsed() >= SERVED {
            entry.failures = 0;
        }
        entry.again(why.to_owned());
        self.arm();
        true
    }

    /// It could not be started. False: the netdev has gone meanwhile.
    pub fn failed(&mut self, client: ClientId, why: String) -> bool {
        let Some(entry) = self.entries.values_mut().find(|entry| entry.client == client) else {
            return false;
        };
        tracing::warn!("netdev '{}': {why}; it is tried again", entry.name);
        entry.again(why);
        self.arm();
        true
    }

    /// Handles what happened to a descriptor of [`Part::Passt`].
    pub fn ready(&mut self, ready: Ready) -> Vec<Happened> {
        if ready.token.object == TIMER {
            self.timer.acknowledge();
            let happened = self.due(Instant::now());
            self.arm();
            return happened;
        }
        let Some(entry) = self.entries.get_mut(&ready.token.object) else { return Vec::new() };
        if ready.token.role == SAID {
            entry.listen(&self.reactor);
            return Vec::new();
        }
        // What it said last comes before its end.
        entry.listen(&self.reactor);
        entry.running.iter().map(|_| Happened::Ended(entry.client)).collect()
    }

    fn due(&mut self, now: Instant) -> Vec<Happened> {
        let due = self.entries.values_mut().filter(|entry| entry.due.is_some_and(|due| due <= now));
        due.map(|entry| {
            entry.due = None;
            Happened::Again(entry.client, entry.options.clone())
        })
        .collect()
    }

    /// The process of a client's netdev, while there is one.
    #[must_use]
    pub fn pid(&self, client: ClientId) -> Option<u32> {
        self.of(client)?.running.as_ref().map(|running| running.pid)
    }

    /// Its number among `vhost-user` netdevs, if it is one.
    #[must_use]
    pub fn rings(&self, client: ClientId) -> Option<u32> {
        self.of(client)?.rings
    }

    /// Why none runs, if none does.
    #[must_use]
    pub fn trouble(&self, client: ClientId) -> Option<String> {
        let entry = self.of(client).filter(|entry| entry.running.is_none())?;
        let why = entry.trouble.as_deref().unwrap_or("passt does not run");
        Some(format!("{why}; it is started again"))
    }

    /// Those that have a passt on rings.
    pub fn on_rings(&self) -> impl Iterator<Item = ClientId> {
        let entries = self.entries.values().filter(|entry| entry.rings.is_some() && entry.running.is_some());
        entries.map(|entry| entry.client)
    }

    fn of(&self, client: ClientId) -> Option<&Entry> {
        self.entries.values().find(|entry| entry.client == client)
    }

    /// Sets the timer to the next start.
    fn arm(&self) {
        let Some(due) = self.entries.values().filter_map(|entry| entry.due).min() else { return };
        if let Err(error) = self.timer.set(due.saturating_duration_since(Instant::now())) {
            tracing::warn!("passt is not started again: {error}");
        }
    }
}

impl Entry {
    fn again(&mut self, why: String) {
        let delay = match self.failures {
            0 => Duration::ZERO,
            before => AGAIN * 2_u32.pow((before - 1).min(DOUBLINGS)),
        };
        self.failures += 1;
        self.trouble = Some(why);
        self.due = Some(Instant::now() + delay);
    }

    /// Passes on what it says.
    fn listen(&mut self, reactor: &Reactor) {
        let Some(running) = &mut self.running else { return };
        let Some(pipe) = &running.said else { return };
        let mut bytes = Vec::new();
        let ended = said::take(pipe, |more| bytes.extend_from_slice(more));
        for line in said::lines(&String::from_utf8_lossy(&bytes)) {
            tracing::info!("netdev '{}': passt says: {line}", self.name);
        }
        if ended {
            reactor.forget(pipe);
            running.said = None;
        }
    }
}
