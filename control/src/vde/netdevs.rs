//! All `vde` netdevs.

use crate::apply::{Binding, Opened};
use crate::model::{Client, ClientId, Kind, Net, QueueRef};
use crate::reactor::{Interest, Part, Reactor, Ready, Timer, Token};
use engine::backend::vde::VdeOptions;
use engine::port::counters::PortCounters;
use engine::{Attachments, Retired};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The object number of the timer.
const TIMER: u32 = 0;
/// Time after which a switch is looked for that has gone; twice as long after each failure, up to eight seconds.
const RETRY: Duration = Duration::from_secs(1);
const DOUBLINGS: u32 = 3;

/// One netdev.
struct Entry {
    client: ClientId,
    options: VdeOptions,
    /// The stream to the switch; nothing while there is none.
    plug: Option<OwnedFd>,
    /// Why there is none.
    trouble: Option<String>,
    /// When the switch is looked for again; nothing while it is there, or being asked.
    due: Option<Instant>,
    /// Times that it was asked in vain.
    failures: u32,
    /// Whether the link follows the switch.
    raises_link: bool,
    /// Counters of its queue, for as long as the netdev lives.
    counters: Arc<PortCounters>,
}

/// All of them, by numbers that are never used twice.
pub struct Vdes {
    reactor: Rc<Reactor>,
    entries: BTreeMap<u32, Entry>,
    last: u32,
    timer: Timer,
}

/// What is to be done after something happened.
#[derive(Default)]
pub struct Unplugged {
    /// Netdevs to be plugged in again, and how.
    pub again: Vec<(ClientId, VdeOptions)>,
    /// Queues that went with their switch.
    pub retired: Vec<Retired>,
}

impl Vdes {
    /// None yet; the reactor tells of [`Part::Vde`].
    ///
    /// # Errors
    /// The kernel's, when no descriptor is left.
    pub fn new(reactor: Rc<Reactor>) -> io::Result<Self> {
        let timer = Timer::new()?;
        reactor.watch(&timer, Token::new(Part::Vde, TIMER, 0), Interest::READ)?;
        Ok(Self { reactor, entries: BTreeMap::new(), last: TIMER, timer })
    }

    /// A netdev is open.
    pub fn add(
        &mut self,
        client: ClientId,
        options: VdeOptions,
        plug: OwnedFd,
        raises_link: bool,
        counters: Arc<PortCounters>,
    ) {
        self.last += 1;
        let mut entry = Entry {
            client,
            options,
            plug: None,
            trouble: None,
            due: None,
            failures: 0,
            raises_link,
            counters,
        };
        watch(&self.reactor, self.last, &mut entry, plug);
        self.entries.insert(self.last, entry);
    }

    /// A netdev goes, and its port of the switch.
    pub fn remove(&mut self, client: ClientId) {
        self.entries.retain(|_, entry| entry.client != client);
    }

    /// Each netdev with its counters, and whether its queue runs: they are kept while there is no switch.
    pub fn counters(&self) -> impl Iterator<Item = (ClientId, Vec<(&PortCounters, bool)>)> {
        self.entries
            .values()
            .map(|entry| (entry.client, vec![(entry.counters.as_ref(), entry.plug.is_some())]))
    }

    /// Why a client's netdev gives nothing, if it does not.
    #[must_use]
    pub fn trouble(&self, client: ClientId) -> Option<String> {
        let entry = self.entries.values().find(|entry| entry.client == client)?;
        let why = entry.trouble.as_deref().unwrap_or("the switch is gone");
        entry.plug.is_none().then(|| format!("{why}; it is tried again"))
    }

    /// A stream ended, or it is time to look for a switch again.
    pub fn ready(&mut self, event: Ready, net: &mut Net, binding: &mut Binding) -> Unplugged {
        let mut changes = Unplugged::default();
        if event.token.object == TIMER {
            self.timer.acknowledge();
            let now = Instant::now();
            for entry in self.entries.values_mut().filter(|entry| entry.due.is_some_and(|due| due <= now)) {
                entry.due = None;
                changes.again.push((entry.client, entry.options.clone()));
            }
        } else if let Some(entry) = self.entries.get_mut(&event.token.object)
            && let Some(plug) = &entry.plug
            && has_ended(plug)
        {
            tracing::warn!("vde: the switch '{}' is gone", entry.options.sock);
            entry.plug = None;
            entry.trouble = None;
            entry.due = Some(Instant::now() + RETRY);
            settle(entry, Vec::new(), net);
            changes.retired.extend(commit(net, binding, Attachments::default()));
        }
        self.arm();
        changes
    }

    /// Plugging in again ended. False: the netdev has gone meanwhile.
    pub fn replugged(
        &mut self,
        client: ClientId,
        plugged: Result<(Opened, OwnedFd, String), String>,
        net: &mut Net,
        binding: &mut Binding,
    ) -> bool {
        let Some((number, entry)) = self.entries.iter_mut().find(|(_, entry)| entry.client == client) else {
            return false;
        };
        match plugged {
            Ok((opened, plug, info)) => {
                let (queues, mut attach) = binding.place(opened.queues);
                for (_, queue) in &mut attach.queues {
                    queue.counters = entry.counters.clone();
                }
                entry.failures = 0;
                tracing::info!("vde: the switch '{}' is back", entry.options.sock);
                watch(&self.reactor, *number, entry, plug);
                settle(entry, queues, net);
                if let Some(Client { kind: Kind::Netdev(dev), .. }) = net.client_mut(client) {
                    dev.info = vec![info];
                }
                drop(commit(net, binding, attach));
            }
            Err(why) => {
                entry.due = Some(Instant::now() + RETRY * 2_u32.pow(entry.failures.min(DOUBLINGS)));
                entry.failures += 1;
                entry.trouble = Some(why);
            }
        }
        self.arm();
        true
    }

    /// Sets the timer to the next look.
    fn arm(&self) {
        let Some(due) = self.entries.values().filter_map(|entry| entry.due).min() else { return };
        if let Err(error) = self.timer.set(due.saturating_duration_since(Instant::now())) {
            tracing::warn!("vde: switches that went are not looked for: {error}");
        }
    }
}

/// Keeps the stream and watches for its end. One that cannot be watched is as good as none.
fn watch(reactor: &Reactor, number: u32, entry: &mut Entry, plug: OwnedFd) {
    if let Err(error) = reactor.watch(&plug, Token::new(Part::Vde, number, 0), Interest::READ) {
        tracing::warn!("vde: the switch '{}' is not watched: {error}", entry.options.sock);
    }
    entry.plug = Some(plug);
}

/// Whether the switch has hung up. What it says otherwise means nothing.
fn has_ended(plug: &OwnedFd) -> bool {
    let mut said = [0; 256];
    loop {
        match recv(plug.as_raw_fd(), &mut said, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return true,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return false,
            Err(_) => return true,
        }
    }
}

/// Tells the model which queues run, and sets the link.
fn settle(entry: &Entry, queues: Vec<QueueRef>, net: &mut Net) {
    let runs = !queues.is_empty();
    if let Some(Client { kind: Kind::Netdev(dev), .. }) = net.client_mut(entry.client) {
        dev.connected = runs;
        dev.queues = queues;
    }
    if entry.raises_link {
        net.set_link_of(entry.client, runs);
    }
}

fn commit(net: &Net, binding: &mut Binding, attach: Attachments) -> Option<Retired> {
    binding.commit(net, attach).inspect_err(|error| tracing::error!("{error}")).ok()
}
