//! The slow half of making a chardev: look-ups, binds and connects. It needs nothing of the registry, so that it can
//! run on any thread.

use super::address::{ABSTRACT_ROOM, Address, Inet, PATH_ROOM, Unix};
use super::link::Listener;
use super::resolve;
use super::spec::{Backend, SocketSpec, Spec};
use super::stream::{self, Stream};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, listen, setsockopt,
    socket, sockopt,
};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixListener, UnixStream};
use std::time::Duration;

/// Longest wait for a TCP connection, so that an opening ends.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// A chardev about to be opened.
#[derive(Debug)]
pub struct Opening {
    pub(super) spec: Spec,
    /// The descriptor that an `fd` address names.
    pub(super) fd: Option<OwnedFd>,
}

/// What came of it.
#[derive(Debug)]
pub struct Opened {
    pub(super) spec: Spec,
    pub(super) result: Result<Made, String>,
}

/// An opened backend.
#[derive(Debug)]
pub(super) enum Made {
    /// `null`.
    Null,
    /// A listening socket; several when a name has several addresses.
    Listening(Vec<Listener>),
    /// Connected, or `stdio`.
    Connected(Stream),
    /// To be connected in the background.
    Pending,
}

impl Opening {
    /// True when [`Self::run`] cannot wait for anybody: no name to look up, nobody to connect to over a network.
    #[must_use]
    pub fn is_quick(&self) -> bool {
        match &self.spec.backend {
            Backend::Socket(SocketSpec { address: Address::Inet(inet), server, reconnect, .. }) => {
                reconnect.is_some() || (*server && resolve::is_numeric(inet))
            }
            _ => true,
        }
    }

    /// Opens it.
    #[must_use]
    pub fn run(self) -> Opened {
        let Self { spec, fd } = self;
        let result = match &spec.backend {
            Backend::Null => Ok(Made::Null),
            Backend::Stdio => stdio().map(Made::Connected),
            Backend::Socket(socket) if socket.reconnect.is_some() => Ok(Made::Pending),
            Backend::Socket(socket) if socket.server => listening(socket, fd).map(Made::Listening),
            Backend::Socket(socket) => connected(socket, fd).map(Made::Connected),
        };
        Opened { spec, result }
    }
}

/// Connects once.
///
/// # Errors
/// QEMU's sentence.
pub(crate) fn connected(spec: &SocketSpec, fd: Option<OwnedFd>) -> Result<Stream, String> {
    match &spec.address {
        Address::Unix(unix) => connect_unix(unix),
        Address::Inet(inet) => connect_inet(inet, spec.nodelay),
        Address::Fd(name) => {
            let fd = fd.ok_or_else(|| format!("File descriptor named '{name}' has not been found"))?;
            Stream::adopt(fd, name, spec.nodelay)
        }
        Address::Other(kind) => Err(format!("'{kind}' addresses are not supported by netdevd")),
    }
}

fn listening(spec: &SocketSpec, fd: Option<OwnedFd>) -> Result<Vec<Listener>, String> {
    match &spec.address {
        Address::Unix(unix) => listen_unix(unix).map(|listener| vec![listener]),
        Address::Inet(inet) => listen_inet(inet),
        Address::Fd(name) => {
            let fd = fd.ok_or_else(|| format!("File descriptor named '{name}' has not been found"))?;
            listen_fd(fd, name).map(|listener| vec![listener])
        }
        Address::Other(kind) => Err(format!("'{kind}' addresses are not supported by netdevd")),
    }
}

/// The kernel's address of a unix socket, with the length rules of `sun_path`.
fn unix_address(unix: &Unix) -> Result<UnixSocketAddr, String> {
    let too_long = || format!("UNIX socket path '{}' is too long", unix.path);
    let room = if unix.abstract_ { ABSTRACT_ROOM } else { PATH_ROOM };
    if unix.path.len() > room {
        return Err(too_long());
    }
    if unix.abstract_ {
        let mut name = unix.path.clone().into_bytes();
        if !unix.tight {
            name.resize(ABSTRACT_ROOM, 0);
        }
        UnixSocketAddr::from_abstract_name(name).map_err(|_| too_long())
    } else {
        // A path that fills sun_path to its last byte has no room for the NUL that we end it with.
        UnixSocketAddr::from_pathname(&unix.path).map_err(|_| too_long())
    }
}

fn connect_unix(unix: &Unix) -> Result<Stream, String> {
    let stream = dial_unix(unix)?;
    Stream::unix(stream, false, Some(unix)).map_err(|error| failed_to_connect(&unix.path, &error))
}

/// Connects to a unix socket. Waits while its backlog is full.
///
/// # Errors
/// QEMU's sentence.
pub(crate) fn dial_unix(unix: &Unix) -> Result<UnixStream, String> {
    let address = unix_address(unix)?;
    if unix.path.is_empty() && !unix.abstract_ {
        return Err(format!("Failed to connect to '{}': Connection refused", unix.path));
    }
    UnixStream::connect_addr(&address).map_err(|error| failed_to_connect(&unix.path, &error))
}

fn connect_inet(inet: &Inet, nodelay: bool) -> Result<Stream, String> {
    let stream = dial_inet(inet)?;
    Stream::tcp(stream, false, nodelay, inet.keep_alive)
        .map_err(|error| failed_to_connect(&format!("{}:{}", inet.host, inet.port), &error))
}

