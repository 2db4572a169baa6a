//! `set_link`: whatever kind of client is cut off, frames that it would send or get are lost by name, and pass again afterwards.

mod qemu;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use serde_json::json;
use tests::daemon::{Daemon, directory};
use tests::nics::{SPLIT, Split, await_drop, dropped, frame, plug, shown};
use tests::qmp::Qmp;
use tests::wait::{self, PATIENCE};

/// Cuts each client off in turn; `out` and `back` are the two directions through all of them.
#[track_caller]
fn each_cut(
    client: &mut Qmp,
    names: &[&str],
    mut out: impl FnMut(&[u8], bool) -> bool,
    mut back: impl FnMut(&[u8], bool) -> bool,
) {
    for (seed, name) in names.iter().enumerate() {
        let sent = frame(60, seed as u8);
        assert!(out(&sent, true) && back(&sent, true), "{name} is up");
        client.ok("set_link", json!({"name": name, "up": false}));
        assert_eq!(shown(client, name)["link"], false);
        let before = dropped(client, name, "link-down");
        assert!(out(&sent, false));
        await_drop(client, name, "link-down", before + 1);
        assert!(back(&sent, false));
        await_drop(client, name, "link-down", before + 2);
        client.ok("set_link", json!({"name": name, "up": true}));
        let after = frame(60, 100 + seed as u8);
        assert!(
            out(&after, true) && back(&after, true),
            "{name} is up again, and what was refused does not come"
        );
    }
}

/// The end of a unix `dgram` netdev, and the netdev.
fn wire(files: &Path, id: &str) -> (UnixDatagram, PathBuf, [String; 2]) {
    let (near, far) = (files.join(format!("{id}.near")), files.join(format!("{id}.far")));
    let socket = UnixDatagram::bind(&far).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let options = format!(
        "dgram,id={id},local.type=unix,local.path={},remote.type=unix,remote.path={}",
        near.display(),
        far.display()
    );
    (socket, near, ["-netdev".into(), options])
}

fn comes(socket: &UnixDatagram, sent: &[u8]) -> bool {
    let mut bytes = [0; 2048];
    let length = socket.recv(&mut bytes).expect("a frame");
    &bytes[..length] == sent
}

