//! Addresses as the system and libslirp take them.

use nix::errno::Errno;
use nix::sys::socket::{SockaddrLike, SockaddrStorage, UnixAddr};
use std::net::SocketAddr;
use usernet::protocol::{Listen, Transport};

/// An address.
#[derive(Debug)]
pub(crate) enum Address {
    Inet(SockaddrStorage, bool),
    Unix(UnixAddr),
}

impl Address {
    pub(crate) fn inet(address: SocketAddr) -> Address {
        Address::Inet(address.into(), address.is_ipv6())
    }

    /// Where a forward listens, and whether that is UDP.
    pub(crate) fn of(listen: &Listen) -> Result<(Address, bool), Errno> {
        Ok(match listen {
            Listen::Inet { transport, address } => (Address::inet(*address), *transport == Transport::Udp),
            Listen::Unix { path } => (Address::Unix(UnixAddr::new(path)?), false),
        })
    }

    pub(crate) fn is_six(&self) -> bool {
        matches!(self, Address::Inet(_, true))
    }

    pub(crate) fn pointer(&self) -> *const libc::sockaddr {
        match self {
            Address::Inet(address, _) => SockaddrLike::as_ptr(address),
            Address::Unix(address) => SockaddrLike::as_ptr(address),
        }
    }

    pub(crate) fn length(&self) -> libc::socklen_t {
        match self {
            Address::Inet(address, _) => SockaddrLike::len(address),
            Address::Unix(address) => SockaddrLike::len(address),
        }
    }
}
