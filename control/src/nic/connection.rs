//! The socket of one VMM, or of a back-end.

use crate::chardev::{Received, Stream};
use crate::reactor::{Interest, Reactor, Token};
use engine::vhost::{Message, ProtocolError, Reader, Reply};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

/// Reads for one message, so that a VMM that sends it byte by byte leaves time for others.
const BUDGET: usize = 64;
/// Replies that may wait for a VMM that does not read.
const WAITING: usize = 64;

/// A vhost-user socket: reads messages, sends replies (to a back-end: requests), never blocks.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    reader: Reader,
    replies: VecDeque<Reply>,
    /// Bytes of the first reply that are sent.
    sent: usize,
    watches_output: bool,
    token: Token,
}

/// What reading came to.
#[derive(Debug)]
pub(crate) enum Read {
    /// A whole message.
    Message(Message),
    /// Nothing more now.
    Later,
    /// The VMM has gone.
    End,
    /// It does not speak the protocol.
    Bad(ProtocolError),
}

impl Connection {
    /// `reader` says whose messages come.
    pub(crate) fn new(stream: Stream, reader: Reader, token: Token, reactor: &Reactor) -> nix::Result<Self> {
        reactor.watch(&stream, token, Interest::READ)?;
        Ok(Self { stream, reader, replies: VecDeque::new(), sent: 0, watches_output: false, token })
    }

    /// The next message, reading as much as it needs and no more: files belong to the message that they came with.
    pub(crate) fn read(&mut self) -> Read {
        let mut buffer = [0; 4096];
        for _ in 0..BUDGET {
            match self.reader.next() {
                Some(Ok(message)) => return Read::Message(message),
                Some(Err(error)) => return Read::Bad(error),
                None => {}
            }
            let want = self.reader.want().clamp(1, buffer.len());
            let mut fds: Vec<OwnedFd> = Vec::new();
            match self.stream.receive(&mut buffer[..want], &mut fds) {
                Ok(Received::Bytes(count)) => self.reader.feed(&buffer[..count], fds),
                Ok(Received::Later) => return Read::Later,
                Ok(Received::End) | Err(_) => return Read::End,
            }
        }
        Read::Later
    }

    /// Sends a reply, now or when there is room. False: the VMM does not read its replies.
    pub(crate) fn reply(&mut self, reply: Reply, reactor: &Reactor) -> bool {
        self.replies.push_back(reply);
        self.flush(reactor) && self.replies.len() <= WAITING
    }

    /// Whether something waits to be sent.
    pub(crate) fn waits(&self) -> bool {
        !self.replies.is_empty()
    }

    /// Sends what waits. False: the connection is broken.
    pub(crate) fn flush(&mut self, reactor: &Reactor) -> bool {
        while let Some(reply) = self.replies.front() {
            let fd = reply.fd.as_ref().filter(|_| self.sent == 0);
            let Some(rest) = reply.bytes.get(self.sent..) else { return false };
            match self.stream.send_with(rest, fd) {
                Ok(0) if !rest.is_empty() => break,
                Ok(count) => self.sent += count,
                Err(_) => return false,
            }
            if self.sent >= reply.bytes.len() {
                self.replies.pop_front();
                self.sent = 0;
            }
        }
        let waits = !self.replies.is_empty();
        if waits != self.watches_output {
            self.watches_output = waits;
            return reactor.change(&self.stream, self.token, Interest { read: true, write: waits }).is_ok();
        }
        true
    }
}
