//! Sockets that the stack has accepted and whose connections the guest has yet to be asked for: while the stack looks for the guest's address
//! (ARP, NDP), their SYNs wait, and may leave when it is busy with another.

use crate::connections::{address, is_unix};
use crate::flows::Key;
use nix::sys::socket::{SockaddrStorage, getpeername};
use std::net::IpAddr;
use std::os::fd::RawFd;

/// All of them, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Accepted(Vec<RawFd>);

/// Whether the stack shows a host's address to the guest as `shown`: its own loopback has another name there.
fn is_shown(address: IpAddr, shown: IpAddr) -> bool {
    address == shown || (address.is_ipv4() == shown.is_ipv4() && address.is_loopback())
}

impl Accepted {
    pub(crate) fn add(&mut self, socket: RawFd) {
        self.0.push(socket);
    }

    /// The stack closes this socket.
    pub(crate) fn closed(&mut self, socket: RawFd) {
        self.0.retain(|&one| one != socket);
    }

    /// The socket of the connection that the stack asks the guest for, no longer one of these.
    pub(crate) fn take(&mut self, key: &Key) -> Option<RawFd> {
        let peer = |&socket: &RawFd| address(&getpeername::<SockaddrStorage>(socket).ok()?);
        let is_its = |socket: &RawFd| {
            peer(socket).is_some_and(|(from, port)| port == key.peer.1 && is_shown(from, key.peer.0))
        };
        // Those of a path have a port by chance: they are asked for in turn.
        let at =
            self.0.iter().position(is_its).or_else(|| self.0.iter().position(|&socket| is_unix(socket)))?;
        Some(self.0.remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn each_connection_has_the_socket_that_was_accepted_for_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("an address");
        let clients = [(); 2].map(|()| TcpStream::connect(to).expect("a connection"));
        let sockets = [(); 2].map(|()| listener.accept().expect("a connection").0);
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let (path, _other) = UnixStream::pair().expect("two sockets");
        let mut accepted = Accepted::default();
        for socket in [udp.as_raw_fd(), sockets[0].as_raw_fd(), path.as_raw_fd(), sockets[1].as_raw_fd()] {
            accepted.add(socket);
        }
        let guest = (IpAddr::from([10, 0, 2, 15]), 80);
        let key = |port: u16| Key { guest, peer: (IpAddr::from([10, 0, 2, 2]), port) };
        let port = |at: usize| clients[at].local_addr().expect("an address").port();
        // The second is asked for first.
        assert_eq!(accepted.take(&key(port(1))), Some(sockets[1].as_raw_fd()));
        assert_eq!(accepted.take(&key(port(0))), Some(sockets[0].as_raw_fd()));
        assert_eq!(accepted.take(&key(port(0))), Some(path.as_raw_fd()), "the one that has no port");
        assert_eq!(accepted.take(&key(port(0))), None);
        accepted.add(sockets[0].as_raw_fd());
        accepted.closed(sockets[0].as_raw_fd());
        assert_eq!(accepted.take(&key(port(0))), None, "it is closed");
    }
}
