//! Listening sockets, and connecting in the background.

use super::address::{Address, Inet, Unix};
use super::opening::connected;
use super::spec::SocketSpec;
use super::stream::Stream;
use crate::reactor::Wake;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// A listening socket. Dropping it removes its file.
#[derive(Debug)]
pub(super) struct Listener {
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

    pub(super) fn tcp(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = Address::Inet(Inet::from(listener.local_addr()?));
        Ok(Self { address, socket: Socket::Tcp(listener), file: None })
    }

    /// Takes a client from the backlog; `None` when there is none.
    pub(super) fn accept(&self, nodelay: bool, keep_alive: bool) -> io::Result<Option<Stream>> {
        let stream = match &self.socket {
            Socket::Unix(listener) => listener.accept().and_then(|(stream, _)| {
                let Address::Unix(local) = &self.address else { return Err(io::ErrorKind::Other.into()) };
                Stream::unix(stream, true, Some(local))
            }),
            Socket::Tcp(listener) => {
                listener.accept().and_then(|(stream, _)| Stream::tcp(stream, true, nodelay, keep_alive))
            }
        };
        match stream {
            Ok(stream) => Ok(Some(stream)),
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

/// The outcome of one attempt to connect.
pub(super) struct Attempt {
    /// The chardev's number.
    pub(super) object: u32,
    pub(super) result: Result<Stream, String>,
}

/// Connects off the event loop's thread, one thread an attempt, and announces outcomes by a wake-up.
#[derive(Debug)]
pub(super) struct Connector {
    wake: Arc<Wake>,
    sender: Sender<Attempt>,
    receiver: Receiver<Attempt>,
}

impl Connector {
    pub(super) fn new() -> nix::Result<Self> {
        let (sender, receiver) = channel();
        Ok(Self { wake: Arc::new(Wake::new()?), sender, receiver })
    }

    /// Begins one attempt. A unix socket answers at once; TCP may wait for a name or for its peer.
    pub(super) fn begin(&self, object: u32, spec: &SocketSpec) {
        let (sender, wake, spec) = (self.sender.clone(), Arc::clone(&self.wake), spec.clone());
        let quick = matches!(spec.address, Address::Unix(_));
        let work = move || {
            // The registry may be gone by then: nobody waits for the outcome.
            let _ = sender.send(Attempt { object, result: connected(&spec, None) });
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
    pub(super) fn finished(&self) -> Vec<Attempt> {
        self.wake.acknowledge();
        self.receiver.try_iter().collect()
    }
}

impl AsFd for Connector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
