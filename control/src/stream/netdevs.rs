//! All netdevs over stream sockets: who is at the other end, and what is done about it when nobody is.

use super::netdev::{At, Stream};
use super::place::{Given, Place};
use crate::apply::Binding;
use crate::chardev::{Connector, Listener};
use crate::model::{ClientId, Net};
use crate::reactor::{Interest, Part, Reactor, Ready, Token, Wake};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The object of descriptors that belong to all: the wake-up of workers, and that of attempts.
const ALL: u32 = u32::MAX;
const WORKERS: u8 = 0;
const ATTEMPTS: u8 = 1;
/// The role of a netdev's timer; its listeners have those below.
pub(super) const TIMER: u8 = u8::MAX;

/// In whose words a netdev is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `stream`: it tells events, and why it failed.
    Stream,
    /// `socket`: it tells nothing.
    Socket,
    /// `passt`: its process is somebody else's affair, who describes it too.
    Passt,
}

/// How a netdev begins.
#[derive(Debug)]
pub enum Start {
    /// It connects, and again after a time if one is given.
    Connect(Place, Option<Duration>),
    /// It listens.
    Listen(Place),
    /// It listens already.
    Listening(std::net::TcpListener),
    /// It is connected already.
    Connected(OwnedFd),
    /// It is connected by [`Streams::supply`].
    Supplied,
}

/// What the user asked for.
#[derive(Debug)]
pub struct Asked {
    /// The netdev's name.
    pub name: String,
    /// Its client in the model.
    pub client: ClientId,
    /// In whose words.
    pub style: Style,
    /// How it begins.
    pub start: Start,
    /// The descriptor of an `fd` address.
    pub given: Option<Given>,
    /// Whether the link goes up with the connection.
    pub raises_link: bool,
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) enum Made {
    /// It listens; several sockets where a name has several addresses.
    Listening(Vec<Listener>),
    /// It is connected.
    Connected(OwnedFd),
}

/// Something happened that is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// A `stream` has a peer: netdev, address.
    Connected(String, Value),
    /// It has lost it: netdev.
    Disconnected(String),
    /// A `passt` has closed its end: client.
    PasstClosed(ClientId),
}

/// All of them.
#[derive(Debug)]
pub struct Streams {
    reactor: Rc<Reactor>,
    /// Written to by workers when a connection ends.
    wake: Arc<OwnedFd>,
    connector: Connector<Made>,
    netdevs: BTreeMap<u32, Stream>,
    next: u32,
}

impl Streams {
    /// None yet; the reactor tells of [`Part::Streams`].
    ///
    /// # Errors
    /// The kernel's, when no descriptor is left.
    pub fn new(reactor: Rc<Reactor>) -> io::Result<Self> {
        let wake = Arc::new(Wake::new()?.as_fd().try_clone_to_owned()?);
        let connector = Connector::new()?;
        reactor.watch(wake.as_fd(), Token::new(Part::Streams, ALL, WORKERS), Interest::READ)?;
        reactor.watch(&connector, Token::new(Part::Streams, ALL, ATTEMPTS), Interest::READ)?;
        Ok(Self { reactor, wake, connector, netdevs: BTreeMap::new(), next: 0 })
    }

    /// Adds a netdev, whose client is in the model, and begins. There is nothing to tell yet: a `stream` is connected later.
    pub fn add(&mut self, asked: Asked, net: &mut Net, binding: &mut Binding) {
        let number = self.next;
        self.next += 1;
        let netdev = Stream::begin(number, asked, self.at(), &self.connector, net, binding);
        self.netdevs.insert(number, netdev);
    }

    /// Gives that of a client the socket of a peer; a former one is gone with [`Streams::cut`].
    pub fn supply(&mut self, client: ClientId, socket: OwnedFd, net: &mut Net, binding: &mut Binding) {
        let at = At { reactor: &self.reactor, wake: &self.wake };
        let found = self.netdevs.values_mut().find(|netdev| netdev.client == client);
        if let Some(netdev) = found {
            netdev.made(Made::Connected(socket), at, net, binding, &mut Vec::new());
        }
    }

    /// Ends the connection of a client's, if there is one.
    pub fn cut(&mut self, client: ClientId, net: &mut Net, binding: &mut Binding) {
        let at = At { reactor: &self.reactor, wake: &self.wake };
        let found = self.netdevs.values_mut().find(|netdev| netdev.client == client);
        if let Some(netdev) = found {
            netdev.cut(at, net, binding);
        }
    }

    fn at(&self) -> At<'_> {
        At { reactor: &self.reactor, wake: &self.wake }
    }

    /// Removes that of a client, which has left the model: it listens no more. Its connection is closed with its queues.
    pub fn remove(&mut self, client: ClientId) {
        self.netdevs.retain(|_, netdev| netdev.client != client);
    }

    /// That of a client.
    pub(super) fn netdev(&self, client: ClientId) -> Option<&Stream> {
        self.netdevs.values().find(|netdev| netdev.client == client)
    }

    /// All of them, oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Stream> {
        self.netdevs.values()
    }

    /// Handles what happened to a descriptor of [`Part::Streams`].
    pub fn ready(&mut self, ready: Ready, net: &mut Net, binding: &mut Binding) -> Vec<Happened> {
        let mut happened = Vec::new();
        let at = At { reactor: &self.reactor, wake: &self.wake };
        match (ready.token.object, ready.token.role) {
            (ALL, WORKERS) => {
                let _ = nix::unistd::read(self.wake.as_fd(), &mut [0; 8]);
                for netdev in self.netdevs.values_mut() {
                    netdev.look(at, net, binding, &mut happened);
                }
            }
            (ALL, _) => {
                for attempt in self.connector.finished() {
                    // Gone meanwhile: what was made is closed.
                    let Some(netdev) = self.netdevs.get_mut(&attempt.object) else { continue };
                    match attempt.result {
                        Ok(made) => netdev.made(made, at, net, binding, &mut happened),
                        Err(why) => netdev.failed(why, at, net),
                    }
                }
            }
            (number, role) => {
                let Some(netdev) = self.netdevs.get_mut(&number) else { return happened };
                if role == TIMER {
                    netdev.timed(at, &self.connector);
                } else {
                    netdev.accept(role, at, net, binding, &mut happened);
                }
            }
        }
        happened
    }
}
