//! What the monitors need of the commands.

use crate::qmp::{CommandTable, Event, QmpError};
use serde_json::{Map, Value};
use std::os::fd::OwnedFd;

/// Where a command comes from and where its by-products go.
pub struct Origin<'a> {
    /// The connection's number; never used twice.
    pub monitor: u64,
    /// Descriptors that came with the command's bytes.
    pub received: &'a mut Vec<OwnedFd>,
    /// Events that the command causes, told before its reply.
    pub events: &'a mut Vec<Event>,
}

/// The answer to a command.
#[derive(Debug)]
pub enum Answer {
    /// The reply.
    Now(Result<Value, QmpError>),
    /// The reply comes from [`Executor::completed`] under this number.
    Later(u64),
}

/// The commands.
pub trait Executor {
    /// Which commands there are, and what their arguments must be.
    fn table(&self) -> &dyn CommandTable;

    /// What the greeting shows.
    fn version(&self) -> Value;

    /// Executes a command whose arguments the table has checked.
    fn execute(&mut self, origin: &mut Origin<'_>, command: &str, arguments: Map<String, Value>) -> Answer;

    /// The replies to commands that were answered [`Answer::Later`].
    fn completed(&mut self, events: &mut Vec<Event>) -> Vec<(u64, Result<Value, QmpError>)>;

    /// The connection has ended; `last`: no other client is left.
    fn monitor_closed(&mut self, monitor: u64, last: bool);
}
