//! All `vhost-user` netdevs: their chardevs, and whether a back-end is there.

use super::link::{ANSWER, End, Link, News};
use crate::apply::{Binding, Pair};
use crate::chardev::Stream;
use crate::model::{Client, ClientId, Kind, Net, QueueRef};
use crate::reactor::{Interest, Part, Reactor, Ready, Token, Wake};
use engine::Attachments;
use engine::backend::driver::Halves;
use engine::port::counters::PortCounters;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The object number of the wake-up that workers use.
const WAKE: u32 = u32::MAX;

/// One netdev.
pub struct VhostUser {
    /// Its name.
    pub name: String,
    /// The chardev that leads to its back-end.
    pub chardev: String,
    /// Its client in the model.
    pub client: ClientId,
    /// Why a ring was stopped for cause: its number and the reason.
    pub stopped: Option<(usize, String)>,
    /// Why the last connection ended, if its back-end did not just go; until one is in force.
    pub ended: Option<String>,
    /// Whether the link goes up with the connection.
    raises_link: bool,
    /// Counters of each pair, for as long as the netdev lives.
    pub(super) counters: Vec<Arc<PortCounters>>,
    pub(super) link: Option<Link>,
    /// Its pairs are with workers.
    pub(super) running: bool,
}

/// Something happened that is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// All rings are in force at a back-end: netdev, chardev.
    Connected(String, String),
    /// That back-end has gone, or was sent away: netdev, chardev.
    Disconnected(String, String),
    /// A connection ended before its rings were in force: chardev.
    GaveUp(String),
    /// A ring was stopped for cause: netdev, ring, reason.
    Stopped(String, usize, String),
    /// The back-end's link went up or down, and the netdev's with it.
    Link,
}

/// How a netdev stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    /// No back-end.
    Alone,
    /// There is one, and the handshake goes on.
    Connecting,
    /// Frames can move.
    Running,
    /// A ring was stopped for cause.
    Failed(usize, &'a str),
}

/// All of them.
pub struct VhostUsers {
    reactor: Rc<Reactor>,
    netdevs: BTreeMap<u32, VhostUser>,
    next: u32,
    wake: Arc<OwnedFd>,
    /// Longest wait for an answer of a handshake.
    pub(crate) limit: Duration,
}

impl VhostUsers {
    /// None yet.
    ///
    /// # Errors
    /// The kernel's, when no descriptor is left.
    pub fn new(reactor: Rc<Reactor>) -> io::Result<Self> {
        let wake = Arc::new(Wake::new()?.as_fd().try_clone_to_owned()?);
        reactor.watch(wake.as_fd(), Token::new(Part::VhostUser, WAKE, 0), Interest::READ)?;
        Ok(Self { reactor, netdevs: BTreeMap::new(), next: 0, wake, limit: ANSWER })
    }

    /// Adds a netdev; its number is what its chardev's connections come for.
    pub fn add(&mut self, name: &str, chardev: &str, client: ClientId, pairs: u16, raises_link: bool) -> u32 {
        let number = self.next;
        self.next += 1;
        let netdev = VhostUser {
            name: name.to_owned(),
            chardev: chardev.to_owned(),
            client,
            stopped: None,
            ended: None,
            raises_link,
            counters: std::iter::repeat_with(Arc::default).take(usize::from(pairs)).collect(),
            link: None,
            running: false,
        };
        self.netdevs.insert(number, netdev);
        number
    }

    /// All of them, oldest first.
    pub fn all(&self) -> impl Iterator<Item = &VhostUser> {
        self.netdevs.values()
    }

    /// That of a client.
    #[must_use]
    pub fn of(&self, client: ClientId) -> Option<&VhostUser> {
        self.netdevs.values().find(|netdev| netdev.client == client)
    }

    /// Removes that of a client, which has left the model: its connection is closed. Its chardev, if there was one.
    pub fn remove(&mut self, client: ClientId) -> Option<String> {
        let number = *self.netdevs.iter().find(|(_, netdev)| netdev.client == client)?.0;
        self.netdevs.remove(&number).map(|netdev| netdev.chardev)
    }

    /// Somebody is at the other end of the chardev of that number's netdev.
    pub fn connected(&mut self, number: u32, stream: Stream) -> Option<Happened> {
        let netdev = self.netdevs.get_mut(&number)?;
        let token = Token::new(Part::VhostUser, number, 0);
        let pairs = netdev.counters.len() as u16;
        match Link::new(stream, token, &self.reactor, pairs, self.wake.clone(), self.limit) {
            Ok(link) => {
                netdev.link = Some(link);
                netdev.stopped = None;
                None
            }
            Err(why) => {
                netdev.note(&why);
                Some(Happened::GaveUp(netdev.chardev.clone()))
            }
        }
    }

