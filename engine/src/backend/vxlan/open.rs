//! Opening a tunnel: the slow path, off the workers.

use super::header::Header;
use super::options::VxlanOptions;
use crate::backend::datagram::open::{Address, spread_pair};
use crate::backend::pair::QueuePair;
use crate::backend::resolve::{Wanted, path_mtu, resolve, socket};
use crate::mem::arena::{Arena, ArenaError};
use nix::errno::Errno;
use nix::sys::socket::{SockaddrLike, SockaddrStorage, bind, setsockopt, sockopt};
use std::hash::{BuildHasher, RandomState};
use std::net::{SocketAddrV4, SocketAddrV6};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// Where the kernel knows no path.
const ETHERNET_MTU: usize = 1500;
/// Of IPv4 (RFC 791).
const LEAST_MTU: usize = 576;

/// Ports that datagrams leave from (RFC 7348 §5).
const SOURCES: RangeInclusive<u16> = 49_152..=65_535;
/// So many of them may be taken.
const TAKEN: usize = 256;

/// Why a tunnel could not be opened. What it displays is what QMP shows.
#[derive(Debug, thiserror::Error)]
pub enum VxlanError {
    /// No remote address of this name.
    #[error("could not resolve remote '{host}': {why}")]
    Remote {
        /// As the user wrote it.
        host: String,
        /// The resolver's words.
        why: String,
    },
    /// A tunnel has one other end.
    #[error("remote '{0}' is a multicast group; a vxlan netdev has one other end")]
    Group(String),
    /// No local address of this name, of the remote one's family.
    #[error("could not resolve local '{host}': {why}")]
    Local {
        /// As the user wrote it.
        host: String,
        /// The resolver's words.
        why: String,
    },
    /// No socket.
    #[error("could not create a socket: {}", .0.desc())]
    Socket(Errno),
    /// The local address is not here, or its port is taken (by the kernel's own vxlan device, say).
    #[error("could not bind {address}: {}", .errno.desc())]
    Bind {
        /// Address and port.
        address: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// No memory for receive buffers.
    #[error(transparent)]
    Memory(#[from] ArenaError),
}

/// Opens a tunnel. Its socket is not connected: other ends send from any port, and so do we (RFC 7348 §5).
///
/// # Errors
/// [`VxlanError`]; nothing stays open.
pub fn open(options: &VxlanOptions, arena: &Arc<Arena>) -> Result<QueuePair, VxlanError> {
    let wanted = Wanted { family: libc::AF_UNSPEC, kind: libc::SOCK_DGRAM, protocol: 0, passive: false };
    let port = options.port.to_string();
    let host = || options.remote.clone();
    let remote = resolve(Some(&options.remote), Some(&port), wanted)
        .map_err(|why| VxlanError::Remote { host: host(), why })?;
    if is_group(&remote) {
        return Err(VxlanError::Group(host()));
    }
    let family = remote.family().map_or(libc::AF_UNSPEC, |family| family as libc::c_int);
    let wanted = Wanted { family, passive: true, ..wanted };
    let local = resolve(options.local.as_deref(), Some(&port), wanted).map_err(|why| {
        let host = options.local.clone().unwrap_or_default();
        VxlanError::Local { host, why }
    })?;
    let fd = bound(&local, wanted)?;
    let sources = if options.sources > 1 { sources(&local, wanted, options.sources)? } else { Vec::new() };
    let header = Header::new(options.vni, inner_mtu(&remote));
    Ok(spread_pair(fd, sources, Some(Address::new(&remote)), &header, arena)?)
}

/// A socket at this address.
fn bound(local: &SockaddrStorage, wanted: Wanted) -> Result<OwnedFd, VxlanError> {
    let fd = socket(local, wanted).map_err(VxlanError::Socket)?;
    if local.as_sockaddr_in6().is_some() {
        // The same port of IPv4 is another tunnel's.
        setsockopt(&fd, sockopt::Ipv6V6Only, &true).map_err(VxlanError::Socket)?;
    }
    bind(fd.as_raw_fd(), local).map_err(|errno| VxlanError::Bind { address: local.to_string(), errno })?;
    Ok(fd)
}

/// Sockets at so many free ports of the local address, from anywhere on.
fn sources(local: &SockaddrStorage, wanted: Wanted, count: u16) -> Result<Vec<OwnedFd>, VxlanError> {
    let start = RandomState::new().hash_one(()) as usize % SOURCES.len();
    let (mut made, mut taken) = (Vec::new(), 0);
    for port in SOURCES.cycle().skip(start).take(SOURCES.len()) {
        match bound(&at(local, port), wanted) {
            Err(VxlanError::Bind { errno: Errno::EADDRINUSE, .. }) if taken < TAKEN => taken += 1,
            one => made.push(one?),
        }
        if made.len() >= usize::from(count) {
            break;
        }
    }
    Ok(made)
}

/// The same address with another port.
fn at(local: &SockaddrStorage, port: u16) -> SockaddrStorage {
    match (local.as_sockaddr_in(), local.as_sockaddr_in6()) {
        (Some(four), _) => SocketAddrV4::new(four.ip(), port).into(),
        (_, Some(six)) => SocketAddrV6::new(six.ip(), port, six.flowinfo(), six.scope_id()).into(),
        _ => *local,
    }
}

/// The longest IP packet inside of the tunnel that leaves it whole: what remains of the path's MTU behind the outer headers and the inner
/// Ethernet header, as the kernel's device counts (`VXLAN_HEADROOM`).
fn inner_mtu(remote: &SockaddrStorage) -> usize {
    let outer = if remote.as_sockaddr_in6().is_some() { 40 } else { 20 } + 8 + 8 + 14;
    path_mtu(remote).unwrap_or(ETHERNET_MTU).saturating_sub(outer).max(LEAST_MTU)
}

fn is_group(address: &SockaddrStorage) -> bool {
    let four = address.as_sockaddr_in().is_some_and(|address| address.ip().is_multicast());
    four || address.as_sockaddr_in6().is_some_and(|address| address.ip().is_multicast())
}
