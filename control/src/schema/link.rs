//! Joins definitions by name into a [`Schema`].

use super::Schema;
use super::text::{Definition, Keyword, Part};
use super::types::{Builtin, Command, EnumValue, Event, Kind, Marks, Member, Object, Type, TypeId, Union};
use std::collections::HashMap;

/// Types under construction.
#[derive(Default)]
struct Types {
    all: Vec<Type>,
    by_name: HashMap<String, TypeId>,
}

impl Types {
    fn add(&mut self, name: String, words: String, marks: Marks, kind: Kind) -> Result<TypeId, String> {
        let id = TypeId(self.all.len());
        if self.by_name.insert(name.clone(), id).is_some() {
            return Err(format!("{name} is defined twice"));
        }
        self.all.push(Type { name, words, marks, kind });
        Ok(id)
    }

    /// The type of that name; list types are made as they are met.
    fn find(&mut self, name: &str) -> Result<TypeId, String> {
        if let Some(id) = self.by_name.get(name) {
            return Ok(*id);
        }
        let element = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
        let element = element.ok_or_else(|| format!("no type {name}"))?;
        let element = self.find(element)?;
        self.add(name.to_owned(), String::new(), Marks::default(), Kind::Array(element))
    }

    fn object(&self, name: &str) -> Result<&Object, String> {
        match self.by_name.get(name).map(|id| &self.all[id.0].kind) {
            Some(Kind::Object(object)) => Ok(object),
            _ => Err(format!("{name} is no object")),
        }
    }
}

/// Joins the definitions of all files.
///
/// # Errors
/// Names that are not defined, are defined twice or are of the wrong kind.
pub(super) fn link(definitions: &[Definition]) -> Result<Schema, String> {
    let mut types = Types::default();
    for (name, builtin) in Builtin::ALL {
        types.add(name.to_owned(), String::new(), Marks::default(), Kind::Builtin(builtin))?;
    }
    let empty =
        types.add("empty".to_owned(), String::new(), Marks::default(), Kind::Object(Object::default()))?;
    let mut schema = Schema::default();
    // Names first, so that definitions may stand in any order.
    for d in definitions {
        match d.keyword {
            Keyword::Enum => {
                let kind = Kind::Enum(d.parts.iter().filter_map(enum_value).collect());
                types.add(d.name.to_owned(), d.words.join(" "), d.marks.clone(), kind)?;
            }
            Keyword::Struct | Keyword::Union => {
                let kind = Kind::Object(Object::default());
                types.add(d.name.to_owned(), d.words.join(" "), d.marks.clone(), kind)?;
            }
            Keyword::Command | Keyword::Event => {}
        }
    }
    for d in definitions {
        match d.keyword {
            Keyword::Enum => {}
            Keyword::Struct | Keyword::Union => {
                let object = object(&mut types, d)?;
                let id = types.find(d.name)?;
                types.all[id.0].kind = Kind::Object(object);
            }
            Keyword::Command => {
                let args = match d.args {
                    Some(name) => types.find(name)?,
                    None => implicit(&mut types, d, empty)?,
                };
                let returns = d.returns.map_or(Ok(empty), |name| types.find(name))?;
                let words = d.words.join(" ");
                schema.commands.push(Command { name: d.name, words, args, returns, marks: d.marks.clone() });
            }
            Keyword::Event => {
                let data = implicit(&mut types, d, empty)?;
                schema.events.push(Event {
                    name: d.name,
                    words: d.words.join(" "),
                    data,
                    marks: d.marks.clone(),
                });
            }
        }
    }
    schema.command_index = schema.commands.iter().enumerate().map(|(i, c)| (c.name, i)).collect();
    schema.types = types.all;
    schema.by_name = types.by_name;
    Ok(schema)
}

/// The object type of members written below a command or event.
fn implicit(types: &mut Types, d: &Definition, empty: TypeId) -> Result<TypeId, String> {
    if d.parts.is_empty() {
        return Ok(empty);
    }
    let object = object(types, d)?;
    types.add(format!("{}-members", d.name), String::new(), Marks::default(), Kind::Object(object))
}

fn enum_value(part: &Part) -> Option<EnumValue> {
    match part {
        Part::Value { name, marks, words } => Some(EnumValue { name, words, marks: marks.clone() }),
        _ => None,
    }
}

/// Members and variants of a definition; its base must stand before it.
fn object(types: &mut Types, d: &Definition) -> Result<Object, String> {
    let mut members = match d.base {
        // An empty one has not been read yet.
        Some(name) => match types.object(name)?.members.as_slice() {
            [] => return Err(format!("{name} must stand before {}", d.name)),
            members => members.to_vec(),
        },
        None => Vec::new(),
    };
    let mut cases = Vec::new();
    for part in &d.parts {
        match part {
            Part::Member { name, optional, ty, marks, words } => {
                let ty = types.find(ty)?;
                members.push(Member { name, ty, optional: *optional, words, marks: marks.clone() });
            }
            Part::Case { value, ty } => cases.push((*value, types.find(ty)?)),
            Part::Value { .. } => return Err(format!("{}: a value outside an enum", d.name)),
        }
    }
    let union = d.tag.map(|tag| union(types, d.name, &members, tag, &cases)).transpose()?;
    Ok(Object { members, union })
}

fn union(
    types: &Types,
    name: &str,
    members: &[Member],
    tag: &str,
    cases: &[(&str, TypeId)],
) -> Result<Union, String> {
    let tag = members.iter().position(|m| m.name == tag).ok_or_else(|| format!("{name}: no member {tag}"))?;
    let Kind::Enum(values) = &types.all[members[tag].ty.0].kind else {
        return Err(format!("{name}: the tag is no enum"));
    };
    let mut variants = vec![None; values.len()];
    for (case, ty) in cases {
        let at =
            values.iter().position(|v| v.name == *case).ok_or_else(|| format!("{name}: no value {case}"))?;
        variants[at] = Some(*ty);
    }
    Ok(Union { tag, variants })
}
