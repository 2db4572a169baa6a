//! One netdev over a stream socket: what it does with what happened.

use super::ends::End;
use super::netdevs::{Asked, Happened, Made, Start, Style, TIMER};
use super::place::{Given, Place};
use crate::apply::Binding;
use crate::chardev::{Client as Guest, Connector, Listener};
use crate::model::{Client, ClientId, Kind, Net, QueueRef};
use crate::reactor::{Interest, Part, Reactor, Timer, Token};
use engine::Attachments;
use engine::backend::stream::Report;
use engine::port::counters::PortCounters;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// Pause before accepting again after the process ran out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

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

/// What a netdev needs of all.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) reactor: &'a Reactor,
    pub(super) wake: &'a Arc<OwnedFd>,
}

impl Stream {
    /// A netdev whose client is in the model begins. There is nothing to tell yet: a `stream` is connected later.
    pub(super) fn begin(
        number: u32,
        asked: Asked,
        at: At<'_>,
        connector: &Connector<Made>,
        net: &mut Net,
        binding: &mut Binding,
    ) -> Self {
        let Asked { name, client, style, start, given, raises_link } = asked;
        let mut this = Self {
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
        match start {
            Start::Connect(place, again) => {
                (this.place, this.reconnect) = (Some(place), again);
                this.attempt(connector);
            }
            Start::Listen(place) => {
                this.place = Some(place);
                this.attempt(connector);
            }
            Start::Listening(listener) => match Listener::tcp(listener) {
                Ok(listener) => this.made(Made::Listening(vec![listener]), at, net, binding, &mut Vec::new()),
                Err(error) => this.failed(error.to_string(), at, net),
            },
            Start::Connected(socket) => {
                this.made(Made::Connected(socket), at, net, binding, &mut Vec::new());
            }
            Start::Supplied => {}
        }
        this
    }

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

    pub(super) fn made(
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
    pub(super) fn failed(&mut self, why: String, at: At<'_>, net: &mut Net) {
        tracing::warn!("netdev '{}': {why}", self.name);
        match self.style {
            Style::Stream => self.describe(&format!("error: {why}"), net),
            Style::Socket => {
                self.describe("", net);
                self.set_link(false, net);
            }
            Style::Passt => {}
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
            // It was described when it was made, or is by its owner.
            Style::Socket | Style::Passt => {}
        }
        let worker = queue.worker;
        self.set_queues(vec![queue], net);
        self.set_link(self.raises_link, net);
        if let Err(error) = binding.commit(net, attach) {
            // Its socket is closed with the queue that nobody took.
            tracing::error!("netdev '{}': {error}", self.name);
            binding.plane.unplace(worker);
            self.error = Some(error.desc);
            self.ended(at, net, happened);
        }
    }

    /// Looks whether the connection has ended.
    pub(super) fn look(
        &mut self,
        at: At<'_>,
        net: &mut Net,
        binding: &mut Binding,
        happened: &mut Vec<Happened>,
    ) {
        let Standing::Connected(report) = &self.standing else { return };
        let Some(end) = report.end() else { return };
        if end != engine::backend::stream::End::Closed {
            tracing::warn!("netdev '{}': {end}; the connection is closed", self.name);
            self.error = Some(end.to_string());
        }
        self.ended(at, net, happened);
        if let Err(error) = binding.commit(net, Attachments::default()) {
            tracing::error!("netdev '{}': {error}", self.name);
        }
    }

    /// Ends the connection, if there is one.
    pub(super) fn cut(&mut self, at: At<'_>, net: &mut Net, binding: &mut Binding) {
        if !matches!(self.standing, Standing::Connected(_)) {
            return;
        }
        self.ended(at, net, &mut Vec::new());
        if let Err(error) = binding.commit(net, Attachments::default()) {
            tracing::error!("netdev '{}': {error}", self.name);
        }
    }

    /// Nobody is at the other end any more, as the next commit puts in force.
    fn ended(&mut self, at: At<'_>, net: &mut Net, happened: &mut Vec<Happened>) {
        self.standing = Standing::Closed;
        self.set_queues(Vec::new(), net);
        self.set_link(false, net);
        match self.style {
            Style::Stream => happened.push(Happened::Disconnected(self.name.clone())),
            Style::Socket => self.describe("", net),
            Style::Passt => happened.push(Happened::PasstClosed(self.client)),
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
    pub(super) fn accept(
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
            Ok(Some(Guest::Other(socket))) => socket,
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

    pub(super) fn timed(&mut self, at: At<'_>, connector: &Connector<Made>) {
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
