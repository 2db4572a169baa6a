//! Listening sockets, and connecting in the background.

use super::address::{Address, Inet, Unix};
use super::opening::connected;
use super::spec::SocketSpec;
use super::stream::Stream;
use crate::fds;
use crate::reactor::Wake;
use nix::sys::socket::{SockFlag, accept4};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// A listening socket. Dropping it removes its file.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    /// Where it really listens, with the port that the kernel chose.
    pub(super) address: Address,
    /// The file, with device and inode: what somebody else has put at its path since then stays.
    file: Option<(PathBuf, u64, u64)>,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
    /// Of a family that the standard library has no type for.
    Other(OwnedFd),
}

/// A client that was taken from a backlog.
#[derive(Debug)]
pub(crate) enum Client {
    /// Of a unix socket.
    Unix(UnixStream),
    /// Over TCP.
    Tcp(TcpStream),
    /// Of another family.
    Other(OwnedFd),
}

impl Listener {
    pub(super) fn unix(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let name = listener.local_addr()?;
        let file = name.as_pathname().and_then(|path| {
            let data = std::fs::symlink_metadata(path).ok()?;
            // Absolute, since the daemon may leave its directory.
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            Some((path, data.dev(), data.ino()))
        });
        Ok(Self { address: Address::Unix(Unix::from_kernel(&name)), socket: Socket::Unix(listener), file })
    }

    /// A TCP socket that listens.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn tcp(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = Address::Inet(Inet::from(listener.local_addr()?));
        Ok(Self { address, socket: Socket::Tcp(listener), file: None })
    }

    /// A socket of another family that listens and is non-blocking.
    pub(crate) const fn other(socket: OwnedFd, address: Address) -> Self {
        Self { socket: Socket::Other(socket), address, file: None }
    }

    /// Takes a client from the backlog; `None` when there is none.
    pub(super) fn accept(&self, nodelay: bool, keep_alive: bool) -> io::Result<Option<Stream>> {
        let stream = match self.client()? {
            None => return Ok(None),
            Some(Client::Unix(stream)) => {
                let Address::Unix(local) = &self.address else { return Err(io::ErrorKind::Other.into()) };
                Stream::unix(stream, true, Some(local))?
            }
            Some(Client::Tcp(stream)) => Stream::tcp(stream, true, nodelay, keep_alive)?,
            Some(Client::Other(_)) => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(Some(stream))
    }

    /// As [`Listener::accept`], the bare socket.
    pub(crate) fn client(&self) -> io::Result<Option<Client>> {
        let client = match &self.socket {
            Socket::Unix(listener) => listener.accept().map(|(stream, _)| Client::Unix(stream)),
            Socket::Tcp(listener) => listener.accept().map(|(stream, _)| Client::Tcp(stream)),
            Socket::Other(listener) => accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)
                .map_err(io::Error::from)
                .map(|number| Client::Other(fds::accepted(number))),
        };
        match client {
            Ok(client) => Ok(Some(client)),
            // A client that has gone again is nobody.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Unix(listener) => listener.as_fd(),
            Socket::Tcp(listener) => listener.as_fd(),
            Socket::Other(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((path, device, inode)) = &self.file
            && std::fs::symlink_metadata(path).is_ok_and(|now| now.dev() == *device && now.ino() == *inode)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The outcome of one attempt to connect or listen.
pub(crate) struct Attempt<T> {
    /// The number of what it is for.
    pub(crate) object: u32,
    pub(crate) result: Result<T, String>,
}

/// Connects off the event loop's thread, one thread an attempt, and announces outcomes by a wake-up.
#[derive(Debug)]
pub(crate) struct Connector<T> {
    wake: Arc<Wake>,
    sender: Sender<Attempt<T>>,
    receiver: Receiver<Attempt<T>>,
}

impl<T: Send + 'static> Connector<T> {
    pub(crate) fn new() -> nix::Result<Self> {
        let (sender, receiver) = channel();
        Ok(Self { wake: Arc::new(Wake::new()?), sender, receiver })
    }

    /// Begins one attempt: at once if that is `quick` and waits for nobody, else on a thread of its own.
    pub(crate) fn begin(
        &self,
        object: u32,
        quick: bool,
        attempt: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) {
        let (sender, wake) = (self.sender.clone(), Arc::clone(&self.wake));
        let work = move || {
            // Whoever asked may be gone by then: nobody waits for the outcome.
            let _ = sender.send(Attempt { object, result: attempt() });
            wake.wake();
        };
        if quick {
            work();
        } else if std::thread::Builder::new().name("connect".to_owned()).spawn(work).is_err() {
            let result = Err("no thread for the connection".to_owned());
            let _ = self.sender.send(Attempt { object, result });
            self.wake.wake();
        }
    }

    /// The outcomes since the last call.
    pub(crate) fn finished(&self) -> Vec<Attempt<T>> {
        self.wake.acknowledge();
        self.receiver.try_iter().collect()
    }
}

impl Connector<Stream> {
    /// Connects a chardev. A unix socket answers at once; TCP may wait for a name or for its peer.
    pub(super) fn connect(&self, object: u32, spec: &SocketSpec) {
        let (quick, spec) = (matches!(spec.address, Address::Unix(_)), spec.clone());
        self.begin(object, quick, move || connected(&spec, None));
    }
}

impl<T> AsFd for Connector<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
