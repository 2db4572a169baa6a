//! Monitor clients of every kind, the careless and the hostile among them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::daemon::{Daemon, Program};
use tests::wait;

/// Resident memory of the daemon in bytes.
fn memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("its status");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("RssAnon");
    line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number") * 1024
}

#[test]
fn several_clients_are_served_at_once_and_all_see_events() {
    let daemon = Daemon::of(Program::Netdevd).start();
    let (mut one, mut two) = (daemon.client(), daemon.client());
    let mut silent = daemon.connect(0);
    one.ok("netdev_add", json!({"type": "hubport", "id": "a", "hubid": 1}));
    assert_eq!(
        two.refused("netdev_add", json!({"type": "hubport", "id": "a", "hubid": 1})),
        "Duplicate ID 'a'"
    );
    one.ok("quit", json!({}));
    for client in [&mut one, &mut two] {
        let event = client.event("SHUTDOWN", wait::PATIENCE).expect("every negotiated client is told");
        assert_eq!(event["data"], json!({"guest": false, "reason": "host-qmp-quit"}));
        let time = &event["timestamp"];
        assert!(
            time["seconds"].as_i64() > Some(1_600_000_000) && time["microseconds"].as_i64() < Some(1_000_000)
        );
    }
    let nothing = silent.receive(wait::PATIENCE).expect_err("no event before negotiation");
    assert_eq!(nothing.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[test]
fn descriptors_belong_to_the_client_that_brought_them() {
    let daemon = Daemon::of(Program::Netdevd).start();
    let (mut one, mut two) = (daemon.client(), daemon.client());
    let file = std::fs::File::open("/dev/null").expect("/dev/null");
    one.execute_with("getfd", json!({"fdname": "n"}), &[std::os::fd::AsFd::as_fd(&file)]).expect("getfd");
    two.refused("closefd", json!({"fdname": "n"}));
    one.ok("closefd", json!({"fdname": "n"}));
}

#[test]
fn a_client_that_goes_takes_its_descriptors_with_it() {
    let daemon = Daemon::of(Program::Netdevd).start();
    let mut other = daemon.client();
    other.ok("query-name", json!({}));
    let before = daemon.open_files();
    let mut client = daemon.client();
    let file = std::fs::File::open("/dev/null").expect("/dev/null");
    for number in 0..10 {
        let name = json!({"fdname": format!("n{number}")});
        client.execute_with("getfd", name, &[std::os::fd::AsFd::as_fd(&file)]).expect("getfd");
    }
    assert!(daemon.open_files() >= before + 10);
    drop(client);
    let closed = wait::until(wait::PATIENCE, || (daemon.open_files() == before).then_some(()));
    assert!(closed.is_some(), "{before} files before, {} after", daemon.open_files());
}

#[test]
fn a_client_that_stops_reading_stops_only_itself() {
    let daemon = Daemon::of(Program::Netdevd).start();
    let (lazy, mut other) = (daemon.client(), daemon.client());
    let before = memory(&daemon);
    lazy.stream().set_nonblocking(true).expect("nonblocking");
    let (mut writer, request) = (lazy.stream(), b"{\"execute\":\"query-qmp-schema\"}");
    // Until the daemon takes no more: the socket stays full for a tenth of a second.
    let (mut written, mut full) = (0_usize, None);
    while full.is_none_or(|since: Instant| since.elapsed() < Duration::from_millis(100)) && written < 64 << 20
    {
        match writer.write(request) {
            Ok(count) => (written, full) = (written + count, None),
            Err(_) => full = full.or_else(|| Some(Instant::now())),
        }
    }
    assert!(written < 64 << 20, "the daemon reads on without end");
    for _ in 0..20 {
        let begun = Instant::now();
        other.ok("query-status", json!({}));
        assert!(begun.elapsed() < Duration::from_secs(1), "the other client waits");
    }
    let grown = memory(&daemon).saturating_sub(before);
    assert!(grown < 64 << 20, "the daemon keeps {grown} bytes for a client that does not read");
    drop(lazy);
    other.ok("query-status", json!({}));
}

#[test]
fn a_client_that_dies_in_the_middle_of_a_command_disturbs_nobody() {
    let daemon = Daemon::of(Program::Netdevd).start();
    let mut other = daemon.client();
    for part in [
        &b"{\"execute\":"[..],
        b"{\"execute\":\"netdev_add\",\"arguments\":{\"type\":\"hubport\",\"id\":\"x\"",
        b"{\"execute\":\"query-qmp-schema\"}{\"execute\":\"query-qmp-schema\"}",
        b"\xff\x00[[[\"",
    ] {
        let mut client = daemon.client();
        client.send(part).expect("a write");
        drop(client);
        other.ok("query-status", json!({}));
    }
    assert_eq!(other.ok("query-netdev", json!({})), json!([]));
}

#[test]
fn a_line_of_a_hundred_megabytes_is_refused_and_the_client_goes_on() {
    let daemon = Daemon::of(Program::Netdevd).start();
    let (mut client, mut other) = (daemon.client(), daemon.client());
    client.stream().set_write_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    client.send(b"{\"execute\":\"").expect("a write");
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..100 {
        client.send(&chunk).expect("the daemon reads on");
        other.ok("query-status", json!({}));
    }
    client.send(b"\"}").expect("a write");
    let reply = client.reply(Duration::from_secs(60)).expect("an error");
    assert_eq!(reply["error"]["desc"], "JSON token size limit exceeded", "{reply}");
    client.send(b"\xff").expect("a write");
    let mut last = Value::Null;
    client.send(b"{\"execute\":\"query-status\",\"id\":\"after\"}").expect("a write");
    let recovered = wait::until(wait::PATIENCE, || {
        last = client.reply(wait::PATIENCE).expect("replies go on");
        (last["id"] == "after").then_some(())
    });
    assert!(recovered.is_some() && last.get("return").is_some(), "{last}");
    assert!(memory(&daemon) < 300 << 20, "memory comes back");
}

#[test]
fn a_message_of_two_million_tokens_is_refused() {
    let (_daemon, mut client) = Daemon::netdevd(&[]);
    let mut text = String::from("[");
    text.push_str(&"1,".repeat(1_100_000));
    client.send(text.as_bytes()).expect("a write");
    let reply = client.reply(Duration::from_secs(30)).expect("an error");
    assert_eq!(reply["error"]["desc"], "JSON token count limit exceeded", "{reply}");
}

#[test]
fn nesting_of_ten_thousand_is_refused() {
    let (_daemon, mut client) = Daemon::netdevd(&[]);
    client.send("[".repeat(10_000).as_bytes()).expect("a write");
    let reply = client.reply(wait::PATIENCE).expect("an error");
    assert_eq!(reply["error"]["desc"], "JSON nesting depth limit exceeded", "{reply}");
    client.send(b"\xff{\"execute\":\"query-status\",\"id\":1}").expect("a write");
    let answered = wait::until(wait::PATIENCE, || {
        let reply = client.reply(wait::PATIENCE).expect("replies go on");
        reply.get("return").map(|_| ())
    });
    assert!(answered.is_some());
}

#[test]
fn commands_may_come_a_byte_at_a_time() {
    let (_daemon, mut client) = Daemon::netdevd(&[]);
    for byte in b"{\"execute\": \"query-name\", \"id\": \"slow\"}" {
        client.send(&[*byte]).expect("a write");
    }
    assert_eq!(client.reply(wait::PATIENCE).expect("a reply"), json!({"return": {}, "id": "slow"}));
}

#[test]
fn replies_keep_the_order_of_a_thousand_commands() {
    let (_daemon, mut client) = Daemon::netdevd(&[]);
    let all: String = (0..1000).map(|id| format!("{{\"execute\":\"query-name\",\"id\":{id}}}")).collect();
    client.send(all.as_bytes()).expect("a write");
    for id in 0..1000 {
        assert_eq!(client.reply(wait::PATIENCE).expect("a reply")["id"], id);
    }
}

#[test]
fn a_client_that_comes_again_negotiates_again() {
    let daemon = Daemon::of(Program::Netdevd).start();
    drop(daemon.client());
    let mut again = daemon.connect(0);
    let failure = again.execute("query-name", json!({})).expect_err("not negotiated");
    assert_eq!(failure.class, "CommandNotFound");
}

#[test]
fn the_greeting_says_ten_dot_zero_and_netdevd() {
    let daemon = Daemon::of(Program::Netdevd).start();
    let client = daemon.connect(0);
    let version = &client.greeting()["QMP"]["version"];
    assert_eq!((&version["qemu"]["major"], &version["qemu"]["minor"]), (&json!(10), &json!(0)));
    assert!(version["package"].as_str().is_some_and(|package| package.starts_with("netdevd ")), "{version}");
    assert_eq!(client.greeting()["QMP"]["capabilities"], json!(["oob"]));
}

#[test]
fn monitors_are_served_on_tcp_and_on_chardevs() {
    let place = tests::daemon::directory();
    let path = place.path().join("mon");
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = free.expect("a free port").port();
    let chardev = format!("socket,id=m,path={},server=on,wait=off", path.display());
    let tcp = format!("tcp:127.0.0.1:{port},server=on,wait=off");
    let (_daemon, _qmp) =
        Daemon::netdevd(&["-chardev", &chardev, "-mon", "chardev=m,mode=control", "-qmp", &tcp]);
    let mut by_chardev = tests::qmp::Qmp::connect(&path, wait::PATIENCE).expect("the chardev's monitor");
    by_chardev.negotiate();
    let list = by_chardev.ok("query-chardev", json!({}));
    assert!(list.as_array().expect("a list").iter().any(|entry| entry["label"] == "m"), "{list}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the TCP monitor");
    stream.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
    let mut start = [0; 7];
    stream.read_exact(&mut start).expect("a greeting");
    assert_eq!(&start, b"{\"QMP\":");
}

#[test]
fn stats_have_the_documented_shape_and_can_be_reset() {
    let (_daemon, mut qmp) = Daemon::netdevd(&[]);
    qmp.ok("netdev_add", json!({"type": "hubport", "id": "a", "hubid": 1}));
    let stats = qmp.ok("query-net-stats", json!({}));
    assert!(stats["tsc-hz"].as_u64() > Some(1_000_000), "{stats}");
    let worker = &stats["workers"][0];
    for key in ["worker", "core", "turns", "frames"] {
        assert!(worker[key].is_number(), "{key}: {worker}");
    }
    for regime in ["busy", "empty", "back-pressured", "housekeeping"] {
        assert!(worker["ticks"][regime].is_u64(), "{regime}: {worker}");
    }
    for port in stats["ports"].as_array().expect("ports") {
        for key in ["queue", "rx-frames", "rx-bytes", "tx-frames", "tx-bytes"] {
            assert!(port[key].is_u64(), "{key}: {port}");
        }
        assert!(port["name"].is_string() && port["drops"].is_object(), "{port}");
    }
    qmp.ok("query-net-stats-reset", json!({}));
    assert_eq!(qmp.ok("query-net-stats", json!({}))["workers"][0]["frames"], 0);
}

#[test]
fn query_netdev_shows_options_peer_link_transport_and_filters() {
    let (_daemon, mut qmp) = Daemon::netdevd(&[]);
    qmp.ok("netdev_add", json!({"type": "hubport", "id": "a", "hubid": 1}));
    qmp.ok("netdev_add", json!({"type": "hubport", "id": "b", "hubid": 2, "netdev": "a"}));
    let dump = json!({"qom-type": "filter-dump", "id": "f", "netdev": "a", "file": "/dev/null"});
    qmp.ok("object-add", dump);
    qmp.ok("set_link", json!({"name": "b", "up": false}));
    let list = qmp.ok("query-netdev", json!({}));
    let find = |id: &str| list.as_array().expect("a list").iter().find(|entry| entry["id"] == id).cloned();
    let (a, b) = (find("a").expect("a"), find("b").expect("b"));
    assert_eq!((&a["type"], &a["hubid"], &a["link"]), (&json!("hubport"), &json!(1), &json!(true)), "{a}");
    assert_eq!((&a["peer-id"], &a["filters"]), (&json!("b"), &json!(["f"])), "{a}");
    assert_eq!((&b["link"], &b["peer-id"]), (&json!(false), &json!("a")), "{b}");
    assert!(a["transport"]["state"].is_string(), "{a}");
}
