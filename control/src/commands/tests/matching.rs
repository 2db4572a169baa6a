//! Filters with an expression, which QEMU does not have: the texts are ours.

use super::super::Outcome;
use super::Client;
use serde_json::{Value, json};

fn filter(kind: &str, more: Value) -> Value {
    let mut args = json!({"qom-type": kind, "id": "f", "netdev": "h1"});
    args.as_object_mut().unwrap().append(&mut more.as_object().cloned().unwrap());
    args
}

fn matching(more: Value) -> Value {
    filter("filter-match", more)
}

fn get(c: &mut Client, property: &str) -> Value {
    c.ok("qom-get", json!({"path": "f", "property": property}))
}

/// `qom-set`, to its end.
fn set(c: &mut Client, property: &str, value: Value) -> Result<Value, String> {
    let args = json!({"path": "f", "property": property, "value": value});
    let result = match c.send("qom-set", &args) {
        Outcome::Later(ticket) => c.wait(ticket),
        Outcome::Done(result) => result,
    };
    result.map_err(|error| error.desc)
}

#[test]
fn a_match_needs_what_its_action_needs() {
    let mut c = Client::new();
    c.port("h1", 1);
    for (more, desc) in [
        (json!({"match": "udp", "action": "dump"}), "Parameter 'file' is missing"),
        (json!({"match": "udp", "action": "drop", "file": "/f"}), "'file' goes with action=dump only"),
        (json!({"match": "udp", "action": "pass", "maxlen": 9}), "'maxlen' goes with action=dump only"),
        (
            json!({"match": "udp", "action": "dump", "file": "/f", "maxlen": 0}),
            "Property 'filter-match.maxlen' doesn't take value '0'",
        ),
        (json!({"match": "bad", "action": "drop"}), "cannot compile filter expression 'bad': syntax error"),
        (
            json!({"match": "udp", "action": "dump", "file": "/nodir/x"}),
            "net dump: can't open /nodir/x: No such file or directory",
        ),
    ] {
        c.refused("object-add", matching(more), desc);
    }
    assert_eq!(c.ok("qom-list", json!({"path": "/objects"})), json!([{"name": "type", "type": "string"}]));
    c.log.calls();
    c.ok("object-add", matching(json!({"match": "udp", "action": "pass"})));
    assert_eq!(c.log.calls(), ["match udp pass"]);
    c.ok("object-del", json!({"id": "f"}));
    c.ok("object-add", matching(json!({"match": "udp", "action": "dump", "file": "/f", "maxlen": 96})));
    assert_eq!(c.log.calls(), ["dump /f 96"]);
    assert_eq!((get(&mut c, "match"), get(&mut c, "action")), (json!("udp"), json!("dump")));
}

#[test]
fn an_expression_changes_only_for_one_that_compiles() {
    let mut c = Client::new();
    c.port("h1", 1);
    c.ok("object-add", matching(json!({"match": "udp", "action": "drop"})));
    let commits = c.log.committed();
    assert_eq!(set(&mut c, "match", json!("tcp")), Ok(json!({})));
    assert_eq!(get(&mut c, "match"), json!("tcp"));
    let refused = Err("cannot compile filter expression 'bad': syntax error".to_owned());
    assert_eq!(set(&mut c, "match", json!("bad")), refused);
    assert_eq!(get(&mut c, "match"), json!("tcp"));
    let wrong = Err("Invalid parameter type for 'match', expected: string".to_owned());
    assert_eq!(set(&mut c, "match", json!(1)), wrong);
    for property in ["action", "seen", "matched"] {
        let fixed = Err(format!("Property 'filter-match.{property}' is not writable"));
        assert_eq!(set(&mut c, property, json!("pass")), fixed);
    }
    assert_eq!((get(&mut c, "seen"), get(&mut c, "matched")), (json!(0), json!(0)));
    assert_eq!(c.log.committed(), commits, "the plan is the same");
}

#[test]
fn a_dump_shows_its_expression_only_where_it_has_one() {
    let mut c = Client::new();
    c.port("h1", 1);
    let has = |c: &mut Client| {
        let list = c.ok("qom-list", json!({"path": "f"}));
        list.as_array().unwrap().iter().any(|property| property["name"] == "filter")
    };
    c.ok("object-add", filter("filter-dump", json!({"file": "/f"})));
    assert!(!has(&mut c), "QEMU's list");
    assert_eq!(set(&mut c, "filter", json!("udp")), Ok(json!({})));
    assert!(has(&mut c));
    assert_eq!(get(&mut c, "filter"), json!("udp"));
    c.ok("object-del", json!({"id": "f"}));
    let bad = filter("filter-dump", json!({"file": "/f", "filter": "bad"}));
    c.refused("object-add", bad, "cannot compile filter expression 'bad': syntax error");
    c.ok("object-add", filter("filter-dump", json!({"file": "/f", "filter": "tcp"})));
    assert!(has(&mut c));
}

#[test]
fn an_expression_for_a_filter_that_went_does_not_reach_one_of_its_name() {
    let mut c = Client::new();
    c.port("h1", 1);
    c.ok("object-add", matching(json!({"match": "udp", "action": "drop"})));
    let args = json!({"path": "f", "property": "match", "value": "tcp"});
    assert!(matches!(c.send("qom-set", &args), Outcome::Later(_)));
    // The reply may come while these run.
    c.ok("object-del", json!({"id": "f"}));
    c.ok("object-add", matching(json!({"match": "icmp", "action": "drop"})));
    c.ok("object-add", matching(json!({"id": "g", "match": "arp", "action": "drop"})));
    assert_eq!(get(&mut c, "match"), json!("icmp"));
}
