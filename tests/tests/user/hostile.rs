//! A process that was taken over, one that takes too much memory, and a host whose name servers change.

use std::net::{TcpStream, UdpSocket};

use serde_json::{Value, json};
use tests::daemon::{Daemon, Program, directory, netdevd};
use tests::lab::{Lab, Leg};
use tests::netns::NetNs;
use tests::program;
use tests::skip::{Need, ready};
use tests::wait::{PATIENCE, success, until};

use crate::world::{guest, guest_under, has_process, pid, reaches_host};

/// Says that it has its network, and sends what is no frame, or has a header that makes no sense; at last a frame that does.
const HOSTILE: &str = r#"#!/usr/bin/python3
import random, socket, struct
frames, control = socket.socket(fileno=3), socket.socket(fileno=4)
random.seed(7)
def packet(length):
    ethernet = bytes([255] * 6 + [2, 0, 0, 0, 0, 9])
    kind = random.choice([0x0800, 0x86dd, 0x8100, random.randrange(65536)])
    head = bytes([random.choice([0x45, 0x4f, 0x60, random.randrange(256)])]) + random.randbytes(8) + bytes([random.choice([6, 17, random.randrange(256)])])
    return (ethernet + struct.pack('>H', kind) + head + random.randbytes(max(0, length - 24)))[:length]
def header():
    word = lambda: random.choice([0, 1, 14, 34, 54, 1460, 65535, random.randrange(65536)])
    return struct.pack('<BBHHHHH', random.choice([0, 1, 2, 3, random.randrange(256)]), random.choice([0, 1, 3, 4, 5, 129, random.randrange(256)]), word(), word(), word(), word(), word())
control.recv(200000)
control.send(b'{"answer":"done"}')
for at in range(4000):
    length = random.choice([0, 1, 13, 14, 15, 60, 100, 1514, 9000, 65535, 65549, 70000])
    frames.send((header() + packet(length))[random.choice([0, 0, 0, 11]):] or b'x')
frames.send(bytes(12) + bytes([255] * 6 + [2, 0, 0, 0, 0, 9, 0x88, 0xb5]) + b'the last' + bytes(40))
while control.recv(200000):
    control.send(b'{"answer":"done"}')
"#;

/// The reasons for which a port dropped frames.
fn reasons(lab: &mut Lab, name: &str) -> Vec<String> {
    let stats = lab.qmp.ok("query-net-stats", json!({}));
    let ports = stats["ports"].as_array().cloned().unwrap_or_default();
    let mine = ports.iter().filter(|port| port["name"] == name);
    mine.filter_map(|port| port["drops"].as_object())
        .flat_map(|drops| {
            drops.iter().filter(|(_, count)| **count != json!(0)).map(|(reason, _)| reason.clone())
        })
        .collect()
}

#[test]
fn a_process_that_was_taken_over_harms_nobody() {
    const TEST: &str = "a_process_that_was_taken_over_harms_nobody";
    if !has_process(TEST) || !ready(TEST, &[Need::Tool("python3")]) {
        return;
    }
    let place = directory();
    let process = place.path().join("netdevd-user");
    program::write(&process, HOSTILE);
    program::copy(&netdevd(), &place.path().join("netdevd"));
    let instead = format!("exec {}/netdevd \"$@\"", place.path().display());
    let home = NetNs::new();
    let daemon = Daemon::of(Program::Netdevd).within(&home).under(["sh", "-c", &instead]).start();
    let qmp = daemon.client();
    let mut lab = Lab { qmp, daemon, home };
    let legs = ["ta", "tb", "tc"].map(|name| Leg::new(&mut lab, name));
    for (leg, address) in legs.iter().zip(["10.7.0.1", "10.7.0.2"]) {
        leg.place.ip(&format!("address add {address}/24 dev {}", leg.name));
    }
    // One end that takes large segments, and one that does not.
    let wire = json!({"type": "dgram", "id": "wire", "local": {"type": "inet", "host": "127.0.0.1", "port": "7301"}, "remote": {"type": "inet", "host": "127.0.0.1", "port": "7302"}});
    lab.qmp.ok("netdev_add", wire);
    let far = lab.home.inside(|| UdpSocket::bind("127.0.0.1:7302").expect("a port"));
    lab.hub(1, &["ta", "tb"]);
    lab.hub(2, &["tc", "wire"]);
    lab.qmp.ok("netdev_add", json!({"type": "user", "id": "u"}));
    lab.hub(2, &["u"]);
    let last = || legs[2].payloads().contains(&b"the last".to_vec()).then_some(());
    assert!(until(PATIENCE, last).is_some(), "its last frame does not come");
    legs[0].place.run("ping", &["-c", "3", "-i", "0.2", "-W", "5", "10.7.0.2"]);
    let dropped: Vec<String> = ["u", "tc", "wire", "u-port", "tc-port", "wire-port"]
        .iter()
        .flat_map(|name| reasons(&mut lab, name))
        .collect();
    for reason in ["malformed", "bad-offload"] {
        assert!(dropped.iter().any(|one| one == reason), "{reason}: {dropped:?}");
    }
    far.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert!(far.recv(&mut [0; 70_000]).is_ok(), "nothing comes to the wire");
    lab.qmp.ok("netdev_del", json!({"id": "u"}));
}

