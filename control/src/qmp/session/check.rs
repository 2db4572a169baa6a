//! From a message to a request: the checks of QEMU's dispatcher, in its order (QEMU
//! `qapi/qmp-dispatch.c`, `monitor/qmp-cmds-control.c`).

use serde_json::{Map, Value};

use super::{CommandInfo, CommandTable, Request, Session};
use crate::qmp::{ErrorClass, QmpError, order};

/// The only command before negotiation, and the only one that the session itself executes.
const NEGOTIATE: &str = "qmp_capabilities";

/// What becomes of a message.
pub(super) enum Admission {
    /// It is a request to execute.
    Run(Request),
    /// It is answered at once.
    Answer(Option<Value>, Result<Value, QmpError>),
}

impl Session {
    /// Checks a message, and executes it if it is `qmp_capabilities`.
    pub(super) fn admit(&mut self, message: Value, table: &dyn CommandTable) -> Admission {
        let Value::Object(map) = message else {
            return Admission::Answer(None, Err(QmpError::generic("QMP input must be a JSON object")));
        };
        let checked = check_members(&map, self.oob);
        let request = take_apart(map);
        match checked.and_then(|()| self.check_command(&request, table)) {
            Err(error) => Admission::Answer(request.id, Err(error)),
            Ok(()) if request.command == NEGOTIATE => {
                let result = self.negotiate(&request.arguments);
                Admission::Answer(request.id, result)
            }
            Ok(()) => Admission::Run(request),
        }
    }

    /// Whether the command exists, may come this way, and has the right arguments.
    fn check_command(&self, request: &Request, table: &dyn CommandTable) -> Result<(), QmpError> {
        let name = &request.command;
        let not_found = |desc| QmpError { class: ErrorClass::CommandNotFound, desc };
        let info = match name.as_str() {
            NEGOTIATE => CommandInfo { allow_oob: false },
            _ if !self.negotiated => {
                return Err(not_found(format!("Expecting capabilities negotiation with '{NEGOTIATE}'")));
            }
            _ => {
                table.find(name).ok_or_else(|| not_found(format!("The command {name} has not been found")))?
            }
        };
        if request.oob && !info.allow_oob {
            return Err(QmpError::generic(format!("The command {name} does not support OOB")));
        }
        table.check(name, &request.arguments)
    }

    /// `qmp_capabilities`, its arguments checked.
    fn negotiate(&mut self, arguments: &Map<String, Value>) -> Result<Value, QmpError> {
        if self.negotiated {
            let desc = "Capabilities negotiation is already complete, command ignored".into();
            return Err(QmpError { class: ErrorClass::CommandNotFound, desc });
        }
        let enable = arguments.get("enable").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let wanted: Vec<&str> = enable.iter().filter_map(Value::as_str).collect();
        if !wanted.is_empty() && !self.oob_offered {
            return Err(QmpError::generic(format!("Capability {} not available", wanted.join(", "))));
        }
        self.oob = wanted.contains(&"oob");
        self.negotiated = true;
        Ok(Value::Object(Map::new()))
    }
}

/// The outermost members of a message. Which of several errors is told depends on QEMU's order.
fn check_members(map: &Map<String, Value>, allow_oob: bool) -> Result<(), QmpError> {
    let mut command = None;
    for (name, value) in order::members(map) {
        match name {
            "id" => {}
            "execute" | "exec-oob" if name == "execute" || allow_oob => {
                if !value.is_string() {
                    return Err(QmpError::generic(format!("QMP input member '{name}' must be a string")));
                }
                if let Some(other) = command.replace(name) {
                    let desc = format!("QMP input member '{name}' clashes with '{other}'");
                    return Err(QmpError::generic(desc));
                }
            }
            "arguments" if value.is_object() => {}
            "arguments" => {
                return Err(QmpError::generic("QMP input member 'arguments' must be an object"));
            }
            _ => return Err(QmpError::generic(format!("QMP input member '{name}' is unexpected"))),
        }
    }
    match command {
        Some(_) => Ok(()),
        None => Err(QmpError::generic("QMP input lacks member 'execute'")),
    }
}

/// Moves the members out of a message, right or wrong.
fn take_apart(map: Map<String, Value>) -> Request {
    let mut request = Request { command: String::new(), arguments: Map::new(), id: None, oob: false };
    for (name, value) in map {
        match (name.as_str(), value) {
            ("id", id) => request.id = Some(id),
            ("arguments", Value::Object(arguments)) => request.arguments = arguments,
            ("execute", Value::String(command)) => request.command = command,
            ("exec-oob", Value::String(command)) => {
                request.command = command;
                request.oob = true;
            }
            _ => {}
        }
    }
    request
}
