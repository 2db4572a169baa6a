//! `set_link`: whatever kind of client is cut off, frames that it would send or get are lost by name, and pass again afterwards.

use std::cell::RefCell;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use serde_json::json;
use tests::daemon::{Daemon, directory};
use tests::nics::{SPLIT, Split, await_drop, dropped, frame, plug, shown};
use tests::qmp::Qmp;
use tests::wait::PATIENCE;

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
