//! One nic: what it is, its connection, and what its guest asks for.

use super::connection::{Connection, Read};
use super::control::Control;
use super::features::NicProperties;
use super::plug::{Plug, QueuePair};
use crate::apply::Binding;
use crate::model::{ClientId, Net};
use crate::reactor::{Reactor, Ready};
use engine::backend::nic::{Asked, NetFeatures};
use engine::vhost::{Session, config_changed};
use nix::sys::socket::{MsgFlags, send};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// Messages of one VMM handled in one go.
const MESSAGES: usize = 64;
/// What a nic is, apart from its connection.
#[derive(Debug)]
pub struct NicState {
    /// What it is made of.
    pub properties: NicProperties,
    /// Feature bits that the guest accepted.
    pub accepted: Option<u64>,
    /// Offloads that a guest has accepted while the nic was there: it has them again when it comes back, whatever the nic is joined to.
    pub(super) kept: u64,
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
    /// An address to announce once the first pair runs, and in how many frames.
    pub(super) rarp: Option<([u8; 6], u16)>,
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
    pub(super) link_up: bool,
    pub(super) link: Option<(Connection, Session)>,
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

    pub(super) fn is_link_up(&self, net: &Net) -> bool {
        net.client(self.client).is_some_and(|client| client.link_up)
    }

    /// What its guest's driver asked for.
    #[must_use]
    pub const fn asked(&self) -> &Asked {
        &self.state.control.asked
    }

    /// Does what waits in the control queue, a bounded part of it.
    pub(super) fn control(&mut self, net: &mut Net, binding: &mut Binding) -> Vec<Happened> {
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
    pub(super) fn serve(
        &mut self,
        ready: &Ready,
        reactor: &Reactor,
        net: &mut Net,
        binding: &mut Binding,
    ) -> bool {
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
    pub(super) fn look_for_lost_positions(&mut self) -> Option<Happened> {
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
    pub(super) fn end(&mut self, net: &mut Net, binding: &mut Binding) {
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
    /// The feature bits that are offered while its client is joined as it is: of offloads only those that a device behind it carries, as
    /// QEMU narrows what it offers.
    #[must_use]
    pub fn offered(&self, client: ClientId, net: &Net) -> u64 {
        let peer = net.client(client).and_then(|client| net.client(client.peer?));
        let carried = peer.and_then(|peer| peer.carries).unwrap_or(NetFeatures::OFFLOADS);
        self.properties.features & (!NetFeatures::OFFLOADS | carried | self.kept)
    }

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
pub(super) fn tell_config(session: &Session) {
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
