//! Opening sockets: the slow path, off the workers. Order of steps and texts are QEMU's (net/dgram.c, net/socket.c).

#![allow(unsafe_code)] // copies addresses; a socket option that nix lacks

use super::Shared;
use super::buffers::Buffers;
use super::framing::{Framing, Plain};
use super::options::DatagramOptions;
use super::outlet::Outlet;
use super::rx::DatagramRx;
use super::spread::Spread;
use super::tx::DatagramTx;
use crate::backend::errno::text;
use crate::backend::pair::QueuePair;
use crate::mem::arena::{Arena, ArenaError};
use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, IpMembershipRequest, SockFlag, SockType, SockaddrIn, SockaddrLike, UnixAddr, sockopt,
};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;

/// Bytes that may wait in the socket in each direction, as far as the system allows: the default holds some 300 small frames, which a worker that does
/// something else for half a millisecond would lose.
const RECEIVE_BYTES: usize = 4 << 20;
const SEND_BYTES: usize = 1 << 20;

/// Bytes of a unix socket's path at most, with the final zero (unix(7)).
const PATH: usize = 108;

/// Why a socket could not be opened. What it displays is what QMP shows.
#[derive(Debug, thiserror::Error)]
pub enum DatagramError {
    /// No socket at all.
    #[error("can't create datagram socket: {}", text(*.0))]
    Create(Errno),
    /// The address may not be shared.
    #[error("can't set socket option SO_REUSEADDR: {}", text(*.0))]
    Reuse(Errno),
    /// The address is in use, or not ours.
    #[error("can't bind ip={ip} to socket: {}", text(*.errno))]
    Bind {
        /// The local address.
        ip: Ipv4Addr,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The path is in use, or cannot be made.
    #[error("can't bind unix={path} to socket: {}", text(*.errno))]
    BindPath {
        /// The local path.
        path: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// What is at the local path cannot be removed, or is no socket.
    #[error("failed to unlink socket {path}: {}", text(*.errno))]
    Unlink {
        /// The local path.
        path: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A path that no address can hold.
    #[error("UNIX socket path '{0}' is too long")]
    TooLong(String),
    /// An address that is none of a group.
    #[error("specified mcastaddr {ip} (0x{:08x}) does not contain a multicast address", .ip.to_bits())]
    NoGroup {
        /// The address.
        ip: Ipv4Addr,
    },
    /// The group cannot be joined, as there is no such interface or no route.
    #[error("can't add socket to multicast group {ip}: {}", text(*.errno))]
    Join {
        /// The group's address.
        ip: Ipv4Addr,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Own datagrams would not come back.
    #[error("can't force multicast message to loopback: {}", text(*.0))]
    Loop(Errno),
    /// No such interface.
    #[error("can't set the default network send interface: {}", text(*.0))]
    Interface(Errno),
    /// No memory for receive buffers.
    #[error(transparent)]
    Memory(#[from] ArenaError),
}

/// An open netdev.
pub struct Opened {
    /// Its only queue pair.
    pub queue: QueuePair,
}

/// Where datagrams go that a socket sends which is not connected.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend) struct Address {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl Address {
    /// Any kind of address.
    pub(in crate::backend) fn new(of: &impl SockaddrLike) -> Self {
        // SAFETY: an address of zeros is one of no family.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let len = (of.len() as usize).min(size_of_val(&storage));
        // SAFETY: the address has `len` bytes, and so has the storage, which is as large as any.
        unsafe {
            std::ptr::copy_nonoverlapping(of.as_ptr().cast::<u8>(), (&raw mut storage).cast::<u8>(), len);
        }
        Self { storage, len: len as libc::socklen_t }
    }

    /// For message headers, which only read it.
    pub(super) fn raw(&self) -> (*mut libc::c_void, libc::socklen_t) {
        ((&raw const self.storage).cast_mut().cast(), self.len)
    }

    const fn is_unix(&self) -> bool {
        self.storage.ss_family as i32 == libc::AF_UNIX
    }
}

/// Makes a queue pair over a socket that keeps the bounds of messages. It is connected, or datagrams go `to` an address. Each half gets a `framing` of
/// its own.
///
/// # Errors
/// There is no memory for receive buffers.
pub(in crate::backend) fn pair<F: Framing + Clone>(
    socket: OwnedFd,
    to: Option<Address>,
    framing: &F,
    arena: &Arc<Arena>,
) -> Result<QueuePair, ArenaError> {
    spread_pair(socket, Vec::new(), to, framing, arena)
}

/// As [`pair`], but frames leave by one of `sources` each, a flow always by the same, where there are any. They are of the kind of `socket`.
///
/// # Errors
/// There is no memory for receive buffers.
pub(in crate::backend) fn spread_pair<F: Framing + Clone>(
    socket: OwnedFd,
    sources: Vec<OwnedFd>,
    to: Option<Address>,
    framing: &F,
    arena: &Arc<Arena>,
) -> Result<QueuePair, ArenaError> {
    let buffers = Buffers::new(arena)?;
    // As much as may be: with the right to, more than the system's limit.
    let _ = socket::setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BYTES)
        .or_else(|_| socket::setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BYTES));
    for sender in sources.iter().chain([&socket]) {
        let _ = socket::setsockopt(sender, sockopt::SndBufForce, &SEND_BYTES)
            .or_else(|_| socket::setsockopt(sender, sockopt::SndBuf, &SEND_BYTES));
    }
    // Only UDP has these, since Linux 5.0 and 4.18.
    let gro = socket::setsockopt(&socket, sockopt::UdpGroSegment, &true).is_ok();
    let segments = socket::getsockopt(&socket, sockopt::UdpGsoSegment).is_ok();
    let spread = (!sources.is_empty()).then(|| Spread::new(sources));
    Ok(join(socket, spread, to, framing, buffers, Runs { gro, segments }))
}

/// Whether many datagrams of one length may be one message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Runs {
    /// Of those that arrive.
    pub(super) gro: bool,
    /// Of those that are sent.
    pub(super) segments: bool,
}

/// The two halves over a socket that is set up.
pub(super) fn join<F: Framing + Clone>(
    socket: OwnedFd,
    spread: Option<Spread>,
    to: Option<Address>,
    framing: &F,
    buffers: Buffers,
    runs: Runs,
) -> QueuePair {
    let fd = socket.as_raw_fd();
    // A full queue of a unix socket that we are not connected to is no reason for poll(2) to wait.
    let told = !to.is_some_and(|to| to.is_unix());
    let shared = Arc::new(Shared::new(socket));
    let outlet = Outlet::new(to, framing.len());
    let rx = Box::new(DatagramRx::new(shared.clone(), framing.clone(), buffers, runs.gro));
    let tx = DatagramTx::new(shared, framing.clone(), outlet, runs.segments, told).spread(spread);
    let tx = Box::new(tx);
    QueuePair { rx, tx, fd }
}

/// Opens the socket of a `dgram` netdev, or of a `socket` netdev without connections.
///
/// # Errors
/// [`DatagramError`]; nothing stays open.
pub fn open(options: DatagramOptions, arena: &Arc<Arena>) -> Result<Opened, DatagramError> {
    let (socket, to) = match options {
        DatagramOptions::Inet { local, remote } => {
            (inet(local)?, Some(Address::new(&SockaddrIn::from(remote))))
        }
        DatagramOptions::Multicast { group, interface } => {
            (multicast(group, interface)?, Some(Address::new(&SockaddrIn::from(group))))
        }
        DatagramOptions::Unix { local, remote } => {
            let (socket, to) = unix(&local, &remote)?;
            (socket, Some(Address::new(&to)))
        }
        DatagramOptions::Given(socket) => (socket, None),
    };
    Ok(Opened { queue: pair(socket, to, &Plain, arena)? })
}

fn datagram(family: AddressFamily) -> Result<OwnedFd, DatagramError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket::socket(family, SockType::Datagram, flags, None).map_err(DatagramError::Create)
}

