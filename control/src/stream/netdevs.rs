//! All netdevs over stream sockets: who is at the other end, and what is done about it when nobody is.

use super::ends::End;
use super::place::{Given, Place};
use crate::apply::Binding;
use crate::chardev::{Client as Guest, Connector, Listener};
use crate::model::{Client, ClientId, Kind, Net, QueueRef};
use crate::reactor::{Interest, Part, Reactor, Ready, Timer, Token, Wake};
use engine::Attachments;
use engine::backend::stream::Report;
use engine::port::counters::PortCounters;
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
const TIMER: u8 = u8::MAX;
/// Pause before accepting again after the process ran out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// In whose words a netdev is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `stream`: it tells events, and why it failed.
    Stream,
    /// `socket`: it tells nothing.
    Socket,
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

/// How a netdev stands.
#[derive(Debug)]
pub(super) enum Standing {
    /// Nobody is at the other end, and nobody will be.
    Closed,
    /// It tries to connect or to listen, or will after a while.
    Trying,
    /// It waits for a client.
    Listening,
    /// Somebody is at the other end.
    Connected(Arc<Report>),
}

/// One netdev.
#[derive(Debug)]
pub(super) struct Stream {
    number: u32,
    name: String,
    pub(super) client: ClientId,
    style: Style,
    place: Option<Place>,
    server: bool,
    reconnect: Option<Duration>,
    given: Option<Given>,
    raises_link: bool,
    listeners: Vec<Listener>,
    timer: Option<Timer>,
    pub(super) standing: Standing,
    /// Why it could not connect or listen, or why the last connection ended, if the peer did not just go.
    pub(super) error: Option<String>,
    /// For as long as the netdev lives.
    pub(super) counters: Arc<PortCounters>,
}

/// What came of an attempt.
#[derive(Debug)]
enum Made {
    Listening(Vec<Listener>),
    Connected(OwnedFd),
}

/// Something happened that is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// A `stream` has a peer: netdev, address.
    Connected(String, Value),
    /// It has lost it: netdev.
    Disconnected(String),
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
        let Asked { name, client, style, start, given, raises_link } = asked;
        let mut netdev = Stream {
            number,
            name,
            client,
            style,
            place: None,
            server: matches!(start, Start::Listen(_) | Start::Listening(_)),
            reconnect: None,
            given,
            raises_link,
            listeners: Vec::new(),
            timer: None,
            standing: Standing::Trying,
            error: None,
            counters: Arc::default(),
        };
        let mut happened = Vec::new();
        match start {
            Start::Connect(place, again) => {
                (netdev.place, netdev.reconnect) = (Some(place), again);
                netdev.attempt(&self.connector);
            }
            Start::Listen(place) => {
                netdev.place = Some(place);
                netdev.attempt(&self.connector);
            }
            Start::Listening(listener) => match Listener::tcp(listener) {
                Ok(listener) => {
                    netdev.made(Made::Listening(vec![listener]), self.at(), net, binding, &mut happened);
                }
                Err(error) => netdev.failed(error.to_string(), self.at(), net),
            },
            Start::Connected(socket) => {
                netdev.made(Made::Connected(socket), self.at(), net, binding, &mut happened);
            }
        }
        self.netdevs.insert(number, netdev);
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

/// What a netdev needs of all.
#[derive(Clone, Copy)]
struct At<'a> {
    reactor: &'a Reactor,
    wake: &'a Arc<OwnedFd>,
}

impl Stream {
    /// Tries to connect or to listen.
    fn attempt(&mut self, connector: &Connector<Made>) {
        let (Some(place), given) = (self.place.clone(), self.given.take()) else { return };
        self.standing = Standing::Trying;
        if self.server {
            connector.begin(self.number, place.is_quick(), move || place.listen(given).map(Made::Listening));
        } else {
            connector.begin(self.number, false, move || place.connect(given).map(Made::Connected));
        }
    }

    fn made(
        &mut self,
        made: Made,
        at: At<'_>,
        net: &mut Net,
        binding: &mut Binding,
        happened: &mut Vec<Happened>,
    ) {
        match made {
            Made::Listening(listeners) => {
                self.listeners = listeners;
                self.standing = Standing::Listening;
                self.describe(if self.style == Style::Stream { "listening" } else { "" }, net);
                self.listen(at);
            }
            Made::Connected(socket) => {
                let end = End::remote(&socket);
                self.connected(socket, &end, at, net, binding, happened);
            }
        }
    }

    /// It could not connect, or not listen.
    fn failed(&mut self, why: String, at: At<'_>, net: &mut Net) {
        tracing::warn!("netdev '{}': {why}", self.name);
        match self.style {
            Style::Stream => self.describe(&format!("error: {why}"), net),
            Style::Socket => {
                self.describe("", net);
                self.set_link(false, net);
            }
        }
        self.error = Some(why);
        self.standing = Standing::Closed;
        self.connect_again(at, net);
    }

    /// Somebody is at the other end.
    fn connected(
        &mut self,
        socket: OwnedFd,
        end: &End,
        at: At<'_>,
        net: &mut Net,
        binding: &mut Binding,
        happened: &mut Vec<Happened>,
    ) {
        let (pair, report) = match binding.backends.open_stream(socket, at.wake) {
            Ok(opened) => opened,
            Err(error) => {
                if self.server {
                    tracing::warn!("netdev '{}': {}", self.name, error.desc);
                    return self.listen(at);
                }
                return self.failed(error.desc, at, net);
            }
        };
        let (queue, attach) = binding.place_one(pair, self.counters.clone());
        self.standing = Standing::Connected(report);
        self.error = None;
        match self.style {
            Style::Stream => {
                self.describe(&end.uri(), net);
                happened.push(Happened::Connected(self.name.clone(), end.to_value()));
            }
            Style::Socket if self.server => {
                self.describe(&format!("socket: connection from {}", end.ip_and_port()), net);
            }
            // It was described when it was made.
            Style::Socket => {}
        }
        self.set_queues(vec![queue], net);
        self.set_link(self.raises_link, net);
        commit(&self.name, net, binding, attach);
    }

