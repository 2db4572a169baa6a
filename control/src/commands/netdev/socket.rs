//! What the options of `socket` mean together (QEMU 10.0 `net_init_socket`).

use super::dgram::{Found, family};
use super::host::{inet_aton, is_name, resolve, split};
use crate::apply::binding::OPEN_LIMIT;
use crate::apply::jobs::Product;
use crate::commands::args::Args;
use crate::commands::fd::Fds;
use crate::commands::pending::Pending;
use crate::commands::stream::Legacy;
use crate::commands::{Outcome, State};
use crate::qmp::error::QmpError;
use engine::backend::datagram::DatagramOptions;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use serde_json::{Map, Value};
use std::net::SocketAddrV4;
use std::os::fd::{OwnedFd, RawFd};

/// What is asked of a `host:port` that has connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::commands) enum Way {
    /// Wait for a client there.
    Listen,
    /// Connect to it.
    Connect,
}

impl Way {
    const fn at(self, address: SocketAddrV4) -> Legacy {
        match self {
            Self::Listen => Legacy::Listen(address),
            Self::Connect => Legacy::Connect(address),
        }
    }
}

/// What was asked for.
#[derive(Debug)]
enum Wanted {
    /// Datagrams to `host:port`, which arrive at another.
    Udp(String, String),
    /// A group at `host:port`, joined at the interface of an address.
    Group(String, Option<String>),
    /// A datagram socket, and its number as it is shown.
    Given(OwnedFd, RawFd),
    /// Connections at `host:port`.
    Stream(Way, String),
    /// A connected stream socket, and its number as it is shown.
    GivenStream(OwnedFd, RawFd),
}

/// Checks which options may stand together, in QEMU's order and words.
fn wanted(args: &Map<String, Value>, fds: &mut Fds, monitor: u64) -> Result<Wanted, QmpError> {
    let refuse = |desc: &str| Err(QmpError::generic(desc));
    let text = |name: &str| args.maybe(name).map(str::to_owned);
    let ways = ["fd", "listen", "connect", "mcast", "udp"];
    if ways.iter().filter(|way| args.contains_key(**way)).count() != 1 {
        return refuse("exactly one of listen=, connect=, mcast= or udp= is required");
    }
    let local = text("localaddr");
    if local.is_some() && !args.contains_key("mcast") && !args.contains_key("udp") {
        return refuse("localaddr= is only valid with mcast= or udp=");
    }
    if let Some(name) = args.maybe("fd") {
        let (file, number) = fds.named_or_numbered(monitor, args.text("id"), name)?;
        return given(file, number);
    }
    if let Some(at) = text("listen") {
        return Ok(Wanted::Stream(Way::Listen, at));
    }
    if let Some(to) = text("connect") {
        return Ok(Wanted::Stream(Way::Connect, to));
    }
    match (text("mcast"), text("udp"), local) {
        (Some(group), _, local) => Ok(Wanted::Group(group, local)),
        (None, Some(to), Some(local)) => Ok(Wanted::Udp(to, local)),
        _ => refuse("localaddr= is mandatory with udp="),
    }
}

/// What kind of socket a file is.
fn given(file: OwnedFd, number: RawFd) -> Result<Wanted, QmpError> {
    match getsockopt(&file, sockopt::SockType) {
        Ok(SockType::Datagram) => Ok(Wanted::Given(file, number)),
        Ok(SockType::Stream) => Ok(Wanted::GivenStream(file, number)),
        Ok(other) => Err(QmpError::generic(format!(
            "socket type={} for fd={number} must be either SOCK_DGRAM or SOCK_STREAM",
            other as i32
        ))),
        Err(_) => Err(QmpError::generic("can't get socket option SO_TYPE")),
    }
}

/// Datagrams to `to`, which arrive at `local`.
fn udp(to: &str, local: &str) -> Result<Found, QmpError> {
    let local = resolve(split(local)?)?;
    let remote = resolve(split(to)?)?;
    Ok((DatagramOptions::Inet { local, remote }, format!("socket: udp={remote}")))
}

/// A group, joined at the interface of the address `local`.
fn group(group: &str, local: Option<&str>) -> Result<Found, QmpError> {
    let group = resolve(split(group)?)?;
    let address = |local| {
        let bad = || QmpError::generic(format!("localaddr '{local}' is not a valid IPv4 address"));
        inet_aton(local).ok_or_else(bad)
    };
    let interface = local.map(address).transpose()?;
    Ok((DatagramOptions::Multicast { group, interface }, format!("socket: mcast={group}")))
}

impl State {
    /// `socket`.
    pub(super) fn add_socket(&mut self, monitor: u64, args: Map<String, Value>) -> Outcome {
        match wanted(&args, &mut self.fds, monitor) {
            Ok(Wanted::Udp(to, local)) => self.add_datagrams("socket", args, move || udp(&to, &local)),
            Ok(Wanted::Group(at, local)) => {
                self.add_datagrams("socket", args, move || group(&at, local.as_deref()))
            }
            Ok(Wanted::Given(file, number)) => self.add_datagrams("socket", args, move || {
                let kind = family(&file)?;
                Ok((DatagramOptions::Given(file), format!("socket: fd={number} {kind}")))
            }),
            Ok(Wanted::Stream(way, at)) => self.add_connections(args, way, at),
            Ok(Wanted::GivenStream(file, number)) => {
                self.add_socket_stream(args, Legacy::Fd(file, number)).into()
            }
            Err(error) => Err(error).into(),
        }
    }

    /// Connections at `host:port`. A name is looked up off this thread.
    fn add_connections(&mut self, args: Map<String, Value>, way: Way, at: String) -> Outcome {
        let (host, port) = match split(&at) {
            Ok(parts) => parts,
            Err(error) => return Err(error).into(),
        };
        if !is_name(host) {
            let address = resolve((host, port));
            return address.and_then(|address| self.add_socket_stream(args, way.at(address))).into();
        }
        let started =
            self.binding.jobs.start(OPEN_LIMIT, move || Product::Address(split(&at).and_then(resolve)));
        match started {
            Ok(ticket) => {
                self.pending.insert(ticket, Pending::Connections(args, way));
                Outcome::Later(ticket)
            }
            Err(error) => {
                let desc = format!("netdev '{}': no thread to open it on: {error}", args.text("id"));
                Err(QmpError::generic(desc)).into()
            }
        }
    }

    /// The name was looked up.
    pub(in crate::commands) fn connections_found(
        &mut self,
        args: Map<String, Value>,
        way: Way,
        address: Result<SocketAddrV4, QmpError>,
    ) -> Result<Value, QmpError> {
        // Somebody may have taken the id meanwhile.
        self.net.check_free(args.text("id"))?;
        self.add_socket_stream(args, way.at(address?))
    }
}
