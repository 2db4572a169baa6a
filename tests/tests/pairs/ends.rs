//! The netdevs, and who is at their other ends.

use super::End;
use super::switch::{Plug, Slow};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Instant;
use tests::guest::Guest;
use tests::lab::Lab;
use tests::nics::{SPLIT, Split, socket};
use tests::packet::PacketSocket;
use tests::wait::{self, PATIENCE};

/// A frame, and what its receiver is told of it: the first ten bytes of a virtio-net header.
pub(crate) struct Came {
    pub(crate) header: [u8; 10],
    pub(crate) frame: Vec<u8>,
}

impl Came {
    /// The receiver has to cut it.
    pub(crate) const fn is_large(&self) -> bool {
        self.header[1] != 0
    }

    /// Nothing is left to do.
    pub(crate) const fn is_plain(&self) -> bool {
        self.header[0] & 1 == 0 && self.header[1] == 0
    }
}

/// The other end of a netdev.
pub(crate) trait Outside {
    fn send(&mut self, frame: &[u8]);
    /// The next frame of the test, if one comes in time.
    fn receive(&mut self) -> Option<Came>;
    /// Sends a frame behind a virtio-net header; whether it can.
    fn send_large(&mut self, _bytes: &[u8]) -> bool {
        false
    }
}

/// A frame without a header, that of a test's.
fn plain(frame: Vec<u8>) -> Came {
    Came { header: [0; 10], frame }
}

/// Whether a frame is of the test: the kernel sends some of its own.
fn ours(frame: &[u8]) -> bool {
    let tcp = frame.len() > 38 && frame[12..14] == [8, 0] && frame[34..38] == [0x12, 0x34, 0x56, 0x78];
    tcp || frame.len() >= 14 && frame[12..14] == [0x88, 0xb5]
}

/// An interface.
struct Interface {
    socket: PacketSocket,
    /// It leaves segmentation to others.
    large: bool,
}

impl Outside for Interface {
    fn send(&mut self, frame: &[u8]) {
        self.socket.send(&[&[0; 10], frame].concat());
    }

    fn receive(&mut self) -> Option<Came> {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut bytes = self.socket.receive(end.saturating_duration_since(Instant::now()))?;
            let frame = bytes.split_off(10);
            if ours(&frame) {
                return Some(Came { header: bytes.try_into().expect("ten bytes"), frame });
            }
        }
    }

    fn send_large(&mut self, bytes: &[u8]) -> bool {
        if self.large {
            self.socket.send(bytes);
        }
        self.large
    }
}

/// A socket whose datagrams are frames, each behind some bytes.
struct Datagrams {
    socket: File,
    sent: Vec<u8>,
    expected: Vec<u8>,
}

impl Outside for Datagrams {
    fn send(&mut self, frame: &[u8]) {
        self.socket.write_all(&[&self.sent, frame].concat()).expect("a datagram");
    }

    fn receive(&mut self) -> Option<Came> {
        loop {
            let mut bytes = vec![0; 70_000];
            let n = self.socket.read(&mut bytes).ok()?;
            bytes.truncate(n);
            assert!(bytes.starts_with(&self.expected), "{:02x?}", &bytes[..n.min(20)]);
            let frame = bytes.split_off(self.expected.len());
            if ours(&frame) {
                return Some(plain(frame));
            }
        }
    }
}

/// A connection with lengths before frames.
struct Connection(File);

impl Outside for Connection {
    fn send(&mut self, frame: &[u8]) {
        let bytes = [&(frame.len() as u32).to_be_bytes()[..], frame].concat();
        self.0.write_all(&bytes).expect("it is taken");
    }

    fn receive(&mut self) -> Option<Came> {
        loop {
            let mut length = [0; 4];
            match self.0.read_exact(&mut length) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                read => read.expect("a length"),
            }
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            self.0.read_exact(&mut frame).expect("the frame");
            if ours(&frame) {
                return Some(plain(frame));
            }
        }
    }
}

/// A port of a switch, which loses nothing.
struct Port {
    plug: Plug,
    _switch: Slow,
}

impl Outside for Port {
    fn send(&mut self, frame: &[u8]) {
        self.plug.send(frame);
    }

