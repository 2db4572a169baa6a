//! All nics: their chardevs, connections and sessions.

use super::connection::{Connection, Read};
use super::control::Control;
use super::features::NicProperties;
use super::plug::{Plug, QueuePair};
use crate::apply::Binding;
use crate::chardev::Stream;
use crate::model::{ClientId, Net};
use crate::reactor::{Interest, Part, Reactor, Ready, Token, Wake};
use engine::backend::nic::{Asked, NetFeatures};
use engine::mem::shared::tell_losses;
use engine::vhost::{Reader, Session, config_changed};
use nix::sys::socket::{MsgFlags, send};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

/// Messages of one VMM handled in one go.
const MESSAGES: usize = 64;
/// The role of a control queue's kick.
const KICK: u8 = 1;
/// The object number of the wake-up that workers use.
const WAKE: u32 = u32::MAX;

/// What a nic is, apart from its connection.
#[derive(Debug)]
pub struct NicState {
    /// What it is made of.
    pub properties: NicProperties,
    /// Feature bits that the guest accepted.
    pub accepted: Option<u64>,
    /// Why a ring was stopped for cause: its number and the reason.
    pub stopped: Option<(usize, String)>,
    /// A ring that waits for a reset of the guest's device, and why.
    pub(super) waits: Option<(usize, String)>,
    /// Queue pairs.
    pub(super) pairs: Vec<QueuePair>,
    /// Written to by a worker that stops a ring.
    pub(super) wake: Arc<OwnedFd>,
    /// What the VMM said with NET_SET_MTU.
    pub mtu: Option<u16>,
    /// An address to announce once the first pair runs.
    pub(super) rarp: Option<[u8; 6]>,
    /// The guest's driver agreed to the standby feature, and nobody was told yet.
    pub(super) standby: bool,
    /// Its control queue.
    pub(super) control: Control,
}

/// Where a nic comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The id that its maker gave; `netdev_add` always has one.
    pub id: Option<String>,
    /// Its object path.
    pub path: String,
    /// `netdev_add type=nic` made it, so `netdev_del` removes it too.
    pub by_netdev_add: bool,
}

/// One nic.
#[derive(Debug)]
pub struct Nic {
    /// Its name.
    pub name: String,
    /// The chardev where its guest's VMM connects.
    pub chardev: String,
    /// Where it comes from.
    pub made: Made,
    /// What it is.
    pub state: NicState,
    /// Its client in the model.
    pub client: ClientId,
    /// The link as the guest last could hear of it.
    link_up: bool,
    link: Option<(Connection, Session)>,
}

/// Something happened that clients are told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// A VMM has connected: nic, chardev.
    Connected(String, String),
    /// It has gone, or was sent away: nic, chardev.
    Disconnected(String, String),
    /// A ring was stopped for cause: nic, ring, reason.
    Stopped(String, usize, String),
    /// The guest's driver agreed to the standby feature: nic.
    Standby(String),
    /// The guest's driver changed its filter: nic's id, if it has one, and path.
    Filter(Option<String>, String),
}

/// How a nic's connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Nobody is connected.
    Alone,
    /// A VMM is connected and no ring runs.
    Connecting,
    /// A ring runs.
    Running,
    /// A ring was stopped for cause.
    Failed(usize, &'a str),
}

/// All nics.
pub struct Nics {
    reactor: Rc<Reactor>,
    nics: BTreeMap<u32, Nic>,
    next: u32,
    wake: Arc<OwnedFd>,
}

impl Nics {
    /// No nic yet.
    ///
    /// # Errors
    /// The kernel's, when no descriptor is left.
    pub fn new(reactor: Rc<Reactor>) -> io::Result<Self> {
        let wake = Wake::new()?;
        let wake = Arc::new(wake.as_fd().try_clone_to_owned()?);
        reactor.watch(wake.as_fd(), Token::new(Part::Nic, WAKE, 0), Interest::READ)?;
        tell_losses(wake.try_clone()?);
        Ok(Self { reactor, nics: BTreeMap::new(), next: 0, wake })
    }

