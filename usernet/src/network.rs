//! The network of a start request, its forwards and services; and what they answer to later requests.

use crate::address::Address;
use crate::connections;
use crate::fds::borrowed;
use crate::services::Streams;
use crate::stack::{Shared, Stack};
use nix::errno::Errno;
use nix::sys::socket::{Backlog, getsockopt, listen, sockopt};
use std::ffi::CString;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::rc::Rc;
use usernet::protocol::{
    Answer, Connection, Failure, Forward, Listen, Network, Request, Server, Service, Transport,
};

/// Connections that may wait to be accepted; libslirp lets one wait.
const BACKLOG: i32 = 1024;

/// The network.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) stack: Stack,
    shared: Rc<Shared>,
    forwards: Vec<Forward>,
    dhcp_start: Option<IpAddr>,
}

fn failed(text: impl Into<String>, errno: Option<Errno>) -> Failure {
    Failure { text: text.into(), errno: errno.map(|why| why as i32), forward: None }
}

impl Net {
    /// Makes it, with all its listeners.
    pub(crate) fn new(network: &Network, files: Vec<OwnedFd>, shared: Rc<Shared>) -> Result<Net, Failure> {
        if network.bootfile.as_ref().is_some_and(|name| name.len() >= 128) {
            return Err(failed("'bootfile' is longer than 127 bytes", None));
        }
        let stack = Stack::new(network, Rc::clone(&shared));
        let stack = stack.ok_or_else(|| failed("libslirp refused the network", None))?;
        let dhcp_start = network.ipv4.map(|four| IpAddr::V4(four.dhcp_start));
        let mut net = Net { stack, shared, forwards: Vec::new(), dhcp_start };
        let mut files = files.into_iter();
        for service in &network.services {
            net.service(service, &mut files)?;
        }
        for (at, forward) in network.forwards.iter().enumerate() {
            // A socket that somebody has left is no obstacle (as in QEMU); another file is.
            if let Listen::Unix { path } = &forward.listen
                && std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
            {
                let _ = std::fs::remove_file(path);
            }
            net.add(forward.clone()).map_err(|why| Failure { forward: Some(at), ..why })?;
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

    fn add(&mut self, forward: Forward) -> Result<(), Failure> {
        let what = |why: Errno| failed(why.desc(), Some(why));
        let (host, udp) = Address::of(&forward.listen).map_err(what)?;
        if forward.guest.is_ipv4() && self.dhcp_start.is_none() {
            return Err(failed("the guest's network has no IPv4", Some(Errno::EAFNOSUPPORT)));
        }
        self.stack.add_forward(&host, &Address::inet(forward.guest), udp).map_err(what)?;
        self.forwards.push(forward);
        self.let_more_wait();
        Ok(())
    }

    /// Lets more than one connection wait on sockets that listen.
    fn let_more_wait(&mut self) {
        self.stack.fill();
        for &socket in self.shared.set.borrow().sockets() {
            let socket = borrowed(socket);
            if getsockopt(&socket, sockopt::AcceptConn) == Ok(true)
                && let Ok(backlog) = Backlog::new(BACKLOG)
            {
                let _ = listen(&socket, backlog);
            }
        }
    }

    fn remove(&mut self, listen: &Listen) -> Result<(), Failure> {
        let (host, udp) = Address::of(listen).map_err(|why| failed(why.desc(), Some(why)))?;
        if !self.stack.remove_forward(&host, udp) {
            return Err(failed("not found", Some(Errno::ENOENT)));
        }
        self.forwards.retain(|forward| forward.listen != *listen);
        Ok(())
    }

    /// Carries out a request.
    pub(crate) fn answer(&mut self, request: Request) -> Answer {
        let done = match request {
            Request::Start(_) => Err(failed("the network has been started", None)),
            Request::Add(forward) => self.add(forward),
            Request::Remove(listen) => self.remove(&listen),
            Request::Connections => return Answer::Connections(self.connections()),
        };
        done.map_or_else(Answer::Failed, |()| Answer::Done)
    }

    fn connections(&mut self) -> Vec<Connection> {
        let table = self.stack.connections();
        connections::read(&table, &self.shared.flows.borrow(), |protocol, here| {
            let udp = protocol.starts_with("UDP");
            let forward = self.forwards.iter().find(|forward| match &forward.listen {
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
