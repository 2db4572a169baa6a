//! Compares two answers to `query-qmp-schema` by structure: for every command, event, member and value that both
//! have, and whatever the reference has in a type that both have.
//!
//! Type names are numbers without meaning, so types are compared where they are used.

use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where: `netdev_add(type=tap).queues`.
    pub at: String,
    /// What differs, in words.
    pub what: String,
    /// Ours has something that the reference lacks; everything else is a contradiction or a gap.
    pub extra: bool,
}

/// Compares `ours` with `reference`. Commands, events and enumeration values that only one has, and variants for
/// values that only one has, are not looked into; those that only ours has are reported as extra.
#[must_use]
pub fn compare(reference: &Value, ours: &Value) -> Vec<Difference> {
    let mut walk =
        Walk { reference: index(reference), ours: index(ours), seen: HashSet::new(), found: Vec::new() };
    for entry in ours.as_array().into_iter().flatten() {
        let name = text(entry, "name");
        if !matches!(text(entry, "meta-type"), "command" | "event") {
            continue;
        }
        match walk.reference.get(name).copied() {
            Some(other) => walk.top(name, other, entry),
            None => walk.extra(name, "only ours"),
        }
    }
    walk.found
}

fn index(schema: &Value) -> HashMap<&str, &Value> {
    schema.as_array().into_iter().flatten().map(|entry| (text(entry, "name"), entry)).collect()
}

fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value[member].as_str().unwrap_or_default()
}

fn list<'v>(value: &'v Value, member: &str) -> &'v [Value] {
    value[member].as_array().map_or(&[], Vec::as_slice)
}

struct Walk<'v> {
    reference: HashMap<&'v str, &'v Value>,
    ours: HashMap<&'v str, &'v Value>,
    /// Pairs of types compared, since types may contain themselves.
    seen: HashSet<(&'v str, &'v str)>,
    found: Vec<Difference>,
}

impl<'v> Walk<'v> {
    fn differ(&mut self, at: &str, what: String) {
        self.found.push(Difference { at: at.to_owned(), what, extra: false });
    }

    fn extra(&mut self, at: &str, what: &str) {
        self.found.push(Difference { at: at.to_owned(), what: what.to_owned(), extra: true });
    }

    /// Whether a member of two entries is equal, reported if not.
    fn same(&mut self, at: &str, member: &str, reference: &Value, ours: &Value) {
        if reference.get(member) != ours.get(member) {
            self.differ(at, format!("{member}: {:?}, ours {:?}", reference.get(member), ours.get(member)));
        }
    }

    fn top(&mut self, name: &'v str, reference: &'v Value, ours: &'v Value) {
        for member in ["meta-type", "allow-oob", "features"] {
            self.same(name, member, reference, ours);
        }
        self.types(name, text(reference, "arg-type"), text(ours, "arg-type"));
        if text(ours, "meta-type") == "command" {
            self.types(&format!("{name} answer"), text(reference, "ret-type"), text(ours, "ret-type"));
        }
    }

    fn types(&mut self, at: &str, reference: &'v str, ours: &'v str) {
        if !self.seen.insert((reference, ours)) {
            return;
        }
        let (Some(reference), Some(ours)) =
            (self.reference.get(reference).copied(), self.ours.get(ours).copied())
        else {
            self.differ(at, format!("no entry for type {reference} or ours {ours}"));
            return;
        };
        for member in ["meta-type", "json-type", "features", "tag"] {
            self.same(at, member, reference, ours);
        }
        if text(ours, "meta-type") == "builtin" {
            self.same(at, "name", reference, ours);
        }
        if let (Some(theirs), Some(ours)) =
            (reference["element-type"].as_str(), ours["element-type"].as_str())
        {
            self.types(&format!("{at}[]"), theirs, ours);
        }
        self.members(at, reference, ours);
        self.variants(at, reference, ours);
    }

    fn members(&mut self, at: &str, reference: &'v Value, ours: &'v Value) {
        let values = text(ours, "meta-type") == "enum";
        for member in list(reference, "members") {
            let name = text(member, "name");
            let found = list(ours, "members").iter().find(|m| text(m, "name") == name);
            match found {
                Some(own) => {
                    let at = format!("{at}.{name}");
                    self.same(&at, "default", member, own);
                    self.same(&at, "features", member, own);
                    if !values {
                        self.types(&at, text(member, "type"), text(own, "type"));
                    }
                }
                // Values of enumerations are compared where both have them.
                None if values => {}
                None => self.differ(&format!("{at}.{name}"), "missing".to_owned()),
            }
        }
        for own in list(ours, "members") {
            let name = text(own, "name");
            if !list(reference, "members").iter().any(|m| text(m, "name") == name) {
                self.extra(
                    &format!("{at}.{name}"),
                    if values { "only our value" } else { "only our member" },
                );
            }
        }
    }

    fn variants(&mut self, at: &str, reference: &'v Value, ours: &'v Value) {
        for variant in list(reference, "variants") {
            let case = text(variant, "case");
            if let Some(own) = list(ours, "variants").iter().find(|v| text(v, "case") == case) {
                self.types(
                    &format!("{at}({}={case})", text(ours, "tag")),
                    text(variant, "type"),
                    text(own, "type"),
                );
            }
        }
    }
}
