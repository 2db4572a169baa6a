//! All chardevs by name, and what happens to those that no user reads yet.

use super::device::{Device, Kind, Link, State};
use super::error::ChardevError;
use super::link::Connector;
use super::opening::{Made, Opened, Opening};
use super::spec::{Backend, Spec};
use super::stream::Stream;
use crate::commands::ChardevInfo;
use crate::reactor::{Interest, Part, Reactor, Ready, Timer, Token};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

/// Roles of a chardev's descriptors; listeners have those below.
const TIMER: u8 = 253;
const STREAM: u8 = 254;
/// The connector's wake-up belongs to no chardev.
const CONNECTOR: Token = Token::new(Part::Chardev, u32::MAX, 255);
/// Pause before accepting again after the process ran out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// A chardev's number; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChardevId(pub u32);

/// Who uses a chardev.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// The QMP monitor of this number.
    Monitor(u64),
    /// The nic of this number: guests' VMMs connect.
    Nic(u32),
    /// The `vhost-user` netdev of this number: a back-end is at the other end.
    Netdev(u32),
    /// The comparison of this number: one of its four connections.
    Compare(u32, engine::colo::Role),
    /// A filter, by this number: the bytes are frames.
    Filter(u32),
    /// A rule of a `user` netdev, by this number: its process has the connection.
    Forward(u32),
}

/// Somebody is at the other end of a used chardev: its user takes the stream, and tells [`Registry::disconnected`]
/// when it has ended.
#[derive(Debug)]
pub struct Connected {
    /// Which chardev.
    pub chardev: ChardevId,
    /// Its user.
    pub user: User,
    /// The connection, watched by nobody.
    pub stream: Stream,
}

/// All chardevs.
#[derive(Debug)]
pub struct Registry {
    reactor: Rc<Reactor>,
    connector: Connector<Stream>,
    devices: BTreeMap<u32, Device>,
    /// Names of chardevs that are being opened.
    reserved: Vec<String>,
    next: u32,
}

impl Registry {
    /// A registry without chardevs, whose descriptors `reactor` watches as [`Part::Chardev`].
    ///
    /// # Errors
    /// The kernel's, when no descriptor is left.
    pub fn new(reactor: Rc<Reactor>) -> nix::Result<Self> {
        let connector = Connector::new()?;
        reactor.watch(&connector, CONNECTOR, Interest::READ)?;
        Ok(Self { reactor, connector, devices: BTreeMap::new(), reserved: Vec::new(), next: 0 })
    }

    /// Begins `chardev-add`: checks `backend` and reserves `id`. `fds` finds the descriptor that an `fd` address
    /// names. Run the opening (off thread unless it is quick) and give what comes to [`Self::finish`].
    ///
    /// # Errors
    /// A taken name; options that are not supported.
    pub fn begin(
        &mut self,
        id: &str,
        backend: &Value,
        fds: &mut dyn FnMut(&str) -> Result<OwnedFd, String>,
    ) -> Result<Opening, ChardevError> {
        if self.knows(id) {
            return Err(ChardevError::Exists(id.to_owned()));
        }
        let failed = |why| ChardevError::Failed { id: id.to_owned(), why };
        let spec = Spec::from_value(id, backend).map_err(failed)?;
        let fd = match &spec.backend {
            Backend::Stdio if self.uses_stdio() => {
                return Err(failed("cannot use stdio by multiple character devices".to_owned()));
            }
            // QEMU looks a descriptor up at each attempt, and a later one finds nothing.
            Backend::Socket(socket) if socket.reconnect.is_none() => match &socket.address {
                super::address::Address::Fd(name) => Some(fds(name).map_err(failed)?),
                _ => None,
            },
            _ => None,
        };
        self.reserved.push(id.to_owned());
        Ok(Opening { spec, fd })
    }

    /// Ends `chardev-add`: the chardev exists, or its name is free again.
    ///
    /// # Errors
    /// Why it could not be opened.
    pub fn finish(&mut self, opened: Opened) -> Result<Value, ChardevError> {
        let Opened { spec, result } = opened;
        self.reserved.retain(|name| *name != spec.id);
        let failed = |why| ChardevError::Failed { id: spec.id.clone(), why };
        let made = result.map_err(failed)?;
        let object = self.next;
        self.next += 1;
        let kind = match made {
            Made::Null => Kind::Null,
            made => {
                let link = self.link(object, &spec, made);
                Kind::Link(link.map_err(|error| failed(error.desc().to_owned()))?.into())
            }
        };
        self.devices.insert(object, Device { id: spec.id.clone(), user: None, kind });
        Ok(json!({}))
    }

