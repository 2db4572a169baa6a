//! Stream sockets behind addresses of the guest's network (`guestfwd`). All connections of the guest share one.

use crate::flows::Key;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Bytes that may wait for the other end. Beyond, the guest's segments to it are not taken, and come again when their time is up:
/// libslirp has no other way to hold a guest back that writes to one.
const WAITING: usize = 256 * 1024;
/// Bytes that are read at once.
const READ: usize = 64 * 1024;

#[derive(Debug)]
struct Stream {
    at: (Ipv4Addr, u16),
    /// None when the other end has closed it.
    socket: Option<OwnedFd>,
    /// It has been hung up, and what is left in it waits for a connection of the guest's that takes it.
    hung: bool,
    waiting: Vec<u8>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    streams: Vec<Stream>,
}

impl Streams {
    /// The number that the next one gets.
    pub(crate) fn next(&self) -> usize {
        self.streams.len()
    }

    pub(crate) fn add(&mut self, at: (Ipv4Addr, u16), socket: OwnedFd) {
        self.streams.push(Stream { at, socket: Some(socket), hung: false, waiting: Vec::new() });
    }

    /// Another socket takes the place of one; nothing if there is no such stream.
    pub(crate) fn replace(&mut self, index: usize, socket: OwnedFd) -> Option<()> {
        let stream = self.streams.get_mut(index)?;
        *stream = Stream { at: stream.at, socket: Some(socket), hung: false, waiting: Vec::new() };
        Some(())
    }

    /// A socket was hung up, which the system says again and again.
    pub(crate) fn hang_up(&mut self, index: usize) {
        if let Some(stream) = self.streams.get_mut(index) {
            stream.hung = true;
        }
    }

    /// Whether it was.
    pub(crate) fn is_hung(&self, index: usize) -> bool {
        self.streams.get(index).is_some_and(|stream| stream.hung)
    }

    /// The socket of one.
    pub(crate) fn socket(&self, index: usize) -> Option<BorrowedFd<'_>> {
        self.streams.get(index)?.socket.as_ref().map(AsFd::as_fd)
    }

    fn of(&self, key: &Key) -> Option<&Stream> {
        let (IpAddr::V4(address), port) = key.peer else { return None };
        self.streams.iter().find(|stream| stream.at == (address, port))
    }

    /// Whether a connection goes to one.
    pub(crate) fn is(&self, key: &Key) -> bool {
        self.of(key).is_some()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Whether a connection's bytes would have to wait too long.
    pub(crate) fn is_full(&self, key: &Key) -> bool {
        self.of(key).is_some_and(|stream| stream.waiting.len() > WAITING)
    }

    /// Bytes from the guest.
    pub(crate) fn write(&mut self, index: usize, bytes: &[u8]) {
        if let Some(stream) = self.streams.get_mut(index)
            && stream.socket.is_some()
        {
            stream.waiting.extend_from_slice(bytes);
            stream.flush();
        }
    }

    /// Writes what waits.
    pub(crate) fn flush(&mut self) {
        self.streams.iter_mut().for_each(Stream::flush);
    }

    /// Where each is that has a socket, and whether it awaits to write.
    pub(crate) fn waits(&self) -> impl Iterator<Item = (usize, (Ipv4Addr, u16), bool)> {
        let there = self.streams.iter().enumerate().filter(|(_, stream)| stream.socket.is_some());
        there.map(|(index, stream)| (index, stream.at, !stream.waiting.is_empty()))
    }

    /// Reads up to `room` bytes.
    pub(crate) fn read(&mut self, index: usize, room: usize) -> Vec<u8> {
        let Some(stream) = self.streams.get_mut(index) else { return Vec::new() };
        let Some(socket) = stream.socket.as_ref() else { return Vec::new() };
        let mut bytes = vec![0; room.min(READ)];
        match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => {
                stream.end();
                Vec::new()
            }
            Ok(count) => {
                bytes.truncate(count);
                bytes
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Vec::new(),
            Err(_) => {
                stream.end();
                Vec::new()
            }
        }
    }
}

impl Stream {
    fn flush(&mut self) {
        let Some(socket) = self.socket.as_ref() else { return };
        let mut gone = 0;
        while gone < self.waiting.len() {
            let rest = self.waiting.get(gone..).unwrap_or_default();
            match send(socket.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => gone += count,
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Err(_) => return self.end(),
            }
        }
        self.waiting.drain(..gone);
    }

    /// Nobody is at the other end: what was for it is for nobody.
    fn end(&mut self) {
        *self = Stream { at: self.at, socket: None, hung: false, waiting: Vec::new() };
    }
}
