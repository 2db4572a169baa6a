//! Members in the order of the schema: on the wire they come in an order that means nothing.

use crate::schema::Schema;
use crate::schema::types::{Kind, TypeId};
use serde_json::{Map, Value};

/// The reply to `command` with the members of each object as the schema lists them; those that it does not know come
/// last.
pub(super) fn ordered(command: &str, reply: Value) -> Value {
    let schema = Schema::get();
    match schema.command(command) {
        Some(command) => value(schema, command.returns, reply),
        None => reply,
    }
}

fn value(schema: &Schema, id: TypeId, given: Value) -> Value {
    match (&schema.ty(id).kind, given) {
        (Kind::Array(element), Value::Array(list)) => {
            list.into_iter().map(|given| value(schema, *element, given)).collect()
        }
        (Kind::Object(_), Value::Object(mut given)) => {
            let mut sorted = Map::new();
            members(schema, id, &mut given, &mut sorted);
            sorted.append(&mut given);
            Value::Object(sorted)
        }
        (_, given) => given,
    }
}

/// Moves the members that a type has; those that its tag adds follow.
fn members(schema: &Schema, id: TypeId, given: &mut Map<String, Value>, sorted: &mut Map<String, Value>) {
    let Kind::Object(object) = &schema.ty(id).kind else { return };
    for member in &object.members {
        if let Some(given) = given.remove(member.name) {
            sorted.insert(member.name.to_owned(), value(schema, member.ty, given));
        }
    }
    let tag = schema.tag(id).and_then(|tag| sorted.get(tag)).and_then(Value::as_str);
    if let Some(variant) = tag.and_then(|tag| schema.variant_named(id, tag)) {
        members(schema, variant, given, sorted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_come_as_the_schema_lists_them() {
        let reply = json!([{"extra": 1, "hubid": 0, "link": true, "transport": {"info": "", "state": "ready"},
            "filters": [], "type": "hubport", "id": "h0"}]);
        assert_eq!(
            ordered("query-netdev", reply).to_string(),
            r#"[{"id":"h0","type":"hubport","link":true,"transport":{"state":"ready","info":""},"filters":[],"hubid":0,"extra":1}]"#
        );
    }

    #[test]
    fn replies_of_unknown_shape_stay_as_they_are() {
        let reply = json!({"b": 1, "a": 2});
        assert_eq!(ordered("nope", reply.clone()).to_string(), reply.to_string());
        assert_eq!(ordered("qom-get", json!({"b": 1, "a": 2})).to_string(), reply.to_string());
    }
}