    /// Adds a nic; its number is what its chardev's connections come for.
    pub fn add(
        &mut self,
        name: &str,
        chardev: &str,
        made: Made,
        client: ClientId,
        properties: NicProperties,
    ) -> u32 {
        let number = self.next;
        self.next += 1;
        let pairs = std::iter::repeat_with(QueuePair::default).take(usize::from(properties.pairs)).collect();
        let wake = self.wake.clone();
        let token = Token::new(Part::Nic, number, KICK);
        let control = Control::new(properties.mac, self.reactor.clone(), token);
        let state = NicState {
            properties,
            accepted: None,
            stopped: None,
            waits: None,
            pairs,
            wake,
            mtu: None,
            rarp: None,
            standby: false,
            control,
        };
        let (name, chardev) = (name.to_owned(), chardev.to_owned());
        self.nics.insert(number, Nic { name, chardev, made, state, client, link_up: true, link: None });
        number
    }

    /// All of them, oldest first.
    pub fn all(&self) -> impl Iterator<Item = &Nic> {
        self.nics.values()
    }

    /// The nic of a client.
    #[must_use]
    pub fn of(&self, client: ClientId) -> Option<&Nic> {
        self.nics.values().find(|nic| nic.client == client)
    }

    /// The chardev of the nic of that number.
    #[must_use]
    pub fn chardev(&self, number: u32) -> Option<&str> {
        Some(&self.nics.get(&number)?.chardev)
    }

    /// Calls [`Nics::ready`] once more, when everything under way has been done.
    pub fn call_again(&self) {
        // An eventfd that is full is readable as it is.
        let _ = nix::unistd::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Removes the nic of a client; its rings are stopped and its connection closed.
    pub fn remove(&mut self, client: ClientId, net: &mut Net, binding: &mut Binding) -> Option<Nic> {
        let number = *self.nics.iter().find(|(_, nic)| nic.client == client)?.0;
        let mut nic = self.nics.remove(&number)?;
        nic.end(net, binding);
        Some(nic)
    }

    /// A VMM has connected to the nic of that number. None: it was sent away.
    pub fn connected(
        &mut self,
        number: u32,
        stream: Stream,
        net: &mut Net,
        binding: &mut Binding,
    ) -> Option<Happened> {
        let nic = self.nics.get_mut(&number)?;
        if nic.state.properties.disconnects && !nic.is_link_up(net) {
            return None;
        }
        let session = Session::new(&Plug { client: nic.client, nic: &mut nic.state, net, binding });
        let token = Token::new(Part::Nic, number, 0);
        match Connection::new(stream, Reader::new(), token, &self.reactor) {
            Ok(connection) => {
                nic.link = Some((connection, session));
                nic.link_up = nic.is_link_up(net);
                nic.state.stopped = None;
                Some(Happened::Connected(nic.name.clone(), nic.chardev.clone()))
            }
            Err(error) => {
                tracing::error!("nic '{}': its connection cannot be watched: {error}", nic.name);
                None
            }
        }
    }

    /// Handles what happened to a descriptor of [`Part::Nic`].
    pub fn ready(&mut self, ready: Ready, net: &mut Net, binding: &mut Binding) -> Vec<Happened> {
        if ready.token.object == WAKE {
            let _ = nix::unistd::read(self.wake.as_fd(), &mut [0; 8]);
            let mut happened = self.losses(net, binding);
            happened.append(&mut self.faults());
            let waiting = self.nics.values_mut().filter(|nic| nic.state.control.more);
            happened.extend(waiting.flat_map(|nic| nic.control(net, binding)));
            return happened;
        }
        let Some(nic) = self.nics.get_mut(&ready.token.object) else { return Vec::new() };
        if ready.token.role == KICK {
            return nic.control(net, binding);
        }
        let before = nic.state.stopped.is_some();
        let stays = nic.serve(&ready, &self.reactor, net, binding);
        let mut happened: Vec<Happened> = nic.look_for_lost_positions().into_iter().collect();
        if let Some((ring, why)) = nic.state.stopped.as_ref().filter(|_| !before) {
            happened.push(Happened::Stopped(nic.name.clone(), *ring, why.clone()));
        }
        if std::mem::take(&mut nic.state.standby) {
            happened.push(Happened::Standby(nic.name.clone()));
        }
        if !stays {
            nic.end(net, binding);
            happened.push(Happened::Disconnected(nic.name.clone(), nic.chardev.clone()));
        }
        happened
    }

    /// Tells guests whose link has changed in the model, or closes their connections where that is asked for.
    pub fn settle_links(&mut self, net: &mut Net, binding: &mut Binding) -> Vec<Happened> {
        let mut happened = Vec::new();
        for nic in self.nics.values_mut() {
            let up = nic.is_link_up(net);
            if std::mem::replace(&mut nic.link_up, up) == up {
                continue;
            }
            if !up && nic.state.properties.disconnects && nic.is_connected() {
                nic.end(net, binding);
                happened.push(Happened::Disconnected(nic.name.clone(), nic.chardev.clone()));
            } else if let Some((_, session)) = &nic.link {
                tell_config(session);
            }
        }
        happened
    }

    /// Asks the guest of a client's nic to announce itself to its neighbours, as it has another place in the network. False: its
    /// driver did not agree to be asked.
    pub fn announce(&mut self, client: ClientId) -> bool {
        let Some(nic) = self.nics.values_mut().find(|nic| nic.client == client) else { return false };
        let asked = nic.state.control.asked.ask_announce();
        if let (true, Some((_, session))) = (asked, &nic.link) {
            tell_config(session);
        }
        asked
    }

    /// Lets changes of a nic's filter be told of again.
    pub fn arm(&mut self, client: ClientId) {
        if let Some(nic) = self.nics.values_mut().find(|nic| nic.client == client) {
            nic.state.control.armed = true;
        }
    }

    /// Nics whose guest's memory was taken away: zero memory stands in for it, and no ring goes on with that.
    fn losses(&mut self, net: &mut Net, binding: &mut Binding) -> Vec<Happened> {
        let mut all = Vec::new();
        for nic in self.nics.values_mut().filter(|nic| nic.state.stopped.is_none()) {
            if !nic.link.as_ref().is_some_and(|(_, session)| session.lost()) {
                continue;
            }
            Plug { client: nic.client, nic: &mut nic.state, net, binding }.clear();
            let why = "the guest's memory was taken away (its file was shortened)".to_owned();
            tracing::warn!("nic '{}': {why}", nic.name);
            nic.state.stopped = Some((0, why.clone()));
            all.push(Happened::Stopped(nic.name.clone(), 0, why));
        }
        all
    }

    /// Rings that workers stopped.
    fn faults(&mut self) -> Vec<Happened> {
        let mut all = Vec::new();
        for nic in self.nics.values_mut().filter(|nic| nic.state.stopped.is_none()) {
            let found = nic.state.pairs.iter().enumerate().find_map(|(i, pair)| {
                let (ring, why) = pair.fault()?;
                Some((2 * i + ring, why))
            });
            if let Some((ring, why)) = found {
                tracing::warn!("nic '{}': ring {ring} stopped: {why}", nic.name);
                if let Some(mut bell) = nic.state.pairs.get(ring / 2).and_then(|pair| pair.err(ring % 2)) {
                    bell.ring();
                }
                nic.state.stopped = Some((ring, why.clone()));
                all.push(Happened::Stopped(nic.name.clone(), ring, why));
            }
        }
        all
    }
}

impl Nic {
    /// Whether a VMM is connected.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// How its connection stands.
    #[must_use]
    pub fn standing(&self) -> Standing<'_> {
        match self.state.stopped.as_ref().or(self.state.waits.as_ref()) {
            Some((ring, why)) if self.is_connected() => Standing::Failed(*ring, why),
            _ if self.state.pairs.iter().any(QueuePair::runs) => Standing::Running,
            _ if self.is_connected() => Standing::Connecting,
            _ => Standing::Alone,
        }
    }

