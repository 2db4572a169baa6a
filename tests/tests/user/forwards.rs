//! Forwards from the host to the guest: every kind, removal, refusals, and a process that dies.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use serde_json::{Value, json};
use tests::lab::Lab;
use tests::netns::NetNs;
use tests::wait::{PATIENCE, until};

use crate::world::{
    datagram_reaches_guest, echo_once, exchange, guest, has_process, kill, line, reaches_guest, reaches_host,
    reaches_host_at, with_six,
};

const GUEST_SIX: &str = "fec0::15";

/// The host reaches the guest through a unix socket.
fn path_reaches_guest(place: &NetNs, path: &Path, guest: u16) {
    let listener = place.inside(|| TcpListener::bind(("0.0.0.0", guest)).expect("a port of the guest"));
    std::thread::scope(|scope| {
        scope.spawn(|| echo_once(&listener));
        let mut stream = UnixStream::connect(path).expect("somebody listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(b"through a path").expect("bytes go");
        stream.shutdown(Shutdown::Write).expect("an end");
        let mut back = String::new();
        stream.read_to_string(&mut back).expect("an answer");
        assert_eq!(back, "through a path");
    });
}

/// Whether a port of the host's is free.
fn is_free(lab: &Lab, at: (&str, u16)) -> bool {
    let at = SocketAddr::new(at.0.parse().expect("an address"), at.1);
    lab.home.inside(|| TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok())
}

/// What is forwarded: each where it listens on the host.
fn listed(lab: &mut Lab) -> Vec<String> {
    let all = lab.qmp.ok("query-netdev-user", json!({"id": "u"}));
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let one = |forward: &Value| match forward.get("host-path") {
        Some(path) => text(path),
        None => ["protocol", "host-addr", "host-port"].map(|member| text(&forward[member])).join(" "),
    };
    all[0]["forwards"].as_array().expect("a list").iter().map(one).collect()
}

#[test]
fn forwards_carry_datagrams_and_ipv6_and_go_again() {
    if !has_process("forwards_carry_datagrams_and_ipv6_and_go_again") {
        return;
    }
    let (mut lab, place) = guest(&json!({"hostfwd": [{"str": "udp:127.0.0.1:2301-:91"}]}));
    with_six(&place, GUEST_SIX);
    let add = |lab: &mut Lab, protocol: &str, host: (&str, u16), guest: (&str, u16)| {
        let forward = json!({"id": "u", "protocol": protocol, "host-addr": host.0, "host-port": host.1, "guest-addr": guest.0, "guest-port": guest.1});
        lab.qmp.ok("netdev-user-forward-add", forward);
    };
    add(&mut lab, "tcp", ("::1", 2302), (GUEST_SIX, 92));
    add(&mut lab, "udp", ("::1", 2303), (GUEST_SIX, 93));
    add(&mut lab, "udp", ("0.0.0.0", 2304), ("10.0.2.15", 94));
    let bulk: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 7) as u8).collect();
    let six = |lab: &Lab| {
        // The first connection waits until the guest's address is known.
        reaches_guest(lab, &place, ("::1", 2302), 92, &bulk);
        reaches_host_at(lab, &place, ("::1", 8091), "fec0::2", &bulk);
        datagram_reaches_guest(lab, &place, ("::1", 2303), 93);
    };
    datagram_reaches_guest(&lab, &place, ("127.0.0.1", 2301), 91);
    six(&lab);
    datagram_reaches_guest(&lab, &place, ("127.0.0.1", 2304), 94);
    let all = ["udp 127.0.0.1 2301", "tcp ::1 2302", "udp ::1 2303", "udp 0.0.0.0 2304"];
    assert_eq!(listed(&mut lab), all);
    // They come back with the process.
    kill(&mut lab);
    assert_eq!(listed(&mut lab), all);
    six(&lab);
    datagram_reaches_guest(&lab, &place, ("127.0.0.1", 2301), 91);
    assert_eq!(
        line(&mut lab, "hostfwd_remove u udp:127.0.0.1:2301"),
        "host forwarding rule for udp:127.0.0.1:2301 removed\r\n"
    );
    let remove = |lab: &mut Lab, protocol: &str, host: &str, port: u16| {
        let forward = json!({"id": "u", "protocol": protocol, "host-addr": host, "host-port": port});
        lab.qmp.ok("netdev-user-forward-remove", forward);
    };
    remove(&mut lab, "tcp", "::1", 2302);
    remove(&mut lab, "udp", "::1", 2303);
    remove(&mut lab, "udp", "0.0.0.0", 2304);
    assert_eq!(listed(&mut lab), [""; 0]);
    for at in [("127.0.0.1", 2301), ("::1", 2302), ("::1", 2303), ("0.0.0.0", 2304)] {
        assert!(is_free(&lab, at), "{at:?} is still forwarded");
    }
    reaches_host(&lab, &place, 8090, b"and all else goes on");
}

