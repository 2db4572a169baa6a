//! All `af-xdp` netdevs, and the interfaces that they follow.

use super::watch::Links;
use crate::apply::Binding;
use crate::model::{Client, ClientId, Kind, Net, QueueRef};
use crate::reactor::{Interest, Part, Reactor, Timer, Token};
use engine::backend::af_xdp::{AfXdpOptions, Port, link, link_of_index};
use engine::port::counters::PortCounters;
use engine::{Attachments, Retired};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One netdev.
#[derive(Debug)]
struct Entry {
    ifname: String,
    /// Nothing while the interface is gone.
    port: Option<Port>,
    /// How to open it again; nothing where the sockets came from the user.
    again: Option<AfXdpOptions>,
    /// It is being opened again.
    opening: bool,
    /// Times that it was, in vain, since it was last open.
    failures: u32,
    /// Whether the link follows the carrier.
    raises_link: bool,
    carrier: bool,
    /// Counters of each queue, for as long as the netdev lives.
    counters: Vec<Arc<PortCounters>>,
}

/// All of them.
#[derive(Debug)]
pub struct AfXdps {
    entries: BTreeMap<ClientId, Entry>,
    /// The kernel's word that some interface changed; none where it refuses to say.
    links: Option<Links>,
    /// When to look again without one, since something could not be opened; and when it fires.
    retry: Timer,
    due: Option<Instant>,
}

/// Time after which a netdev that could not be opened again is tried once more; twice as long after each failure, up to half a minute.
const RETRY: Duration = Duration::from_secs(1);
const DOUBLINGS: u32 = 5;

/// What is to be done after interfaces changed.
#[derive(Default)]
pub struct Changes {
    /// Netdevs to be opened again, and how.
    pub open: Vec<(ClientId, AfXdpOptions)>,
    /// Queues that went with their interfaces.
    pub retired: Vec<Retired>,
    /// Some link went up or down.
    pub linked: bool,
}

impl AfXdps {
    /// None yet; the reactor tells of [`Part::Links`].
    ///
    /// # Errors
    /// The kernel's, when no descriptor is left.
    pub fn new(reactor: &Reactor) -> io::Result<Self> {
        let links = Links::new().inspect_err(|e| tracing::warn!("interfaces are not followed: {e}")).ok();
        if let Some(links) = &links {
            reactor.watch(links, Token::new(Part::Links, 0, 0), Interest::READ)?;
        }
        let retry = Timer::new()?;
        reactor.watch(&retry, Token::new(Part::Links, 0, 1), Interest::READ)?;
        Ok(Self { entries: BTreeMap::new(), links, retry, due: None })
    }

    /// A netdev is open.
    pub fn add(
        &mut self,
        client: ClientId,
        port: Port,
        again: Option<AfXdpOptions>,
        raises_link: bool,
        counters: Vec<Arc<PortCounters>>,
    ) {
        let entry = Entry {
            ifname: port.ifname().to_owned(),
            carrier: true,
            port: Some(port),
            again,
            opening: false,
            failures: 0,
            raises_link,
            counters,
        };
        self.entries.insert(client, entry);
    }

    /// A netdev goes: frames stay with the kernel from now on.
    pub fn remove(&mut self, client: ClientId) {
        self.entries.remove(&client);
    }

    /// What is open of a client.
    #[must_use]
    pub fn port(&self, client: ClientId) -> Option<&Port> {
        self.entries.get(&client)?.port.as_ref()
    }

    /// Each netdev with the counters of its queues, and whether they run: they are kept while the interface is gone.
    pub fn counters(&self) -> impl Iterator<Item = (ClientId, Vec<(&PortCounters, bool)>)> {
        self.entries.iter().map(|(client, entry)| {
            let runs = entry.port.is_some();
            (*client, entry.counters.iter().map(|counters| (counters.as_ref(), runs)).collect())
        })
    }

