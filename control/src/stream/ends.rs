//! The two ends of a connected socket, as events and `info network` show them.

use crate::chardev::address::{Address, Inet, Unix};
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getpeername, getsockname};
use serde_json::{Value, json};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// An end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Inet(SocketAddr),
    Unix(Unix),
    Vsock { cid: u32, port: u32 },
    Unknown,
}

impl End {
    /// The peer's.
    pub(super) fn remote(socket: &OwnedFd) -> Self {
        Self::of(socket, false)
    }

    /// Which one is shown of a client that came to us: of a unix socket the path it came to, since its own end has none.
    pub(super) fn of_client(socket: &OwnedFd) -> Self {
        match Self::of(socket, true) {
            local @ Self::Unix(_) => local,
            _ => Self::remote(socket),
        }
    }

    fn of(socket: &OwnedFd, local: bool) -> Self {
        let fd = socket.as_raw_fd();
        let address =
            if local { getsockname::<SockaddrStorage>(fd) } else { getpeername::<SockaddrStorage>(fd) };
        let Ok(address) = address else { return Self::Unknown };
        if let Some(four) = address.as_sockaddr_in() {
            return Self::Inet(SocketAddrV4::from(*four).into());
        }
        if let Some(six) = address.as_sockaddr_in6() {
            return Self::Inet(SocketAddrV6::from(*six).into());
        }
        if let Some(vsock) = address.as_vsock_addr() {
            return Self::Vsock { cid: vsock.cid(), port: vsock.port() };
        }
        if address.family() != Some(AddressFamily::Unix) {
            return Self::Unknown;
        }
        // The standard library tells abstract names from paths.
        let name = socket
            .try_clone()
            .map(UnixStream::from)
            .and_then(|stream| if local { stream.local_addr() } else { stream.peer_addr() });
        name.map_or(Self::Unknown, |name| Self::Unix(Unix::from_kernel(&name)))
    }

    /// As events have it (QAPI `SocketAddress`).
    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Inet(address) => {
                let mut value = Address::Inet(Inet::from(*address)).to_value();
                value[if address.is_ipv4() { "ipv4" } else { "ipv6" }] = Value::Bool(true);
                value
            }
            Self::Unix(unix) => Address::Unix(unix.clone()).to_value(),
            Self::Vsock { cid, port } => {
                json!({"type": "vsock", "cid": cid.to_string(), "port": port.to_string()})
            }
            Self::Unknown => {
                Address::Unix(Unix { path: String::new(), abstract_: false, tight: true }).to_value()
            }
        }
    }

    /// As `info network` has it (QEMU `socket_uri`): without brackets around IPv6.
    pub(super) fn uri(&self) -> String {
        match self {
            Self::Inet(address) => format!("tcp:{}:{}", address.ip(), address.port()),
            Self::Unix(unix) => format!("unix:{}", unix.path),
            Self::Vsock { cid, port } => format!("vsock:{cid}:{port}"),
            Self::Unknown => "unix:".to_owned(),
        }
    }

    /// `IP:PORT`, as the older `socket` has it.
    pub(super) fn ip_and_port(&self) -> String {
        match self {
            Self::Inet(address) => format!("{}:{}", address.ip(), address.port()),
            _ => String::new(),
        }
    }
}
