//! UDP receivers: one that reads (by `recvmmsg`, with or without `UDP_GRO`) and one that only holds its ports open.
//!
//! The second costs no user time: the kernel carries every datagram to the socket, finds its queue full and counts it
//! as `RcvbufErrors`, so arrivals are read from `/proc/net/snmp` ([`crate::proc::udp`]).

use crate::failure::{Context, Result};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrIn, bind,
    getsockname, recvmmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io::IoSliceMut;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

fn bound(at: SocketAddrV4) -> Result<OwnedFd> {
    let fd =
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).context("socket")?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(at)).context(at)?;
    Ok(fd)
}

/// Sockets that nobody reads: `flows` of them on consecutive ports.
#[derive(Debug)]
pub struct Unread {
    _sockets: Vec<OwnedFd>,
}

impl Unread {
    /// Binds `flows` sockets with the smallest queue there is.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn bind(at: SocketAddrV4, flows: u16) -> Result<Self> {
        let one = |flow| {
            let fd = bound(SocketAddrV4::new(*at.ip(), at.port().wrapping_add(flow)))?;
            setsockopt(&fd, sockopt::RcvBuf, &1).context("SO_RCVBUF")?;
            Ok(fd)
        };
        Ok(Self { _sockets: (0..flows).map(one).collect::<Result<_>>()? })
    }
}

/// A socket that is read as fast as its thread can.
#[derive(Debug)]
pub struct Reader {
    fd: OwnedFd,
    gro: bool,
}

/// Messages in one `recvmmsg`.
const BATCH: usize = 32;

impl Reader {
    /// Binds one socket; with `gro` the kernel may hand several datagrams of a flow at once.
    ///
    /// # Errors
    /// When the port is taken or the kernel has no `UDP_GRO`.
    pub fn bind(at: SocketAddrV4, gro: bool) -> Result<Self> {
        let fd = bound(at)?;
        // The plain limit applies without CAP_NET_ADMIN; the larger queue only saves drops while we are descheduled.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &(8 << 20));
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(20)).context("SO_RCVTIMEO")?;
        if gro {
            setsockopt(&fd, sockopt::UdpGroSegment, &true).context("UDP_GRO")?;
        }
        Ok(Self { fd, gro })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Never in practice.
    pub fn address(&self) -> Result<SocketAddrV4> {
        getsockname::<SockaddrIn>(self.fd.as_raw_fd()).map(SocketAddrV4::from).context("getsockname")
    }

    /// Reads for `duration`; the number of datagrams, as they were sent.
    ///
    /// # Errors
    /// When reading fails.
    pub fn read_for(&self, duration: Duration) -> Result<u64> {
        let end = Instant::now() + duration;
        let mut total = 0;
        while Instant::now() < end {
            total += self.read_some()?;
        }
        Ok(total)
    }

    /// Reads one batch, waiting at most 20 ms for its first message.
    ///
    /// # Errors
    /// When reading fails.
    pub fn read_some(&self) -> Result<u64> {
        let size = if self.gro { 65_536 } else { 2_048 };
        let mut memory = vec![0; BATCH * size];
        let mut slices: Vec<_> = memory.chunks_mut(size).map(|chunk| [IoSliceMut::new(chunk)]).collect();
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, Some(cmsg_space!(i32)));
        // The timeout of recvmmsg itself does not end a wait (recvmmsg(2), bugs); the socket's does.
        match recvmmsg(self.fd.as_raw_fd(), &mut headers, &mut slices, MsgFlags::MSG_WAITFORONE, None) {
            Ok(messages) => Ok(messages
                .map(|message| {
                    let segment =
                        message.cmsgs().ok().into_iter().flatten().find_map(|control| match control {
                            ControlMessageOwned::UdpGroSegments(size) => Some(size.max(1) as usize),
                            _ => None,
                        });
                    segment.map_or(1, |segment| message.bytes.div_ceil(segment).max(1)) as u64
                })
                .sum()),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(errno) => Err(errno).context("recvmmsg"),
        }
    }
}