    fn is_link_up(&self, net: &Net) -> bool {
        net.client(self.client).is_some_and(|client| client.link_up)
    }

    /// What its guest's driver asked for.
    #[must_use]
    pub const fn asked(&self) -> &Asked {
        &self.state.control.asked
    }

    /// Does what waits in the control queue, a bounded part of it.
    fn control(&mut self, net: &mut Net, binding: &mut Binding) -> Vec<Happened> {
        let mut plug = Plug { client: self.client, nic: &mut self.state, net, binding };
        let served = plug.control();
        let mut happened = Vec::new();
        if served.filter && std::mem::take(&mut self.state.control.armed) {
            happened.push(Happened::Filter(self.made.id.clone(), self.made.path.clone()));
        }
        if let (Some(why), Some(ring)) = (served.fault, self.state.control_ring()) {
            tracing::warn!("nic '{}': ring {ring} stopped: {why}", self.name);
            self.state.stopped.get_or_insert((ring, why.clone()));
            happened.push(Happened::Stopped(self.name.clone(), ring, why));
        }
        happened
    }

    /// Reads and answers messages. False: the connection is over.
    fn serve(&mut self, ready: &Ready, reactor: &Reactor, net: &mut Net, binding: &mut Binding) -> bool {
        let Some((connection, session)) = &mut self.link else { return true };
        if ready.write && !connection.flush(reactor) {
            return false;
        }
        let mut plug = Plug { client: self.client, nic: &mut self.state, net, binding };
        let stays = Self::talk(&self.name, (connection, session), reactor, &mut plug);
        // What was started is started now: all that a burst of messages brought, at once.
        if stays {
            settle(&self.name, &mut plug);
        }
        stays
    }