    fn receive(&mut self) -> Option<Came> {
        std::iter::from_fn(|| self.plug.receive(PATIENCE)).find(|frame| ours(frame)).map(plain)
    }
}

impl Outside for Split {
    fn send(&mut self, frame: &[u8]) {
        assert!(Self::send(self, frame), "the ring has room");
    }

    fn receive(&mut self) -> Option<Came> {
        std::iter::from_fn(|| Self::receive(self, PATIENCE)).find(|frame| ours(frame)).map(plain)
    }
}

/// A tap in a namespace of its own.
fn tap(lab: &mut Lab) -> End {
    lab.tap("tap0", &json!({}));
    End { name: "tap0", nic: false, outside: interface(lab, "tap0", true) }
}

/// Moves an interface away from the daemon.
fn interface(lab: &Lab, name: &str, large: bool) -> Box<dyn Outside> {
    let place = lab.home.sibling();
    lab.home.give(name, &place);
    place.silent(name);
    place.ip(&format!("link set {name} up"));
    let socket = PacketSocket::open_with_headers(&place, name);
    // The namespace lives as long as a socket in it.
    Box::new(Interface { socket, large })
}

/// One end of a veth.
fn af_xdp(lab: &mut Lab) -> End {
    lab.home.ip("link add wire0 type veth peer name wire1");
    lab.home.silent("wire0");
    lab.home.ip("link set wire0 up");
    let outside = interface(lab, "wire1", false);
    lab.qmp.ok("netdev_add", json!({"type": "af-xdp", "id": "af-xdp", "ifname": "wire0"}));
    End { name: "af-xdp", nic: false, outside }
}

fn nic(lab: &mut Lab) -> End {
    lab.qmp.ok("netdev_add", json!({"type": "nic", "id": "nic", "addr": "nic.sock"}));
    let guest: Split = Guest::connect(&socket(&lab.daemon, "nic"), SPLIT).expect("a guest");
    End { name: "nic", nic: true, outside: Box::new(guest) }
}

/// A UDP socket at `port`, connected to `port` + 1.
fn udp(lab: &Lab, port: u16) -> File {
    let socket = lab.home.inside(|| UdpSocket::bind(("127.0.0.1", port)).expect("a port"));
    socket.connect(("127.0.0.1", port + 1)).expect("an address");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    File::from(OwnedFd::from(socket))
}

fn datagrams(name: &'static str, socket: File, sent: &[u8], expected: &[u8]) -> End {
    let outside = Datagrams { socket, sent: sent.to_vec(), expected: expected.to_vec() };
    End { name, nic: false, outside: Box::new(outside) }
}

/// A pair of unix sockets with paths, and the netdev on one of them.
fn unix_dgram(lab: &mut Lab, name: &'static str) -> End {
    let path = |end: &str| lab.daemon.directory().join(format!("{name}-{end}"));
    let (ours, theirs) = (path("near"), path("far"));
    let socket = UnixDatagram::bind(&theirs).expect("a path");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let at = |path: &std::path::Path| json!({"type": "unix", "path": path});
    lab.qmp.ok("netdev_add", json!({"type": "dgram", "id": name, "local": at(&ours), "remote": at(&theirs)}));
    socket.connect(&ours).expect("the netdev's path");
    datagrams(name, File::from(OwnedFd::from(socket)), &[], &[])
}

fn connection(name: &'static str, socket: impl Into<OwnedFd>) -> End {
    End { name, nic: false, outside: Box::new(Connection(File::from(socket.into()))) }
}