fn inet(local: SocketAddrV4) -> Result<OwnedFd, DatagramError> {
    let socket = datagram(AddressFamily::Inet)?;
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true).map_err(DatagramError::Reuse)?;
    socket::bind(socket.as_raw_fd(), &SockaddrIn::from(local))
        .map_err(|errno| DatagramError::Bind { ip: *local.ip(), errno })?;
    Ok(socket)
}

fn multicast(group: SocketAddrV4, interface: Option<Ipv4Addr>) -> Result<OwnedFd, DatagramError> {
    let ip = *group.ip();
    if !ip.is_multicast() {
        return Err(DatagramError::NoGroup { ip });
    }
    let socket = inet(group)?;
    let request = IpMembershipRequest::new(ip, interface);
    socket::setsockopt(&socket, sockopt::IpAddMembership, &request)
        .map_err(|errno| DatagramError::Join { ip, errno })?;
    socket::setsockopt(&socket, sockopt::IpMulticastLoop, &true).map_err(DatagramError::Loop)?;
    if let Some(interface) = interface {
        set_interface(&socket, interface).map_err(DatagramError::Interface)?;
    }
    Ok(socket)
}

/// Datagrams to groups leave by the interface of that address (ip(7), IP_MULTICAST_IF).
fn set_interface(socket: &OwnedFd, interface: Ipv4Addr) -> Result<(), Errno> {
    let address = libc::in_addr { s_addr: u32::from_ne_bytes(interface.octets()) };
    let (value, len) = ((&raw const address).cast(), size_of_val(&address) as libc::socklen_t);
    // SAFETY: the value is a local of that length, which the kernel only reads.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_MULTICAST_IF, value, len) };
    Errno::result(done).map(drop)
}

/// QEMU removes whatever is at the local path; ours removes sockets only, and nothing for an address that cannot be.
fn unix(local: &str, remote: &str) -> Result<(OwnedFd, UnixAddr), DatagramError> {
    let unlink = |errno| DatagramError::Unlink { path: local.to_owned(), errno };
    let refused = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let there = match std::fs::symlink_metadata(local).map_err(refused) {
        Ok(there) if there.is_dir() => return Err(unlink(Errno::EISDIR)),
        Ok(there) if !there.file_type().is_socket() => return Err(unlink(Errno::EEXIST)),
        Ok(_) => true,
        Err(Errno::ENOENT) => false,
        Err(errno) => return Err(unlink(errno)),
    };
    let address = |path: &str| match path.len() {
        ..PATH => {
            UnixAddr::new(path).map_err(|errno| DatagramError::BindPath { path: path.to_owned(), errno })
        }
        _ => Err(DatagramError::TooLong(path.to_owned())),
    };
    let (from, to) = (address(local)?, address(remote)?);
    if there {
        std::fs::remove_file(local).map_err(|error| unlink(refused(error)))?;
    }
    let socket = datagram(AddressFamily::Unix)?;
    socket::bind(socket.as_raw_fd(), &from)
        .map_err(|errno| DatagramError::BindPath { path: local.to_owned(), errno })?;
    Ok((socket, to))
}
