//! A QMP client that hides nothing from the test.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Map, Value, json};

use crate::wait;

/// An error reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `error.class`.
    pub class: String,
    /// `error.desc`.
    pub desc: String,
}

/// One monitor connection.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    unread: Vec<u8>,
    greeting: Value,
    events: VecDeque<Value>,
    next_id: u64,
}

impl Qmp {
    /// Connects, waiting up to `limit` for the socket to exist, and reads the greeting.
    ///
    /// # Errors
    /// The last error of `connect`, or that of reading the greeting.
    pub fn connect(path: &Path, limit: Duration) -> io::Result<Self> {
        let mut last = io::Error::from(ErrorKind::TimedOut);
        let stream = wait::until(limit, || UnixStream::connect(path).map_err(|error| last = error).ok());
        let Some(stream) = stream else { return Err(last) };
        stream.set_write_timeout(Some(wait::PATIENCE))?;
        let mut client =
            Self { stream, unread: Vec::new(), greeting: Value::Null, events: VecDeque::new(), next_id: 0 };
        client.greeting = client.receive(limit.max(wait::PATIENCE))?;
        Ok(client)
    }

    /// The greeting.
    #[must_use]
    pub fn greeting(&self) -> &Value {
        &self.greeting
    }

    /// Leaves negotiation mode.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn negotiate(&mut self) {
        self.ok("qmp_capabilities", json!({}));
    }

    /// The underlying socket.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// Those of `write`, a timeout among them.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Writes bytes with file descriptors attached to the first of them.
    ///
    /// # Errors
    /// Those of `sendmsg`.
    pub fn send_with(&mut self, bytes: &[u8], files: &[BorrowedFd]) -> io::Result<()> {
        let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let rights = if files.is_empty() { &rights[..0] } else { &rights[..] };
        let sent =
            sendmsg::<()>(self.stream.as_raw_fd(), &[IoSlice::new(bytes)], rights, MsgFlags::empty(), None)?;
        self.stream.write_all(&bytes[sent..])
    }

    /// One line as it came, without its line end.
    ///
    /// # Errors
    /// `UnexpectedEof` when the server closed, `TimedOut` when nothing came, `InvalidData` when a line does not end
    /// with CR LF.
    pub fn line(&mut self, limit: Duration) -> io::Result<Vec<u8>> {
        let end = Instant::now() + limit;
        let mut seen = 0;
        loop {
            if let Some(at) = self.unread[seen..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.unread.drain(..=seen + at).collect();
                line.pop();
                if line.pop() != Some(b'\r') {
                    return Err(io::Error::new(ErrorKind::InvalidData, "a line without CR LF"));
                }
                return Ok(line);
            }
            seen = self.unread.len();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next message, whatever it is.
    ///
    /// # Errors
    /// As [`line`](Self::line); `InvalidData` for a line that is no JSON.
    pub fn receive(&mut self, limit: Duration) -> io::Result<Value> {
        let line = self.line(limit)?;
        serde_json::from_slice(&line).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }

    /// The next message that is no event; events on the way are kept.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn reply(&mut self, limit: Duration) -> io::Result<Value> {
        let end = Instant::now() + limit;
        loop {
            let message = self.receive(end.saturating_duration_since(Instant::now()))?;
            if message.get("event").is_some() {
                self.events.push_back(message);
            } else if message.get("QMP").is_none() {
                // The reference greets twice when a client comes while it still starts.
                return Ok(message);
            }
        }
    }

    /// Sends a command with an id of its own and returns the whole reply, which must carry that id.
    ///
    /// # Errors
    /// As [`receive`](Self::receive); `InvalidData` for a reply with another id.
    pub fn roundtrip(&mut self, command: &str, arguments: &Value, files: &[BorrowedFd]) -> io::Result<Value> {
        self.next_id += 1;
        let id = Value::from(format!("t{}", self.next_id));
        let mut request = Map::from_iter([("execute".to_string(), Value::from(command))]);
        if !arguments.is_null() {
            request.insert("arguments".into(), arguments.clone());
        }
        request.insert("id".into(), id.clone());
        self.send_with(Value::Object(request).to_string().as_bytes(), files)?;
        let mut reply = self.reply(wait::PATIENCE)?;
        if reply.as_object_mut().and_then(|reply| reply.shift_remove("id")) == Some(id) {
            Ok(reply)
        } else {
            Err(io::Error::new(ErrorKind::InvalidData, format!("a reply without our id: {reply}")))
        }
    }

    /// Runs a command.
    ///
    /// # Errors
    /// The error reply.
    ///
    /// # Panics
    /// When no well-formed reply comes.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Failure> {
        self.execute_with(command, arguments, &[])
    }

    /// Runs a command with file descriptors.
    ///
    /// # Errors
    /// The error reply.
    ///
    /// # Panics
    /// When no well-formed reply comes.
    #[expect(clippy::needless_pass_by_value, reason = "callers write json!(..) in place")]
    pub fn execute_with(
        &mut self,
        command: &str,
        arguments: Value,
        files: &[BorrowedFd],
    ) -> Result<Value, Failure> {
        let reply = self.roundtrip(command, &arguments, files);
        let reply = reply.unwrap_or_else(|error| panic!("no reply to {command} {arguments}: {error}"));
        if let Some(value) = reply.get("return") {
            return Ok(value.clone());
        }
        let text =
            |key| reply["error"][key].as_str().unwrap_or_else(|| panic!("strange reply: {reply}")).into();
        Err(Failure { class: text("class"), desc: text("desc") })
    }

    /// Runs a command that must succeed.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&mut self, command: &str, arguments: Value) -> Value {
        let shown = format!("{command} {arguments}");
        self.execute(command, arguments).unwrap_or_else(|failure| panic!("{shown}: {failure:?}"))
    }

    /// Runs a command that must fail, and returns its error text.
    ///
    /// # Panics
    /// When it succeeds.
    pub fn refused(&mut self, command: &str, arguments: Value) -> String {
        let shown = format!("{command} {arguments}");
        match self.execute(command, arguments) {
            Ok(value) => panic!("{shown} should fail, but returned {value}"),
            Err(failure) => failure.desc,
        }
    }

    /// Events that came with earlier replies.
    pub fn take_events(&mut self) -> Vec<Value> {
        self.events.drain(..).collect()
    }

    /// The next event of this name, old or new; others before it are dropped.
    ///
    /// # Errors
    /// As [`receive`](Self::receive); `InvalidData` when a reply comes instead.
    pub fn event(&mut self, name: &str, limit: Duration) -> io::Result<Value> {
        let end = Instant::now() + limit;
        loop {
            let next = self.events.pop_front();
            let next = match next {
                Some(event) => event,
                None => self.receive(end.saturating_duration_since(Instant::now()))?,
            };
            match next.get("event") {
                Some(event) if event == name => return Ok(next),
                Some(_) => {}
                None => {
                    return Err(io::Error::new(ErrorKind::InvalidData, format!("a reply, no event: {next}")));
                }
            }
        }
    }
}
