//! `announce-self` (QEMU `net/announce.c`): guests are made known to their neighbours.

use super::State;
use super::args::Args;
use super::state::empty;
use crate::announce::Parameters;
use serde_json::{Map, Value};

impl State {
    /// The command: the schema has checked its arguments, and nothing else can be wrong with them.
    pub(super) fn announce_self(&mut self, args: &Map<String, Value>) -> Value {
        let number = |name| args.int(name).unwrap_or_default();
        let names = |list: &Vec<Value>| list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let parameters = Parameters {
            initial: number("initial"),
            max: number("max"),
            rounds: number("rounds"),
            step: number("step"),
            interfaces: args.get("interfaces").and_then(Value::as_array).map(names),
        };
        self.announce(args.text("id"), parameters)
    }

    /// The line of the human monitor: QEMU's times, names with commas between them.
    pub(super) fn announce_self_line(&mut self, interfaces: &str, id: &str) -> Value {
        let names = || interfaces.split(',').map(str::to_owned).collect();
        let interfaces = (!interfaces.is_empty()).then(names);
        self.announce(id, Parameters { interfaces, ..Parameters::default() })
    }

    fn announce(&mut self, id: &str, parameters: Parameters) -> Value {
        let interfaces = parameters.interfaces.clone();
        if self.announcements.start(id, parameters) {
            self.nics.announce_all(interfaces.as_deref(), &self.binding);
        }
        empty()
    }

    /// Handles the timer of [`crate::reactor::Part::Announce`].
    pub fn announcements_due(&mut self) {
        for interfaces in self.announcements.due() {
            self.nics.announce_all(interfaces.as_deref(), &self.binding);
        }
    }
}
