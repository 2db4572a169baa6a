//! `dgram`, and `socket` without connections.

use super::Client;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

fn with(kind: &str, options: &Value) -> Value {
    let mut args = json!({"type": kind, "id": "d0"});
    args.as_object_mut().unwrap().append(&mut options.as_object().cloned().unwrap());
    args
}

fn inet(host: &str, port: &str) -> Value {
    json!({"type": "inet", "host": host, "port": port})
}

fn unix(path: &str) -> Value {
    json!({"type": "unix", "path": path})
}

#[test]
fn addresses_of_dgram_stand_together_as_in_qemu() {
    let mut c = Client::new();
    let (one, other, fd) =
        (inet("127.0.0.1", "1"), inet("127.0.0.1", "2"), json!({"type": "fd", "str": "nope"}));
    let (group, vsock) = (inet("230.0.0.1", "1"), json!({"type": "vsock", "cid": "1", "port": "2"}));
    let unknown = "File descriptor named 'nope' has not been found";
    for (options, desc) in [
        (json!({}), "dgram requires local= parameter"),
        (json!({"remote": one}), "dgram requires local= parameter"),
        (json!({"remote": unix("/a")}), "dgram requires local= parameter"),
        (json!({"local": one}), "type=inet or type=unix requires remote parameter"),
        (json!({"local": unix("/a")}), "type=inet or type=unix requires remote parameter"),
        (json!({"local": vsock}), "type=inet or type=unix requires remote parameter"),
        (json!({"local": fd, "remote": one}), "don't set remote with local.fd"),
        (json!({"local": fd, "remote": unix("/a")}), "don't set remote with local.fd"),
        (json!({"local": fd, "remote": fd}), "don't set remote with local.fd"),
        (json!({"local": one, "remote": fd}), "remote and local types must be the same"),
        (json!({"local": unix("/a"), "remote": other}), "remote and local types must be the same"),
        (json!({"local": vsock, "remote": vsock}), "only support inet or fd type for local"),
        (json!({"local": unix("/a"), "remote": group}), "only support inet or fd type for local"),
        (json!({"local": fd}), unknown),
        (json!({"local": fd, "remote": group}), unknown),
        (json!({"local": inet("x y", "1"), "remote": group}), "localaddr 'x y' is not a valid IPv4 address"),
        (
            json!({"local": one, "remote": inet("300.1.1.1", "1")}),
            "host address '300.1.1.1' is not a valid IPv4 address",
        ),
        (json!({"local": one, "remote": inet("::1", "1")}), "can't resolve host address '::1'"),
        (json!({"remote": inet("127.0.0.1", "zz")}), "port number 'zz' is invalid"),
        (json!({"local": inet("127.0.0.1", ""), "remote": one}), "port number '' is invalid"),
    ] {
        c.refused("netdev_add", with("dgram", &options), desc);
    }
    assert!(c.log.calls().is_empty(), "nothing was opened");
}

#[test]
fn options_of_socket_stand_together_as_in_qemu() {
    let mut c = Client::new();
    let one = "exactly one of listen=, connect=, mcast= or udp= is required";
    for (options, desc) in [
        (json!({}), one),
        (json!({"localaddr": "1.1.1.1"}), one),
        (json!({"fd": "1", "udp": "127.0.0.1:1"}), one),
        (json!({"listen": ":1", "localaddr": "1.1.1.1"}), "localaddr= is only valid with mcast= or udp="),
        (json!({"fd": "nope", "localaddr": "1.1.1.1"}), "localaddr= is only valid with mcast= or udp="),
        (json!({"fd": "nope"}), "File descriptor named 'nope' has not been found"),
        (json!({"udp": "x"}), "localaddr= is mandatory with udp="),
        (
            json!({"udp": "x", "localaddr": "127.0.0.1"}),
            "host address '127.0.0.1' doesn't contain ':' separating host from port",
        ),
        (
            json!({"udp": "x", "localaddr": "127.0.0.1:1"}),
            "host address 'x' doesn't contain ':' separating host from port",
        ),
        (json!({"udp": "1.1:x", "localaddr": ":1"}), "port number 'x' is invalid"),
        (json!({"listen": "1234"}), "host address '1234' doesn't contain ':' separating host from port"),
        (json!({"connect": "300.1.1.1:1"}), "host address '300.1.1.1' is not a valid IPv4 address"),
        (json!({"connect": "::1"}), "port number ':1' is invalid"),
        (json!({"listen": "nosuch.invalid:1"}), "can't resolve host address 'nosuch.invalid'"),
        (json!({"mcast": "230.0.0.1:1", "localaddr": "foo"}), "localaddr 'foo' is not a valid IPv4 address"),
    ] {
        c.refused("netdev_add", with("socket", &options), desc);
    }
    assert!(c.log.calls().is_empty(), "nothing was opened");
}