    fn talk(
        name: &str,
        (connection, session): (&mut Connection, &mut Session),
        reactor: &Reactor,
        plug: &mut Plug<'_>,
    ) -> bool {
        // A VMM that never pauses leaves time for others: its socket stays ready, and its turn comes again.
        for _ in 0..MESSAGES {
            match connection.read() {
                Read::Message(message) => match session.handle(message, plug) {
                    Ok(None) => warn_refused(name, session),
                    Ok(Some(reply)) => {
                        warn_refused(name, session);
                        // An answer says that it is done.
                        settle(name, plug);
                        if !connection.reply(reply, reactor) {
                            return false;
                        }
                    }
                    Err(error) => {
                        tracing::warn!("nic '{name}': {error}; the connection is closed");
                        return false;
                    }
                },
                Read::Later => return true,
                Read::End => return false,
                Read::Bad(error) => {
                    tracing::warn!("nic '{name}': {error}; the connection is closed");
                    return false;
                }
            }
        }
        true
    }

    /// Notes a ring that cannot go on without a reset, or that it can again; the former is told.
    fn look_for_lost_positions(&mut self) -> Option<Happened> {
        let session = self.link.as_ref().map(|(_, session)| session);
        let lost = session.and_then(Session::lost_position).map(|(ring, why)| (ring, why.to_string()));
        let news = lost.as_ref().filter(|_| self.state.waits.is_none()).map(|(ring, why)| {
            tracing::warn!("nic '{}': {why}", self.name);
            Happened::Stopped(self.name.clone(), *ring, why.clone())
        });
        self.state.waits = lost;
        news
    }

    /// Ends the connection and whatever runs.
    fn end(&mut self, net: &mut Net, binding: &mut Binding) {
        if let Some((connection, mut session)) = self.link.take() {
            let mut plug = Plug { client: self.client, nic: &mut self.state, net, binding };
            session.end(&mut plug);
            plug.clear();
            drop(connection);
        }
        let NicState { accepted, mtu, rarp, waits, .. } = &mut self.state;
        (*accepted, *mtu, *rarp, *waits) = (None, None, None, None);
    }
}

impl NicState {
    /// The number of the control queue's ring, behind all others; with one pair alone in use that pair's.
    pub(super) fn control_ring(&self) -> Option<usize> {
        let accepted = self.accepted.filter(|bits| bits & NetFeatures::CTRL_VQ != 0)?;
        Some(if accepted & NetFeatures::MQ != 0 { 2 * self.pairs.len() } else { 2 })
    }

    /// Pairs that the driver uses: as many as it named, if it has a queue to name them by.
    pub(super) fn pairs_in_use(&self) -> usize {
        let named = self.control.served && self.control.asked.has(NetFeatures::MQ);
        if named { self.control.asked.pairs.into() } else { self.pairs.len() }
    }
}

/// Lets a driver look at the configuration space again, if the VMM wants to hear of it. A channel that is full holds
/// such a message already.
fn tell_config(session: &Session) {
    if let Some(channel) = session.channel().filter(|_| session.hears_of_config()) {
        let _ = send(channel.as_raw_fd(), &config_changed(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
    }
}

/// Runs what was started.
fn settle(name: &str, plug: &mut Plug<'_>) {
    if let Err((ring, why)) = plug.settle() {
        tracing::error!("nic '{name}': ring {ring} could not be started: {why}");
        plug.nic.stopped.get_or_insert((ring, why));
    }
}

fn warn_refused(name: &str, session: &mut Session) {
    if let Some(error) = session.refused() {
        tracing::warn!("nic '{name}': {error}; the message was refused");
    }
}

/// Whether a guest's driver agreed to stand in for another device.
pub(super) const fn stands_by(accepted: u64) -> bool {
    accepted & NetFeatures::STANDBY != 0
}