#[test]
fn a_path_a_low_port_and_one_of_the_systems_choice_are_forwarded_whenever_they_come() {
    if !has_process("a_path_a_low_port_and_one_of_the_systems_choice_are_forwarded_whenever_they_come") {
        return;
    }
    let directory = tests::daemon::directory();
    let [early, late] = ["early", "late"].map(|name| directory.path().join(name));
    // One that nobody listens at any more is no obstacle.
    drop(UnixListener::bind(&early).expect("a socket"));
    let (mut lab, place) = guest(&json!({"hostfwd": [{"str": format!("unix:{}-:81", early.display())}]}));
    path_reaches_guest(&place, &early, 81);
    lab.qmp.ok("netdev-user-forward-add", json!({"id": "u", "host-path": late, "guest-port": 82}));
    path_reaches_guest(&place, &late, 82);
    assert_eq!(line(&mut lab, "hostfwd_add tcp:127.0.0.1:23-:83"), "");
    reaches_guest(&lab, &place, ("127.0.0.1", 23), 83, b"a low port");
    assert_eq!(line(&mut lab, "hostfwd_add tcp:127.0.0.1:0-:84"), "");
    let chosen = listed(&mut lab).pop().expect("a forward");
    let port = chosen.strip_prefix("tcp 127.0.0.1 ").and_then(|port| port.parse().ok()).expect("a port");
    assert!(port > 0, "{chosen}");
    reaches_guest(&lab, &place, ("127.0.0.1", port), 84, b"any port");
    let table = line(&mut lab, "info usernet");
    assert!(table.contains(&format!(" {port}       10.0.2.15    84 ")), "{table}");
    kill(&mut lab);
    path_reaches_guest(&place, &early, 81);
    path_reaches_guest(&place, &late, 82);
    reaches_guest(&lab, &place, ("127.0.0.1", 23), 83, b"a low port");
    reaches_guest(&lab, &place, ("127.0.0.1", port), 84, b"the same port");
    lab.qmp.ok("netdev-user-forward-remove", json!({"id": "u", "host-path": late}));
    assert!(UnixStream::connect(&late).is_err(), "it listens still");
    path_reaches_guest(&place, &early, 81);
    lab.qmp.ok("netdev_del", json!({"id": "u"}));
    assert!(UnixStream::connect(&early).is_err(), "it listens still");
    assert!(is_free(&lab, ("127.0.0.1", 23)));
}

#[test]
fn forwards_that_clash_or_make_no_sense_are_refused_and_change_nothing() {
    if !has_process("forwards_that_clash_or_make_no_sense_are_refused_and_change_nothing") {
        return;
    }
    let (mut lab, place) =
        guest(&json!({"hostfwd": [{"str": "tcp:127.0.0.1:2401-:81"}, {"str": "udp:127.0.0.1:2401-:81"}]}));
    let held = lab.home.inside(|| TcpListener::bind(("127.0.0.1", 2402)).expect("a port"));
    let file = lab.daemon.directory().join("file");
    std::fs::write(&file, "kept").expect("a file");
    let file = file.display().to_string();
    let refused = |rule: &str| format!("Could not set up host forwarding rule '{rule}'");
    // Taken by another, by itself, by another protocol's namesake, not an address of this host's.
    let taken = [
        "tcp:127.0.0.1:2402-:81",
        "tcp:127.0.0.1:2401-:82",
        "udp:127.0.0.1:2401-:82",
        "tcp:192.0.2.1:2403-:81",
    ];
    for rule in taken {
        assert_eq!(line(&mut lab, &format!("hostfwd_add u {rule}")), format!("{}\r\n", refused(rule)));
        let another = json!({"type": "user", "id": "other", "hostfwd": [{"str": "tcp:127.0.0.1:2404-:81"}, {"str": rule}]});
        assert_eq!(lab.qmp.refused("netdev_add", another), refused(rule));
    }
    let invalid = [
        ("sctp::1-:1", "Bad protocol name"),
        ("tcp:127.0.0.1:70000-:1", "Bad host port"),
        ("tcp:127.0.0.1:1-:0", "Bad guest port"),
        (&format!("unix:{file}-:1"), "file exists and it's not unix socket"),
    ];
    for (rule, why) in invalid {
        let desc = format!("Invalid host forwarding rule '{rule}' ({why})");
        assert_eq!(line(&mut lab, &format!("hostfwd_add {rule}")), format!("{desc}\r\n"));
        assert_eq!(
            lab.qmp.refused("netdev_add", json!({"type": "user", "id": "other", "hostfwd": [{"str": rule}]})),
            desc
        );
    }
    let structured = [
        (
            json!({"host-addr": "127.0.0.1", "host-port": 2402, "guest-port": 1}),
            "Could not set up host forwarding rule 'tcp:127.0.0.1:2402-:1': Address already in use",
        ),
        (
            json!({"host-addr": "192.0.2.1", "host-port": 2403, "guest-port": 1}),
            "Could not set up host forwarding rule 'tcp:192.0.2.1:2403-:1': Cannot assign requested address",
        ),
        (
            json!({"host-path": "/nonexistent/s", "guest-port": 1}),
            "Could not set up host forwarding rule 'unix:/nonexistent/s-0.0.0.0:1': No such file or directory",
        ),
        (json!({"host-port": 2403, "guest-port": 0}), "'guest-port' is no port"),
        (json!({"host-path": file, "guest-port": 1}), "'host-path': file exists and it's not unix socket"),
    ];
    for (mut forward, desc) in structured {
        forward["id"] = json!("u");
        assert_eq!(lab.qmp.refused("netdev-user-forward-add", forward), desc);
    }
    assert_eq!(
        lab.qmp.refused("netdev-user-forward-remove", json!({"id": "u", "host-port": 2499})),
        "there is no such forward"
    );
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "kept");
    drop(held);
    assert_eq!(listed(&mut lab), ["udp 127.0.0.1 2401", "tcp 127.0.0.1 2401"]);
    for port in [2402, 2403, 2404] {
        assert!(is_free(&lab, ("127.0.0.1", port)), "{port} is left behind");
    }
    reaches_guest(&lab, &place, ("127.0.0.1", 2401), 81, b"as before");
    datagram_reaches_guest(&lab, &place, ("127.0.0.1", 2401), 81);
    assert!(lab.home.inside(|| exchange(("127.0.0.1", 2404), b"x")).is_err());
    assert!(
        until(PATIENCE, || lab.qmp.execute("netdev_add", json!({"type": "user", "id": "other"})).ok())
            .is_some()
    );
}
