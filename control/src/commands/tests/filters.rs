//! Filters and the object tree.

use super::super::Outcome;
use super::Client;
use serde_json::{Value, json};

fn dump(id: &str, netdev: &str, more: Value) -> Value {
    let mut args = json!({"qom-type": "filter-dump", "id": id, "netdev": netdev, "file": "/f"});
    args.as_object_mut().unwrap().append(&mut more.as_object().cloned().unwrap());
    args
}

#[test]
fn objects_are_refused_in_qemus_words_and_order() {
    let mut c = Client::new();
    c.port("h1", 1);
    c.ok("object-add", dump("f0", "h1", json!({})));
    let no_netdev = "Parameter 'netdev' expects a network backend id";
    for (args, desc) in [
        (dump("2g", "nope", json!({})), "Parameter 'id' expects an identifier"),
        (dump("g", "nope", json!({})), no_netdev),
        (dump("g", "nope", json!({"maxlen": 0})), "Property 'filter-dump.maxlen' doesn't take value '0'"),
        (
            dump("g", "h1", json!({"status": "zz"})),
            "Invalid value for netfilter status, should be 'on' or 'off'",
        ),
        (
            dump("g", "h1", json!({"position": "zz"})),
            "Parameter 'position' expects 'head', 'tail' or 'id=<id>'",
        ),
        (dump("g", "h1", json!({"position": "id=zz"})), "filter 'zz' not found"),
        (dump("g", "h1", json!({"position": "id="})), "filter '' not found"),
        (dump("g", "nope", json!({"position": "zz", "file": "/nodir/x"})), no_netdev),
        (
            dump("g", "h1", json!({"file": "/nodir/x"})),
            "net dump: can't open /nodir/x: No such file or directory",
        ),
        (
            dump("f0", "nope", json!({})),
            "attempt to add duplicate property 'f0' to object (type 'container')",
        ),
    ] {
        c.refused("object-add", args, desc);
    }
    c.refused("object-del", json!({"id": "nope"}), "object 'nope' not found");
    c.ok("object-del", json!({"id": "f0"}));
    c.refused("object-del", json!({"id": "f0"}), "object 'f0' not found");
    c.ok("object-add", dump("g", "h1", json!({})));
}

#[test]
fn filters_that_are_not_built_are_checked_first() {
    let mut c = Client::new();
    c.port("h1", 1);
    let filter = |kind: &str, netdev: &str, more: Value| {
        let mut args = json!({"qom-type": kind, "id": "b", "netdev": netdev});
        args.as_object_mut().unwrap().append(&mut more.as_object().cloned().unwrap());
        args
    };
    let interval = "Property 'filter-buffer.interval' requires a positive value";
    c.refused("object-add", filter("filter-buffer", "nope", json!({"interval": 0})), interval);
    let no_netdev = "Parameter 'netdev' expects a network backend id";
    c.refused("object-add", filter("filter-mirror", "nope", json!({"outdev": "x"})), no_netdev);
    c.missing("object-add", filter("filter-mirror", "h1", json!({"outdev": "x"})), "Device 'x' not found");
    let redirector = |more| filter("filter-redirector", "h1", more);
    let needs = "filter redirector needs 'indev' or 'outdev' at least one property set";
    c.refused("object-add", redirector(json!({})), needs);
    let same = "'indev' and 'outdev' could not be same for filter redirector";
    c.refused("object-add", redirector(json!({"indev": "a", "outdev": "a"})), same);
    c.missing("object-add", redirector(json!({"indev": "a"})), "IN Device 'a' not found");
    c.missing("object-add", redirector(json!({"outdev": "a"})), "OUT Device 'a' not found");
}