/// Every type there is.
pub(crate) fn all(lab: &mut Lab) -> Vec<End> {
    let mut ends = vec![tap(lab), af_xdp(lab), nic(lab)];
    let add = |lab: &mut Lab, id: &str, more: &[(&str, Value)]| {
        let mut all = json!({"id": id});
        more.iter().for_each(|(member, value)| all[*member] = value.clone());
        lab.qmp.ok("netdev_add", all);
    };
    let inet = |port: u16| json!({"type": "inet", "host": "127.0.0.1", "port": port.to_string()});

    add(
        lab,
        "udp",
        &[
            ("type", json!("socket")),
            ("udp", json!("127.0.0.1:3000")),
            ("localaddr", json!("127.0.0.1:3001")),
        ],
    );
    ends.push(datagrams("udp", udp(lab, 3000), &[], &[]));
    add(lab, "dgram", &[("type", json!("dgram")), ("local", inet(3011)), ("remote", inet(3010))]);
    ends.push(datagrams("dgram", udp(lab, 3010), &[], &[]));
    ends.push(unix_dgram(lab, "unix"));

    add(lab, "listen", &[("type", json!("socket")), ("listen", json!("127.0.0.1:3020"))]);
    let client = lab.home.inside(|| TcpStream::connect("127.0.0.1:3020")).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    ends.push(connection("listen", client));
    let listener = lab.home.inside(|| TcpListener::bind("127.0.0.1:3030")).expect("a port");
    add(lab, "connect", &[("type", json!("socket")), ("connect", json!("127.0.0.1:3030"))]);
    let (client, _) = listener.accept().expect("it connects");
    client.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    ends.push(connection("connect", client));
    let path = lab.daemon.directory().join("stream");
    let at = json!({"type": "unix", "path": path});
    add(lab, "stream", &[("type", json!("stream")), ("server", json!(true)), ("addr", at)]);
    let client = wait::until(PATIENCE, || UnixStream::connect(&path).ok()).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    ends.push(connection("stream", client));

    let l2tpv3 = json!({"type": "l2tpv3", "id": "l2tpv3", "src": "127.0.0.1", "dst": "127.0.0.1", "udp": true, "srcport": "3041",
        "dstport": "3040", "txsession": 1, "rxsession": 2, "txcookie": 3, "rxcookie": 4});
    lab.qmp.ok("netdev_add", l2tpv3);
    let (sent, expected) = ([0, 3, 0, 0, 0, 0, 0, 2, 0, 0, 0, 4], [0, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3]);
    ends.push(datagrams("l2tpv3", udp(lab, 3040), &sent, &expected));

    // A vxlan's ports are one number: the other end has another address. It takes frames from one port only.
    lab.qmp.ok(
        "netdev_add",
        json!({"type": "vxlan", "id": "vxlan", "local": "127.0.0.1", "remote": "127.0.0.2", "vni": 9, "source-ports": 1}),
    );
    let socket = lab.home.inside(|| UdpSocket::bind("127.0.0.2:4789").expect("a port"));
    socket.connect("127.0.0.1:4789").expect("an address");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let front = [8, 0, 0, 0, 0, 0, 9, 0];
    ends.push(datagrams("vxlan", File::from(OwnedFd::from(socket)), &front, &front));

    let switch = Slow::new();
    let plug = std::thread::scope(|scope| {
        let port = scope.spawn(|| switch.take());
        lab.qmp.ok("netdev_add", json!({"type": "vde", "id": "vde", "sock": switch.path()}));
        port.join().expect("the port is taken")
    });
    ends.push(End { name: "vde", nic: false, outside: Box::new(Port { plug, _switch: switch }) });

    ends.push(vhost_user(lab));
    ends
}

/// A vhost-user netdev, whose device is a nic of the same daemon with a unix socket behind it.
fn vhost_user(lab: &mut Lab) -> End {
    let End { outside, .. } = unix_dgram(lab, "behind");
    lab.qmp
        .ok("netdev_add", json!({"type": "nic", "id": "device", "netdev": "behind", "addr": "device.sock"}));
    let path = socket(&lab.daemon, "device");
    let backend = json!({"type": "socket", "data": {"server": false, "addr": {"type": "unix", "data": {"path": path}}}});
    lab.qmp.ok("chardev-add", json!({"id": "c0", "backend": backend}));
    lab.qmp.ok("netdev_add", json!({"type": "vhost-user", "id": "vhost", "chardev": "c0"}));
    let ready = wait::until(PATIENCE, || {
        let state = lab.qmp.ok("query-netdev", json!({"name": "vhost"}));
        (state[0]["transport"]["state"] == "ready").then_some(())
    });
    ready.expect("the nic is there");
    End { name: "vhost", nic: false, outside }
}