    fn link(&self, object: u32, spec: &Spec, made: Made) -> nix::Result<Link> {
        let (listeners, state, pending) = match made {
            Made::Listening(listeners) => (listeners, State::Disconnected, false),
            Made::Connected(stream) => {
                // Standard input may be a file, which cannot be watched, and needs not be before it has a user.
                let _ =
                    self.reactor.watch(&stream, Token::new(Part::Chardev, object, STREAM), Interest::NONE);
                (Vec::new(), State::Waiting(stream), false)
            }
            Made::Pending => (Vec::new(), State::Disconnected, true),
            Made::Null => (Vec::new(), State::Disconnected, false),
        };
        for (role, listener) in (0..TIMER).zip(&listeners) {
            self.reactor.watch(listener, Token::new(Part::Chardev, object, role), Interest::READ)?;
        }
        let resting = Link::resting(&spec.backend, &listeners);
        let spec = match &spec.backend {
            Backend::Socket(spec) => Some(spec.clone()),
            _ => None,
        };
        if let (true, Some(spec)) = (pending, &spec) {
            self.connector.connect(object, spec);
        }
        Ok(Link { spec, listeners, state, timer: None, told: false, resting })
    }

    /// `chardev-add` in one step, for start-up, where nobody waits.
    ///
    /// # Errors
    /// As [`Self::begin`] and [`Self::finish`].
    pub fn add(
        &mut self,
        id: &str,
        backend: &Value,
        fds: &mut dyn FnMut(&str) -> Result<OwnedFd, String>,
    ) -> Result<Value, ChardevError> {
        let opened = self.begin(id, backend, fds)?.run();
        self.finish(opened)
    }

    /// `chardev-remove`.
    ///
    /// # Errors
    /// Unknown, or in use.
    pub fn remove(&mut self, id: &str) -> Result<(), ChardevError> {
        let object = self.find(id).ok_or_else(|| ChardevError::NotFound(id.to_owned()))?;
        if self.devices.get(&object).is_some_and(|device| device.user.is_some()) {
            return Err(ChardevError::Busy(id.to_owned()));
        }
        self.devices.remove(&object);
        Ok(())
    }

    /// Whether the name is taken, or about to be.
    #[must_use]
    pub fn knows(&self, id: &str) -> bool {
        self.reserved.iter().any(|name| name == id) || self.find(id).is_some()
    }

    /// The opening of `id` will not be finished: the name is free again.
    pub fn abandon(&mut self, id: &str) {
        self.reserved.retain(|name| name != id);
    }

    /// All chardevs as the commands show them.
    #[must_use]
    pub fn list(&self) -> Vec<ChardevInfo> {
        self.devices.values().map(Device::info).collect()
    }

    /// `query-chardev`.
    #[must_use]
    pub fn query(&self) -> Value {
        let one = |device: &Device| json!({"frontend-open": device.user.is_some(), "filename": device.filename(), "label": device.id});
        self.devices.values().map(one).collect()
    }

    /// Makes `user` the user of chardev `id`. Where somebody is at the other end already, gives the stream at once.
    ///
    /// # Errors
    /// Unknown, or in use.
    pub fn claim(&mut self, id: &str, user: User) -> Result<(ChardevId, Option<Connected>), ChardevError> {
        let object = self.find(id).ok_or_else(|| ChardevError::NoSuch(id.to_owned()))?;
        let Some(device) = self.devices.get_mut(&object) else {
            return Err(ChardevError::NoSuch(id.to_owned()));
        };
        if device.user.is_some() {
            return Err(ChardevError::InUse(id.to_owned()));
        }
        device.user = Some(user);
        let stream = match &mut device.kind {
            Kind::Link(link) => {
                let stream = link.lend(&self.reactor);
                if matches!(user, User::Monitor(_)) {
                    link.listen_again(&self.reactor, object);
                }
                stream
            }
            Kind::Null => None,
        };
        let chardev = ChardevId(object);
        Ok((chardev, stream.map(|stream| Connected { chardev, user, stream })))
    }

    /// The number of the chardev of that name.
    #[must_use]
    pub fn id(&self, id: &str) -> Option<ChardevId> {
        self.find(id).map(ChardevId)
    }

    /// Ends a use; a connection in use is over with it.
    pub fn release(&mut self, chardev: ChardevId) {
        if let Some(device) = self.devices.get_mut(&chardev.0) {
            device.user = None;
        }
        self.disconnected(chardev);
    }

    /// Ends a use; the connection waits for the next user.
    pub fn give_back(&mut self, chardev: ChardevId, stream: Stream) {
        let Some(device) = self.devices.get_mut(&chardev.0) else { return };
        device.user = None;
        if let Kind::Link(link) = &mut device.kind {
            let token = Token::new(Part::Chardev, chardev.0, STREAM);
            // A file cannot be watched, and needs not be.
            let _ = self.reactor.watch(&stream, token, Interest::NONE);
            link.state = State::Waiting(stream);
        }
    }

    /// The user's stream has ended: the next client may come.
    pub fn disconnected(&mut self, chardev: ChardevId) {
        let Some(Device { kind: Kind::Link(link), .. }) = self.devices.get_mut(&chardev.0) else { return };
        if let State::Lent { streams, .. } = &mut link.state
            && *streams > 1
        {
            *streams -= 1;
            return;
        }
        link.state = State::Disconnected;
        link.listen_again(&self.reactor, chardev.0);
        link.connect_again(&self.reactor, chardev.0);
    }

