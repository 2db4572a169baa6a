//! All `vhost-vdpa` netdevs.

use crate::apply::Binding;
use crate::model::{Client, ClientId, Kind, Net};
use crate::nic::RingView;
use crate::reactor::{Interest, Part, Reactor, Ready, Token, Wake};
use engine::backend::nic::Asked;
use engine::backend::vhost_vdpa::{Handle, Health, Wishes};
use engine::port::counters::PortCounters;
use engine::{Attachments, Retired};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

/// The object number of the wake-up that workers use.
const WAKE: u32 = u32::MAX;
/// The object number of the kernel's word of device nodes.
const NODES: u32 = u32::MAX - 1;

/// One netdev.
struct Entry {
    name: String,
    client: ClientId,
    /// Nothing when the device has gone.
    handle: Option<Handle>,
    features: (u64, u64),
    /// Why it gives nothing.
    trouble: Option<String>,
    /// Why a ring was stopped for cause: its number and the reason.
    stopped: Option<(usize, String)>,
    /// Whether the link follows the device's.
    follows_link: bool,
    /// Counters of each pair, for as long as the netdev lives.
    counters: Vec<Arc<PortCounters>>,
}

/// All of them, by numbers that are never used twice.
pub struct Vdpas {
    reactor: Rc<Reactor>,
    entries: BTreeMap<u32, Entry>,
    next: u32,
    wake: Arc<OwnedFd>,
    nodes: Option<Inotify>,
}

/// What happened that is to be told, or done.
#[derive(Default)]
pub struct News {
    /// Queues that went with their device.
    pub retired: Vec<Retired>,
    /// A link went up or down.
    pub link: bool,
    /// Nics whose guests a device wants to be announced.
    pub announce: Vec<ClientId>,
    /// Rings that stopped for cause: netdev, ring, reason.
    pub stopped: Vec<(String, usize, String)>,
}

impl Vdpas {
    /// None yet; the reactor tells of [`Part::Vdpa`].
    ///
    /// # Errors
    /// The kernel's, when no descriptor is left.
    pub fn new(reactor: Rc<Reactor>) -> io::Result<Self> {
        let wake = Arc::new(Wake::new()?.as_fd().try_clone_to_owned()?);
        reactor.watch(wake.as_fd(), Token::new(Part::Vdpa, WAKE, 0), Interest::READ)?;
        Ok(Self { reactor, entries: BTreeMap::new(), next: 0, wake, nodes: None })
    }

    /// Written to by a worker that stops a ring.
    #[must_use]
    pub const fn wake(&self) -> &Arc<OwnedFd> {
        &self.wake
    }

    /// A netdev is open.
    pub fn add(
        &mut self,
        name: &str,
        client: ClientId,
        handle: Handle,
        follows_link: bool,
        counters: Vec<Arc<PortCounters>>,
    ) {
        let number = self.next;
        self.next += 1;
        for file in handle.files() {
            if let Err(error) = self.reactor.watch(file, Token::new(Part::Vdpa, number, 0), Interest::READ) {
                tracing::warn!("netdev '{name}': changes of its device are not heard: {error}");
            }
        }
        if let Err(error) = self.watch_node(&handle) {
            tracing::warn!("netdev '{name}': that its device goes is not heard: {error}");
        }
        let entry = Entry {
            name: name.to_owned(),
            client,
            features: handle.features(),
            handle: Some(handle),
            trouble: None,
            stopped: None,
            follows_link,
            counters,
        };
        self.entries.insert(number, entry);
    }

    /// Asks the kernel to tell when the device's node goes: nothing else says that the device is to go, which waits for us.
    fn watch_node(&mut self, handle: &Handle) -> io::Result<()> {
        let Some(file) = handle.file() else { return Ok(()) };
        if self.nodes.is_none() {
            let nodes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            self.reactor.watch(&nodes, Token::new(Part::Vdpa, NODES, 0), Interest::READ)?;
            self.nodes = Some(nodes);
        }
        if let Some(nodes) = &self.nodes {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            nodes.add_watch(path.as_str(), AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_DELETE_SELF)?;
        }
        Ok(())
    }

    /// A netdev goes, and its device is free when its queues are closed.
    pub fn remove(&mut self, client: ClientId) {
        self.entries.retain(|_, entry| entry.client != client);
    }

    /// Each netdev with its counters, and whether its queues run.
    pub fn counters(&self) -> impl Iterator<Item = (ClientId, Vec<(&PortCounters, bool)>)> {
        self.entries.values().map(|entry| {
            let runs = entry.handle.is_some();
            (entry.client, entry.counters.iter().map(|counters| (&**counters, runs)).collect())
        })
    }