    /// Ends the connection of a client's, if there is one.
    pub fn cut(&mut self, client: ClientId, net: &mut Net, binding: &mut Binding) {
        let found = self.netdevs.values_mut().find(|netdev| netdev.client == client);
        if let Some(netdev) = found.filter(|netdev| netdev.link.is_some()) {
            netdev.end(net, binding);
        }
    }

    /// Handles what happened to a descriptor of [`Part::VhostUser`].
    pub fn ready(&mut self, ready: Ready, net: &mut Net, binding: &mut Binding) -> Vec<Happened> {
        if ready.token.object == WAKE {
            let _ = nix::unistd::read(self.wake.as_fd(), &mut [0; 8]);
            return self.faults();
        }
        let Some(netdev) = self.netdevs.get_mut(&ready.token.object) else { return Vec::new() };
        netdev.serve(&ready, &self.reactor, net, binding).into_iter().collect()
    }

    /// Rings that workers stopped.
    fn faults(&mut self) -> Vec<Happened> {
        let mut all = Vec::new();
        for netdev in self.netdevs.values_mut().filter(|netdev| netdev.stopped.is_none()) {
            let Some((ring, why)) = netdev.fault() else { continue };
            tracing::warn!("netdev '{}': ring {ring} stopped: {why}", netdev.name);
            netdev.stopped = Some((ring, why.clone()));
            all.push(Happened::Stopped(netdev.name.clone(), ring, why));
        }
        all
    }
}

impl VhostUser {
    fn serve(
        &mut self,
        ready: &Ready,
        reactor: &Reactor,
        net: &mut Net,
        binding: &mut Binding,
    ) -> Option<Happened> {
        let link = self.link.as_mut()?;
        match link.serve(ready, reactor) {
            Ok(News { ready: true, .. }) => {
                let (pairs, up) = (link.take_pairs(), link.up);
                self.plug(pairs, up, net, binding);
                Some(Happened::Connected(self.name.clone(), self.chardev.clone()))
            }
            Ok(News { link: true, .. }) if self.running => {
                net.set_link_of(self.client, link.up);
                if let Err(error) = binding.commit(net, Attachments::default()) {
                    tracing::error!("netdev '{}': {error}", self.name);
                }
                Some(Happened::Link)
            }
            Ok(_) => None,
            Err(why) => {
                self.note(&why);
                Some(self.end(net, binding))
            }
        }
    }

    /// Puts the queue pairs onto workers, all at once.
    fn plug(&mut self, pairs: Vec<Halves>, up: bool, net: &mut Net, binding: &mut Binding) {
        let mut queues = Vec::with_capacity(pairs.len());
        let mut attach = Attachments::default();
        for (Halves { rx, tx, .. }, counters) in pairs.into_iter().zip(&self.counters) {
            let (queue, mut one) = binding.place_one(Pair { rx, tx, fd: -1, worker: None }, counters.clone());
            queues.push(queue);
            attach.queues.append(&mut one.queues);
        }
        self.running = true;
        self.ended = None;
        self.set_queues(queues, net);
        if self.raises_link && up {
            net.set_link_of(self.client, true);
        }
        if let Err(error) = binding.commit(net, attach) {
            tracing::error!("netdev '{}': {error}", self.name);
        }
    }

    /// Ends the connection and whatever runs.
    fn end(&mut self, net: &mut Net, binding: &mut Binding) -> Happened {
        let link = self.link.take();
        if !std::mem::take(&mut self.running) {
            return Happened::GaveUp(self.chardev.clone());
        }
        self.set_queues(Vec::new(), net);
        net.set_link_of(self.client, false);
        match binding.commit(net, Attachments::default()) {
            Ok(retired) => drop(retired),
            Err(error) => tracing::error!("netdev '{}': {error}", self.name),
        }
        drop(link);
        Happened::Disconnected(self.name.clone(), self.chardev.clone())
    }

    /// Tells the model which pairs run.
    fn set_queues(&self, queues: Vec<QueueRef>, net: &mut Net) {
        if let Some(Client { kind: Kind::Netdev(dev), .. }) = net.client_mut(self.client) {
            dev.connected = !queues.is_empty();
            dev.queues = queues;
        }
    }

    /// The ring that stopped for cause, and why.
    fn fault(&self) -> Option<(usize, String)> {
        let reports = self.link.as_ref()?.reports.iter().flatten();
        reports.enumerate().find_map(|(ring, report)| Some((ring, report.fault()?.to_string())))
    }

    /// Keeps and tells why a connection ends.
    fn note(&mut self, why: &End) {
        if !matches!(why, End::Gone) {
            tracing::warn!("netdev '{}': {why}; the connection is closed", self.name);
            self.ended = Some(why.to_string());
        }
    }
}
