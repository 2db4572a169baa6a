//! File descriptors that clients hand over.

use super::super::Context;
use super::Client;
use nix::fcntl::{FcntlArg, fcntl};
use serde_json::{Map, json};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

fn file() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

impl Client {
    fn hand_over(&mut self) -> RawFd {
        let file = file();
        let number = file.as_raw_fd();
        self.received.push(file);
        number
    }
}

fn is_open(number: RawFd) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{number}")).is_ok()
}

#[test]
fn a_named_file_is_kept_replaced_and_used_up() {
    let mut c = Client::new();
    let none = "No file descriptor supplied via SCM_RIGHTS";
    c.refused("getfd", json!({"fdname": "a"}), none);
    c.hand_over();
    c.refused(
        "getfd",
        json!({"fdname": "9a"}),
        "Parameter 'fdname' expects a name not starting with a digit",
    );
    assert!(c.received.is_empty());
    let mut a = 0;
    for name in ["", "-1", "a", "a"] {
        a = c.hand_over();
        c.ok("getfd", json!({"fdname": name}));
    }
    c.ok("closefd", json!({"fdname": ""}));
    c.refused("closefd", json!({"fdname": "nope"}), "File descriptor named 'nope' not found");
    // The second of two files is closed.
    let b = c.hand_over();
    let second = c.hand_over();
    c.ok("getfd", json!({"fdname": "b"}));
    assert!(c.received.is_empty() && !is_open(second));
    c.refused("getfd", json!({"fdname": "c"}), none);

    c.ok("netdev_add", json!({"type": "tap", "id": "t", "fds": "a:b"}));
    assert_eq!(c.log.calls(), ["open script - fds 2"]);
    let gone = "File descriptor named 'a' has not been found";
    c.refused("netdev_add", json!({"type": "tap", "id": "u", "fd": "a"}), gone);
    let queue = |fd: RawFd| format!("t: index=0,type=tap,fd={fd}\r\n");
    assert_eq!(c.line("info network"), queue(a) + &queue(b));
    c.ok("netdev_del", json!({"id": "t"}));
    assert_eq!(c.log.calls(), Vec::<String>::new());
}

#[test]
fn named_files_belong_to_their_monitor_and_end_with_it() {
    let mut c = Client::new();
    let number = c.hand_over();
    c.ok("getfd", json!({"fdname": "a"}));
    let mut args = Map::new();
    args.insert("fdname".into(), "a".into());
    let mut cx = Context { monitor: 2, received: &mut Vec::new(), events: &mut Vec::new() };
    let reply = c.state.run(&mut cx, "closefd", args);
    assert_eq!(reply.unwrap_err().desc, "File descriptor named 'a' not found");
    c.hand_over();
    c.ok("add-fd", json!({"fdset-id": 3}));
    c.state.monitor_closed(2, false);
    assert_eq!(c.ok("query-fdsets", json!({})).as_array().map(Vec::len), Some(1));
    assert!(is_open(number));
    c.state.monitor_closed(1, true);
    assert_eq!(c.ok("query-fdsets", json!({})), json!([]));
    c.refused("closefd", json!({"fdname": "a"}), "File descriptor named 'a' not found");
}

#[test]
fn sets_take_the_lowest_free_number() {
    let mut c = Client::new();
    c.refused("add-fd", json!({}), "No file descriptor supplied via SCM_RIGHTS");
    let add = |c: &mut Client, args| {
        let number = c.hand_over();
        let reply = c.ok("add-fd", args);
        assert_eq!(reply["fd"], number);
        (number, reply["fdset-id"].as_i64().unwrap())
    };
    assert_eq!(add(&mut c, json!({})).1, 0);
    let (first, _) = add(&mut c, json!({"fdset-id": 5, "opaque": "hello"}));
    let (second, _) = add(&mut c, json!({"fdset-id": 5}));
    assert_eq!(add(&mut c, json!({})).1, 1);
    let (_, two) = add(&mut c, json!({}));
    assert_eq!(two, 2);
    c.hand_over();
    c.refused("add-fd", json!({"fdset-id": -5}), "Parameter 'fdset-id' expects a non-negative value");
    let sets = c.ok("query-fdsets", json!({}));
    assert_eq!(sets[0], json!({"fdset-id": 5, "fds": [{"fd": first, "opaque": "hello"}, {"fd": second}]}));
    assert_eq!(sets[3]["fdset-id"], 0);
    for (args, text) in [
        (json!({"fdset-id": 9}), "fdset-id:9"),
        (json!({"fdset-id": 9, "fd": 3}), "fdset-id:9, fd:3"),
        (json!({"fdset-id": 5, "fd": 99999}), "fdset-id:5, fd:99999"),
        (json!({"fdset-id": -5}), "fdset-id:-5"),
    ] {
        c.refused("remove-fd", args, &format!("File descriptor named '{text}' not found"));
    }
    c.ok("remove-fd", json!({"fdset-id": 5, "fd": first}));
    c.ok("remove-fd", json!({"fdset-id": 5}));
    assert_eq!(c.ok("query-fdsets", json!({})).as_array().unwrap().len(), 3);
    assert_eq!(add(&mut c, json!({})).1, 3);
}

#[test]
fn a_number_names_a_file_of_a_set_and_nothing_of_the_daemon() {
    let mut c = Client::new();
    let number = c.hand_over();
    c.ok("add-fd", json!({}));
    c.ok("netdev_add", json!({"type": "tap", "id": "t", "fd": number.to_string()}));
    assert!(is_open(number), "the set keeps its own");
    let own = file();
    assert!(fcntl(&own, FcntlArg::F_GETFD).is_ok());
    let desc = format!("u: Can't use file descriptor {}: Device or resource busy", own.as_raw_fd());
    c.refused("netdev_add", json!({"type": "tap", "id": "u", "fd": own.as_raw_fd().to_string()}), &desc);
}
