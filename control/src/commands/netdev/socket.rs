//! What the options of `socket` mean together (QEMU 10.0 `net_init_socket`).

use super::dgram::{Found, family};
use super::host::{inet_aton, resolve, split};
use crate::commands::args::Args;
use crate::commands::fd::Fds;
use crate::commands::{Outcome, State};
use crate::qmp::error::QmpError;
use engine::backend::datagram::DatagramOptions;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use serde_json::{Map, Value};
use std::os::fd::{OwnedFd, RawFd};

/// A way to connections.
#[derive(Debug)]
#[allow(dead_code)] // named already, opened elsewhere
pub(super) enum Streams {
    /// Wait for a client at `host:port`.
    Listen(String),
    /// Connect to `host:port`.
    Connect(String),
    /// A connected stream socket, and its number as it is shown.
    Given(OwnedFd, RawFd),
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
    Streams(Streams),
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
        return Ok(Wanted::Streams(Streams::Listen(at)));
    }
    if let Some(to) = text("connect") {
        return Ok(Wanted::Streams(Streams::Connect(to)));
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
        Ok(SockType::Stream) => Ok(Wanted::Streams(Streams::Given(file, number))),
        Ok(other) => Err(QmpError::generic(format!(
            "socket type={} for fd={number} must be either SOCK_DGRAM or SOCK_STREAM",
            other as i32
        ))),
        Err(_) => Err(QmpError::generic("can't get socket option SO_TYPE")),
    }
}

impl Wanted {
    /// Names become addresses, which may block.
    fn find(self) -> Result<Found, QmpError> {
        let bad = |local: &str| QmpError::generic(format!("localaddr '{local}' is not a valid IPv4 address"));
        match self {
            Self::Udp(to, local) => {
                let local = resolve(split(&local)?)?;
                let remote = resolve(split(&to)?)?;
                Ok((DatagramOptions::Inet { local, remote }, format!("socket: udp={remote}")))
            }
            Self::Group(group, local) => {
                let group = resolve(split(&group)?)?;
                let local = local.map(|local| inet_aton(&local).ok_or_else(|| bad(&local)));
                let interface = local.transpose()?;
                Ok((DatagramOptions::Multicast { group, interface }, format!("socket: mcast={group}")))
            }
            Self::Given(file, number) => {
                let kind = family(&file)?;
                Ok((DatagramOptions::Given(file), format!("socket: fd={number} {kind}")))
            }
            // Taken out before.
            Self::Streams(_) => Err(not_built()),
        }
    }
}

fn not_built() -> QmpError {
    QmpError::generic("network backend 'socket' is not compiled into this binary")
}

impl State {
    /// `socket`.
    pub(super) fn add_socket(&mut self, monitor: u64, args: Map<String, Value>) -> Outcome {
        match wanted(&args, &mut self.fds, monitor) {
            Ok(Wanted::Streams(streams)) => self.add_socket_stream(args, streams),
            Ok(wanted) => self.add_datagrams("socket", args, move || wanted.find()),
            Err(error) => Err(error).into(),
        }
    }

    /// Connections.
    #[allow(clippy::needless_pass_by_value, clippy::unused_self)] // as it will be
    fn add_socket_stream(&mut self, _args: Map<String, Value>, _streams: Streams) -> Outcome {
        Err(not_built()).into()
    }
}
