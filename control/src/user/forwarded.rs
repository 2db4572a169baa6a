//! What is forwarded from the host: the sockets that listen. They are bound here, since a netdev's process may not bind what the daemon may, and
//! kept here, so that they outlive the process: who connects while it is started again waits.

use super::rule::make_way;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, bind, getsockname, listen,
    setsockopt, socket, sockopt,
};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use usernet::protocol::{Forward, Listen, Transport};

/// Connections that may wait to be accepted; libslirp lets one wait.
const BACKLOG: i32 = 1024;

/// A forward and its socket.
#[derive(Debug, Clone)]
pub struct Forwarded {
    /// The forward; its port is the one that the system chose, where it was to choose.
    pub forward: Forward,
    socket: Arc<OwnedFd>,
}

impl Forwarded {
    /// Listens, with the options that libslirp sets. May wait for the file system.
    ///
    /// # Errors
    /// The system's.
    pub fn new(mut forward: Forward) -> Result<Self, Errno> {
        make_way(&forward);
        let socket = match &mut forward.listen {
            Listen::Inet { transport, address } => {
                let socket = inet(*transport, *address)?;
                let port = bound(&socket).map_or(address.port(), |bound| bound.port());
                address.set_port(port);
                socket
            }
            Listen::Unix { path } => {
                let socket = stream(AddressFamily::Unix)?;
                bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
                listen(&socket, Backlog::new(BACKLOG)?)?;
                socket
            }
        };
        Ok(Self { forward, socket: Arc::new(socket) })
    }

    /// All of them, or the number of the first that cannot be had.
    ///
    /// # Errors
    /// That number.
    pub fn all(forwards: Vec<Forward>) -> Result<Vec<Self>, usize> {
        forwards.into_iter().enumerate().map(|(at, forward)| Self::new(forward).map_err(|_| at)).collect()
    }

    /// The number of its socket, to be sent to a process.
    #[must_use]
    pub fn socket(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn stream(family: AddressFamily) -> Result<OwnedFd, Errno> {
    socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

fn inet(transport: Transport, address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = match transport {
        Transport::Tcp => stream(family)?,
        Transport::Udp => socket(family, SockType::Datagram, flags, None)?,
    };
    if family == AddressFamily::Inet6 {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if transport == Transport::Tcp {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    if transport == Transport::Tcp {
        listen(&socket, Backlog::new(BACKLOG)?)?;
    }
    Ok(socket)
}

fn bound(socket: &OwnedFd) -> Option<SocketAddr> {
    let address = getsockname::<SockaddrStorage>(socket.as_raw_fd()).ok()?;
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(four), _) => Some(SocketAddrV4::new(four.ip(), four.port()).into()),
        (_, Some(six)) => Some(SocketAddrV6::new(Ipv6Addr::from(six.ip().octets()), six.port(), 0, 0).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    fn tcp(port: u16) -> Forward {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Forward { listen: Listen::Inet { transport: Transport::Tcp, address }, guest: address }
    }

    fn port(forwarded: &Forwarded) -> u16 {
        match &forwarded.forward.listen {
            Listen::Inet { address, .. } => address.port(),
            Listen::Unix { .. } => 0,
        }
    }

    #[test]
    fn a_port_is_chosen_held_and_given_back() {
        let first = Forwarded::new(tcp(0)).unwrap();
        let chosen = port(&first);
        assert!(chosen > 0);
        assert_eq!(Forwarded::new(tcp(chosen)).unwrap_err(), Errno::EADDRINUSE);
        assert_eq!(Forwarded::all(vec![tcp(0), tcp(chosen)]).unwrap_err(), 1);
        let mut client = TcpStream::connect(("127.0.0.1", chosen)).expect("it listens");
        drop(first);
        assert!(client.write_all(b"x").and_then(|()| client.read(&mut [0])).is_err(), "nobody took it");
        // A child that another test starts has the socket as well, until it becomes its program.
        let again = (0..1000).find_map(|_| {
            std::thread::yield_now();
            Forwarded::new(tcp(chosen)).ok()
        });
        assert_eq!(again.as_ref().map(port), Some(chosen));
    }

    #[test]
    fn a_path_takes_the_place_of_a_socket_that_was_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let forward =
            Forward { listen: Listen::Unix { path: path.clone() }, guest: SocketAddr::from(([0; 4], 22)) };
        drop(Forwarded::new(forward.clone()).unwrap());
        let goes = (0..1000).any(|_| {
            std::thread::yield_now();
            UnixStream::connect(&path).is_err()
        });
        assert!(goes, "nobody listens any more");
        let _listens = Forwarded::new(forward.clone()).unwrap();
        UnixStream::connect(&path).expect("it listens");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "a file").unwrap();
        assert_eq!(Forwarded::new(forward).unwrap_err(), Errno::EADDRINUSE);
    }
}
