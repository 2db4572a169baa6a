//! Structural comparison of `query-qmp-schema`: type names are opaque numbers, so types are compared by what they hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

/// A schema by entity name.
#[derive(Debug)]
pub struct Schema<'a> {
    entities: HashMap<&'a str, &'a Value>,
}

impl<'a> Schema<'a> {
    /// Indexes a reply of `query-qmp-schema`.
    #[must_use]
    pub fn new(reply: &'a Value) -> Self {
        let entities = reply.as_array().into_iter().flatten();
        Self { entities: entities.filter_map(|entity| Some((entity["name"].as_str()?, entity))).collect() }
    }

    /// Names of all commands or events.
    #[must_use]
    pub fn names(&self, meta: &str) -> BTreeSet<&'a str> {
        let wanted = self.entities.iter().filter(|(_, entity)| entity["meta-type"] == meta);
        wanted.map(|(name, _)| *name).collect()
    }

    /// Every type that is named but not there.
    #[must_use]
    pub fn dangling(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for entity in self.entities.values() {
            collect_references(entity, &mut |name| {
                if !self.entities.contains_key(name) {
                    missing.push(name.to_string());
                }
            });
        }
        missing
    }
}

fn collect_references(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                match value {
                    Value::String(name)
                        if ["type", "arg-type", "ret-type", "element-type"].contains(&key.as_str()) =>
                    {
                        found(name);
                    }
                    _ => collect_references(value, found),
                }
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| collect_references(element, found)),
        _ => {}
    }
}

/// Compares what two schemas say of one command or event.
#[derive(Debug)]
pub struct Comparison<'a> {
    theirs: &'a Schema<'a>,
    ours: &'a Schema<'a>,
    seen: BTreeSet<(String, String)>,
    /// `path: what differs`.
    pub found: Vec<String>,
}

impl<'a> Comparison<'a> {
    /// Nothing compared yet.
    #[must_use]
    pub fn new(theirs: &'a Schema<'a>, ours: &'a Schema<'a>) -> Self {
        Self { theirs, ours, seen: BTreeSet::new(), found: Vec::new() }
    }

    /// Compares the entity of this name, known to both, and every type it reaches.
    pub fn entity(&mut self, name: &str) {
        let (theirs, ours) = (self.theirs.entities[name], self.ours.entities[name]);
        for key in ["meta-type", "allow-oob", "features", "success-response"] {
            self.same(name, key, &theirs[key], &ours[key]);
        }
        self.reference(name, &theirs["arg-type"], &ours["arg-type"]);
        self.reference(&format!("{name}=>"), &theirs["ret-type"], &ours["ret-type"]);
    }

    fn same(&mut self, path: &str, key: &str, theirs: &Value, ours: &Value) {
        if theirs != ours {
            self.found.push(format!("{path}: {key} is {theirs} in the reference, {ours} in ours"));
        }
    }

    fn reference(&mut self, path: &str, theirs: &Value, ours: &Value) {
        let (Some(their_name), Some(our_name)) = (theirs.as_str(), ours.as_str()) else {
            self.same(path, "type", theirs, ours);
            return;
        };
        if !self.seen.insert((their_name.into(), our_name.into())) {
            return;
        }
        let find = |schema: &Schema<'a>, name: &str| schema.entities.get(name).copied();
        let (Some(theirs), Some(ours)) = (find(self.theirs, their_name), find(self.ours, our_name)) else {
            self.found.push(format!("{path}: a type is missing from its own schema"));
            return;
        };
        self.same(path, "meta-type", &theirs["meta-type"], &ours["meta-type"]);
        for key in ["json-type", "tag"] {
            self.same(path, key, &theirs[key], &ours[key]);
        }
        self.reference(&format!("{path}[]"), &theirs["element-type"], &ours["element-type"]);
        self.parts(path, &theirs["values"], &ours["values"], "value", |_| Value::Null);
        if theirs["meta-type"] == "alternate" {
            self.alternatives(path, theirs, ours);
        } else {
            self.parts(path, &theirs["members"], &ours["members"], "name", |part| part["type"].clone());
            self.parts(path, &theirs["variants"], &ours["variants"], "case", |part| part["type"].clone());
        }
    }

    /// Alternates have no names: their types are compared in order.
    fn alternatives(&mut self, path: &str, theirs: &Value, ours: &Value) {
        let list = |value: &Value| value["members"].as_array().cloned().unwrap_or_default();
        let (theirs, ours) = (list(theirs), list(ours));
        if theirs.len() != ours.len() {
            self.found.push(format!(
                "{path}: {} alternatives in the reference, {} in ours",
                theirs.len(),
                ours.len()
            ));
        }
        for (theirs, ours) in theirs.iter().zip(&ours) {
            self.reference(&format!("{path}|"), &theirs["type"], &ours["type"]);
        }
    }

    /// Lists of named parts: members of an object, cases of a union, values of an enumeration.
    fn parts(&mut self, path: &str, theirs: &Value, ours: &Value, key: &str, type_of: fn(&Value) -> Value) {
        let theirs = by_name(theirs, key);
        let ours = by_name(ours, key);
        for (name, their_part) in &theirs {
            let path = format!("{path}.{name}");
            let Some(our_part) = ours.get(name) else {
                self.found.push(format!("{path}: only in the reference"));
                continue;
            };
            for key in ["default", "features"] {
                let present = |part: &Value| part.get(key).cloned().map_or("absent".into(), |value| value);
                self.same(&path, key, &present(their_part), &present(our_part));
            }
            self.reference(&path, &type_of(their_part), &type_of(our_part));
        }
        for name in ours.keys().filter(|name| !theirs.contains_key(*name)) {
            self.found.push(format!("{path}.{name}: only in ours"));
        }
    }
}

fn by_name(list: &Value, key: &str) -> BTreeMap<String, Value> {
    let named = |part: &Value| match part {
        Value::String(name) => Some((name.clone(), Value::Null)),
        _ => Some((part[key].as_str()?.to_string(), part.clone())),
    };
    list.as_array().into_iter().flatten().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::{Comparison, Schema};
    use serde_json::json;

    #[test]
    fn type_names_do_not_count_but_what_they_hold_does() {
        let schema = |name: &str, member: &str| {
            json!([
                {"name": "go", "meta-type": "command", "arg-type": name, "ret-type": name},
                {"name": name, "meta-type": "object", "members": [{"name": member, "type": "str"}]},
                {"name": "str", "meta-type": "builtin", "json-type": "string"},
            ])
        };
        let (first, second, third) = (schema("1", "a"), schema("7", "a"), schema("1", "b"));
        let (first, second, third) = (Schema::new(&first), Schema::new(&second), Schema::new(&third));
        let found = |ours| {
            let mut comparison = Comparison::new(&first, ours);
            comparison.entity("go");
            comparison.found
        };
        assert_eq!(found(&second), Vec::<String>::new());
        assert_eq!(found(&third), ["go.a: only in the reference", "go.b: only in ours"]);
        assert_eq!(first.dangling(), Vec::<String>::new());
    }
}
