//! All nics: their chardevs, connections and sessions.

use super::connection::Connection;
use super::control::Control;
use super::device::{Happened, Made, Nic, NicState, tell_config};
use super::features::NicProperties;
use super::plug::{Plug, QueuePair};
use crate::apply::Binding;
use crate::chardev::Stream;
use crate::model::{ClientId, Net};
use crate::reactor::{Interest, Part, Reactor, Ready, Token, Wake};
use engine::mem::shared::tell_losses;
use engine::vhost::{Reader, Session};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

/// The role of a control queue's kick.
const KICK: u8 = 1;
/// The object number of the wake-up that workers use.
const WAKE: u32 = u32::MAX;

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
            kept: 0,
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

    /// Announces the guests of all nics, or of those that are named: each by a frame with the address that it has now, and by itself
    /// where its driver agreed to be asked (QEMU `qemu_announce_self_iter`). A nic without a guest has nobody to announce.
    pub fn announce_all(&mut self, named: Option<&[String]>, binding: &Binding) {
        for nic in self.nics.values_mut().filter(|nic| named.is_none_or(|names| names.contains(&nic.name))) {
            let sent = nic.state.announce(nic.state.control.asked.filter.mac, binding);
            tracing::debug!(
                "nic '{}': {}",
                nic.name,
                if sent { "announced" } else { "no guest to announce" }
            );
            if nic.state.control.asked.ask_announce()
                && let Some((_, session)) = &nic.link
            {
                tell_config(session);
            }
        }
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