    /// Looks whether the connection has ended.
    fn look(&mut self, at: At<'_>, net: &mut Net, binding: &mut Binding, happened: &mut Vec<Happened>) {
        let Standing::Connected(report) = &self.standing else { return };
        let Some(end) = report.end() else { return };
        if end != engine::backend::stream::End::Closed {
            tracing::warn!("netdev '{}': {end}; the connection is closed", self.name);
            self.error = Some(end.to_string());
        }
        self.standing = Standing::Closed;
        self.set_queues(Vec::new(), net);
        self.set_link(false, net);
        commit(&self.name, net, binding, Attachments::default());
        match self.style {
            Style::Stream => happened.push(Happened::Disconnected(self.name.clone())),
            Style::Socket => self.describe("", net),
        }
        if self.server {
            self.standing = Standing::Listening;
            if self.style == Style::Stream {
                self.describe("listening", net);
            }
            self.listen(at);
        }
        self.connect_again(at, net);
    }

    /// Takes a client, if there is none yet.
    fn accept(
        &mut self,
        role: u8,
        at: At<'_>,
        net: &mut Net,
        binding: &mut Binding,
        happened: &mut Vec<Happened>,
    ) {
        let (Standing::Listening, Some(listener)) = (&self.standing, self.listeners.get(usize::from(role)))
        else {
            return;
        };
        let socket: OwnedFd = match listener.client() {
            Ok(Some(Guest::Unix(stream))) => stream.into(),
            Ok(Some(Guest::Tcp(stream))) => stream.into(),
            Ok(None) => return,
            Err(error) => {
                tracing::warn!("netdev '{}': cannot accept a connection: {error}", self.name);
                self.rest(at);
                return self.set_timer(ACCEPT_PAUSE, at);
            }
        };
        if let Some(Err(why)) = self.place.as_ref().map(|place| place.tune(&socket)) {
            tracing::warn!("netdev '{}': {why}", self.name);
        } else if self.place.is_none() {
            // Frames are sent as they come.
            let _ = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::TcpNoDelay, &true);
        }
        // The others wait in the backlog.
        self.rest(at);
        let end = End::of_client(&socket);
        self.connected(socket, &end, at, net, binding, happened);
    }

    /// Begins to watch the listeners.
    fn listen(&self, at: At<'_>) {
        for (role, listener) in (0..TIMER).zip(&self.listeners) {
            // Already watched is as good.
            let _ = at.reactor.watch(listener, Token::new(Part::Streams, self.number, role), Interest::READ);
        }
    }

    /// Leaves clients in the backlog.
    fn rest(&self, at: At<'_>) {
        self.listeners.iter().for_each(|listener| at.reactor.forget(listener));
    }

    fn timed(&mut self, at: At<'_>, connector: &Connector<Made>) {
        if !self.timer.as_ref().is_some_and(Timer::acknowledge) {
            return;
        }
        match (&self.standing, self.server) {
            (Standing::Listening, true) => self.listen(at),
            (Standing::Trying, false) => self.attempt(connector),
            _ => {}
        }
    }

    /// Connects again after a while, where that was asked for. A descriptor that was handed over is closed and cannot be.
    fn connect_again(&mut self, at: At<'_>, net: &mut Net) {
        let Some(delay) = self.reconnect.filter(|_| !matches!(self.place, Some(Place::Fd(_)))) else {
            return;
        };
        self.standing = Standing::Trying;
        self.describe("connecting", net);
        self.set_timer(delay, at);
    }

    fn set_timer(&mut self, delay: Duration, at: At<'_>) {
        if self.timer.is_none() {
            let token = Token::new(Part::Streams, self.number, TIMER);
            let timer = Timer::new()
                .and_then(|timer| at.reactor.watch(&timer, token, Interest::READ).map(|()| timer));
            self.timer = timer.inspect_err(|e| tracing::warn!("netdev '{}': no timer: {e}", self.name)).ok();
        }
        if let Some(Err(error)) = self.timer.as_ref().map(|timer| timer.set(delay)) {
            tracing::warn!("netdev '{}': no timer: {error}", self.name);
        }
    }

    /// What `info network` says of it.
    fn describe(&self, info: &str, net: &mut Net) {
        if let Some(Client { kind: Kind::Netdev(dev), .. }) = net.client_mut(self.client) {
            dev.info = vec![info.to_owned()];
        }
    }

    /// Its own link only: a nic that it is joined to keeps its own, as in QEMU.
    fn set_link(&self, up: bool, net: &mut Net) {
        if let Some(client) = net.client_mut(self.client) {
            client.link_up = up;
        }
    }

    fn set_queues(&self, queues: Vec<QueueRef>, net: &mut Net) {
        if let Some(Client { kind: Kind::Netdev(dev), .. }) = net.client_mut(self.client) {
            dev.connected = !queues.is_empty();
            dev.queues = queues;
        }
    }
}

/// Puts the change in force; queues that went are closed.
fn commit(name: &str, net: &Net, binding: &mut Binding, attach: Attachments) {
    if let Err(error) = binding.commit(net, attach) {
        tracing::error!("netdev '{name}': {error}");
    }
}
