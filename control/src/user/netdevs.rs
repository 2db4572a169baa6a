//! All `user` netdevs: their processes, what is forwarded, and when a process that died is started again.

use super::claims::Claims;
use super::conversation::Conversation;
use super::forwarded::Forwarded;
use super::start::{Setup, Started};
use crate::apply::Binding;
use crate::model::{Client, ClientId, Kind, Net, QueueRef};
use crate::reactor::{Interest, Part, Reactor, Ready, Timer, Token};
use engine::backend::user::Process;
use engine::port::counters::PortCounters;
use engine::{Attachments, Retired};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use usernet::protocol::Listen;

/// The object number of the timer.
const TIMER: u32 = 0;
/// A process that dies sooner than this dies at once.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Pause before a process that died at once is started again; twice as long after each, up to eight seconds.
const PAUSE: Duration = Duration::from_millis(125);
const DOUBLINGS: u32 = 6;

/// One netdev.
struct Entry {
    client: ClientId,
    setup: Arc<Setup>,
    /// Nothing while it is dead.
    running: Option<Running>,
    /// What is forwarded from the host.
    forwards: Vec<Forwarded>,
    /// How the last process ended.
    reason: String,
    /// Why it could not be started again.
    trouble: Option<String>,
    /// When it is started again; nothing while it runs or starts.
    due: Option<Instant>,
    /// Processes that died at once, or did not start.
    failures: u32,
    /// For as long as the netdev lives.
    counters: Arc<PortCounters>,
}

struct Running {
    process: Process,
    conversation: Arc<Conversation>,
    since: Instant,
}

/// All of them, by numbers that are never used twice.
pub struct Users {
    reactor: Rc<Reactor>,
    entries: BTreeMap<u32, Entry>,
    last: u32,
    timer: Timer,
    /// Chardevs that rules name.
    pub claims: Claims,
}

/// What is to be done after something happened.
#[derive(Default)]
pub struct Ended {
    /// Processes to be started again: the netdev, from what, with which forwards.
    pub again: Vec<(ClientId, Arc<Setup>, Vec<Forwarded>)>,
    /// Queues that went with their process.
    pub retired: Vec<Retired>,
}

/// What a process has done with its forwards.
#[derive(Debug)]
pub enum Change {
    /// One more.
    Added(Forwarded),
    /// One less.
    Removed(Listen),
}

impl Users {
    /// None yet; the reactor tells of [`Part::User`].
    ///
    /// # Errors
    /// The kernel's, when no descriptor is left.
    pub fn new(reactor: Rc<Reactor>) -> io::Result<Self> {
        let timer = Timer::new()?;
        reactor.watch(&timer, Token::new(Part::User, TIMER, 0), Interest::READ)?;
        let claims = Claims::new(Rc::clone(&reactor));
        Ok(Self { reactor, entries: BTreeMap::new(), last: TIMER, timer, claims })
    }

    /// A netdev is open.
    pub fn add(
        &mut self,
        client: ClientId,
        setup: Arc<Setup>,
        process: Process,
        conversation: Arc<Conversation>,
        forwards: Vec<Forwarded>,
        counters: Arc<PortCounters>,
    ) {
        self.last += 1;
        let mut entry = Entry {
            client,
            setup,
            running: None,
            forwards,
            reason: String::new(),
            trouble: None,
            due: None,
            failures: 0,
            counters,
        };
        run(&self.reactor, self.last, &mut entry, process, conversation);
        self.entries.insert(self.last, entry);
    }

    /// A netdev goes. What comes back ends its process and all that it needs, which may wait: not on the control thread.
    pub fn remove(&mut self, client: ClientId) -> Option<Box<dyn std::any::Any + Send>> {
        let number = *self.entries.iter().find(|(_, entry)| entry.client == client)?.0;
        let Entry { setup, running, .. } = self.entries.remove(&number)?;
        let running = running.map(|Running { process, conversation, .. }| {
            self.reactor.forget(&process);
            (process, conversation)
        });
        Some(Box::new((running, setup)))
    }

    /// The daemon ends.
    pub fn end(&mut self) {
        self.entries.clear();
    }

    fn of(&self, client: ClientId) -> Option<&Entry> {
        self.entries.values().find(|entry| entry.client == client)
    }

