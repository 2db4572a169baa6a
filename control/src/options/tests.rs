//! Typed structs against the schema, and the command line against recorded errors of QEMU 10.0.

use super::chardev::{Backend as ChardevBackend, Chardev};
use super::netdev::{Backend, Netdev};
use super::object::{Direction, Kind, Object};
use super::*;
use crate::qmp::json::Parser;
use crate::schema::Schema;
use crate::schema::tests::sample;
use proptest::prelude::*;
use serde_json::json;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

/// Every member of every variant survives checking, decoding and writing again.
fn survives<T: DeserializeOwned + Serialize>(type_name: &str, kinds: &str) {
    let schema = Schema::get();
    let id = schema.type_named(type_name).unwrap();
    for kind in schema.values(kinds) {
        let value = sample(schema, id, kind);
        schema.check_type(type_name, &value).unwrap();
        let decoded: T = decode(object(value.clone())).unwrap();
        assert_eq!(serde_json::to_value(&decoded).unwrap(), value);
    }
}

#[test]
fn typed_structs_hold_every_member_of_the_schema() {
    survives::<Netdev>("Netdev", "NetClientDriver");
    survives::<Object>("ObjectOptions", "ObjectType");
    survives::<address::SocketAddress>("SocketAddress", "SocketAddressType");
    survives::<ChardevBackend>("ChardevBackend", "ChardevBackendKind");
}

#[test]
fn backend_names_are_the_types_on_the_wire() {
    let schema = Schema::get();
    let id = schema.type_named("Netdev").unwrap();
    for kind in schema.values("NetClientDriver") {
        let netdev = Netdev::decode(object(sample(schema, id, kind))).unwrap();
        assert_eq!(netdev.backend.name(), kind);
    }
}

#[test]
fn negative_numbers_for_unsigned_members_wrap() {
    let args = json!({"type": "tap", "id": "t", "sndbuf": -1});
    Schema::get().check_type("Netdev", &args).unwrap();
    let Backend::Tap(tap) = Netdev::decode(object(args)).unwrap().backend else { panic!("no tap") };
    assert_eq!(tap.sndbuf, Some(u64::MAX));
}

#[test]
fn absent_options_stay_absent() {
    let netdev = Netdev::decode(object(json!({"type": "hubport", "id": "h", "hubid": -3}))).unwrap();
    assert_eq!(serde_json::to_value(&netdev).unwrap(), json!({"type": "hubport", "id": "h", "hubid": -3}));
}

