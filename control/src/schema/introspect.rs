//! `query-qmp-schema` and `query-commands`, made once from the schema.
//!
//! As in QEMU: commands and events first, in schema order, then the types that they reach, breadth first. Types are
//! named by numbers without meaning, lists by their element's name in brackets, all integers are `int`.

use super::Schema;
use super::types::{Builtin, Kind, Marks, Object, TypeId};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::OnceLock;

/// Answers that never change: as values, and as JSON text for those who only pass them on.
#[derive(Debug)]
struct Answer {
    value: Value,
    text: String,
}

impl Answer {
    fn new(value: Value) -> Self {
        Self { text: value.to_string(), value }
    }
}

/// Caches of the answers.
#[derive(Debug, Default)]
pub(super) struct Answers {
    schema: OnceLock<Answer>,
    commands: OnceLock<Answer>,
}

impl Schema {
    /// The answer to `query-qmp-schema`.
    #[must_use]
    pub fn introspect(&self) -> &Value {
        &self.schema_answer().value
    }

    /// The same as compact JSON text.
    #[must_use]
    pub fn introspect_text(&self) -> &str {
        &self.schema_answer().text
    }

    /// The answer to `query-commands`.
    #[must_use]
    pub fn query_commands(&self) -> &Value {
        &self.commands_answer().value
    }

    /// The same as compact JSON text.
    #[must_use]
    pub fn query_commands_text(&self) -> &str {
        &self.commands_answer().text
    }

    fn schema_answer(&self) -> &Answer {
        self.answers.schema.get_or_init(|| Answer::new(Value::Array(Introspection::new(self).run())))
    }

    fn commands_answer(&self) -> &Answer {
        let list = || self.commands().map(|c| json!({"name": c.name})).collect();
        self.answers.commands.get_or_init(|| Answer::new(list()))
    }
}

struct Introspection<'s> {
    schema: &'s Schema,
    names: HashMap<TypeId, String>,
    /// Types that have a name and no entry yet.
    waiting: VecDeque<TypeId>,
    /// Numbers given so far.
    numbered: usize,
}

impl<'s> Introspection<'s> {
    fn new(schema: &'s Schema) -> Self {
        Self { schema, names: HashMap::new(), waiting: VecDeque::new(), numbered: 0 }
    }

    fn run(mut self) -> Vec<Value> {
        let mut all = Vec::new();
        for c in self.schema.commands() {
            let mut entry = entry(c.name, "command", &c.marks);
            entry.insert("arg-type".to_owned(), self.name(c.args).into());
            entry.insert("ret-type".to_owned(), self.name(c.returns).into());
            if c.marks.oob {
                entry.insert("allow-oob".to_owned(), true.into());
            }
            all.push(Value::Object(entry));
        }
        for e in self.schema.events() {
            let mut entry = entry(e.name, "event", &e.marks);
            entry.insert("arg-type".to_owned(), self.name(e.data).into());
            all.push(Value::Object(entry));
        }
        while let Some(id) = self.waiting.pop_front() {
            all.push(self.ty(id));
        }
        all
    }

    /// The type's name on the wire; the first mention queues its entry.
    fn name(&mut self, id: TypeId) -> String {
        let id = self.plain(id);
        if let Some(name) = self.names.get(&id) {
            return name.clone();
        }
        let name = match &self.schema.ty(id).kind {
            Kind::Builtin(_) => self.schema.ty(id).name.clone(),
            Kind::Array(element) => format!("[{}]", self.name(*element)),
            Kind::Enum(_) | Kind::Object(_) => {
                self.numbered += 1;
                (self.numbered - 1).to_string()
            }
        };
        self.names.insert(id, name.clone());
        self.waiting.push_back(id);
        name
    }

    /// Integers of all widths are plain integers on the wire, and so are lists of them.
    fn plain(&self, id: TypeId) -> TypeId {
        let integer = |id: TypeId| matches!(self.schema.ty(id).kind, Kind::Builtin(b) if b.is_integer());
        match self.schema.ty(id).kind {
            Kind::Builtin(_) if integer(id) => self.schema.type_named("int").unwrap_or(id),
            // The schema holds the list of `int` wherever it holds a list of another integer; else the name differs.
            Kind::Array(element) if integer(element) => self.schema.type_named("[int]").unwrap_or(id),
            _ => id,
        }
    }

    fn ty(&mut self, id: TypeId) -> Value {
        let ty = self.schema.ty(id);
        let name = self.name(id);
        let mut out;
        match &ty.kind {
            Kind::Builtin(builtin) => {
                out = entry(&name, "builtin", &ty.marks);
                out.insert("json-type".to_owned(), json_type(*builtin).into());
            }
            Kind::Array(element) => {
                out = entry(&name, "array", &ty.marks);
                out.insert("element-type".to_owned(), self.name(*element).into());
            }
            Kind::Enum(values) => {
                out = entry(&name, "enum", &ty.marks);
                let members =
                    values.iter().map(|v| with_features(json!({"name": v.name}), &v.marks)).collect();
                out.insert("members".to_owned(), members);
                out.insert("values".to_owned(), values.iter().map(|v| Value::from(v.name)).collect());
            }
            Kind::Object(object) => {
                out = entry(&name, "object", &ty.marks);
                self.object(object, &mut out);
            }
        }
        Value::Object(out)
    }

    fn object(&mut self, object: &'s Object, out: &mut Map<String, Value>) {
        let mut members = Vec::new();
        for m in &object.members {
            let mut member = json!({"name": m.name, "type": self.name(m.ty)});
            if m.optional {
                member["default"] = Value::Null;
            }
            members.push(with_features(member, &m.marks));
        }
        out.insert("members".to_owned(), members.into());
        let Some(union) = &object.union else { return };
        let tag = &object.members[union.tag];
        out.insert("tag".to_owned(), tag.name.into());
        let Kind::Enum(values) = &self.schema.ty(tag.ty).kind else { return };
        let mut variants = Vec::new();
        for (value, variant) in values.iter().zip(&union.variants) {
            let ty = variant.or_else(|| self.schema.type_named("empty")).map(|id| self.name(id));
            variants.push(json!({"case": value.name, "type": ty}));
        }
        out.insert("variants".to_owned(), variants.into());
    }
}

fn entry(name: &str, meta: &str, marks: &Marks) -> Map<String, Value> {
    let entry = with_features(json!({"name": name, "meta-type": meta}), marks);
    match entry {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn with_features(mut value: Value, marks: &Marks) -> Value {
    if !marks.features.is_empty() {
        value["features"] = marks.features.clone().into();
    }
    value
}

fn json_type(builtin: Builtin) -> &'static str {
    match builtin {
        Builtin::Str => "string",
        Builtin::Bool => "boolean",
        Builtin::Number => "number",
        Builtin::Null => "null",
        Builtin::Any => "value",
        Builtin::Int(_) | Builtin::Uint(_) | Builtin::Size => "int",
    }
}