/// Connects to the first of the addresses that answers. May wait for the resolver and for the peer.
///
/// # Errors
/// QEMU's sentence, for the last of them.
pub(crate) fn dial_inet(inet: &Inet) -> Result<TcpStream, String> {
    let mut why = "no address".to_owned();
    for address in resolve::resolve(inet)? {
        match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
            Ok(stream) => return Ok(stream),
            Err(error) => why = reason(&error),
        }
    }
    Err(format!("Failed to connect to '{}:{}': {why}", inet.host, inet.port))
}

fn failed_to_connect(place: &str, error: &std::io::Error) -> String {
    format!("Failed to connect to '{place}': {}", reason(error))
}

/// Listens on a unix socket; a socket that an earlier daemon left there is removed first.
///
/// # Errors
/// QEMU's sentence.
pub(crate) fn listen_unix(unix: &Unix) -> Result<Listener, String> {
    let named = if unix.path.is_empty() && !unix.abstract_ { &unnamed_path() } else { unix };
    let address = unix_address(named)?;
    if !named.abstract_ {
        clear_stale(&named.path)?;
    }
    let listener = UnixListener::bind_addr(&address)
        .map_err(|error| format!("Failed to bind socket to {}: {}", named.path, reason(&error)))?;
    Listener::unix(listener).map_err(|error| format!("Failed to listen on socket: {}", reason(&error)))
}

/// Removes the socket that an earlier daemon left, so that its path can be bound again. Anything but a socket stays
/// (QEMU would delete it), and binding then says that the address is in use.
fn clear_stale(path: &str) -> Result<(), String> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)
            .map_err(|error| format!("Failed to unlink socket {path}: {}", reason(&error))),
        Ok(found) if found.is_dir() => Err(format!("Failed to unlink socket {path}: Is a directory")),
        _ => Ok(()),
    }
}

/// A path for a server that was given none, as QEMU makes one.
fn unnamed_path() -> Unix {
    let directory = std::env::var("TMPDIR").unwrap_or_else(|_| "/tmp".to_owned());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let path = format!("{directory}/qemu-socket-{:x}-{:x}", std::process::id(), now.subsec_nanos());
    Unix { path, abstract_: false, tight: true }
}

/// Listens on all addresses that are meant, each on the first free port of the range. May wait for the resolver.
///
/// # Errors
/// QEMU's sentence, for the first of them, if none is left.
pub(crate) fn listen_inet(inet: &Inet) -> Result<Vec<Listener>, String> {
    let addresses = resolve::resolve(inet)?;
    let four_too = addresses.iter().any(SocketAddr::is_ipv4);
    let mut listeners = Vec::new();
    let mut first = None;
    for address in addresses {
        let six_only = four_too || (inet.ipv6 == Some(true) && inet.ipv4 != Some(true));
        match listen_address(address, inet.to.unwrap_or(address.port()), six_only) {
            Ok(listener) => listeners.push(listener),
            Err(why) => first = first.or(Some(why)),
        }
    }
    match first {
        Some(why) if listeners.is_empty() => Err(why),
        _ => Ok(listeners),
    }
}

/// Listens on the first free port from the address's to `last`.
fn listen_address(mut address: SocketAddr, last: u16, six_only: bool) -> Result<Listener, String> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let failed = |what: &str, error: Errno| format!("{what}: {}", reason(&error.into()));
    loop {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(family, SockType::Stream, flags, SockProtocol::Tcp)
            .map_err(|error| failed("Failed to create a socket", error))?;
        let _ = setsockopt(&fd, sockopt::ReuseAddr, &true);
        if address.is_ipv6() && six_only {
            let _ = setsockopt(&fd, sockopt::Ipv6V6Only, &true);
        }
        let bound = bind(fd.as_raw_fd(), &SockaddrStorage::from(address))
            .map_err(|error| (error, "Failed to bind socket"))
            .and_then(|()| {
                listen(&fd, Backlog::MAXCONN).map_err(|error| (error, "Failed to listen on socket"))
            });
        match bound {
            Ok(()) => {
                return Listener::tcp(TcpListener::from(fd))
                    .map_err(|error| format!("Failed to listen on socket: {}", reason(&error)));
            }
            Err((Errno::EADDRINUSE, _)) if address.port() < last => address.set_port(address.port() + 1),
            Err((Errno::EADDRINUSE, _)) => {
                return Err(failed("Failed to find an available port", Errno::EADDRINUSE));
            }
            Err((error, what)) => return Err(failed(what, error)),
        }
    }
}

/// Listens on a socket that somebody else has bound.
///
/// # Errors
/// QEMU's sentence.
pub(crate) fn listen_fd(fd: OwnedFd, name: &str) -> Result<Listener, String> {
    let family = stream::family(&fd);
    if family.is_none() {
        return Err(format!("File descriptor '{name}' is not a socket"));
    }
    let failed = |why: &str| format!("Failed to listen on fd socket: {why}");
    listen(&fd, Backlog::MAXCONN).map_err(|error| failed(&reason(&error.into())))?;
    let listener = match family {
        Some(AddressFamily::Unix) => Listener::unix(UnixListener::from(fd)),
        _ => Listener::tcp(TcpListener::from(fd)),
    };
    listener.map_err(|error| failed(&reason(&error)))
}

/// Standard input and output, kept apart from the process's own three so that closing them is safe.
fn stdio() -> Result<Stream, String> {
    let copy = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned().map_err(|error| format!("cannot use stdio: {}", reason(&error)))
    };
    Ok(Stream::stdio(copy(std::io::stdin().as_fd())?, copy(std::io::stdout().as_fd())?))
}

/// The kernel's words for an error, without the number that Rust adds.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
