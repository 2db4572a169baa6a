//! Argument checking in QEMU's order and words (its QObject input visitor, keyval visitor and options visitor).
//!
//! Members are checked in schema order: present, of the right JSON type, in range; then those of the union's variant;
//! then whether any member is left over. Nested objects go through all of it before the next member is looked at.

use super::Schema;
use super::leftover;
use super::scalar::{self, Minus};
use super::types::{Builtin, EnumValue, Kind, Object, TypeId};
use crate::qmp::error::QmpError;
use serde_json::{Map, Value};

/// Where values come from: it decides what a scalar looks like, and the words of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// JSON, every scalar in its own type.
    Json,
    /// Dotted keys on a command line; every scalar is a string.
    Keyval,
    /// Flat options on a command line; every scalar is a string.
    Options,
}

/// Checks a value against a type.
///
/// # Errors
/// The first fault.
pub(crate) fn check(schema: &Schema, id: TypeId, value: &Value, dialect: Dialect) -> Result<(), QmpError> {
    Walk { schema, dialect }.value(id, value, &Path::Root)
}

/// Checks an object's members against a type.
///
/// # Errors
/// The first fault.
pub(crate) fn check_map(
    schema: &Schema,
    id: TypeId,
    map: &Map<String, Value>,
    dialect: Dialect,
) -> Result<(), QmpError> {
    Walk { schema, dialect }.map(schema.object(id), map, &Path::Root)
}

/// Where in the arguments the walk is; a chain on the stack, put into words only for an error.
enum Path<'a> {
    Root,
    Member(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// `addr.host`, `hostfwd[1].str`; with dotted keys `hostfwd.1.str`.
    fn words(&self, dialect: Dialect) -> String {
        match self {
            Path::Root => "<anonymous>".to_owned(),
            Path::Member(Path::Root, name) => (*name).to_owned(),
            // Flat options know no nesting.
            Path::Member(_, name) if dialect == Dialect::Options => (*name).to_owned(),
            Path::Member(parent, name) => format!("{}.{name}", parent.words(dialect)),
            Path::Index(parent, at) if dialect == Dialect::Json => format!("{}[{at}]", parent.words(dialect)),
            Path::Index(parent, at) => format!("{}.{at}", parent.words(dialect)),
        }
    }

    /// The last name alone. Range and enumeration errors know no more; elements of a list have none.
    fn name(&self) -> &str {
        match self {
            Path::Member(_, name) => name,
            Path::Root | Path::Index(..) => "null",
        }
    }
}

/// One walk over a value and its type.
pub(super) struct Walk<'s> {
    pub(super) schema: &'s Schema,
    pub(super) dialect: Dialect,
}

impl<'s> Walk<'s> {
    fn value(&self, id: TypeId, value: &Value, path: &Path<'_>) -> Result<(), QmpError> {
        match &self.schema.ty(id).kind {
            Kind::Builtin(builtin) => match self.dialect {
                Dialect::Json => self.json(*builtin, value, path),
                Dialect::Keyval | Dialect::Options => self.text(*builtin, value, path),
            },
            Kind::Enum(values) => self.enumeration(values, value, path),
            Kind::Array(element) => {
                let list = value.as_array().ok_or_else(|| self.mismatch(path, "array"))?;
                list.iter()
                    .enumerate()
                    .try_for_each(|(at, v)| self.value(*element, v, &Path::Index(path, at)))
            }
            Kind::Object(object) => {
                let map = value.as_object().ok_or_else(|| self.mismatch(path, "object"))?;
                self.map(object, map, path)
            }
        }
    }

    fn map(&self, object: &'s Object, map: &Map<String, Value>, path: &Path<'_>) -> Result<(), QmpError> {
        let mut known = 0;
        self.members(object, map, path, &mut known)?;
        if known == map.len() {
            return Ok(());
        }
        let mut names = Vec::new();
        self.names(object, map, &mut names);
        let left = leftover::first(map, &names);
        Err(QmpError::generic(match self.dialect {
            Dialect::Options => format!("Invalid parameter '{left}'"),
            _ => format!("Parameter '{}' is unexpected", Path::Member(path, left).words(self.dialect)),
        }))
    }

    /// Checks members and variant; adds to `known` how many of the map's members that were.
    fn members(
        &self,
        object: &'s Object,
        map: &Map<String, Value>,
        path: &Path<'_>,
        known: &mut usize,
    ) -> Result<(), QmpError> {
        for member in &object.members {
            let path = Path::Member(path, member.name);
            match lookup(map, member.name) {
                Some(value) => {
                    self.value(member.ty, value, &path)?;
                    *known += 1;
                }
                None if member.optional => {}
                None => {
                    return Err(QmpError::generic(format!(
                        "Parameter '{}' is missing",
                        path.words(self.dialect)
                    )));
                }
            }
        }
        match self.variant(object, map) {
            Some(variant) => self.members(variant, map, path, known),
            None => Ok(()),
        }
    }