#[test]
fn what_is_opened_is_described_as_in_qemu() {
    let mut c = Client::new();
    for (kind, options, opened, line) in [
        (
            "dgram",
            json!({"local": inet("", "0x10"), "remote": inet("127.1", "010")}),
            "open datagrams Inet { local: 0.0.0.0:16, remote: 127.0.0.1:8 }",
            "udp=0.0.0.0:16/127.0.0.1:8",
        ),
        (
            "dgram",
            json!({"local": unix("/a"), "remote": unix("/b")}),
            "open datagrams Unix { local: \"/a\", remote: \"/b\" }",
            "udp=/a:/b",
        ),
        (
            "dgram",
            json!({"remote": inet("230.0.0.1", "7")}),
            "open datagrams Multicast { group: 230.0.0.1:7, interface: None }",
            "mcast=230.0.0.1:7",
        ),
        (
            "dgram",
            json!({"remote": inet("230.0.0.1", "7"), "local": inet("127.0.0.1", "x")}),
            "open datagrams Multicast { group: 230.0.0.1:7, interface: Some(127.0.0.1) }",
            "mcast=230.0.0.1:7",
        ),
        (
            "socket",
            json!({"udp": "127.0.0.1:7", "localaddr": "localhost:8"}),
            "open datagrams Inet { local: 127.0.0.1:8, remote: 127.0.0.1:7 }",
            "socket: udp=127.0.0.1:7",
        ),
        (
            "socket",
            json!({"mcast": "230.0.0.1:7", "localaddr": "127.0.0.1"}),
            "open datagrams Multicast { group: 230.0.0.1:7, interface: Some(127.0.0.1) }",
            "socket: mcast=230.0.0.1:7",
        ),
    ] {
        c.ok("netdev_add", with(kind, &options));
        assert_eq!(c.log.calls(), [opened]);
        assert_eq!(c.line("info network"), format!("d0: index=0,type={kind},{line}\r\n"));
        c.ok("netdev_del", json!({"id": "d0"}));
    }
}

#[test]
fn files_are_told_apart_by_what_they_are() {
    let mut c = Client::new();
    let mut given = |kind: &str, file: OwnedFd| {
        c.received.push(file);
        c.ok("getfd", json!({"fdname": "f"}));
        let options = match kind {
            "socket" => json!({"fd": "f"}),
            _ => json!({"local": {"type": "fd", "str": "f"}}),
        };
        let result = c.run("netdev_add", with(kind, &options)).map_err(|error| error.desc);
        let info = c.line("info network");
        if result.is_ok() {
            c.ok("netdev_del", json!({"id": "d0"}));
        }
        (result.err(), info)
    };
    for (kind, prefix) in [("dgram", ""), ("socket", "socket: ")] {
        let (error, info) = given(kind, UnixDatagram::pair().unwrap().0.into());
        assert_eq!(error, None);
        let start = format!("d0: index=0,type={kind},{prefix}fd=");
        assert!(info.starts_with(&start) && info.ends_with(" unix\r\n"), "{info}");
        let (_, info) = given(kind, std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into());
        assert!(info.starts_with(&start) && info.ends_with(" inet\r\n"), "{info}");
    }
    let null = || std::fs::File::open("/dev/null").unwrap().into();
    assert_eq!(given("socket", null()).0.as_deref(), Some("can't get socket option SO_TYPE"));
    let why = "Unable to query local socket address: Socket operation on non-socket";
    assert_eq!(given("dgram", null()).0.as_deref(), Some(why));
    let (error, info) = given("socket", UnixStream::pair().unwrap().0.into());
    assert_eq!(error, None);
    assert!(info.starts_with("d0: index=0,type=socket,socket: fd="), "{info}");
    let pair = |kind| {
        let pair = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC);
        pair.unwrap().0
    };
    let why = given("socket", pair(SockType::SeqPacket)).0.unwrap();
    assert!(
        why.starts_with("socket type=5 for fd=")
            && why.ends_with(" must be either SOCK_DGRAM or SOCK_STREAM"),
        "{why}"
    );
}
