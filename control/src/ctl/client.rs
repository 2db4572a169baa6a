//! One QMP connection, from the client's side.

use super::{Address, Failure};
use crate::qmp::json::Parser;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long a greeting may take. QEMU serves one client at a time and lets others wait without a word.
const GREETING: Duration = Duration::from_secs(5);

/// A connection that is past its negotiation.
#[derive(Debug)]
pub struct Client {
    link: Link,
    address: String,
    parser: Parser,
    input: Vec<u8>,
    /// Bytes of `input` that the parser has seen.
    taken: usize,
    oob: bool,
}

#[derive(Debug)]
enum Link {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Link {
    fn reader(&mut self) -> &mut dyn Read {
        match self {
            Self::Unix(stream) => stream,
            Self::Tcp(stream) => stream,
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Unix(stream) => stream,
            Self::Tcp(stream) => stream,
        }
    }

    fn limit_reads(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(limit),
            Self::Tcp(stream) => stream.set_read_timeout(limit),
        }
    }
}

impl Client {
    /// Connects and negotiates; out-of-band commands are enabled where the daemon offers them.
    ///
    /// # Errors
    /// [`Failure::Connection`]: nobody listens, or what listens does not speak QMP.
    pub fn connect(address: &Address) -> Result<Self, Failure> {
        let link = match address {
            Address::Unix(path) => UnixStream::connect(path).map(Link::Unix),
            Address::Tcp(host_and_port) => TcpStream::connect(host_and_port).map(Link::Tcp),
        };
        let hint = "is netdevd running? -s or $NETDEVD_QMP names its socket";
        let link =
            link.map_err(|e| Failure::Connection(format!("cannot connect to {address}: {e} ({hint})")))?;
        let mut client = Self {
            link,
            address: address.to_string(),
            parser: Parser::new(),
            input: Vec::new(),
            taken: 0,
            oob: false,
        };
        client.greet()?;
        Ok(client)
    }

    fn greet(&mut self) -> Result<(), Failure> {
        self.link.limit_reads(Some(GREETING)).map_err(|e| self.lost(&e))?;
        let greeting = self.message()?.unwrap_or_default();
        let Some(offered) = greeting.pointer("/QMP/capabilities").and_then(Value::as_array) else {
            return Err(Failure::Connection(format!("{}: no QMP greeting came", self.address)));
        };
        self.oob = offered.iter().any(|capability| capability == "oob");
        self.link.limit_reads(None).map_err(|e| self.lost(&e))?;
        let enable = if self.oob { json!({"enable": ["oob"]}) } else { json!({}) };
        let negotiate = json!({"execute": "qmp_capabilities", "arguments": enable});
        self.execute(&negotiate.to_string(), None).map(drop)
    }

    /// Sends one command, as JSON text, with an open file if one is given, and waits for the reply. Events that come
    /// before it are dropped.
    ///
    /// # Errors
    /// The daemon's error, or the loss of the connection.
    pub fn execute(&mut self, line: &str, file: Option<BorrowedFd<'_>>) -> Result<Value, Failure> {
        self.send(line.as_bytes(), file)?;
        loop {
            let reply = self.message()?;
            let ended = || Failure::Connection(format!("{}: closed before the reply came", self.address));
            let Value::Object(mut reply) = reply.ok_or_else(ended)? else { continue };
            if let Some(value) = reply.remove("return") {
                return Ok(value);
            }
            if let Some(error) = reply.remove("error") {
                let text = |member: &str| error[member].as_str().unwrap_or("?").to_owned();
                return Err(Failure::Daemon { class: text("class"), desc: text("desc") });
            }
        }
    }

    /// Waits for the next event; `None` when the daemon closes the connection.
    ///
    /// # Errors
    /// The loss of the connection.
    pub fn event(&mut self) -> Result<Option<Value>, Failure> {
        loop {
            match self.message()? {
                Some(message) if message.get("event").is_none() => {}
                found => return Ok(found),
            }
        }
    }

    fn send(&mut self, line: &[u8], file: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
        let mut bytes = line.to_vec();
        bytes.extend_from_slice(b"\r\n");
        let sent = match (&self.link, file) {
            (_, None) => 0,
            (Link::Tcp(_), Some(_)) => {
                return Err(Failure::Usage("--fd needs a UNIX domain socket".to_owned()));
            }
            (Link::Unix(stream), Some(file)) => {
                send_with(stream, &bytes, file).map_err(|e| self.lost(&e.into()))?
            }
        };
        self.link.writer().write_all(&bytes[sent..]).map_err(|e| self.lost(&e))
    }

    /// The next message; `None` at the end.
    fn message(&mut self) -> Result<Option<Value>, Failure> {
        loop {
            match self.parser.next(&self.input, &mut self.taken) {
                Some(Ok(message)) => return Ok(Some(message)),
                Some(Err(error)) => {
                    return Err(Failure::Connection(format!("{} sent no JSON: {error}", self.address)));
                }
                None => {}
            }
            self.input.resize(16 << 10, 0);
            self.taken = 0;
            let count = match self.link.reader().read(&mut self.input) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => {
                    self.input.clear();
                    return Err(self.lost(&error));
                }
                Ok(0) => return Ok(None),
                Ok(count) => count,
            };
            self.input.truncate(count);
        }
    }

    fn lost(&self, error: &io::Error) -> Failure {
        let why = match error.kind() {
            io::ErrorKind::WouldBlock => "no greeting came; does it serve another client?".to_owned(),
            _ => error.to_string(),
        };
        Failure::Connection(format!("{}: {why}", self.address))
    }
}

/// Sends the first bytes together with a file (`SCM_RIGHTS`); how many went.
fn send_with(stream: &UnixStream, bytes: &[u8], file: BorrowedFd<'_>) -> Result<usize, Errno> {
    let files = [file.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&files)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    loop {
        match sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(bytes)], &control, flags, None) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}