#[test]
fn command_line_errors_are_qemus() {
    let text = include_str!("testdata/cli.jsonl");
    let mut parser = Parser::new();
    let mut at = 0;
    let mut wrong = Vec::new();
    let mut count = 0;
    while let Some(case) = parser.next(text.as_bytes(), &mut at) {
        let case = case.unwrap();
        let option = case["text"].as_str().unwrap();
        let desc = match case["option"].as_str().unwrap() {
            "-netdev" => from_cli("Netdev", option).err(),
            "-object" => from_cli("ObjectOptions", option).err(),
            _ => chardev::from_cli(option).and_then(|c| c.validate()).err(),
        };
        let desc = desc.map(|e| e.desc);
        if desc.as_deref() != case["desc"].as_str() {
            wrong.push(format!("{option}\n  QEMU: {}\n  ours: {desc:?}", case["desc"]));
        }
        count += 1;
    }
    assert!(count > 100);
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn command_lines_become_what_qmp_would_say() {
    for (text, expected) in [
        (
            "tap,id=t0,ifname=a,,b,script=no,sndbuf=1M,vnet_hdr=off,queues=0x2",
            json!({"type": "tap", "id": "t0", "ifname": "a,b", "script": "no", "sndbuf": 1_048_576, "vnet_hdr": false,
                "queues": 2}),
        ),
        (
            "user,id=u,hostfwd=tcp::1-:2,hostfwd=udp::3-:4,restrict=y,ipv6-net=fec0::/60",
            json!({"type": "user", "id": "u", "hostfwd": [{"str": "tcp::1-:2"}, {"str": "udp::3-:4"}],
                "restrict": true, "ipv6-prefix": "fec0::", "ipv6-prefixlen": 60}),
        ),
        (
            "hubport,id=h,hubid=-1,hubid=3,link=off",
            json!({"type": "hubport", "id": "h", "hubid": 3, "link": false}),
        ),
        (
            "stream,id=s,addr.type=inet,addr.host=,addr.port=5,addr.to=0x10,server=on,reconnect-ms=5",
            json!({"type": "stream", "id": "s", "addr": {"type": "inet", "host": "", "port": "5", "to": 16},
                "server": true, "reconnect-ms": 5}),
        ),
        ("{'type':'hubport','id':'h','hubid':1}", json!({"type": "hubport", "id": "h", "hubid": 1})),
    ] {
        let args = from_cli("Netdev", text).unwrap();
        assert_eq!(Value::Object(args.clone()), expected);
        Schema::get().check_type("Netdev", &expected).unwrap();
        Netdev::decode(args).unwrap();
    }
    let args = from_cli("ObjectOptions", "filter-dump,id=f,netdev=n,file=/x,maxlen=96,queue=rx").unwrap();
    let object = Object::decode(args).unwrap();
    assert_eq!(object.kind.filter().unwrap().queue, Some(Direction::Rx));
    assert!(matches!(object.kind, Kind::FilterDump(f) if f.maxlen == Some(96)));
}

#[test]
fn words_become_the_arguments_of_a_command() {
    let args = |command, words: &[&str]| arguments(command, words.iter().copied()).map(Value::Object);
    assert_eq!(args("set_link", &["name=a,b", "up=off"]), Ok(json!({"name": "a,b", "up": false})));
    assert_eq!(
        args("qom-set", &["path=/objects/f", "property=interval", "value=5"]),
        Ok(json!({"path": "/objects/f", "property": "interval", "value": 5}))
    );
    assert_eq!(
        args("qom-set", &["path=f", "property=status", "value=off"]),
        Ok(json!({"path": "f", "property": "status", "value": "off"}))
    );
    assert_eq!(
        args("netdev_add", &["type=user", "id=u", "hostfwd.0.str=tcp::1-:2"]),
        Ok(json!({"type": "user", "id": "u", "hostfwd": [{"str": "tcp::1-:2"}]}))
    );
    assert_eq!(args("set_link", &["up"]).unwrap_err().desc, "Expected '=' after parameter 'up'");
    assert_eq!(
        args("set_link", &["name=a", "up=5"]).unwrap_err().desc,
        "Parameter 'up' expects 'on' or 'off'"
    );
    assert_eq!(args("nope", &[]).unwrap_err().desc, "The command nope has not been found");
}

#[test]
fn help_is_given_where_it_is_asked_for() {
    assert!(help("Netdev", "help").unwrap().starts_with("Available netdev backend types:\n"));
    assert!(help("Netdev", "tap,help").unwrap().contains("ifname=<string>"));
    assert!(help("ObjectOptions", "filter-dump,?").unwrap().contains("maxlen=<uint32>"));
    assert_eq!(help("Netdev", "tap,id=x"), None);
    assert_eq!(help("Netdev", "{\"help\":1}"), None);
}

#[test]
fn chardevs_of_the_command_line_are_those_of_chardev_add() {
    let expected = json!({"id": "c", "backend": {"type": "socket", "data": {
        "addr": {"type": "unix", "data": {"path": "/x"}}, "server": true, "wait": false, "nodelay": false}}});
    for chardev in [
        chardev::from_cli("socket,id=c,path=/x,server=on,wait=off").unwrap(),
        chardev::from_compat("unix:/x,server=on,wait=off", "c").unwrap(),
    ] {
        assert_eq!(serde_json::to_value(&chardev).unwrap(), expected);
        Schema::get().check_type("chardev-add-members", &expected).unwrap();
        assert_eq!(Chardev::decode(object(expected.clone())).unwrap(), chardev);
    }
    let tcp = chardev::from_compat("tcp::4444,server=on", "c").unwrap();
    let addr = json!({"type": "inet", "data": {"host": "", "port": "4444"}});
    let tcp = serde_json::to_value(&tcp).unwrap();
    assert_eq!((&tcp["backend"]["data"]["addr"], &tcp["backend"]["data"]["wait"]), (&addr, &json!(true)));
    for (text, desc) in [
        ("tcp:foo", "parse error: tcp:foo"),
        ("tcp::", "parse error: tcp::"),
        ("tcp:foo:bar,x=y", "Invalid parameter 'x'"),
        ("foo", "'foo' is not a valid char driver"),
        ("unix:", "Unable to parse FD number "),
    ] {
        assert_eq!(chardev::from_compat(text, "c").unwrap_err().desc, desc);
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(tap|stream|user|hubport|)[a-z0-9=,.{}'\" x-]{0,40}") {
        let _ = from_cli("Netdev", &text);
        let _ = from_cli("ObjectOptions", &text);
        let _ = chardev::from_cli(&text);
        let _ = chardev::from_compat(&text, "c");
        let _ = monitor::from_mon(&text);
    }

    #[test]
    fn what_is_read_from_a_command_line_passes_as_qmp(
        text in "(tap|stream|user|hubport|vde),id=a(,(queues|port|sndbuf|hubid|restrict|hostfwd|addr.type|addr.path)=(1|0x2|3k|on|unix|z)){0,4}"
    ) {
        if let Ok(args) = from_cli("Netdev", &text) {
            Schema::get().check_type("Netdev", &Value::Object(args.clone())).unwrap();
            Netdev::decode(args).unwrap();
        }
    }
}
