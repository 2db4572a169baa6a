//! One client of a monitor: its stream, its session, and what waits between the two.

use crate::chardev::{ChardevId, Received, Stream};
use crate::qmp::{Event, Session};
use crate::reactor::{Interest, Part, Reactor, Ready, Token};
use nix::errno::Errno;
use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Output that may wait before the client's next command is executed. Too low: replies of a pipelining client leave in
/// many small writes; too high: memory that a client who never reads can hold.
const OUTPUT_PAUSE: usize = 1 << 20;
/// Output that may wait at all; events that push it beyond end the connection.
const OUTPUT_LIMIT: usize = 16 << 20;
/// Bytes already sent that may stay in front of the output buffer.
const SENT_KEEP: usize = 256 << 10;

/// Roles of a connection's descriptors.
const INPUT: u8 = 0;
const OUTPUT: u8 = 1;

/// A client.
pub(super) struct Connection {
    pub(super) chardev: ChardevId,
    pub(super) session: Session,
    /// Descriptors that came with the bytes last fed, as far as no command has taken them.
    pub(super) received: Vec<OwnedFd>,
    /// Commands whose replies come later.
    pub(super) outstanding: usize,
    stream: Stream,
    /// Bytes that came with descriptors while a command was under way: fed when it has ended, so that no command
    /// before them takes these descriptors.
    held: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    /// Bytes of the session's output that are sent.
    sent: usize,
    /// What the input is watched for; for a socket also the output.
    interest: Interest,
    /// Standard output is watched.
    output_watched: bool,
    /// Standard input is not watched, although it could be.
    forgotten: bool,
    /// Standard input cannot be watched, and is always ready.
    always_ready: bool,
    /// The client sends no more.
    ended: bool,
    /// Nothing can be sent or read any more.
    broken: bool,
}

impl Connection {
    pub(super) fn new(chardev: ChardevId, stream: Stream, session: Session) -> Self {
        Self {
            chardev,
            session,
            received: Vec::new(),
            outstanding: 0,
            stream,
            held: VecDeque::new(),
            sent: 0,
            interest: Interest::READ,
            output_watched: false,
            forgotten: false,
            always_ready: false,
            ended: false,
            broken: false,
        }
    }

    /// Begins to watch the input.
    pub(super) fn watch(&mut self, reactor: &Reactor, number: u32) -> nix::Result<()> {
        match reactor.watch(&self.stream, Token::new(Part::Monitor, number, INPUT), Interest::READ) {
            Err(Errno::EPERM) if !self.stream.is_socket() => self.always_ready = true,
            result => result?,
        }
        Ok(())
    }

    /// Handles what happened to one of its descriptors.
    pub(super) fn happened(&mut self, ready: Ready, buffer: &mut [u8], reactor: &Reactor) {
        if ready.write || ready.token.role == OUTPUT {
            // An output in error says so when it is written to.
            self.flush();
        }
        if ready.token.role != INPUT || !(ready.read || ready.hangup) {
            return;
        }
        if self.wants_input() {
            // Whoever has gone has left the rest of its bytes and the end.
            self.read(buffer);
        } else if !ready.hangup {
            self.mute(reactor, ready.token);
        } else if self.stream.is_socket() {
            self.broken = true;
        } else {
            // A pipe whose writer has gone has more to read, later, and would wake us until then.
            reactor.forget(&self.stream);
            self.forgotten = true;
        }
    }

    /// Reads once into `buffer` and feeds the session.
    pub(super) fn read(&mut self, buffer: &mut [u8]) {
        let mut fds = Vec::new();
        match self.stream.receive(buffer, &mut fds) {
            Ok(Received::Bytes(count)) => {
                if self.outstanding > 0 && !fds.is_empty() {
                    self.held.push_back((buffer[..count].to_vec(), fds));
                } else {
                    self.feed(&buffer[..count], fds);
                }
            }
            Ok(Received::Later) => {}
            Ok(Received::End) => self.ended = true,
            Err(_) => self.broken = true,
        }
    }

