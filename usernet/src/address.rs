//! Addresses as libslirp takes them.

use nix::sys::socket::{SockaddrLike, SockaddrStorage};
use std::net::SocketAddr;

/// An address.
#[derive(Debug)]
pub(crate) struct Address {
    storage: SockaddrStorage,
    six: bool,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address { storage: address.into(), six: address.is_ipv6() }
    }
}

impl Address {
    pub(crate) fn is_six(&self) -> bool {
        self.six
    }

    pub(crate) fn pointer(&self) -> *const libc::sockaddr {
        self.storage.as_ptr()
    }

    pub(crate) fn length(&self) -> libc::socklen_t {
        self.storage.len()
    }
}
