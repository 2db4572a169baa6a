//! Where a stream leads, and how to get there. Everything here may wait, and runs off the control thread.

use crate::apply::backends::strerror;
use crate::chardev::address::{Address, Inet, Unix};
use crate::chardev::{Listener, dial_inet, dial_unix, is_numeric, listen_fd, listen_inet, listen_unix};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, connect, getsockopt, listen, setsockopt,
    socket, sockopt,
};
use serde_json::Value;
use std::os::fd::{AsRawFd, OwnedFd};

/// Where a stream leads (QAPI `SocketAddress`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// TCP.
    Inet(Inet),
    /// A unix socket.
    Unix(Unix),
    /// A socket between host and guest.
    Vsock {
        /// The machine.
        cid: String,
        /// The port.
        port: String,
    },
    /// A descriptor, as the user names it.
    Fd(String),
}

/// A descriptor that was handed over, or why there is none.
pub type Given = Result<OwnedFd, String>;

impl Place {
    /// From the `addr` member, which the schema has checked.
    #[must_use]
    pub fn from_value(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        match Address::from_value(value) {
            Address::Inet(inet) => Self::Inet(inet),
            Address::Unix(unix) => Self::Unix(unix),
            Address::Fd(name) => Self::Fd(name),
            Address::Other(_) => Self::Vsock { cid: text("cid"), port: text("port") },
        }
    }

    /// Whether listening waits for nobody.
    pub(super) fn is_quick(&self) -> bool {
        match self {
            Self::Inet(inet) => is_numeric(inet),
            Self::Unix(_) | Self::Vsock { .. } | Self::Fd(_) => true,
        }
    }

    /// Connects once.
    pub(super) fn connect(&self, given: Option<Given>) -> Result<OwnedFd, String> {
        let socket: OwnedFd = match self {
            Self::Inet(inet) => {
                no_mptcp(inet)?;
                // For listening only, in QEMU.
                let inet = Inet { numeric: false, ..inet.clone() };
                dial_inet(&inet)?.into()
            }
            Self::Unix(unix) => dial_unix(unix)?.into(),
            Self::Vsock { cid, port } => dial_vsock(cid, port)?,
            Self::Fd(name) => taken(given, name)?,
        };
        self.tune(&socket)?;
        Ok(socket)
    }

    /// Listens; several sockets where a name has several addresses.
    pub(super) fn listen(&self, given: Option<Given>) -> Result<Vec<Listener>, String> {
        match self {
            Self::Inet(inet) => {
                no_mptcp(inet)?;
                listen_inet(inet)
            }
            Self::Unix(unix) => Ok(vec![listen_unix(unix)?]),
            Self::Vsock { cid, port } => Ok(vec![listen_vsock(cid, port)?]),
            Self::Fd(name) => Ok(vec![listen_fd(taken(given, name)?, name)?]),
        }
    }

    /// Sets what was asked for on a connected socket: frames are sent as they come, by TCP too.
    pub(super) fn tune(&self, socket: &OwnedFd) -> Result<(), String> {
        // No TCP, nothing to set.
        let _ = setsockopt(socket, sockopt::TcpNoDelay, &true);
        let Self::Inet(inet) = self else { return Ok(()) };
        if !inet.keep_alive {
            return Ok(());
        }
        let failed = |errno: Errno| format!("Unable to set keep-alive options on socket: {}", text(errno));
        setsockopt(socket, sockopt::KeepAlive, &true).map_err(failed)?;
        let set = |n: Option<u32>| n.filter(|n| *n > 0);
        if let Some(count) = set(inet.probes.count) {
            setsockopt(socket, sockopt::TcpKeepCount, &count).map_err(failed)?;
        }
        if let Some(idle) = set(inet.probes.idle) {
            setsockopt(socket, sockopt::TcpKeepIdle, &idle).map_err(failed)?;
        }
        if let Some(interval) = set(inet.probes.interval) {
            setsockopt(socket, sockopt::TcpKeepInterval, &interval).map_err(failed)?;
        }
        Ok(())
    }
}

fn no_mptcp(inet: &Inet) -> Result<(), String> {
    if inet.mptcp { Err("'mptcp' is not supported by netdevd".to_owned()) } else { Ok(()) }
}

/// The descriptor, which serves once: it is closed with its connection.
fn taken(given: Option<Given>, name: &str) -> Given {
    let fd = given.unwrap_or_else(|| Err(format!("file descriptor '{name}' was used already")))?;
    match getsockopt(&fd, sockopt::SockType) {
        Ok(SockType::Stream) => Ok(fd),
        Ok(_) => Err(format!("File descriptor '{name}' is not a stream socket")),
        Err(_) => Err(format!("File descriptor '{name}' is not a socket")),
    }
}

fn dial_vsock(cid: &str, port: &str) -> Result<OwnedFd, String> {
    let (address, fd) = vsock(cid, port, SockFlag::empty())?;
    connect(fd.as_raw_fd(), &address)
        .map_err(|errno| format!("Failed to connect to '{cid}:{port}': {}", text(errno)))?;
    Ok(fd)
}

fn listen_vsock(cid: &str, port: &str) -> Result<Listener, String> {
    let (address, fd) = vsock(cid, port, SockFlag::SOCK_NONBLOCK)?;
    bind(fd.as_raw_fd(), &address).map_err(|errno| format!("Failed to bind socket: {}", text(errno)))?;
    listen(&fd, Backlog::MAXCONN).map_err(|errno| format!("Failed to listen on socket: {}", text(errno)))?;
    Ok(Listener::other(fd, Address::Other("vsock".to_owned())))
}

fn vsock(cid: &str, port: &str, flags: SockFlag) -> Result<(VsockAddr, OwnedFd), String> {
    let number =
        |what: &str, text: &str| text.parse().map_err(|_| format!("Failed to parse {what} '{text}'"));
    let address = VsockAddr::new(number("cid", cid)?, number("port", port)?);
    let fd = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC | flags, None)
        .map_err(|errno| format!("Failed to create socket: {}", text(errno)))?;
    Ok((address, fd))
}

fn text(errno: Errno) -> String {
    strerror(&errno.into())
}