    /// Each netdev, oldest first.
    pub fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.entries.values().map(|entry| entry.client)
    }

    /// Each netdev with its counters, and whether its queue runs.
    pub fn counters(&self) -> impl Iterator<Item = (ClientId, Vec<(&PortCounters, bool)>)> {
        self.entries
            .values()
            .map(|entry| (entry.client, vec![(entry.counters.as_ref(), entry.running.is_some())]))
    }

    /// How a client's process is spoken to; none while there is none.
    #[must_use]
    pub fn conversation(&self, client: ClientId) -> Option<Arc<Conversation>> {
        self.of(client)?.running.as_ref().map(|running| running.conversation.clone())
    }

    /// A stream that the client's process is started with from now on.
    pub fn replace_stream(&self, client: ClientId, index: usize, stream: OwnedFd) {
        if let Some(entry) = self.of(client) {
            entry.setup.replace_stream(index, stream);
        }
    }

    /// The number of a client's process; none while there is none.
    #[must_use]
    pub fn pid(&self, client: ClientId) -> Option<u32> {
        self.of(client)?.running.as_ref().map(|running| running.process.id())
    }

    /// What is forwarded from the host.
    #[must_use]
    pub fn forwards(&self, client: ClientId) -> &[Forwarded] {
        self.of(client).map_or(&[], |entry| &entry.forwards)
    }

    /// A process has done what it was asked.
    pub fn changed(&mut self, client: ClientId, change: Change) {
        let Some(entry) = self.entries.values_mut().find(|entry| entry.client == client) else { return };
        match change {
            Change::Added(forwarded) => entry.forwards.push(forwarded),
            Change::Removed(listen) => {
                let at = entry.forwards.iter().position(|held| held.forward.listen == listen);
                at.map(|at| entry.forwards.remove(at));
            }
        }
    }

    /// Why a client's netdev gives nothing, if it does not.
    #[must_use]
    pub fn trouble(&self, client: ClientId) -> Option<String> {
        let entry = self.of(client).filter(|entry| entry.running.is_none())?;
        let what = match &entry.trouble {
            Some(trouble) => trouble.clone(),
            None => format!("the process was {}", entry.reason),
        };
        Some(format!("{what}; it is started again"))
    }

    /// A process ended, or it is time to start one again.
    pub fn ready(&mut self, event: Ready, net: &mut Net, binding: &mut Binding) -> Ended {
        let mut changes = Ended::default();
        if event.token.object == TIMER {
            self.timer.acknowledge();
            let now = Instant::now();
            for entry in self.entries.values_mut().filter(|entry| entry.due.is_some_and(|due| due <= now)) {
                entry.due = None;
                changes.again.push((entry.client, entry.setup.clone(), entry.forwards.clone()));
            }
        } else if let Some(entry) = self.entries.get_mut(&event.token.object)
            && let Some(running) = &mut entry.running
            && let Some(reason) = running.process.how_it_ended()
        {
            tracing::warn!("netdev '{}': its process was {reason}; it is started again", entry.setup.name);
            let died_at_once = running.since.elapsed() < AT_ONCE;
            self.reactor.forget(&running.process);
            (entry.running, entry.reason, entry.trouble) = (None, reason, None);
            entry.put_off(died_at_once);
            settle(entry, Vec::new(), net);
            changes.retired.extend(commit(net, binding, Attachments::default()));
        }
        self.arm();
        changes
    }

    /// Starting a process again ended. The netdev's name, and how the process before ended, if it runs.
    pub fn restarted(
        &mut self,
        client: ClientId,
        started: Result<Started, String>,
        net: &mut Net,
        binding: &mut Binding,
    ) -> Option<(String, String)> {
        let (number, entry) = self.entries.iter_mut().find(|(_, entry)| entry.client == client)?;
        let mut told = None;
        match started {
            Ok(Started { opened, process, conversation, .. }) => {
                let (queues, mut attach) = binding.place(opened.queues);
                for (_, queue) in &mut attach.queues {
                    queue.counters = entry.counters.clone();
                }
                run(&self.reactor, *number, entry, process, conversation);
                settle(entry, queues, net);
                drop(commit(net, binding, attach));
                told = Some((entry.setup.name.clone(), entry.reason.clone()));
            }
            Err(why) => {
                tracing::warn!("netdev '{}': {why}", entry.setup.name);
                entry.trouble = Some(why);
                entry.put_off(true);
            }
        }
        self.arm();
        told
    }

    /// Sets the timer to the next start.
    fn arm(&self) {
        let Some(due) = self.entries.values().filter_map(|entry| entry.due).min() else { return };
        let delay = due.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
        if let Err(error) = self.timer.set(delay) {
            tracing::warn!("user: processes that died are not started again: {error}");
        }
    }
}

impl Entry {
    /// When it is started again: at once, unless it failed.
    fn put_off(&mut self, failed: bool) {
        let delay = if failed { PAUSE * 2_u32.pow(self.failures.min(DOUBLINGS)) } else { Duration::ZERO };
        self.failures = if failed { self.failures + 1 } else { 0 };
        self.due = Some(Instant::now() + delay);
    }
}

/// Keeps a process and watches for its end.
fn run(reactor: &Reactor, number: u32, entry: &mut Entry, process: Process, conversation: Arc<Conversation>) {
    if let Err(error) = reactor.watch(&process, Token::new(Part::User, number, 0), Interest::READ) {
        tracing::warn!("netdev '{}': its process is not watched: {error}", entry.setup.name);
    }
    entry.running = Some(Running { process, conversation, since: Instant::now() });
}

/// Tells the model which queues run. The link stays as it is: to the guest, its network is slow for a moment.
fn settle(entry: &Entry, queues: Vec<QueueRef>, net: &mut Net) {
    if let Some(Client { kind: Kind::Netdev(dev), .. }) = net.client_mut(entry.client) {
        dev.connected = !queues.is_empty();
        dev.queues = queues;
    }
}

fn commit(net: &Net, binding: &mut Binding, attach: Attachments) -> Option<Retired> {
    binding.commit(net, attach).inspect_err(|error| tracing::error!("{error}")).ok()
}