/// Between two `dgram` netdevs and a kind of ports.
fn ports(kind: &str) {
    let files = directory();
    let (a, near_a, netdev_a) = wire(files.path(), "a");
    let (b, near_b, netdev_b) = wire(files.path(), "b");
    let mut arguments = [netdev_a, netdev_b].concat();
    for id in ["a", "b"] {
        arguments.extend(["-netdev".into(), format!("{kind},id={id}-port,netdev={id}")]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (_daemon, mut client) = Daemon::netdevd(&arguments);
    let pass = |from: &UnixDatagram, near: &Path, to: &UnixDatagram, sent: &[u8], arrives: bool| {
        from.send_to(sent, near).expect("sent");
        !arrives || comes(to, sent)
    };
    // Broadcasts: a switch has nothing to learn from them that matters here.
    let to_all = |sent: &[u8]| [&[0xff; 6][..], &sent[6..]].concat();
    each_cut(
        &mut client,
        &["a", "a-port", "b-port", "b"],
        |sent, arrives| pass(&a, &near_a, &b, &to_all(sent), arrives),
        |sent, arrives| pass(&b, &near_b, &a, &to_all(sent), arrives),
    );
}

#[test]
fn netdevs_and_ports_of_hubs_lose_by_name_both_ways() {
    ports("hubport,hubid=0");
}

#[test]
fn ports_of_switches_lose_by_name_both_ways() {
    ports("switchport,switchid=0");
}

#[test]
fn nics_and_what_they_are_joined_to_lose_by_name_both_ways() {
    let files = directory();
    let (a, near, netdev) = wire(files.path(), "a");
    let nic = ["-netdev", "nic,id=n0,netdev=a,addr=n0.sock"].map(str::to_owned);
    let arguments = [netdev, nic].concat();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (daemon, mut client) = Daemon::netdevd(&arguments);
    let guest: RefCell<Split> = RefCell::new(plug(&daemon, "n0", SPLIT));
    each_cut(
        &mut client,
        &["n0"],
        |sent, arrives| {
            a.send_to(sent, &near).expect("sent");
            !arrives || guest.borrow_mut().receive(PATIENCE).as_deref() == Some(sent)
        },
        |sent, arrives| guest.borrow_mut().send(sent) && (!arrives || comes(&a, sent)),
    );
    // The nic follows its netdev, and not the other way round; a name of nobody changes nothing.
    let links = |client: &mut Qmp| ["a", "n0"].map(|name| shown(client, name)["link"] == true);
    client.ok("set_link", json!({"name": "n0", "up": false}));
    assert_eq!(links(&mut client), [true, false]);
    client.ok("set_link", json!({"name": "a", "up": false}));
    client.ok("set_link", json!({"name": "n0", "up": true}));
    assert_eq!(links(&mut client), [false, true]);
    let before = dropped(&mut client, "a", "link-down");
    assert!(guest.borrow_mut().send(&frame(60, 1)));
    await_drop(&mut client, "a", "link-down", before + 1);
    assert_eq!(client.refused("set_link", json!({"name": "nope", "up": true})), "Device 'nope' not found");
    client.ok("set_link", json!({"name": "a", "up": true}));
    assert_eq!(links(&mut client), [true, true]);
}

/// Between a `dgram` netdev and `netdev`, whose id is `x`, on a hub; `far` makes its far end: what sends there, and what receives.
fn wires<S: FnMut(&[u8]), R: FnMut() -> Vec<u8>>(netdev: &str, far: impl FnOnce() -> (S, R)) {
    let files = directory();
    let (a, near, dgram) = wire(files.path(), "a");
    let mut arguments = dgram.to_vec();
    for netdev in [netdev, "hubport,id=a-port,hubid=0,netdev=a", "hubport,id=x-port,hubid=0,netdev=x"] {
        arguments.extend(["-netdev".into(), netdev.into()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (_daemon, mut client) = Daemon::netdevd(&arguments);
    let (mut send, receive) = far();
    let receive = RefCell::new(receive);
    let up = wait::until(PATIENCE, || (shown(&mut client, "x")["link"] == true).then_some(()));
    assert!(up.is_some(), "{netdev} is up");
    each_cut(
        &mut client,
        &["x", "x-port"],
        |sent, arrives| {
            a.send_to(sent, &near).expect("sent");
            !arrives || (receive.borrow_mut())() == sent
        },
        |sent, arrives| {
            send(sent);
            !arrives || comes(&a, sent)
        },
    );
}

/// A far end where each frame has its length before it.
fn framed<T: Read + Write>(mut receiver: T, mut sender: T) -> (impl FnMut(&[u8]), impl FnMut() -> Vec<u8>) {
    let send = move |frame: &[u8]| {
        let length = u32::try_from(frame.len()).expect("a short frame").to_be_bytes();
        sender.write_all(&[&length, frame].concat()).expect("sent");
    };
    let receive = move || {
        let mut length = [0; 4];
        receiver.read_exact(&mut length).expect("a length");
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        receiver.read_exact(&mut frame).expect("a frame");
        frame
    };
    (send, receive)
}

/// A far end where each frame is a datagram behind a header.
fn headed(
    socket: UdpSocket,
    near: SocketAddr,
    header: [u8; 8],
) -> (impl FnMut(&[u8]), impl FnMut() -> Vec<u8>) {
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let sender = socket.try_clone().expect("dup");
    let send = move |frame: &[u8]| {
        sender.send_to(&[&header[..], frame].concat(), near).expect("sent");
    };
    let receive = move || {
        let mut bytes = vec![0; 2048];
        let length = socket.recv(&mut bytes).expect("a datagram");
        assert_eq!(bytes[..8], header);
        bytes[8..length].to_vec()
    };
    (send, receive)
}

/// A port that is free now.
fn free() -> u16 {
    let probe = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    probe.local_addr().expect("its address").port()
}

#[test]
fn streams_lose_by_name_both_ways() {
    let files = directory();
    let path = files.path().join("x");
    let listener = UnixListener::bind(&path).expect("a socket");
    wires(&format!("stream,id=x,addr.type=unix,addr.path={}", path.display()), || {
        let (stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        framed(stream.try_clone().expect("dup"), stream)
    });
}

#[test]
fn sockets_lose_by_name_both_ways() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let port = listener.local_addr().expect("its address").port();
    wires(&format!("socket,id=x,connect=127.0.0.1:{port}"), || {
        let (stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        framed(stream.try_clone().expect("dup"), stream)
    });
}

#[test]
fn l2tpv3_tunnels_lose_by_name_both_ways() {
    let far = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let (near, port) = (free(), far.local_addr().expect("its address").port());
    let netdev =
        format!("l2tpv3,id=x,src=127.0.0.1,dst=127.0.0.1,udp=on,srcport={near},dstport={port},txsession=7");
    wires(&netdev, || headed(far, ([127, 0, 0, 1], near).into(), [0, 3, 0, 0, 0, 0, 0, 7]));
}

#[test]
fn vxlan_tunnels_lose_by_name_both_ways() {
    let port = free();
    let far = UdpSocket::bind(("127.0.0.2", port)).expect("a socket");
    let netdev = format!("vxlan,id=x,local=127.0.0.1,remote=127.0.0.2,vni=9,port={port}");
    wires(&netdev, || headed(far, ([127, 0, 0, 1], port).into(), [8, 0, 0, 0, 0, 0, 9, 0]));
}