    /// The object that adds members for the tag's value in `map`.
    pub(super) fn variant(&self, object: &Object, map: &Map<String, Value>) -> Option<&'s Object> {
        let union = object.union.as_ref()?;
        let tag = &object.members[union.tag];
        let value = lookup(map, tag.name)?.as_str()?;
        let Kind::Enum(values) = &self.schema.ty(tag.ty).kind else { return None };
        let at = values.iter().position(|v| v.name == value)?;
        union.variants[at].map(|id| self.schema.object(id))
    }

    /// Names of the members that are known and present, in the order of checking.
    fn names(&self, object: &'s Object, map: &Map<String, Value>, names: &mut Vec<&'static str>) {
        names.extend(object.members.iter().map(|m| m.name).filter(|name| map.contains_key(*name)));
        if let Some(variant) = self.variant(object, map) {
            self.names(variant, map, names);
        }
    }

    fn json(&self, builtin: Builtin, value: &Value, path: &Path<'_>) -> Result<(), QmpError> {
        let (fits, expected) = match builtin {
            Builtin::Any => (true, ""),
            Builtin::Str => (value.is_string(), "string"),
            Builtin::Bool => (value.is_boolean(), "boolean"),
            Builtin::Number => (value.is_number(), "number"),
            Builtin::Null => (value.is_null(), "null"),
            Builtin::Int(bits) => match value.as_i64() {
                Some(value) => return range_signed(bits, value, path),
                None => (false, "integer"),
            },
            Builtin::Uint(_) | Builtin::Size => {
                // A negative number counts down from 2^64, as it always did in QEMU.
                let wrapped = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
                return match (wrapped, builtin) {
                    (Some(value), Builtin::Uint(bits)) => range_unsigned(bits, value, path),
                    (Some(_), _) => Ok(()),
                    (None, _) => Err(self.expects(path, "uint64")),
                };
            }
        };
        if fits { Ok(()) } else { Err(self.mismatch(path, expected)) }
    }

    fn text(&self, builtin: Builtin, value: &Value, path: &Path<'_>) -> Result<(), QmpError> {
        if builtin == Builtin::Any {
            return Ok(());
        }
        let text = value.as_str().ok_or_else(|| self.no_string(path))?;
        let flat = self.dialect == Dialect::Options;
        let fits = match builtin {
            Builtin::Any | Builtin::Str => true,
            Builtin::Bool => scalar::boolean(text).is_some(),
            Builtin::Number => text.parse::<f64>().is_ok(),
            Builtin::Null => text.is_empty(),
            Builtin::Size => scalar::size(text).is_some(),
            Builtin::Int(bits) => match scalar::signed(text) {
                Some(value) => return range_signed(bits, value, path),
                None => false,
            },
            Builtin::Uint(bits) => {
                match scalar::unsigned(text, if flat { Minus::Refuse } else { Minus::Wrap }) {
                    Some(value) => return range_unsigned(bits, value, path),
                    None => false,
                }
            }
        };
        let expected = match (builtin, flat) {
            _ if fits => return Ok(()),
            (Builtin::Bool, _) => "'on' or 'off'",
            (Builtin::Int(_), true) => "an int64 value",
            (Builtin::Uint(_), true) => "a uint64 value",
            (Builtin::Size, true) => "a size value",
            (Builtin::Number, true) => "a number",
            (Builtin::Int(_) | Builtin::Uint(_), false) => "integer",
            (Builtin::Size, false) => "size",
            (Builtin::Number, false) => "number",
            (Builtin::Null | Builtin::Str | Builtin::Any, _) => "null",
        };
        Err(self.expects(path, expected))
    }

    fn enumeration(&self, values: &[EnumValue], value: &Value, path: &Path<'_>) -> Result<(), QmpError> {
        let text = value.as_str().ok_or_else(|| self.no_string(path))?;
        if values.iter().any(|v| v.name == text) {
            return Ok(());
        }
        Err(QmpError::generic(format!("Parameter '{}' does not accept value '{text}'", path.name())))
    }

    fn mismatch(&self, path: &Path<'_>, expected: &str) -> QmpError {
        let path = path.words(self.dialect);
        QmpError::generic(format!("Invalid parameter type for '{path}', expected: {expected}"))
    }

    /// With dotted keys, only further keys can stand where a string should be.
    fn no_string(&self, path: &Path<'_>) -> QmpError {
        if self.dialect == Dialect::Json {
            return self.mismatch(path, "string");
        }
        QmpError::generic(format!("Parameters '{}.*' are unexpected", path.words(self.dialect)))
    }

    fn expects(&self, path: &Path<'_>, expected: &str) -> QmpError {
        QmpError::generic(format!("Parameter '{}' expects {expected}", path.words(self.dialect)))
    }
}

fn range_signed(bits: u32, value: i64, path: &Path<'_>) -> Result<(), QmpError> {
    let spare = 64 - bits;
    if value << spare >> spare == value {
        return Ok(());
    }
    Err(QmpError::generic(format!("Parameter '{}' expects int{bits}_t", path.name())))
}

fn range_unsigned(bits: u32, value: u64, path: &Path<'_>) -> Result<(), QmpError> {
    if value <= u64::MAX >> (64 - bits) {
        return Ok(());
    }
    Err(QmpError::generic(format!("Parameter '{}' expects uint{bits}_t", path.name())))
}

/// A member by name. Most objects are so small that comparing is quicker than hashing.
fn lookup<'m>(map: &'m Map<String, Value>, name: &str) -> Option<&'m Value> {
    if map.len() <= 8 {
        map.iter().find(|(key, _)| key.as_str() == name).map(|(_, v)| v)
    } else {
        map.get(name)
    }
}
