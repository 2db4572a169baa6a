//! The state machine.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use super::check::Admission;
use crate::qmp::emit::Writer;
use crate::qmp::json::{ParseError, Parser};
use crate::qmp::{Event, QmpError};

/// Most in-band messages that wait behind the one in execution (`QMP_REQ_QUEUE_LEN_MAX`).
pub(super) const QUEUE: usize = 8;

/// Room that a drained input or output buffer keeps; a larger one is given back.
pub(super) const KEEP: usize = 64 << 10;

/// A command that passed every check.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Its name, known to the table.
    pub command: String,
    /// Its arguments, as the table checked them.
    pub arguments: Map<String, Value>,
    /// What the reply must echo.
    pub id: Option<Value>,
    /// It came by `exec-oob`, and may run beside an in-band one.
    pub oob: bool,
}

/// What the session must know of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandInfo {
    /// `exec-oob` may name it.
    pub allow_oob: bool,
}

/// The commands that exist.
pub trait CommandTable {
    /// What is known of a command; `None` if there is none of that name.
    fn find(&self, name: &str) -> Option<CommandInfo>;

    /// Checks the arguments of a command, in QEMU's order.
    ///
    /// # Errors
    /// The first thing wrong with them, in QEMU's words.
    fn check(&self, name: &str, args: &Map<String, Value>) -> Result<(), QmpError>;
}

/// The state of one monitor connection. A new connection gets a new session.
#[derive(Debug)]
pub struct Session {
    /// The transport can do `oob`.
    pub(super) oob_offered: bool,
    /// The client enabled `oob`.
    pub(super) oob: bool,
    /// `qmp_capabilities` succeeded.
    pub(super) negotiated: bool,
    pretty: bool,
    parser: Parser,
    /// Bytes that wait for the queue, from `taken` on.
    pub(super) input: Vec<u8>,
    taken: usize,
    /// In-band messages and parse errors, in order of arrival.
    queue: VecDeque<Result<Value, ParseError>>,
    /// An `exec-oob` message that was just parsed.
    urgent: Option<Value>,
    /// An in-band request is being executed.
    busy: bool,
    output: Vec<u8>,
}

impl Session {
    /// A session that has read nothing. `oob_offered`: the greeting lists `oob`, as QEMU does for
    /// sockets and stdio.
    #[must_use]
    pub fn new(oob_offered: bool) -> Self {
        Self {
            oob_offered,
            oob: false,
            negotiated: false,
            pretty: false,
            parser: Parser::new(),
            input: Vec::new(),
            taken: 0,
            queue: VecDeque::new(),
            urgent: None,
            busy: false,
            output: Vec::new(),
        }
    }

    /// Prints indented, a line an element (`-mon pretty=on`).
    pub fn set_pretty(&mut self, pretty: bool) {
        self.pretty = pretty;
    }

    /// Queues the greeting. `version` is what `query-version` returns.
    pub fn greet(&mut self, version: &Value) {
        let capabilities: &[&str] = if self.oob_offered { &["oob"] } else { &[] };
        let mut writer = Writer::new(&mut self.output, self.pretty);
        writer.open(b'{');
        writer.key("QMP");
        writer.open(b'{');
        writer.member("version", version);
        writer.member("capabilities", &capabilities.into());
        writer.close(b'}');
        writer.close(b'}');
        writer.end();
    }

    /// Takes bytes from the client. Ask [`Session::wants_input`] first: without room they are only
    /// kept, so a client that never waits would grow the buffer.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.taken < self.input.len() {
            self.input.drain(..self.taken);
            self.taken = 0;
            self.input.extend_from_slice(bytes);
        } else {
            let taken = self.parse(bytes);
            self.input.extend_from_slice(&bytes[taken..]);
        }
    }

    /// The next request to execute; each must be answered by [`Session::reply`].
    ///
    /// Everything that needs no execution (negotiation, parse errors, unknown commands, bad
    /// arguments) is answered inside. `None`: nothing is there, or an in-band request is unanswered.
    /// The caller stops asking while the client does not read its output.
    pub fn next(&mut self, table: &dyn CommandTable) -> Option<Request> {
        loop {
            self.parse_input();
            let (message, oob) = match self.urgent.take() {
                Some(message) => (Ok(message), true),
                None if self.busy => return None,
                None => (self.queue.pop_front()?, false),
            };
            let admission = match message {
                Ok(message) => self.admit(message, table),
                Err(error) => Admission::Answer(None, Err(QmpError::generic(error.to_string()))),
            };
            match admission {
                Admission::Run(request) => {
                    self.busy |= !oob;
                    return Some(request);
                }
                Admission::Answer(id, result) => self.write(id.as_ref(), &result),
            }
        }
    }

    /// Answers a request: `id` and `oob` as it had them.
    #[allow(clippy::needless_pass_by_value)] // the request's own parts come back, used up
    pub fn reply(&mut self, id: Option<Value>, result: Result<Value, QmpError>, oob: bool) {
        self.busy &= oob;
        self.write(id.as_ref(), &result);
    }

    /// Tells an event; before negotiation it is dropped.
    pub fn event(&mut self, event: &Event) {
        if self.negotiated {
            event.write(&mut self.output, self.pretty);
        }
    }

    /// The bytes to write to the client; the writer drains what it wrote.
    pub fn output(&mut self) -> &mut Vec<u8> {
        if self.output.is_empty() {
            self.output.shrink_to(KEEP);
        }
        &mut self.output
    }

    /// Whether more bytes may be read from the client: all that came is parsed, and one more
    /// message has room. Ask after [`Session::next`] gave `None`.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.taken == self.input.len() && self.has_room()
    }

    /// Whether the client has finished `qmp_capabilities`.
    #[must_use]
    pub fn is_negotiated(&self) -> bool {
        self.negotiated
    }

    /// One more message may be parsed.
    fn has_room(&self) -> bool {
        self.urgent.is_none()
            && if self.oob { self.queue.len() < QUEUE } else { self.queue.is_empty() && !self.busy }
    }

    /// Parses what waits, as far as there is room.
    fn parse_input(&mut self) {
        if self.taken == self.input.len() {
            return;
        }
        let mut input = std::mem::take(&mut self.input);
        self.taken += self.parse(&input[self.taken..]);
        if self.taken == input.len() {
            self.taken = 0;
            input.clear();
            input.shrink_to(KEEP);
        }
        self.input = input;
    }

    /// Parses messages while there is room; tells how many bytes it used.
    fn parse(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while self.has_room() {
            match self.parser.next(bytes, &mut taken) {
                None => break,
                // Out of band only in form: whether it may be so is checked with the rest.
                Some(Ok(Value::Object(map)))
                    if map.contains_key("exec-oob") && !map.contains_key("execute") =>
                {
                    self.urgent = Some(Value::Object(map));
                }
                Some(message) => self.queue.push_back(message),
            }
        }
        taken
    }

    /// Prints a reply, in QEMU's order of members.
    fn write(&mut self, id: Option<&Value>, result: &Result<Value, QmpError>) {
        let mut writer = Writer::new(&mut self.output, self.pretty);
        writer.open(b'{');
        match result {
            Ok(value) => {
                writer.member("return", value);
                if let Some(id) = id {
                    writer.member("id", id);
                }
            }
            Err(error) => {
                if let Some(id) = id {
                    writer.member("id", id);
                }
                writer.key("error");
                writer.open(b'{');
                writer.key("class");
                writer.string(error.class.name());
                writer.key("desc");
                writer.string(&error.desc);
                writer.close(b'}');
            }
        }
        writer.close(b'}');
        writer.end();
    }
}
