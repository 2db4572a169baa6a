//! The commands, as the monitors call them.

use crate::commands::{Context, Outcome, State, version};
use crate::qmp::{CommandTable, Event, QmpError};
use crate::schema::Schema;
use crate::server::{Answer, Executor, Origin};
use serde_json::{Map, Value};

/// The control state behind the monitors.
pub(super) struct Commands(pub(super) State);

impl Executor for Commands {
    fn table(&self) -> &dyn CommandTable {
        Schema::get()
    }

    fn version(&self) -> Value {
        version()
    }

    fn execute(&mut self, origin: &mut Origin<'_>, command: &str, arguments: Map<String, Value>) -> Answer {
        let mut cx =
            Context { monitor: origin.monitor, received: &mut *origin.received, events: &mut *origin.events };
        match self.0.execute(&mut cx, command, arguments) {
            Outcome::Done(result) => Answer::Now(result),
            Outcome::Later(ticket) => Answer::Later(ticket.0),
        }
    }

    fn completed(&mut self, events: &mut Vec<Event>) -> Vec<(u64, Result<Value, QmpError>)> {
        self.0.completed(events).into_iter().map(|(ticket, result)| (ticket.0, result)).collect()
    }

    fn monitor_closed(&mut self, monitor: u64, last: bool) {
        self.0.monitor_closed(monitor, last);
    }
}
