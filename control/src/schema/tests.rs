//! The schema against recorded answers of QEMU 10.0: argument errors word for word, introspection by structure.

use super::compare::compare;
use super::types::{Builtin, Kind, TypeId};
use super::*;
use crate::qmp::json::Parser;
use serde_json::json;

/// Reads JSON lines with the QMP parser, so that numbers are what a session would see.
fn lines(text: &str) -> Vec<Value> {
    let mut parser = Parser::new();
    let mut at = 0;
    std::iter::from_fn(|| parser.next(text.as_bytes(), &mut at)).map(Result::unwrap).collect()
}

/// A recording: the file that `$variable` names, or the one kept here.
fn recording(variable: &str, kept: &str) -> String {
    std::env::var(variable).map_or_else(|_| kept.to_owned(), |path| std::fs::read_to_string(path).unwrap())
}

#[test]
fn arguments_are_refused_in_qemus_order_and_words() {
    let text = recording("NETDEVD_VALIDATION", include_str!("testdata/validation.jsonl"));
    let cases = lines(&text);
    assert!(cases.len() >= 400);
    let mut wrong = Vec::new();
    for case in &cases {
        let command = case["command"].as_str().unwrap();
        let args = case["arguments"].as_object().unwrap();
        let desc = Schema::get().check(command, args).err().map(|e| e.desc);
        if desc.as_deref() != case["desc"].as_str() {
            wrong
                .push(format!("{command} {}\n  QEMU: {}\n  ours: {desc:?}", case["arguments"], case["desc"]));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}

#[test]
fn introspection_agrees_with_qemu_where_both_have_something() {
    let text = recording("NETDEVD_SCHEMA", include_str!("testdata/schema.json"));
    let reference = lines(&text).remove(0);
    let differences = compare(&reference, Schema::get().introspect());
    let (extra, wrong): (Vec<_>, Vec<_>) = differences.into_iter().partition(|d| d.extra);
    assert_eq!(wrong, []);
    // What only we have, each known and marked in the schema.
    let extra: Vec<_> = extra.iter().map(|d| d.at.as_str()).collect();
    for at in &extra {
        let known = at.contains(".keep-alive-")
            || ["netdev_add.link", "netdev_add(type=hubport).hub-backlog", "netdev_add(type=nic).queues"]
                .contains(at)
            || *at == "netdev_add(type=nic).link-down"
            || ["netdev_add.type.af-xdp", "netdev_add.type.passt"].contains(at)
            || ["query-netdev", "query-net-stats", "query-net-stats-reset", "qom-list-get"].contains(at)
            || ["netdev_add.type.switchport", "query-switch", "query-filter", "query-colo-compare"]
                .contains(at)
            || *at == "netdev_add.type.vxlan"
            || ["object-add.qom-type.filter-match", "object-add(qom-type=filter-dump).filter"].contains(at)
            || *at == "object-add.qom-type.filter-limit"
            || ["file", "pace"].iter().any(|p| *at == format!("object-add(qom-type=filter-replay).{p}"))
            || ["netdev-user-forward-add", "netdev-user-forward-remove", "query-netdev-user"].contains(at)
            || *at == "NETDEV_USER_RESTARTED"
            || ["nic-set-netdev", "NIC_STOPPED"].contains(at);
        assert!(known, "only ours: {at}");
    }
    assert!(extra.contains(&"netdev_add.link"));
}

#[test]
fn every_type_named_in_introspection_has_an_entry() {
    let all = Schema::get().introspect().as_array().unwrap();
    let names: std::collections::HashSet<_> = all.iter().map(|e| e["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), all.len());
    let mentioned = |value: &Value| -> Vec<String> {
        let mut found = Vec::new();
        for key in ["arg-type", "ret-type", "element-type"] {
            found.extend(value[key].as_str().map(str::to_owned));
        }
        for list in ["members", "variants"] {
            found.extend(
                value[list]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|m| Some(m["type"].as_str()?.to_owned())),
            );
        }
        found
    };
    for name in all.iter().flat_map(mentioned) {
        assert!(names.contains(name.as_str()), "{name}");
    }
}

#[test]
fn introspection_answers_follow_their_own_schema() {
    let schema = Schema::get();
    for entry in schema.introspect().as_array().unwrap() {
        schema.check_type("SchemaInfo", entry).unwrap();
    }
    assert_eq!(schema.query_commands().as_array().unwrap().len(), schema.commands().count());
    assert_eq!(serde_json::from_str::<Value>(schema.introspect_text()).unwrap(), *schema.introspect());
}

#[test]
fn every_definition_has_words() {
    let schema = Schema::get();
    for command in schema.commands() {
        assert!(!command.words.is_empty(), "{}", command.name);
    }
    for event in schema.events() {
        assert!(!event.words.is_empty(), "{}", event.name);
    }
    for ty in &schema.types {
        if let Kind::Object(object) = &ty.kind {
            for member in &object.members {
                assert!(member.words.ends_with(['.', ']']), "{}.{}", ty.name, member.name);
            }
        }
    }
}

#[test]
fn drop_reasons_are_those_of_the_engine() {
    use engine::port::counters::DropReason;
    let schema = Schema::get();
    let drops = schema.object(schema.type_named("NetStatsDrops").unwrap());
    let ours: Vec<_> = drops.members.iter().map(|m| (m.name, m.words)).collect();
    let engine: Vec<_> = DropReason::ALL.iter().map(|r| (r.name(), r.sentence())).collect();
    assert_eq!(ours, engine);
}

#[test]
fn unsound_schemas_are_refused_with_the_reason() {
    for (text, reason) in [
        ("struct A\n  x: Nothing  Words.", "no type Nothing"),
        ("struct A\nstruct A", "A is defined twice"),
        ("struct A : B", "B is no object"),
        ("struct A : B\nstruct B\n  x: str", "B must stand before A"),
        ("gibberish A", "line 1: gibberish A"),
        ("enum E\n  a\nunion U on t\n  t: E\n  case b: String\nstruct String\n  str: str", "U: no value b"),
        ("union U on t\n  x: str", "U: no member t"),
    ] {
        let error = Schema::read(&[("test", text)]).unwrap_err();
        assert!(error.ends_with(reason), "{error}");
    }
}

#[test]
fn help_lists_netdev_types_in_qemus_order() {
    let text = Schema::get().netdev_help();
    let lines: Vec<_> =
        text.lines().filter(|l| !["netmap", "af-xdp", "passt", "switchport", "vxlan"].contains(l)).collect();
    let qemu = "Available netdev backend types:|socket|stream|dgram|hubport|tap|user|l2tpv3|vde|bridge|vhost-user|vhost-vdpa";
    assert_eq!(lines.join("|"), qemu);
    let tap = Schema::get().type_help("Netdev", "tap").unwrap();
    assert!(tap.contains("sndbuf=<size>") && tap.contains("(default INT_MAX)"), "{tap}");
    assert_eq!(Schema::get().type_help("Netdev", "bogus"), None);
}

/// A value of a type with every member set, for the given variant where the outermost type is a union.
pub(crate) fn sample(schema: &Schema, id: TypeId, variant: &str) -> Value {
    match &schema.ty(id).kind {
        Kind::Builtin(Builtin::Bool) => json!(true),
        Kind::Builtin(Builtin::Null) => Value::Null,
        Kind::Builtin(Builtin::Uint(64) | Builtin::Size) => json!(u64::MAX),
        Kind::Builtin(b) if b.is_integer() => json!(7),
        Kind::Builtin(_) => json!("text"),
        Kind::Enum(values) => json!(values[values.len() - 1].name),
        Kind::Array(element) => json!([sample(schema, *element, "")]),
        Kind::Object(object) => {
            let mut map: Map<String, Value> =
                object.members.iter().map(|m| (m.name.to_owned(), sample(schema, m.ty, ""))).collect();
            if let Some(tag) = schema.tag(id) {
                if !variant.is_empty() {
                    map.insert(tag.to_owned(), variant.into());
                }
                let value = map[tag].as_str().unwrap().to_owned();
                if let Some(Value::Object(more)) =
                    schema.variant_named(id, &value).map(|v| sample(schema, v, ""))
                {
                    map.extend(more);
                }
            }
            Value::Object(map)
        }
    }
}