    /// Handles what happened to a descriptor of [`Part::Chardev`]. What comes back is for the chardevs' users.
    pub fn ready(&mut self, ready: Ready, connected: &mut Vec<Connected>) {
        if ready.token == CONNECTOR {
            for attempt in self.connector.finished() {
                self.attempted(attempt.object, attempt.result, connected);
            }
            return;
        }
        let object = ready.token.object;
        let Some(Device { kind: Kind::Link(link), user, .. }) = self.devices.get_mut(&object) else { return };
        match ready.token.role {
            STREAM => {
                // Nobody reads it yet: only its end is told.
                if matches!(link.state, State::Waiting(_)) && ready.hangup {
                    self.disconnected(ChardevId(object));
                }
            }
            TIMER => {
                if let Some(timer) = &link.timer {
                    timer.acknowledge();
                }
                match &link.spec {
                    Some(spec) if !spec.server => self.connector.connect(object, spec),
                    _ => link.listen_again(&self.reactor, object),
                }
            }
            role => {
                if let Some(stream) = link.accept(&self.reactor, object, role, *user) {
                    link.arrived(&self.reactor, object, *user, stream, connected);
                }
            }
        }
    }

    fn attempted(&mut self, object: u32, result: Result<Stream, String>, connected: &mut Vec<Connected>) {
        let Some(Device { id, kind: Kind::Link(link), user }) = self.devices.get_mut(&object) else { return };
        match result {
            Ok(stream) => {
                link.told = false;
                link.arrived(&self.reactor, object, *user, stream, connected);
            }
            Err(why) => {
                if !std::mem::replace(&mut link.told, true) {
                    tracing::warn!("Unable to connect character device {id}: {why}");
                }
                link.connect_again(&self.reactor, object);
            }
        }
    }

    fn find(&self, id: &str) -> Option<u32> {
        self.devices.iter().find(|(_, device)| device.id == id).map(|(&object, _)| object)
    }

    fn uses_stdio(&self) -> bool {
        let stdio = |device: &Device| matches!(&device.kind, Kind::Link(link) if link.spec.is_none());
        self.devices.values().any(stdio)
    }
}

impl Link {
    /// Gives the stream that waits for a user.
    fn lend(&mut self, reactor: &Reactor) -> Option<Stream> {
        let State::Waiting(stream) = std::mem::replace(&mut self.state, State::Disconnected) else {
            return None;
        };
        reactor.forget(&stream);
        self.state = State::Lent { filename: stream.filename().to_owned(), streams: 1 };
        Some(stream)
    }

    /// A new connection: to the user, or kept until there is one.
    fn arrived(
        &mut self,
        reactor: &Reactor,
        object: u32,
        user: Option<User>,
        stream: Stream,
        connected: &mut Vec<Connected>,
    ) {
        // One client at a time, the others wait in the backlog; but a monitor serves any number at once.
        if !matches!(user, Some(User::Monitor(_))) {
            for listener in &self.listeners {
                reactor.forget(listener);
            }
        }
        match user {
            Some(user) => {
                let streams = if let State::Lent { streams, .. } = self.state { streams + 1 } else { 1 };
                self.state = State::Lent { filename: stream.filename().to_owned(), streams };
                connected.push(Connected { chardev: ChardevId(object), user, stream });
            }
            None => {
                let _ = reactor.watch(&stream, Token::new(Part::Chardev, object, STREAM), Interest::NONE);
                self.state = State::Waiting(stream);
            }
        }
    }

    fn accept(&mut self, reactor: &Reactor, object: u32, role: u8, user: Option<User>) -> Option<Stream> {
        let shared = matches!((&self.state, user), (State::Lent { .. }, Some(User::Monitor(_))));
        if !shared && !matches!(self.state, State::Disconnected) {
            return None;
        }
        let keep_alive = false;
        match self.listeners.get(usize::from(role))?.accept(self.nodelay(), keep_alive) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!("cannot accept a connection on {}: {error}", self.resting);
                for listener in &self.listeners {
                    reactor.forget(listener);
                }
                self.set_timer(reactor, object, ACCEPT_PAUSE);
                None
            }
        }
    }

    fn listen_again(&self, reactor: &Reactor, object: u32) {
        for (role, listener) in (0..TIMER).zip(&self.listeners) {
            // Already watched is as good.
            let _ = reactor.watch(listener, Token::new(Part::Chardev, object, role), Interest::READ);
        }
    }

    fn connect_again(&mut self, reactor: &Reactor, object: u32) {
        if let Some(delay) = self.spec.as_ref().and_then(|spec| spec.reconnect) {
            self.set_timer(reactor, object, delay);
        }
    }

    fn set_timer(&mut self, reactor: &Reactor, object: u32, delay: Duration) {
        if self.timer.is_none() {
            self.timer = Timer::new()
                .and_then(|timer| {
                    reactor.watch(&timer, Token::new(Part::Chardev, object, TIMER), Interest::READ)?;
                    Ok(timer)
                })
                .inspect_err(|error| tracing::warn!("no timer for {}: {error}", self.resting))
                .ok();
        }
        if let Some(timer) = &self.timer {
            let _ = timer.set(delay);
        }
    }
}