#[test]
fn a_process_that_takes_too_much_memory_is_replaced() {
    if !has_process("a_process_that_takes_too_much_memory_is_replaced") {
        return;
    }
    let (mut lab, place) = guest(&json!({}));
    let pid = pid(&mut lab);
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("its limits");
    let bounded = limits.lines().find(|line| line.starts_with("Max address space")).expect("a limit");
    assert!(!bounded.contains("unlimited"), "{bounded}");
    // It has some megabytes more than now, where each connection takes a quarter of one.
    let status = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("its size");
    let pages: u64 = status.split(' ').next().and_then(|pages| pages.parse().ok()).expect("a number");
    let limit = format!("--as={}", pages * 4096 + (16 << 20));
    let mut command = std::process::Command::new("prlimit");
    success(command.args(["--pid", &pid.to_string(), &limit]), 10);
    let listener = lab.home.inside(|| std::net::TcpListener::bind("127.0.0.1:8120").expect("a port"));
    let held: Vec<_> = place.inside(|| {
        let to = "10.0.2.2:8120".parse().expect("an address");
        (0..200)
            .map_while(|_| TcpStream::connect_timeout(&to, std::time::Duration::from_secs(2)).ok())
            .collect()
    });
    assert!(held.len() < 200, "there is room for all of them");
    let event = lab.qmp.event("NETDEV_USER_RESTARTED", PATIENCE).expect("an event");
    let reason = event["data"]["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("killed by signal"), "{event}");
    drop(listener);
    reaches_host(&lab, &place, 8121, b"again");
}

/// Answers any question for an IPv4 address with one (RFC 1035).
fn name_server(home: &NetNs, at: &str, answer: [u8; 4]) {
    let socket = home.inside(|| UdpSocket::bind((at, 53)).expect("the port of names"));
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut bytes) {
            let head = [&bytes[..2], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0], &bytes[12..count]].concat();
            let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4];
            let _ = socket.send_to(&[&head[..], &record, &answer].concat(), from);
        }
    });
}

#[test]
fn name_servers_that_change_are_followed() {
    const TEST: &str = "name_servers_that_change_are_followed";
    if !has_process(TEST) || !ready(TEST, &[Need::Mount]) {
        return;
    }
    let etc = directory();
    let write = |address: &str| {
        // As programs do that may be interrupted: another file in its place.
        std::fs::write(etc.path().join("new"), format!("nameserver {address}\n")).expect("a file");
        std::fs::rename(etc.path().join("new"), etc.path().join("resolv.conf")).expect("another file");
    };
    write("127.0.0.1");
    let mount = format!("mount --bind {} /etc && exec \"$0\" \"$@\"", etc.path().display());
    let (lab, place) = guest_under(&["unshare", "-m", "sh", "-c", &mount], &Value::Null);
    for (at, answer) in [("127.0.0.1", 1), ("127.0.0.2", 2), ("127.0.0.3", 3)] {
        name_server(&lab.home, at, [192, 0, 2, answer]);
    }
    let socket = place.inside(|| UdpSocket::bind("0.0.0.0:0").expect("a port"));
    socket.set_read_timeout(Some(std::time::Duration::from_millis(200))).expect("a timeout");
    let asked = || {
        let question = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
        socket.send_to(question, "10.0.2.3:53").ok()?;
        let mut bytes = [0; 512];
        let count = socket.recv(&mut bytes).ok()?;
        bytes[..count].last().copied()
    };
    assert_eq!(until(PATIENCE, asked), Some(1));
    for (address, answer) in [("127.0.0.2", 2), ("127.0.0.3", 3)] {
        write(address);
        assert!(until(PATIENCE, || asked().filter(|got| *got == answer)).is_some(), "{address} is not asked");
    }
}
