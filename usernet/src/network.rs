//! The network of a start request, its forwards and services; and what they answer to later requests.

use crate::connections;
use crate::fds::put;
use crate::services::Streams;
use crate::stack::{Shared, Stack};
use nix::errno::Errno;
use std::ffi::CString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use usernet::protocol::{
    Answer, Connection, Failure, Forward, Listen, Network, Request, Server, Service, Transport,
};

/// The network.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) stack: Stack,
    shared: Rc<Shared>,
    forwards: Vec<Held>,
    dhcp_start: Option<IpAddr>,
}

/// A forward, and the number of the socket that listens for it. libslirp makes such a socket itself and takes none from others; and this
/// process may not bind what the daemon may. So it makes one at any port, and the daemon's takes its place.
#[derive(Debug)]
struct Held {
    forward: Forward,
    socket: RawFd,
}

/// Any port, of any address: the loopback may be down.
fn anywhere(six: bool) -> SocketAddr {
    let address = if six { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    SocketAddr::new(address, 0)
}

/// Whether a forward listens for UDP, and whether by IPv6.
fn kind(listen: &Listen) -> (bool, bool) {
    match listen {
        Listen::Inet { transport, address } => (*transport == Transport::Udp, address.is_ipv6()),
        Listen::Unix { .. } => (false, false),
    }
}

fn failed(text: impl Into<String>, errno: Option<Errno>) -> Failure {
    Failure { text: text.into(), errno: errno.map(|why| why as i32) }
}

impl Net {
    /// Makes it, with all its listeners.
    pub(crate) fn new(
        network: &Network,
        mut files: impl Iterator<Item = OwnedFd>,
        shared: Rc<Shared>,
    ) -> Result<Net, Failure> {
        if network.bootfile.as_ref().is_some_and(|name| name.len() >= 128) {
            return Err(failed("'bootfile' is longer than 127 bytes", None));
        }
        let stack = Stack::new(network, Rc::clone(&shared));
        let stack = stack.ok_or_else(|| failed("libslirp refused the network", None))?;
        let dhcp_start = network.ipv4.map(|four| IpAddr::V4(four.dhcp_start));
        let mut net = Net { stack, shared, forwards: Vec::new(), dhcp_start };
        for service in &network.services {
            net.service(service, &mut files)?;
        }
        Ok(net)
    }

    fn service(
        &mut self,
        service: &Service,
        files: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<(), Failure> {
        let at = service.address;
        let port = service.port;
        let taken =
            || failed(format!("conflicting/invalid host:port in guest forwarding: {at}:{port}"), None);
        match &service.to {
            Server::Unix { path } => {
                let path = CString::new(path.as_os_str().as_bytes());
                let path = path.map_err(|_| failed("a path with a zero byte", Some(Errno::EINVAL)))?;
                self.stack.add_unix(&path, at, port).map(drop).ok_or_else(taken)
            }
            Server::Stream => {
                let socket =
                    files.next().ok_or_else(|| failed("no descriptor for a stream", Some(Errno::EBADF)))?;
                let index = self.shared.streams.borrow().next();
                let at = self.stack.add_stream(index, at, port).ok_or_else(taken)?;
                self.shared.streams.borrow_mut().add((at, port), socket);
                Ok(())
            }
        }
    }

    fn add(&mut self, forward: Forward, listener: &OwnedFd) -> Result<(), Failure> {
        let what = |why: Errno| failed(why.desc(), Some(why));
        if forward.guest.is_ipv4() && self.dhcp_start.is_none() {
            return Err(failed("the guest's network has no IPv4", Some(Errno::EAFNOSUPPORT)));
        }
        let (udp, six) = kind(&forward.listen);
        let before = self.sockets();
        self.stack.add_forward(&anywhere(six).into(), &forward.guest.into(), udp).map_err(what)?;
        let made = self.sockets().into_iter().find(|socket| !before.contains(socket));
        let socket = made.ok_or_else(|| what(Errno::EBADF))?;
        put(listener, socket).map_err(what)?;
        self.forwards.push(Held { forward, socket });
        Ok(())
    }

    /// The sockets that the stack waits for.
    fn sockets(&mut self) -> Vec<RawFd> {
        // Those of the last time are told to the kernel: they may be others.
        self.shared.set.borrow_mut().tell();
        self.stack.fill();
        self.shared.set.borrow().sockets().to_vec()
    }

    fn remove(&mut self, listen: &Listen) -> Result<(), Failure> {
        let what = |why: Errno| failed(why.desc(), Some(why));
        let at = self.forwards.iter().position(|held| held.forward.listen == *listen);
        let at = at.ok_or_else(|| failed("not found", Some(Errno::ENOENT)))?;
        let (udp, _) = kind(listen);
        // The stack finds a forward by an IP address, which a path has not.
        let system = |why: std::io::Error| what(why.raw_os_error().map_or(Errno::EIO, Errno::from_raw));
        let other = TcpListener::bind(anywhere(false)).map_err(system)?;
        let address = other.local_addr().map_err(system)?;
        let Held { socket, .. } = self.forwards.remove(at);
        self.shared.set.borrow_mut().closed(socket);
        put(&other.into(), socket).map_err(what)?;
        if self.stack.remove_forward(&address.into(), udp) {
            Ok(())
        } else {
            Err(failed("not found", Some(Errno::ENOENT)))
        }
    }

    /// Carries out a request.
    pub(crate) fn answer(&mut self, request: Request, files: &[OwnedFd]) -> Answer {
        let done = match (request, files.first()) {
            (Request::Start(_), _) => Err(failed("the network has been started", None)),
            (Request::Add(forward), Some(listener)) => self.add(forward, listener),
            (Request::Add(_), None) => Err(failed("no socket for a forward", Some(Errno::EBADF))),
            (Request::Remove(listen), _) => self.remove(&listen),
            (Request::Stream(index), file) => self.replace(index, file),
            (Request::State, _) => {
                return Answer::State { connections: self.connections(), drops: self.shared.dropped.told() };
            }
        };
        done.map_or_else(Answer::Failed, |()| Answer::Done)
    }

    fn replace(&mut self, index: usize, file: Option<&OwnedFd>) -> Result<(), Failure> {
        let system = |why: std::io::Error| {
            failed("no descriptor for a stream", why.raw_os_error().map(Errno::from_raw))
        };
        let file = file.ok_or_else(|| failed("no descriptor for a stream", Some(Errno::EBADF)))?;
        let file = file.try_clone().map_err(system)?;
        let done = self.shared.streams.borrow_mut().replace(index, file);
        done.ok_or_else(|| failed("no such stream", Some(Errno::ENOENT)))
    }

    fn connections(&mut self) -> Vec<Connection> {
        let table = self.stack.connections();
        connections::read(&table, &self.shared.flows.borrow(), |protocol, here| {
            let udp = protocol.starts_with("UDP");
            let forward =
                self.forwards.iter().map(|held| &held.forward).find(|forward| match &forward.listen {
                    Listen::Inet { transport, address } => {
                        let same = here == Some((address.ip(), address.port()));
                        same && udp == (*transport == Transport::Udp)
                    }
                    Listen::Unix { .. } => here.is_none(),
                })?;
            let address = forward.guest.ip();
            let first = address.is_unspecified() && address.is_ipv4();
            Some((if first { self.dhcp_start.unwrap_or(address) } else { address }, forward.guest.port()))
        })
    }

    /// The streams.
    pub(crate) fn streams(&self) -> std::cell::RefMut<'_, Streams> {
        self.shared.streams.borrow_mut()
    }
}
