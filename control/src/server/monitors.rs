//! All monitors and their clients.

use super::connection::Connection;
use super::executor::{Answer, Executor, Origin};
use crate::chardev::{ChardevError, Connected, Registry, User};
use crate::qmp::{Event, Session};
use crate::reactor::{Reactor, Ready};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Bytes read at once.
const READ: usize = 64 << 10;

/// A command whose reply comes later.
struct Ticket {
    connection: u32,
    id: Option<Value>,
    oob: bool,
}

/// All monitors and their clients.
pub struct Server {
    reactor: Rc<Reactor>,
    /// Whether each monitor prints indented; the index is its number as a chardev user.
    monitors: Vec<bool>,
    connections: BTreeMap<u32, Connection>,
    next: u32,
    tickets: HashMap<u64, Ticket>,
    buffer: Box<[u8]>,
    events: Vec<Event>,
    /// Connections that an event has shown to be over.
    lost: Vec<u32>,
}

impl Server {
    /// A server without monitors.
    #[must_use]
    pub fn new(reactor: Rc<Reactor>) -> Self {
        Self {
            reactor,
            monitors: Vec::new(),
            connections: BTreeMap::new(),
            next: 0,
            tickets: HashMap::new(),
            buffer: vec![0; READ].into_boxed_slice(),
            events: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// Puts a QMP monitor on the chardev `id`. `pretty` prints indented.
    ///
    /// # Errors
    /// No such chardev, or in use.
    pub fn add_monitor(
        &mut self,
        id: &str,
        pretty: bool,
        registry: &RefCell<Registry>,
        executor: &mut dyn Executor,
    ) -> Result<(), ChardevError> {
        let user = User::Monitor(self.monitors.len() as u64);
        let (_, connected) = registry.borrow_mut().claim(id, user)?;
        self.monitors.push(pretty);
        if let Some(connected) = connected {
            self.connected(connected, registry, executor);
        }
        Ok(())
    }

    /// A client has come: greets it.
    pub fn connected(
        &mut self,
        connected: Connected,
        registry: &RefCell<Registry>,
        executor: &mut dyn Executor,
    ) {
        let Connected { chardev, user: User::Monitor(monitor), stream } = connected else { return };
        let number = self.next;
        self.next += 1;
        let mut session = Session::new(true);
        session.set_pretty(usize::try_from(monitor).is_ok_and(|at| self.monitors.get(at) == Some(&true)));
        session.greet(&executor.version());
        let mut connection = Connection::new(chardev, stream, session);
        if let Err(error) = connection.watch(&self.reactor, number) {
            tracing::error!("a monitor's connection cannot be watched: {error}");
            connection.break_off();
        }
        self.settle(number, connection, registry, executor);
    }

    /// Handles what happened to a connection's descriptor ([`crate::reactor::Part::Monitor`]).
    pub fn ready(&mut self, ready: Ready, registry: &RefCell<Registry>, executor: &mut dyn Executor) {
        let number = ready.token.object;
        let Some(mut connection) = self.connections.remove(&number) else { return };
        connection.happened(ready, &mut self.buffer, &self.reactor);
        self.settle(number, connection, registry, executor);
    }

    /// True when a connection has input that no event will tell of: call [`Self::turn`] soon.
    pub fn needs_turn(&mut self) -> bool {
        self.connections.values_mut().any(Connection::has_ready_file)
    }

    /// Reads the connections that are always ready.
    pub fn turn(&mut self, registry: &RefCell<Registry>, executor: &mut dyn Executor) {
        let ready: Vec<u32> = self
            .connections
            .iter_mut()
            .filter_map(|(&number, one)| one.has_ready_file().then_some(number))
            .collect();
        for number in ready {
            let Some(mut connection) = self.connections.remove(&number) else { continue };
            connection.read(&mut self.buffer);
            self.settle(number, connection, registry, executor);
        }
    }

    /// Takes the replies that were promised for later.
    pub fn completed(&mut self, registry: &RefCell<Registry>, executor: &mut dyn Executor) {
        let mut events = Vec::new();
        let replies = executor.completed(&mut events);
        self.tell(&events);
        for (ticket, result) in replies {
            let Some(Ticket { connection: number, id, oob }) = self.tickets.remove(&ticket) else { continue };
            // The client may have gone meanwhile.
            let Some(mut connection) = self.connections.remove(&number) else { continue };
            connection.outstanding -= 1;
            connection.session.reply(id, result, oob);
            self.settle(number, connection, registry, executor);
        }
    }

    /// Tells every negotiated client.
    pub fn tell(&mut self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        for (&number, connection) in &mut self.connections {
            for event in events {
                connection.event(event);
            }
            connection.flush();
            if connection.is_over() {
                self.lost.push(number);
            } else {
                connection.rearm(&self.reactor, number);
            }
        }
    }

    /// Closes what an event has shown to be over.
    fn reap(&mut self, registry: &RefCell<Registry>, executor: &mut dyn Executor) {
        while let Some(number) = self.lost.pop() {
            if let Some(connection) = self.connections.remove(&number) {
                let last = self.connections.is_empty();
                Self::close(number, connection, last, registry, executor);
            }
        }
    }

    fn close(
        number: u32,
        connection: Connection,
        last: bool,
        registry: &RefCell<Registry>,
        executor: &mut dyn Executor,
    ) {
        let chardev = connection.chardev;
        drop(connection);
        executor.monitor_closed(u64::from(number), last);
        registry.borrow_mut().disconnected(chardev);
    }

    /// At the end: sends what is left, for at most `limit`, and closes every connection.
    pub fn finish(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        loop {
            let mut waiting = Vec::new();
            for connection in self.connections.values_mut() {
                connection.flush();
                if connection.has_output() {
                    waiting.push(PollFd::new(connection.output(), PollFlags::POLLOUT));
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if waiting.is_empty() || left.is_zero() {
                break;
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            if poll(&mut waiting, timeout).is_err_and(|error| error != Errno::EINTR) {
                break;
            }
        }
        self.connections.clear();
    }

    /// Number of clients.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.connections.len()
    }

    /// Executes what there is, sends what came of it, and keeps the connection or ends it.
    fn settle(
        &mut self,
        number: u32,
        mut connection: Connection,
        registry: &RefCell<Registry>,
        executor: &mut dyn Executor,
    ) {
        loop {
            let drained = self.execute(number, &mut connection, executor);
            connection.flush();
            // Sending may have made room for more replies.
            let more = if drained { connection.feed_held() } else { connection.may_execute() };
            if !more {
                break;
            }
        }
        if connection.is_over() {
            let last = self.connections.is_empty();
            Self::close(number, connection, last, registry, executor);
        } else {
            connection.rearm(&self.reactor, number);
            self.connections.insert(number, connection);
        }
        self.reap(registry, executor);
    }

    /// Executes commands until there are none or one is under way (true), or until the client must first read.
    fn execute(&mut self, number: u32, connection: &mut Connection, executor: &mut dyn Executor) -> bool {
        while connection.may_execute() {
            let Some(request) = connection.session.next(executor.table()) else { return true };
            let mut events = std::mem::take(&mut self.events);
            let mut origin = Origin {
                monitor: u64::from(number),
                received: &mut connection.received,
                events: &mut events,
            };
            let answer = executor.execute(&mut origin, &request.command, request.arguments);
            for event in &events {
                connection.event(event);
            }
            self.tell(&events);
            events.clear();
            self.events = events;
            self.answer(number, connection, request.id, answer, request.oob);
        }
        false
    }

    fn answer(
        &mut self,
        number: u32,
        connection: &mut Connection,
        id: Option<Value>,
        answer: Answer,
        oob: bool,
    ) {
        match answer {
            Answer::Now(result) => connection.session.reply(id, result, oob),
            Answer::Later(ticket) => {
                connection.outstanding += 1;
                self.tickets.insert(ticket, Ticket { connection: number, id, oob });
            }
        }
    }
}
