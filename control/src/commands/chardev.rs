//! `chardev-add`, `chardev-remove`, `query-chardev`: the shapes of the commands. What chardevs are is behind
//! [`Chardevs`].

use super::args::Args;
use super::fd::Fds;
use super::pending::Pending;
use super::state::empty;
use super::{Outcome, State};
use crate::apply::binding::OPEN_LIMIT;
use crate::apply::jobs::Product;
use crate::chardev::{Stream, User};
use crate::model::qom::ChardevNode;
use crate::qmp::error::QmpError;
use serde_json::{Map, Value, json};
use std::any::Any;
use std::os::fd::OwnedFd;

/// The part of opening a chardev that may block: runs on a thread of its own, and what it returns goes to
/// [`Chardevs::finish`].
pub type OpenJob = Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>;

/// What `chardev-add` came to.
pub enum Added {
    /// The reply's value.
    Done(Value),
    /// The id is taken; the job must run first.
    Opening(OpenJob),
}

/// A chardev as queries show it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChardevInfo {
    /// Its id.
    pub label: String,
    /// What it is, in QEMU's form (`unix:/p,server=on`).
    pub filename: String,
    /// Whether somebody uses it.
    pub frontend_open: bool,
    /// Its object type, for example `chardev-socket`.
    pub driver: &'static str,
    /// Sockets only: whether the other end is there.
    pub connected: Option<bool>,
    /// Sockets only: the address, as a `SocketAddress`.
    pub addr: Option<Value>,
    /// Whether it connects again by itself.
    pub reconnects: bool,
}

/// The files that `addr.type=fd` may name.
pub struct FdSource<'a> {
    fds: &'a mut Fds,
    monitor: u64,
}

impl<'a> FdSource<'a> {
    /// The files of a monitor.
    pub(super) const fn new(fds: &'a mut Fds, monitor: u64) -> Self {
        Self { fds, monitor }
    }

    /// The file of that name (`getfd`) or number.
    ///
    /// # Errors
    /// QEMU's words.
    pub fn take(&mut self, id: &str, text: &str) -> Result<OwnedFd, QmpError> {
        self.fds.named_or_numbered(self.monitor, id, text).map(|(file, _)| file)
    }
}

/// All chardevs.
pub trait Chardevs {
    /// Gives a chardev its user; where somebody is at the other end already, gives the stream at once.
    ///
    /// # Errors
    /// Unknown, or in use.
    fn claim(&mut self, id: &str, user: User) -> Result<Option<Stream>, QmpError>;

    /// A user's stream has ended: the next client may come.
    fn disconnected(&mut self, id: &str);

    /// Ends a use.
    fn release(&mut self, id: &str);

    /// Ends a use, and leaves the connection for the next user.
    fn give_back(&mut self, id: &str, stream: Stream) {
        drop(stream);
        self.release(id);
    }

    /// `chardev-add`; `backend` has passed the schema.
    ///
    /// # Errors
    /// QEMU's words.
    fn add(&mut self, id: &str, backend: &Value, fds: &mut FdSource<'_>) -> Result<Added, QmpError>;

    /// The job of [`Added::Opening`] ended.
    ///
    /// # Errors
    /// QEMU's words; the id is free again.
    fn finish(&mut self, id: &str, opened: Box<dyn Any + Send>) -> Result<Value, QmpError>;

    /// The job did not end in time; the id is free again.
    fn abandon(&mut self, id: &str);

    /// `chardev-remove`.
    ///
    /// # Errors
    /// QEMU's words: unknown or busy.
    fn remove(&mut self, id: &str) -> Result<(), QmpError>;

    /// All of them.
    fn list(&self) -> Vec<ChardevInfo>;
}

impl State {
    pub(super) fn chardev_add(&mut self, monitor: u64, args: &Map<String, Value>) -> Outcome {
        let id = args.text("id");
        let backend = args.get("backend").unwrap_or(&Value::Null);
        let mut fds = FdSource { fds: &mut self.fds, monitor };
        let job = match self.chardevs.add(id, backend, &mut fds) {
            Ok(Added::Done(value)) => return Ok(value).into(),
            Ok(Added::Opening(job)) => job,
            Err(error) => return Err(error).into(),
        };
        match self.binding.jobs.start(OPEN_LIMIT, move || Product::Chardev(job())) {
            Ok(ticket) => {
                self.pending.insert(ticket, Pending::Chardev(id.to_owned()));
                Outcome::Later(ticket)
            }
            Err(error) => {
                self.chardevs.abandon(id);
                Err(QmpError::generic(format!("chardev '{id}': no thread to open it on: {error}"))).into()
            }
        }
    }

    pub(super) fn chardev_remove(&mut self, args: &Map<String, Value>) -> Result<Value, QmpError> {
        self.chardevs.remove(args.text("id")).map(|()| empty())
    }

    pub(super) fn query_chardev(&self) -> Value {
        let all = self.chardevs.list().into_iter();
        all.map(|c| json!({"frontend-open": c.frontend_open, "label": c.label, "filename": c.filename}))
            .collect()
    }

    /// The chardevs as objects.
    pub(super) fn chardev_nodes(&self) -> Vec<ChardevNode> {
        let node = |c: ChardevInfo| ChardevNode {
            name: c.label,
            driver: c.driver,
            connected: c.connected,
            addr: c.addr,
        };
        self.chardevs.list().into_iter().map(node).collect()
    }
}
