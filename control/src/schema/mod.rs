//! The schema: every command, event and type as data, read once from `control/qapi/`.
//!
//! ```text
//! qapi/*.schema -> text -> link -> Schema -> validate    (are these arguments right?)
//!                                         -> introspect  (query-qmp-schema, query-commands)
//!                                         -> help        (-netdev help)
//!                                         -> reference   (docs/reference.md)
//! ```

pub mod compare;
pub mod help;
mod introspect;
mod leftover;
mod link;
pub mod reference;
mod scalar;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod typed;
pub mod types;
mod validate;

pub(crate) use scalar::boolean;
pub(crate) use typed::typed;
pub(crate) use validate::{Dialect, check};

use crate::qmp::error::QmpError;
use crate::qmp::{CommandInfo, CommandTable};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::LazyLock;
use types::{Command, Event, Kind, Object, Type, TypeId};

/// The files, in the order of the reference page.
const FILES: [(&str, &str); 7] = [
    ("net", include_str!("../../qapi/net.schema")),
    ("device", include_str!("../../qapi/device.schema")),
    ("netdevd", include_str!("../../qapi/netdevd.schema")),
    ("qom", include_str!("../../qapi/qom.schema")),
    ("chardev", include_str!("../../qapi/chardev.schema")),
    ("monitor", include_str!("../../qapi/monitor.schema")),
    ("common", include_str!("../../qapi/common.schema")),
];

/// Every command, event and type.
#[derive(Debug, Default)]
pub struct Schema {
    types: Vec<Type>,
    by_name: HashMap<String, TypeId>,
    commands: Vec<Command>,
    command_index: HashMap<&'static str, usize>,
    events: Vec<Event>,
    answers: introspect::Answers,
}

impl Schema {
    /// The one schema, read at the first call.
    ///
    /// # Panics
    /// Never: the text is part of this program and tests read it.
    pub fn get() -> &'static Self {
        static SCHEMA: LazyLock<Schema> =
            LazyLock::new(|| Schema::read(&FILES).expect("the built-in schema is sound"));
        &SCHEMA
    }

    fn read(files: &[(&str, &'static str)]) -> Result<Self, String> {
        let mut definitions = Vec::new();
        for (name, text) in files {
            definitions.extend(text::read(text).map_err(|e| format!("{name}.schema, {e}"))?);
        }
        link::link(&definitions)
    }

    /// All commands, in schema order.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.commands.iter()
    }

    /// All events, in schema order.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }

    /// The type behind an id.
    #[must_use]
    pub fn ty(&self, id: TypeId) -> &Type {
        &self.types[id.0]
    }

    /// The type of that name in the schema's text.
    #[must_use]
    pub fn type_named(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// The command of that name.
    #[must_use]
    pub fn command(&self, name: &str) -> Option<&Command> {
        self.command_index.get(name).map(|i| &self.commands[*i])
    }

    /// The values of an enumeration, in order; none for other types.
    pub fn values(&self, enumeration: &str) -> impl Iterator<Item = &'static str> {
        let values = match self.type_named(enumeration).map(|id| &self.ty(id).kind) {
            Some(Kind::Enum(values)) => values.as_slice(),
            _ => &[],
        };
        values.iter().map(|v| v.name)
    }

    /// What `object-add` can make, in order.
    pub fn object_types(&self) -> impl Iterator<Item = &'static str> {
        self.values("ObjectType")
    }

    /// Checks a value against a named type, as the arguments of a command are checked.
    ///
    /// # Errors
    /// As QEMU's input visitor words them; a `GenericError` that names the type if there is none of that name.
    pub fn check_type(&self, name: &str, value: &Value) -> Result<(), QmpError> {
        let id = self.type_named(name).ok_or_else(|| QmpError::generic(format!("no type '{name}'")))?;
        check(self, id, value, Dialect::Json)
    }

    /// The object that a type is; an empty one for other kinds.
    fn object(&self, id: TypeId) -> &Object {
        static EMPTY: Object = Object { members: Vec::new(), union: None };
        match &self.ty(id).kind {
            Kind::Object(object) => object,
            _ => &EMPTY,
        }
    }
}

impl CommandTable for Schema {
    fn find(&self, name: &str) -> Option<CommandInfo> {
        self.command(name).map(|c| CommandInfo { allow_oob: c.marks.oob })
    }

    fn check(&self, name: &str, args: &Map<String, Value>) -> Result<(), QmpError> {
        match self.command(name) {
            Some(command) if command.marks.open => Ok(()),
            Some(command) => validate::check_map(self, command.args, args, Dialect::Json),
            // The session asks for known commands only.
            None => Ok(()),
        }
    }
}

/// An unsigned number as chardev options take it.
pub(crate) fn unsigned(text: &str) -> Option<u64> {
    scalar::unsigned(text, scalar::Minus::Wrap)
}
