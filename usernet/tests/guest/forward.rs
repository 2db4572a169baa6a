//! What a guest's host listens on.

use super::Guest;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use usernet::protocol::{Answer, Forward, Listen, Request, Transport};

impl Guest {
    /// Listens for a forward, and hands the socket over.
    pub fn forward(&mut self, forward: &Forward) -> Answer {
        let socket: OwnedFd = match &forward.listen {
            Listen::Inet { transport: Transport::Tcp, address } => TcpListener::bind(address).unwrap().into(),
            Listen::Inet { transport: Transport::Udp, address } => UdpSocket::bind(address).unwrap().into(),
            Listen::Unix { path } => UnixListener::bind(path).unwrap().into(),
        };
        self.request_with(&Request::Add(forward.clone()), &[socket.as_raw_fd()])
    }
}
