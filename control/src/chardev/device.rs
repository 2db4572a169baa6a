//! One chardev of the registry.

use super::link::Listener;
use super::registry::User;
use super::spec::{Backend, SocketSpec};
use super::stream::Stream;
use crate::commands::ChardevInfo;
use crate::reactor::Timer;

/// A chardev.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) id: String,
    /// Who takes its bytes.
    pub(super) user: Option<User>,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Null,
    /// Anything with connections.
    Link(Box<Link>),
}

/// A chardev that has a connection now and then.
#[derive(Debug)]
pub(super) struct Link {
    /// `None` for stdio.
    pub(super) spec: Option<SocketSpec>,
    /// Sockets it listens on; none for a client.
    pub(super) listeners: Vec<Listener>,
    pub(super) state: State,
    /// For the next attempt to connect or to accept.
    pub(super) timer: Option<Timer>,
    /// That it cannot connect has been told, once for all attempts until it can, as in QEMU.
    pub(super) told: bool,
    /// Where it listens or connects, as `query-chardev` shows it when nobody is at the other end.
    pub(super) resting: String,
}

/// Whether somebody is at the other end.
#[derive(Debug)]
pub(super) enum State {
    /// Nobody.
    Disconnected,
    /// Somebody, but no user reads yet: the stream is kept here.
    Waiting(Stream),
    /// Somebody, and the user has the stream.
    Lent {
        /// As `query-chardev` shows it.
        filename: String,
        /// Streams that the user has; a monitor takes several.
        streams: u32,
    },
}

impl Device {
    /// As `query-chardev` shows it.
    pub(super) fn filename(&self) -> String {
        match &self.kind {
            Kind::Null => "null".to_owned(),
            Kind::Link(link) => match &link.state {
                State::Disconnected => format!("disconnected:{}", link.resting),
                State::Waiting(stream) => stream.filename().to_owned(),
                State::Lent { filename, .. } => filename.clone(),
            },
        }
    }
}

impl Device {
    /// As the commands show it.
    pub(super) fn info(&self) -> ChardevInfo {
        let reconnects = matches!(&self.kind, Kind::Link(link) if link.spec.as_ref().is_some_and(|s| s.reconnect.is_some()));
        let (driver, connected, addr) = match &self.kind {
            Kind::Null => ("chardev-null", None, None),
            Kind::Link(link) if link.spec.is_none() => ("chardev-stdio", None, None),
            Kind::Link(link) => {
                let connected = !matches!(link.state, State::Disconnected);
                ("chardev-socket", Some(connected), link.spec.as_ref().map(|s| s.address.to_value()))
            }
        };
        ChardevInfo {
            label: self.id.clone(),
            filename: self.filename(),
            frontend_open: self.user.is_some(),
            driver,
            connected,
            addr,
            reconnects,
        }
    }
}

impl Link {
    pub(super) fn resting(backend: &Backend, listeners: &[Listener]) -> String {
        match (backend, listeners.first()) {
            // The address that the kernel gave, so that port 0 shows the port.
            (_, Some(listener)) => listener.address.to_filename(true),
            (Backend::Socket(spec), None) => spec.address.to_filename(spec.server),
            (Backend::Stdio, None) => "stdio".to_owned(),
            (Backend::Null, None) => "null".to_owned(),
        }
    }

    pub(super) fn nodelay(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.nodelay)
    }
}
