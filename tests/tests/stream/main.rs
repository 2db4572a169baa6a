//! `stream` netdevs, and `socket` netdevs that are streams, against QEMU and against bare sockets.
//!
//! ```text
//!  test -- unix --> [near] netdevd hub [link] == under test == [link] hub QEMU [near] <-- unix -- test
//! ```

mod given;
mod life;
mod pressure;
mod qemu;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::sync_channel;

use serde_json::{Value, json};
use tests::daemon::{Daemon, Program};
use tests::netns::NetNs;
use tests::qmp::Qmp;
use tests::skip::Need;
use tests::wait;

const NEEDS: &[Need] = &[Need::Oracle, Need::Namespaces];
const NAMESPACE: &[Need] = &[Need::Namespaces];
/// The longest frame (QEMU's `NET_BUFSIZE`).
const LONGEST: usize = 69_632;

/// One of the two programs, its near netdev on hub 0, and our connection to that.
struct Side {
    daemon: Daemon,
    qmp: Qmp,
    wire: UnixStream,
}

impl Side {
    fn new(program: Program, place: &NetNs) -> Self {
        let daemon = Daemon::of(program).within(place).start();
        let mut qmp = daemon.client();
        let path = daemon.directory().join("near");
        let addr = json!({"type": "unix", "path": path});
        qmp.ok("netdev_add", json!({"type": "stream", "id": "near", "server": true, "addr": addr}));
        on_hub(&mut qmp, "near");
        shows(&mut qmp, "near", "listening");
        let wire = connect(&path);
        qmp.event("NETDEV_STREAM_CONNECTED", wait::PATIENCE).expect("our own connection");
        Self { daemon, qmp, wire }
    }

    /// Adds the netdev under test.
    fn link(&mut self, options: Value) {
        self.qmp.ok("netdev_add", options);
        on_hub(&mut self.qmp, "link");
    }

    /// Waits until its description begins so.
    fn shows(&mut self, text: &str) {
        shows(&mut self.qmp, "link", text);
    }

    fn unlink(&mut self) {
        self.qmp.ok("netdev_del", json!({"id": "link"}));
        self.qmp.ok("netdev_del", json!({"id": "link-port"}));
        self.qmp.take_events();
    }
}

fn connect(path: &std::path::Path) -> UnixStream {
    let stream = wait::until(wait::PATIENCE, || UnixStream::connect(path).ok()).expect("it listens");
    stream.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(wait::PATIENCE)).expect("a timeout");
    stream
}

fn on_hub(qmp: &mut Qmp, netdev: &str) {
    let port = format!("{netdev}-port");
    qmp.ok("netdev_add", json!({"type": "hubport", "id": port, "hubid": 0, "netdev": netdev}));
}

/// What `info network` says of a netdev, behind its type.
fn info(qmp: &mut Qmp, netdev: &str) -> String {
    let all = qmp.ok("human-monitor-command", json!({"command-line": "info network"}));
    let all = all.as_str().expect("a text").to_owned();
    let mark = format!("{netdev}: index=0,type=");
    let line = all
        .lines()
        .find_map(|line| Some(line.split_once(&mark)?.1))
        .unwrap_or_else(|| panic!("no {netdev}: {all}"));
    line.split_once(',').map_or("", |(_, info)| info).trim_end().to_owned()
}

fn shows(qmp: &mut Qmp, netdev: &str, text: &str) {
    let mut last = String::new();
    let found = wait::until(wait::PATIENCE, || {
        last = info(qmp, netdev);
        last.starts_with(text).then_some(())
    });
    assert!(found.is_some(), "{netdev} is described as {last:?}, not as {text:?}");
}

/// Bytes of a frame, told from others by its length and number.
fn frame(length: usize, number: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(31) ^ number.wrapping_mul(7) ^ (at >> 8)) as u8).collect()
}

fn send(wire: &mut impl Write, frame: &[u8]) {
    let bytes = [&(frame.len() as u32).to_be_bytes()[..], frame].concat();
    wire.write_all(&bytes).expect("the peer takes a frame");
}

fn receive(wire: &mut impl Read) -> Vec<u8> {
    let mut length = [0; 4];
    wire.read_exact(&mut length).expect("a frame comes");
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    wire.read_exact(&mut frame).expect("all of it comes");
    frame
}

/// Frames of these lengths go from one end to the other, some at a time: QEMU drops what a hub's slow leg has too much of.
fn carries(from: &UnixStream, to: &UnixStream, lengths: &[usize], what: &str) {
    let (mut from, mut to) = (from.try_clone().expect("a copy"), to.try_clone().expect("a copy"));
    let (under_way, arrived) = sync_channel(128);
    let all = lengths.to_vec();
    let sender = std::thread::spawn(move || {
        for (number, length) in all.into_iter().enumerate() {
            under_way.send(()).expect("somebody reads");
            send(&mut from, &frame(length, number));
        }
    });
    for (number, length) in lengths.iter().enumerate() {
        assert!(receive(&mut to) == frame(*length, number), "{what}: frame {number} of {length} bytes");
        arrived.recv().expect("it was sent");
    }
    sender.join().expect("all are sent");
}

fn both_ways(ours: &Side, theirs: &Side, lengths: &[usize], what: &str) {
    carries(&ours.wire, &theirs.wire, lengths, &format!("{what}, to QEMU"));
    carries(&theirs.wire, &ours.wire, lengths, &format!("{what}, from QEMU"));
}

fn pair() -> (NetNs, Side, Side) {
    let place = NetNs::new();
    let ours = Side::new(Program::Netdevd, &place);
    let theirs = Side::new(Program::Oracle, &place);
    (place, ours, theirs)
}
