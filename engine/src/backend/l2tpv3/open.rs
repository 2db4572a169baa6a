//! Opening a tunnel: the slow path, off the workers. Order of steps and texts are QEMU's (net/l2tpv3.c `net_init_l2tpv3`).

use super::header::Header;
use super::options::L2tpv3Options;
use crate::backend::datagram::open::{Address, pair};
use crate::backend::pair::QueuePair;
use crate::backend::resolve::{Wanted, resolve, socket};
use crate::mem::arena::{Arena, ArenaError};
use nix::errno::Errno;
use nix::sys::socket::bind;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// L2TP straight over IP (RFC 3931 §4.1.1).
const IPPROTO_L2TP: libc::c_int = 115;

/// Why a tunnel could not be opened. What it displays is what QMP shows.
#[derive(Debug, thiserror::Error)]
pub enum L2tpv3Error {
    /// No local address of this name.
    #[error("could not resolve src, errno = {0}")]
    Source(String),
    /// No remote address of this name.
    #[error("could not resolve dst, error = {0}")]
    Destination(String),
    /// No such socket; raw ones need the right to have them.
    #[error("socket creation failed, errno = {}", *.0 as i32)]
    Socket(Errno),
    /// The local address is not here, or its port is taken.
    #[error("could not bind socket err={}", *.0 as i32)]
    Bind(Errno),
    /// No memory for receive buffers.
    #[error(transparent)]
    Memory(#[from] ArenaError),
}

/// Opens a tunnel. Its socket is not connected: QEMU takes datagrams of any sender that knows session and cookie.
///
/// # Errors
/// [`L2tpv3Error`]; nothing stays open.
pub fn open(options: &L2tpv3Options, arena: &Arc<Arena>) -> Result<QueuePair, L2tpv3Error> {
    let (kind, protocol) = match options.ports {
        Some(_) => (libc::SOCK_DGRAM, 0),
        None => (libc::SOCK_RAW, IPPROTO_L2TP),
    };
    let family = if options.ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    let wanted = Wanted { family, kind, protocol, passive: false };
    let (from, to) = options.ports.as_ref().map(|(from, to)| (from.as_str(), to.as_str())).unzip();
    let local = resolve(Some(&options.src), from, wanted).map_err(L2tpv3Error::Source)?;
    let fd = socket(&local, wanted).map_err(L2tpv3Error::Socket)?;
    bind(fd.as_raw_fd(), &local).map_err(L2tpv3Error::Bind)?;
    let remote = resolve(Some(&options.dst), to, wanted).map_err(L2tpv3Error::Destination)?;
    Ok(pair(fd, Some(Address::new(&remote)), &Header::new(options), arena)?)
}
