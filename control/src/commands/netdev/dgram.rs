//! What the options of `dgram` mean together (QEMU 10.0 `net_init_dgram`).

use super::Opening;
use super::host::{inet_aton, resolve};
use super::tap::Info;
use crate::apply::backends::strerror;
use crate::apply::jobs::Product;
use crate::commands::args::Args;
use crate::commands::fd::Fds;
use crate::commands::{Outcome, State};
use crate::qmp::error::QmpError;
use engine::backend::datagram::DatagramOptions;
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use serde_json::{Map, Value};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};

/// An address as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Inet { host: String, port: String },
    Unix(String),
    Fd(String),
    Vsock,
}

impl Place {
    fn of(args: &Map<String, Value>, name: &str) -> Option<Self> {
        let address = args.get(name)?.as_object()?;
        let text = |name: &str| address.text(name).to_owned();
        Some(match address.text("type") {
            "inet" => Self::Inet { host: text("host"), port: text("port") },
            "unix" => Self::Unix(text("path")),
            "fd" => Self::Fd(text("str")),
            _ => Self::Vsock,
        })
    }

    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// What was asked for: names are not looked up yet, which may take a while.
#[derive(Debug)]
pub(super) struct Wanted {
    local: Option<Place>,
    remote: Option<Place>,
    /// The file that the local address names.
    given: Option<(OwnedFd, RawFd)>,
}

/// What to open, and how `info network` describes it.
pub(super) type Found = (DatagramOptions, String);

impl Wanted {
    /// Takes the file that is named, if one is to be used.
    ///
    /// # Errors
    /// QEMU's words.
    pub(super) fn new(args: &Map<String, Value>, fds: &mut Fds, monitor: u64) -> Result<Self, QmpError> {
        let (local, remote) = (Place::of(args, "local"), Place::of(args, "remote"));
        let given = match (&local, &remote) {
            // An address that is no group's is refused before the file is looked at.
            (Some(Place::Fd(_)), Some(Place::Inet { host, .. }))
                if inet_aton(host).is_some_and(|ip| !ip.is_multicast()) =>
            {
                None
            }
            (Some(Place::Fd(name)), None | Some(Place::Inet { .. })) => {
                Some(fds.named_or_numbered(monitor, args.text("id"), name)?)
            }
            _ => None,
        };
        Ok(Self { local, remote, given })
    }

    /// Checks what may stand together, in QEMU's order. May block while names are looked up.
    ///
    /// # Errors
    /// QEMU's words.
    pub(super) fn find(self) -> Result<Found, QmpError> {
        let refuse = |desc: &str| Err(QmpError::generic(desc));
        let Self { local, remote, given } = self;
        if let Some(Place::Inet { host, port }) = &remote {
            let group = resolve((host, port))?;
            if group.ip().is_multicast() {
                return multicast(group, local.as_ref(), given.as_ref().map(|(_, number)| *number));
            }
        }
        let Some(local) = local else { return refuse("dgram requires local= parameter") };
        match (&local, &remote) {
            (Place::Fd(_), Some(_)) => return refuse("don't set remote with local.fd"),
            (local, Some(remote)) if !remote.is_like(local) => {
                return refuse("remote and local types must be the same");
            }
            (Place::Fd(_), None) | (_, Some(_)) => {}
            (_, None) => return refuse("type=inet or type=unix requires remote parameter"),
        }
        match (local, remote, given) {
            (Place::Inet { host, port }, Some(Place::Inet { host: other, port: its }), _) => {
                let (local, remote) = (resolve((&host, &port))?, resolve((&other, &its))?);
                Ok((DatagramOptions::Inet { local, remote }, format!("udp={local}/{remote}")))
            }
            (Place::Unix(local), Some(Place::Unix(remote)), _) => {
                let line = format!("udp={local}:{remote}");
                Ok((DatagramOptions::Unix { local, remote }, line))
            }
            (Place::Fd(_), None, Some((file, number))) => {
                let kind = family(&file)?;
                Ok((DatagramOptions::Given(file), format!("fd={number} {kind}")))
            }
            _ => refuse("only support inet or fd type for local"),
        }
    }
}

/// A group, joined at the interface of the local address; with a file, as QEMU means it, in place of that file.
fn multicast(
    group: std::net::SocketAddrV4,
    local: Option<&Place>,
    given: Option<RawFd>,
) -> Result<Found, QmpError> {
    let line = format!("mcast={group}");
    let (interface, line) = match (local, given) {
        (None, _) => (None, line),
        (Some(Place::Inet { host, .. }), _) => {
            let bad = || QmpError::generic(format!("localaddr '{host}' is not a valid IPv4 address"));
            (Some(inet_aton(host).ok_or_else(bad)?), line)
        }
        (Some(Place::Fd(_)), Some(number)) => (None, format!("fd={number} (cloned {line})")),
        _ => return Err(QmpError::generic("only support inet or fd type for local")),
    };
    Ok((DatagramOptions::Multicast { group, interface }, line))
}

/// The kind of address that a socket has, by QEMU's name.
///
/// # Errors
/// The file is no socket.
pub(super) fn family(file: &OwnedFd) -> Result<&'static str, QmpError> {
    let address: SockaddrStorage = getsockname(file.as_raw_fd()).map_err(|errno| {
        QmpError::generic(format!("Unable to query local socket address: {}", strerror(&errno.into())))
    })?;
    match address.family() {
        Some(AddressFamily::Inet | AddressFamily::Inet6) => Ok("inet"),
        Some(AddressFamily::Unix) => Ok("unix"),
        Some(AddressFamily::Vsock) => Ok("vsock"),
        _ => Err(QmpError::generic("socket family unsupported")),
    }
}

impl State {
    /// `dgram`.
    pub(super) fn add_dgram(&mut self, monitor: u64, args: Map<String, Value>) -> Outcome {
        match Wanted::new(&args, &mut self.fds, monitor) {
            Ok(wanted) => self.add_datagrams("dgram", args, move || wanted.find()),
            Err(error) => Err(error).into(),
        }
    }

    /// Looks names up and opens, off this thread.
    pub(super) fn add_datagrams(
        &mut self,
        driver: &'static str,
        args: Map<String, Value>,
        find: impl FnOnce() -> Result<Found, QmpError> + Send + 'static,
    ) -> Outcome {
        let told = Arc::new(OnceLock::new());
        let opening = Opening { info: Info::Told(Arc::clone(&told)), ..Opening::new(driver, args) };
        let backends = Arc::clone(&self.binding.backends);
        self.open(opening, move || {
            Product::Opened(find().and_then(|(options, line)| {
                let _ = told.set(line); // nobody else does
                backends.open_datagrams(options)
            }))
        })
    }
}