    /// Why a client's netdev gives nothing, if it does not.
    #[must_use]
    pub fn trouble(&self, client: ClientId) -> Option<String> {
        let entry = self.of(client)?;
        let stopped = || entry.stopped.as_ref().map(|(ring, why)| format!("ring {ring}: {why}"));
        entry.trouble.clone().or_else(stopped)
    }

    /// What else is to be shown of a client's netdev: features on offer and accepted, queue pairs, rings.
    #[must_use]
    pub fn view(&self, client: ClientId) -> Option<(u64, u64, usize, Vec<RingView>)> {
        let entry = self.of(client)?;
        let size = entry.handle.as_ref().map(Handle::size);
        let fault =
            |ring: usize| entry.stopped.as_ref().filter(|(r, _)| *r == ring).map(|(_, why)| why.clone());
        let rings = (0..2 * entry.counters.len()).filter(|_| size.is_some());
        let rings = rings.map(|ring| RingView { ring, size, used: true, fault: fault(ring) }).collect();
        Some((entry.features.0, entry.features.1, entry.counters.len(), rings))
    }

    fn of(&self, client: ClientId) -> Option<&Entry> {
        self.entries.values().find(|entry| entry.client == client)
    }

    /// Tells devices that are joined to a nic one to one what its guest asked for, and others to let everything in.
    pub fn settle<'n>(&mut self, net: &Net, asked: impl Fn(ClientId) -> Option<&'n Asked>) {
        for entry in self.entries.values_mut() {
            let Some(handle) = &mut entry.handle else { continue };
            let peer = net.client(entry.client).and_then(|client| client.peer);
            handle.wish(peer.and_then(&asked).map(Wishes::of).unwrap_or_default());
        }
    }

    /// Handles what happened to a descriptor of [`Part::Vdpa`].
    pub fn ready(&mut self, event: Ready, net: &mut Net, binding: &mut Binding) -> News {
        let mut news = News::default();
        match event.token.object {
            WAKE => {
                let _ = nix::unistd::read(self.wake.as_fd(), &mut [0; 8]);
                self.faults(&mut news);
            }
            NODES => {
                // What happened to which does not matter: each file knows whether it has a node.
                while self.nodes.as_ref().is_some_and(|nodes| nodes.read_events().is_ok()) {}
                for entry in self.entries.values_mut() {
                    entry.look(net, binding, &mut news);
                }
            }
            number => {
                if let Some(entry) = self.entries.get_mut(&number) {
                    entry.look(net, binding, &mut news);
                }
            }
        }
        news
    }

    fn faults(&mut self, news: &mut News) {
        for entry in self.entries.values_mut().filter(|entry| entry.stopped.is_none()) {
            let Some((ring, why)) = entry.handle.as_ref().and_then(Handle::fault) else { continue };
            tracing::warn!("netdev '{}': ring {ring} stopped: {why}", entry.name);
            entry.stopped = Some((ring, why.clone()));
            news.stopped.push((entry.name.clone(), ring, why));
        }
    }
}

impl Entry {
    /// Looks how the device stands, and follows it.
    fn look(&mut self, net: &mut Net, binding: &mut Binding, news: &mut News) {
        let Some(handle) = &mut self.handle else { return };
        let why = match handle.health() {
            Health::Runs(up) => {
                if handle.keeps_mac() {
                    tracing::info!("netdev '{}': its device keeps its hardware address", self.name);
                }
                if handle.asks_announcement() {
                    news.announce.extend(net.client(self.client).and_then(|client| client.peer));
                }
                if self.follows_link && net.client(self.client).is_some_and(|client| client.link_up != up) {
                    net.set_link_of(self.client, up);
                    news.retired.extend(commit(net, binding));
                    news.link = true;
                }
                return;
            }
            Health::Gone => "the device was removed",
            Health::Broken => "the device asks for a reset",
        };
        tracing::warn!("netdev '{}': {why}", self.name);
        self.trouble = Some(why.to_owned());
        if let Some(Client { kind: Kind::Netdev(dev), .. }) = net.client_mut(self.client) {
            dev.connected = false;
            dev.queues = Vec::new();
        }
        net.set_link_of(self.client, false);
        news.link = true;
        news.retired.extend(commit(net, binding));
        // The last hold but that of the queues, which are closed off this thread.
        self.handle = None;
    }
}

fn commit(net: &Net, binding: &mut Binding) -> Option<Retired> {
    binding.commit(net, Attachments::default()).inspect_err(|error| tracing::error!("{error}")).ok()
}