#[test]
fn a_replay_of_a_file_shows_it_and_one_without_is_qemus() {
    let mut c = Client::new();
    c.port("h1", 1);
    let replay = |more: Value| {
        let mut args = json!({"qom-type": "filter-replay", "id": "r", "netdev": "h1"});
        args.as_object_mut().unwrap().append(&mut more.as_object().cloned().unwrap());
        args
    };
    c.refused("object-add", replay(json!({"pace": false})), "'pace' goes with 'file' only");
    let names = |c: &mut Client| {
        let all = c.ok("qom-list", json!({"path": "r"}));
        all.as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    c.ok("object-add", replay(json!({})));
    assert!(!names(&mut c).iter().any(|name| name == "file" || name == "pace"));
    c.ok("object-del", json!({"id": "r"}));
    for (more, call, pace) in [
        (json!({"file": "/f"}), "replay /f paced", true),
        (json!({"file": "/f", "pace": false}), "replay /f at once", false),
    ] {
        c.log.calls();
        c.ok("object-add", replay(more));
        assert_eq!(c.log.calls(), [call]);
        assert!(names(&mut c).ends_with(&["file".into(), "pace".into()]));
        assert_eq!(c.ok("qom-get", json!({"path": "r", "property": "pace"})), json!(pace));
        let set = json!({"path": "r", "property": "file", "value": "/g"});
        c.refused("qom-set", set, "Property 'filter-replay.file' is not writable");
        c.ok("object-del", json!({"id": "r"}));
    }
}

#[test]
fn filters_that_hold_frames_show_and_change_their_numbers() {
    let mut c = Client::new();
    c.port("h1", 1);
    c.ok("object-add", json!({"qom-type": "filter-buffer", "id": "b", "netdev": "h1", "interval": 9}));
    let limit =
        json!({"qom-type": "filter-limit", "id": "l", "netdev": "h1", "bps": 125_000, "fps-burst": 7});
    c.ok("object-add", limit);
    c.ok("object-add", json!({"qom-type": "filter-rewriter", "id": "r", "netdev": "h1"}));
    let get =
        |c: &mut Client, id: &str, property: &str| c.ok("qom-get", json!({"path": id, "property": property}));
    let set =
        |id: &str, property: &str, value: Value| json!({"path": id, "property": property, "value": value});
    assert_eq!(
        (get(&mut c, "b", "interval"), get(&mut c, "r", "vnet_hdr_support")),
        (json!(9), json!(false))
    );
    let numbers = ["bps", "fps", "bps-burst", "fps-burst", "queue-limit"].map(|name| get(&mut c, "l", name));
    assert_eq!(numbers, [125_000, 0, 0, 7, 1000].map(Value::from));
    c.ok("qom-set", set("b", "interval", json!(10)));
    c.ok("qom-set", set("l", "bps", json!(u64::MAX)));
    assert_eq!((get(&mut c, "b", "interval"), get(&mut c, "l", "bps")), (json!(10), json!(u64::MAX)));
    let positive = "Property 'filter-buffer.interval' requires a positive value";
    c.refused("qom-set", set("b", "interval", json!(0)), positive);
    c.refused("qom-set", set("b", "interval", json!(1u64 << 32)), "Parameter 'interval' expects uint32_t");
    c.refused("qom-set", set("l", "fps", json!("many")), "Parameter 'fps' expects uint64");
    // One that is off keeps its place: what comes must not overtake what it holds.
    c.ok("qom-set", set("l", "status", json!("off")));
    let uses = |c: &Client| {
        let topology = c.log.last();
        topology
            .clients
            .iter()
            .flat_map(|client| client.filters.clone())
            .map(|f| (f.rx, f.tx))
            .collect::<Vec<_>>()
    };
    assert_eq!(uses(&c), [(true, true); 3]);
    for id in ["l", "b", "r"] {
        c.ok("object-del", json!({"id": id}));
    }
    assert_eq!(uses(&c), []);
}

#[test]
fn a_filter_whose_netdev_goes_while_its_file_opens_is_refused() {
    let mut c = Client::new();
    c.port("h1", 1);
    c.log.hold(true);
    let Outcome::Later(ticket) = c.send("object-add", &dump("f", "h1", json!({}))) else { panic!() };
    let duplicate = "attempt to add duplicate property 'f' to object (type 'container')";
    c.refused("object-add", dump("f", "h1", json!({})), duplicate);
    c.ok("netdev_del", json!({"id": "h1"}));
    c.log.hold(false);
    assert_eq!(c.wait(ticket).unwrap_err().desc, "Parameter 'netdev' expects a network backend id");
    c.port("h1", 1);
    c.ok("object-add", dump("f", "h1", json!({})));
}

#[test]
fn filters_show_in_info_network_and_go_with_their_netdev() {
    let mut c = Client::new();
    c.tap("t");
    c.ok("object-add", dump("f0", "t", json!({})));
    c.ok(
        "object-add",
        dump("f2", "t", json!({"position": "head", "queue": "rx", "status": "off", "maxlen": 9})),
    );
    c.ok("object-add", dump("f3", "t", json!({"position": "id=f0", "insert": "before"})));
    assert_eq!(
        c.line("info network"),
        "t: index=0,type=tap,ifname=t,script=no,downscript=no\r\nfilters:\r\n  \
         - f2: type=filter-dump,file=/f,maxlen=9,position=head,status=off,insert=behind,netdev=t,queue=rx\r\n  \
         - f3: type=filter-dump,file=/f,maxlen=65536,position=id=f0,status=on,insert=before,netdev=t,queue=all\r\n  \
         - f0: type=filter-dump,file=/f,maxlen=65536,position=tail,status=on,insert=behind,netdev=t,queue=all\r\n"
    );
    c.ok("netdev_del", json!({"id": "t"}));
    assert_eq!(c.ok("qom-list", json!({"path": "/objects"})), json!([{"name": "type", "type": "string"}]));
}

#[test]
fn the_object_tree_has_qemus_names() {
    let mut c = Client::new();
    c.port("h1", 1);
    c.ok("object-add", dump("f0", "h1", json!({})));
    c.ok("chardev-add", json!({"id": "c0", "backend": {"type": "null", "data": {}}}));
    let names = |value: Value| -> Vec<String> {
        let entry = |e: &Value| format!("{} {}", e["name"].as_str().unwrap(), e["type"].as_str().unwrap());
        value.as_array().unwrap().iter().map(entry).collect()
    };
    let mut list = |path: &str| names(c.ok("qom-list", json!({"path": path})));
    let root = [
        "type string",
        "backend child<container>",
        "machine child<none-machine>",
        "objects child<container>",
        "chardevs child<container>",
    ];
    assert_eq!(list("/"), root);
    assert_eq!(list("///"), root);
    for path in ["/objects", "objects", "/objects/", "//objects"] {
        assert_eq!(list(path), ["type string", "f0 child<filter-dump>"], "{path}");
    }
    assert_eq!(list("/chardevs"), ["type string", "c0 child<chardev-null>"]);
    assert_eq!(list("c0"), ["type string"]);
    assert_eq!(list("chardevs/c0"), ["type string"]);
    assert_eq!(list("/machine/peripheral"), ["type string"]);
    let filter = [
        "type string",
        "queue NetFilterDirection",
        "netdev string",
        "insert string",
        "status string",
        "position string",
        "maxlen uint32",
        "file string",
    ];
    assert_eq!(list("f0"), filter);
    assert_eq!(names(c.ok("qom-list-properties", json!({"typename": "filter-dump"}))), filter);
    c.refused("qom-list", json!({"path": ""}), "Path '' is ambiguous");
    c.missing("qom-list", json!({"path": "/nope"}), "Device '/nope' not found");
    c.missing("qom-get", json!({"path": "", "property": "type"}), "Device '' not found");
    c.missing("qom-list-properties", json!({"typename": "nope"}), "Class 'nope' not found");
    c.refused(
        "qom-list-properties",
        json!({"typename": "user-creatable"}),
        "Parameter 'typename' expects a QOM type",
    );
    let types = c.ok("qom-list-types", json!({"implements": "user-creatable"}));
    assert!(types.as_array().unwrap().contains(&json!({"name": "filter-dump", "parent": "netfilter"})));
    assert_eq!(c.ok("qom-list-types", json!({"implements": "nope"})), json!([]));
}

#[test]
fn properties_are_read_and_written_as_in_qemu() {
    let mut c = Client::new();
    c.port("h1", 1);
    c.ok("object-add", dump("f0", "h1", json!({})));
    let mut get = |path: &str, property: &str| c.ok("qom-get", json!({"path": path, "property": property}));
    assert_eq!(get("/objects/f0", "type"), "filter-dump");
    assert_eq!(get("f0", "maxlen"), 65536);
    assert_eq!(get("f0", "status"), "on");
    assert_eq!(get("f0", "position"), "tail");
    assert_eq!(get("/objects", "f0"), "/objects/f0");
    assert_eq!(get("/", "objects"), "/objects");
    assert_eq!(get("/machine", "type"), "none-machine");
    assert_eq!(get("/machine", "peripheral"), "/machine/peripheral");
    let set = |property: &str, value: Value| json!({"path": "f0", "property": property, "value": value});
    for (property, value, desc) in [
        ("status", json!(true), "Invalid parameter type for 'status', expected: string"),
        ("status", json!("zz"), "Invalid value for netfilter status, should be 'on' or 'off'"),
        ("queue", json!("zz"), "Parameter 'queue' does not accept value 'zz'"),
        ("insert", json!("zz"), "Invalid value for netfilter insert, should be 'before' or 'behind'"),
        ("netdev", json!(1), "Invalid parameter type for 'netdev', expected: string"),
        ("maxlen", json!(0), "Property 'filter-dump.maxlen' doesn't take value '0'"),
        ("maxlen", json!(-1), "Parameter 'maxlen' expects uint32_t"),
        ("maxlen", json!("12"), "Parameter 'maxlen' expects uint64"),
        ("type", json!("x"), "Property 'filter-dump.type' is not writable"),
        ("zz", json!("x"), "Property 'filter-dump.zz' not found"),
    ] {
        c.refused("qom-set", set(property, value), desc);
    }
    c.missing("qom-set", json!({"path": "zz", "property": "zz", "value": 1}), "Device 'zz' not found");
    let child = json!({"path": "/objects", "property": "f0", "value": "x"});
    c.refused("qom-set", child, "Property 'container.f0' is not writable");
    let before = c.log.committed();
    for (property, value) in
        [("insert", "before"), ("position", "zz"), ("netdev", "zz"), ("file", "/x"), ("status", "on")]
    {
        c.ok("qom-set", set(property, json!(value)));
    }
    c.ok("qom-set", set("maxlen", json!(12)));
    assert_eq!(c.log.committed(), before);
    c.ok("qom-set", set("status", json!("off")));
    c.ok("qom-set", set("queue", json!("rx")));
    assert_eq!(c.log.committed(), before + 2);
    let all = c.ok("qom-list-get", json!({"paths": ["f0"]}));
    let mine = all[0]["properties"].as_array().unwrap();
    assert!(mine.contains(&json!({"name": "maxlen", "type": "uint32", "value": 12})));
    assert_eq!(mine.len(), 8);
}
