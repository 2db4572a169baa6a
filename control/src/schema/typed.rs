//! From the strings of a command line to JSON values, once they are checked.

use super::Schema;
use super::scalar::{self, Minus};
use super::types::{Builtin, Kind, Object, TypeId};
use super::validate::{Dialect, Walk};
use serde_json::{Map, Value};

/// Turns the strings of a checked command line into JSON values of the type's kind.
pub(crate) fn typed(schema: &Schema, id: TypeId, value: Value, dialect: Dialect) -> Value {
    let walk = Walk { schema, dialect };
    walk.typed(id, value)
}

impl Walk<'_> {
    fn typed(&self, id: TypeId, value: Value) -> Value {
        match (&self.schema.ty(id).kind, value) {
            (Kind::Builtin(builtin), Value::String(text)) => self.scalar(*builtin, text),
            (Kind::Array(element), Value::Array(list)) => {
                list.into_iter().map(|v| self.typed(*element, v)).collect()
            }
            (Kind::Object(object), Value::Object(mut map)) => {
                self.typed_members(object, &mut map);
                Value::Object(map)
            }
            (_, value) => value,
        }
    }

    fn typed_members(&self, object: &Object, map: &mut Map<String, Value>) {
        for member in &object.members {
            if let Some(value) = map.get_mut(member.name) {
                *value = self.typed(member.ty, value.take());
            }
        }
        if let Some(variant) = self.variant(object, map) {
            self.typed_members(variant, map);
        }
    }

    fn scalar(&self, builtin: Builtin, text: String) -> Value {
        let minus = if self.dialect == Dialect::Options { Minus::Refuse } else { Minus::Wrap };
        match builtin {
            Builtin::Bool => scalar::boolean(&text).map(Value::from),
            Builtin::Int(_) => scalar::signed(&text).map(Value::from),
            Builtin::Uint(_) => scalar::unsigned(&text, minus).map(Value::from),
            Builtin::Size => scalar::size(&text).map(Value::from),
            Builtin::Number => text.parse::<f64>().ok().map(Value::from),
            Builtin::Null => Some(Value::Null),
            Builtin::Any => serde_json::from_str(&text).ok(),
            Builtin::Str => None,
        }
        .unwrap_or(Value::String(text))
    }
}