    fn feed(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) {
        if !fds.is_empty() {
            // What no command took is closed, as QEMU does when the next ones come.
            self.received = fds;
        }
        self.session.feed(bytes);
    }

    /// Feeds what was held back, when nothing is under way any more. True when there was something.
    pub(super) fn feed_held(&mut self) -> bool {
        if self.outstanding > 0 {
            return false;
        }
        match self.held.pop_front() {
            Some((bytes, fds)) => {
                self.feed(&bytes, fds);
                true
            }
            None => false,
        }
    }

    /// True while the client takes its replies fast enough to get more of them.
    pub(super) fn may_execute(&mut self) -> bool {
        !self.broken && self.session.output().len() - self.sent < OUTPUT_PAUSE
    }

    fn wants_input(&mut self) -> bool {
        !self.ended && self.held.is_empty() && self.may_execute() && self.session.wants_input()
    }

    /// Queues an event; a client that reads nothing is cut off.
    pub(super) fn event(&mut self, event: &Event) {
        self.session.event(event);
        if self.session.output().len() - self.sent > OUTPUT_LIMIT {
            tracing::warn!("a monitor's client does not read its events: closed");
            self.broken = true;
        }
    }

    /// Sends what can be sent now.
    pub(super) fn flush(&mut self) {
        let output = self.session.output();
        while self.sent < output.len() && !self.broken {
            match self.stream.send(&output[self.sent..]) {
                Ok(0) => break,
                Ok(count) => self.sent += count,
                Err(_) => self.broken = true,
            }
        }
        if self.sent == output.len() {
            output.clear();
            self.sent = 0;
        } else if self.sent > SENT_KEEP {
            output.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// True when output waits.
    pub(super) fn has_output(&mut self) -> bool {
        !self.broken && !self.session.output().is_empty()
    }

    /// What to wait on for sending more.
    pub(super) fn output(&self) -> BorrowedFd<'_> {
        self.stream.output()
    }

    /// The client cannot be talked to any more.
    pub(super) fn break_off(&mut self) {
        self.broken = true;
    }

    /// True when the connection is over: nothing is left to be sent to a client that sends no more.
    pub(super) fn is_over(&mut self) -> bool {
        self.broken || (self.ended && self.outstanding == 0 && !self.has_output())
    }

    /// True when the input is a file that has more to give.
    pub(super) fn has_ready_file(&mut self) -> bool {
        self.always_ready && self.wants_input()
    }

    /// Watches for what is needed now.
    pub(super) fn rearm(&mut self, reactor: &Reactor, number: u32) {
        let write = self.has_output();
        let read = self.wants_input();
        let input = Token::new(Part::Monitor, number, INPUT);
        if self.stream.is_socket() {
            let needed = Interest { read, write };
            // Reading that is not wanted now stays watched until it would wake us for nothing.
            if needed != self.interest && (write != self.interest.write || read) {
                self.change(reactor, input, needed);
            }
            return;
        }
        if read && self.forgotten {
            self.forgotten = false;
            self.broken |= reactor.watch(&self.stream, input, Interest::READ).is_err();
        } else if read && !self.interest.read && !self.always_ready {
            self.change(reactor, input, Interest::READ);
        }
        let output = Token::new(Part::Monitor, number, OUTPUT);
        if write && !self.output_watched {
            let interest = Interest { read: false, write: true };
            self.output_watched = reactor.watch(self.stream.output(), output, interest).is_ok();
        } else if !write && self.output_watched {
            reactor.forget(self.stream.output());
            self.output_watched = false;
        }
    }

    /// Input is there that is not wanted now: stops watching for it.
    fn mute(&mut self, reactor: &Reactor, input: Token) {
        let quiet = Interest { read: false, ..self.interest };
        self.change(reactor, input, quiet);
    }

    fn change(&mut self, reactor: &Reactor, token: Token, interest: Interest) {
        match reactor.change(&self.stream, token, interest) {
            Ok(()) => self.interest = interest,
            Err(error) => {
                tracing::error!("a monitor's connection cannot be watched: {error}");
                self.broken = true;
            }
        }
    }
}
