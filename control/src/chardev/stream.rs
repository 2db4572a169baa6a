//! A connected chardev: bytes in, with the descriptors that came along, and bytes out. Never blocks.

use super::address::{Unix, host_and_port};
use crate::fds;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockaddrLike, SockaddrStorage, getsockname,
    recvmsg, send, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Descriptors taken with one read; the kernel closes what is more. QEMU has the same limit.
const FDS: usize = 16;

/// A connection.
#[derive(Debug)]
pub struct Stream {
    input: OwnedFd,
    /// Standard output, where that is another descriptor.
    output: Option<OwnedFd>,
    kind: Kind,
    /// Room for the control message of a read.
    control: Vec<u8>,
    /// As `query-chardev` shows it.
    filename: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unix,
    Tcp,
    /// Whether each of the two blocked before, since the terminal's other users share that flag.
    Stdio {
        was_blocking: [bool; 2],
    },
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// This many bytes.
    Bytes(usize),
    /// Nothing now.
    Later,
    /// The other end has closed.
    End,
}

impl Stream {
    /// A unix connection. `server` is whether it came by a listener, `local` the listener's address.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unix(stream: UnixStream, server: bool, local: Option<&Unix>) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        let address = match local {
            Some(local) => local.clone(),
            None => Unix::from_kernel(&stream.local_addr()?),
        };
        let filename = format!("{}{}", address.to_filename(), if server { ",server=on" } else { "" });
        Ok(Self {
            input: stream.into(),
            output: None,
            kind: Kind::Unix,
            control: nix::cmsg_space!([RawFd; FDS]),
            filename,
        })
    }

    /// A TCP connection.
    ///
    /// # Errors
    /// The kernel's.
    pub fn tcp(stream: TcpStream, server: bool, nodelay: bool, keep_alive: bool) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        if nodelay {
            stream.set_nodelay(true)?;
        }
        if keep_alive {
            nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::KeepAlive, &true)?;
        }
        let (local, peer) = (stream.local_addr()?, stream.peer_addr());
        let filename = format!(
            "tcp:{}{} <-> {}",
            host_and_port(local),
            if server { ",server=on" } else { "" },
            peer.map(host_and_port).unwrap_or_else(|_| ":".to_owned())
        );
        Ok(Self { input: stream.into(), output: None, kind: Kind::Tcp, control: Vec::new(), filename })
    }

    /// A socket that somebody else connected.
    ///
    /// # Errors
    /// A sentence, when it is no stream socket of a known family.
    pub fn adopt(fd: OwnedFd, name: &str, nodelay: bool) -> Result<Self, String> {
        let fail = |error: std::io::Error| super::opening::reason(&error);
        match family(&fd) {
            Some(AddressFamily::Unix) => Self::unix(fd.into(), false, None).map_err(fail),
            Some(AddressFamily::Inet | AddressFamily::Inet6) => {
                Self::tcp(fd.into(), false, nodelay, false).map_err(fail)
            }
            _ => Err(format!("File descriptor '{name}' is not a socket")),
        }
    }

    /// Standard input and output, non-blocking until the stream is dropped.
    #[must_use]
    pub fn stdio(input: OwnedFd, output: OwnedFd) -> Self {
        let was_blocking = [set_blocking(&input, false), set_blocking(&output, false)];
        Self {
            input,
            output: Some(output),
            kind: Kind::Stdio { was_blocking },
            control: Vec::new(),
            filename: "stdio".to_owned(),
        }
    }

    /// As `query-chardev` shows it.
    #[must_use]
    pub fn filename(&self) -> &str {
        &self.filename
    }

    /// The descriptor to wait on for writing; that of reading is the stream's own.
    #[must_use]
    pub fn output(&self) -> BorrowedFd<'_> {
        self.output.as_ref().unwrap_or(&self.input).as_fd()
    }

    /// True when reading and writing are one descriptor.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        !matches!(self.kind, Kind::Stdio { .. })
    }

    /// Reads into `buffer`; descriptors that came with these bytes are appended to `fds`, close-on-exec.
    ///
    /// # Errors
    /// The kernel's: the connection is of no more use.
    pub fn receive(&mut self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> nix::Result<Received> {
        let result = match self.kind {
            Kind::Unix => self.receive_message(buffer, fds),
            Kind::Tcp => nix::sys::socket::recv(self.input.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT),
            Kind::Stdio { .. } => nix::unistd::read(&self.input, buffer),
        };
        match result {
            Ok(0) => Ok(Received::End),
            Ok(count) => Ok(Received::Bytes(count)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Received::Later),
            Err(error) => Err(error),
        }
    }

    fn receive_message(&mut self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> nix::Result<usize> {
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.input.as_raw_fd(), &mut parts, Some(&mut self.control), flags)?;
        // Truncated control data (descriptors beyond our room or table) still lists those that did fit.
        if let Ok(parts) = message.cmsgs() {
            for part in parts {
                if let ControlMessageOwned::ScmRights(numbers) = part {
                    fds.extend(fds::from_message(&numbers));
                }
            }
        }
        Ok(message.bytes)
    }

    /// Writes what fits and says how much that was.
    ///
    /// # Errors
    /// The kernel's: the connection is of no more use.
    pub fn send(&mut self, bytes: &[u8]) -> nix::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let result = match &self.output {
            None => send(self.input.as_raw_fd(), bytes, flags),
            Some(output) => nix::unistd::write(output, bytes),
        };
        match result {
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            result => result,
        }
    }
}

impl Stream {
    /// As [`Stream::send`], with a file on the first byte (unix sockets only).
    ///
    /// # Errors
    /// The kernel's: the connection is of no more use.
    pub fn send_with(&mut self, bytes: &[u8], fd: Option<&OwnedFd>) -> nix::Result<usize> {
        let Some(fd) = fd else { return self.send(bytes) };
        let numbers = [fd.as_raw_fd()];
        let files = [ControlMessage::ScmRights(&numbers)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match sendmsg::<()>(self.input.as_raw_fd(), &[IoSlice::new(bytes)], &files, flags, None) {
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            result => result,
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Kind::Stdio { was_blocking } = self.kind {
            for (fd, was_blocking) in std::iter::once(&self.input).chain(&self.output).zip(was_blocking) {
                if was_blocking {
                    set_blocking(fd, true);
                }
            }
        }
    }
}

/// Sets or clears `O_NONBLOCK` and says whether the descriptor blocked before.
fn set_blocking(fd: &OwnedFd, blocking: bool) -> bool {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap_or(0));
    let _ = fcntl(
        fd,
        FcntlArg::F_SETFL(if blocking { flags - OFlag::O_NONBLOCK } else { flags | OFlag::O_NONBLOCK }),
    );
    !flags.contains(OFlag::O_NONBLOCK)
}

/// The address family of a socket; `None` for anything else.
pub(super) fn family(fd: &OwnedFd) -> Option<AddressFamily> {
    getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok().and_then(|name| name.family())
}