    /// Why a client's netdev gives nothing, if it does not.
    #[must_use]
    pub fn trouble(&self, client: ClientId) -> Option<String> {
        let entry = self.entries.get(&client)?;
        let ifname = &entry.ifname;
        match &entry.port {
            None if entry.again.is_none() => {
                Some(format!("interface '{ifname}' is gone, and its sockets with it"))
            }
            None => {
                Some(format!("interface '{ifname}' is gone; its queues are opened again when it comes back"))
            }
            Some(port) if !port.link().up => Some(format!("interface '{ifname}' is down")),
            Some(port) if !port.link().running => Some(format!("interface '{ifname}' has no carrier")),
            Some(_) => None,
        }
    }

    /// The kernel told of changes, or it is time to look again: what follows from it.
    pub fn changed(&mut self, net: &mut Net, binding: &mut Binding) -> Changes {
        if let Some(links) = &self.links {
            links.drain();
        }
        if self.retry.acknowledge() {
            self.due = None;
        }
        let clients: Vec<ClientId> = self.entries.keys().copied().collect();
        self.look(&clients, net, binding)
    }

    /// Looks at the interfaces of some netdevs.
    pub fn look(&mut self, clients: &[ClientId], net: &mut Net, binding: &mut Binding) -> Changes {
        let mut changes = Changes::default();
        for client in clients {
            let Some(entry) = self.entries.get_mut(client) else { continue };
            // Once open, a netdev is its sockets: the interface may be renamed.
            let now = match &entry.port {
                Some(port) => link_of_index(port.link().index).ok(),
                None => link(&entry.ifname).ok(),
            };
            let carrier = now.is_some_and(|link| link.up && link.running);
            match (&mut entry.port, now) {
                (Some(port), Some(link)) => port.follow(link),
                (Some(_), None) => {
                    tracing::warn!("interface '{}' is gone", entry.ifname);
                    entry.port = None;
                    set_queues(*client, Vec::new(), net);
                    changes.retired.extend(commit(net, binding, Attachments::default()));
                }
                (None, _) => {}
            }
            // An interface is up a moment after it has come, which is told too.
            if let (None, Some(again), false, true) = (&entry.port, &entry.again, entry.opening, carrier)
                && let Some(options) = again.again()
            {
                entry.opening = true;
                changes.open.push((*client, options));
            }
            let carrier = carrier && entry.port.is_some();
            if entry.carrier != carrier {
                entry.carrier = carrier;
                if entry.raises_link {
                    net.set_link_of(*client, carrier);
                    changes.retired.extend(commit(net, binding, Attachments::default()));
                    changes.linked = true;
                }
            }
        }
        changes
    }

    /// Opening a netdev again ended, with its queues if it went well. False: the netdev has gone meanwhile.
    pub fn opened(
        &mut self,
        client: ClientId,
        opened: Option<crate::apply::Opened>,
        net: &mut Net,
        binding: &mut Binding,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(&client) else { return false };
        entry.opening = false;
        let Some(opened) = opened else {
            let delay = RETRY * 2_u32.pow(entry.failures.min(DOUBLINGS));
            entry.failures += 1;
            self.retry_after(delay);
            return true;
        };
        entry.failures = 0;
        let (queues, mut attach) = binding.place(opened.queues);
        for ((_, queue), counters) in attach.queues.iter_mut().zip(&entry.counters) {
            queue.counters = counters.clone();
        }
        entry.port = opened.port;
        set_queues(client, queues, net);
        tracing::info!("interface '{}' is back", entry.ifname);
        drop(commit(net, binding, attach));
        true
    }
}

impl AfXdps {
    /// Looks at all interfaces after `delay`, if not before.
    fn retry_after(&mut self, delay: Duration) {
        let at = Instant::now() + delay;
        if self.due.is_some_and(|due| due <= at) {
            return;
        }
        match self.retry.set(delay) {
            Ok(()) => self.due = Some(at),
            Err(error) => tracing::warn!("interfaces are opened again only when they change: {error}"),
        }
    }
}

/// Tells the model which queues run.
fn set_queues(client: ClientId, queues: Vec<QueueRef>, net: &mut Net) {
    if let Some(Client { kind: Kind::Netdev(dev), .. }) = net.client_mut(client) {
        dev.connected = !queues.is_empty();
        dev.queues = queues;
    }
}

fn commit(net: &Net, binding: &mut Binding, attach: Attachments) -> Option<Retired> {
    binding.commit(net, attach).inspect_err(|error| tracing::error!("{error}")).ok()
}
