//! `-metrics`: answers HTTP requests for the counters. Small and bounded: a client that dawdles is cut off.

use super::Fatal;
use crate::commands::State;
use crate::observe;
use crate::reactor::{Interest, Part, Reactor, Ready, Token};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;

/// Clients served at once; more wait in the backlog.
const CLIENTS: usize = 16;

/// Role of listeners; clients have the other.
const LISTENER: u8 = 1;
const CLIENT: u8 = 0;

enum Listener {
    /// With its file, which goes with it.
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// One client: what it has asked so far, and what is still to be sent.
struct Client {
    stream: Stream,
    request: Vec<u8>,
    response: Vec<u8>,
    sent: usize,
}

/// All listeners and clients.
pub(super) struct Metrics {
    reactor: Rc<Reactor>,
    listeners: Vec<Listener>,
    clients: BTreeMap<u32, Client>,
    next: u32,
}

impl Metrics {
    /// Listens at every address.
    pub(super) fn start(addresses: &[String], reactor: Rc<Reactor>) -> Result<Self, Fatal> {
        let mut metrics = Self { reactor, listeners: Vec::new(), clients: BTreeMap::new(), next: 0 };
        for address in addresses {
            let failed = |e: io::Error| Fatal::option("metrics", address, e);
            let listener = listen(address).map_err(failed)?;
            let token = Token::new(Part::Metrics, metrics.listeners.len() as u32, LISTENER);
            metrics.reactor.watch(&listener, token, Interest::READ).map_err(|e| failed(e.into()))?;
            metrics.listeners.push(listener);
        }
        Ok(metrics)
    }

    /// Handles what happened to a descriptor of [`Part::Metrics`].
    pub(super) fn ready(&mut self, ready: Ready, state: &State) {
        if ready.token.role == LISTENER {
            self.accept(ready.token.object);
            return;
        }
        let number = ready.token.object;
        let Some(mut client) = self.clients.remove(&number) else { return };
        match client.go_on(state) {
            Ok(true) => {
                let interest = if client.response.is_empty() {
                    Interest::READ
                } else {
                    Interest { read: false, write: true }
                };
                let token = Token::new(Part::Metrics, number, CLIENT);
                if self.reactor.change(&client.stream, token, interest).is_ok() {
                    self.clients.insert(number, client);
                }
            }
            // Answered, gone, or talking nonsense: closed either way.
            Ok(false) | Err(_) => self.reactor.forget(&client.stream),
        }
    }

    fn accept(&mut self, listener: u32) {
        let Some(listener) = self.listeners.get(listener as usize) else { return };
        let accepted = match listener {
            Listener::Unix(l, _) => l.accept().map(|(s, _)| Stream::Unix(s)),
            Listener::Tcp(l) => l.accept().map(|(s, _)| Stream::Tcp(s)),
        };
        let Ok(stream) = accepted else { return };
        if self.clients.len() == CLIENTS {
            // The oldest has had its time.
            self.clients.pop_first();
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let token = Token::new(Part::Metrics, number, CLIENT);
        if stream.set_nonblocking().is_ok() && self.reactor.watch(&stream, token, Interest::READ).is_ok() {
            let client = Client { stream, request: Vec::new(), response: Vec::new(), sent: 0 };
            self.clients.insert(number, client);
        }
    }
}

impl Client {
    /// Reads the request, writes the response; false when all is sent.
    fn go_on(&mut self, state: &State) -> io::Result<bool> {
        let again = |e: io::Error| if e.kind() == io::ErrorKind::WouldBlock { Ok(true) } else { Err(e) };
        if self.response.is_empty() {
            let mut buffer = [0; 2048];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(n) => self.request.extend_from_slice(&buffer[..n]),
                Err(e) => return again(e),
            }
            if !observe::is_complete(&self.request) && self.request.len() < observe::LONGEST_REQUEST {
                return Ok(true);
            }
            self.response = observe::respond(&self.request, || state.metrics());
        }
        while self.sent < self.response.len() {
            match self.stream.write(&self.response[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) => return again(e),
            }
        }
        Ok(false)
    }
}

fn listen(address: &str) -> io::Result<Listener> {
    let listener = if let Some(path) = address.strip_prefix("unix:") {
        // A socket that a killed daemon left refuses connections; anything else is somebody's.
        if let Err(e) = UnixStream::connect(path)
            && e.kind() == io::ErrorKind::ConnectionRefused
        {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Listener::Unix(listener, std::path::absolute(path)?)
    } else if let Some(host) = address.strip_prefix("tcp:") {
        let listener = TcpListener::bind(host)?;
        listener.set_nonblocking(true)?;
        Listener::Tcp(listener)
    } else {
        return Err(io::Error::other("expected unix:PATH or tcp:HOST:PORT"));
    };
    Ok(listener)
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(l, _) => l.as_fd(),
            Self::Tcp(l) => l.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Stream {
    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Unix(s) => s.set_nonblocking(true),
            Self::Tcp(s) => s.set_nonblocking(true),
        }
    }

    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(s) => s.read(to),
            Self::Tcp(s) => s.read(to),
        }
    }

    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(s) => s.write(from),
            Self::Tcp(s) => s.write(from),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(s) => s.as_fd(),
            Self::Tcp(s) => s.as_fd(),
        }
    }
}
