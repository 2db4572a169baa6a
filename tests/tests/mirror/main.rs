//! `filter-mirror` and `filter-redirector`, against bare sockets and against QEMU; and what holds for filters of every kind on the way of frames.
//!
//! ```text
//!  test -- unix --> [near] -- hub -- [far] <-- unix -- test
//!                     | the filter under test sits here
//!                   chardev
//! ```

mod churn;
mod kinds;
mod life;
mod qemu;
mod replay;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use serde_json::{Value, json};
use tests::daemon::{Daemon, Program};
use tests::qmp::Qmp;
use tests::wait;

/// The longest record (QEMU's `NET_BUFSIZE`).
const LONGEST: usize = 69_632;

/// One of the two programs, with two netdevs on a hub, and our connections to them.
struct Side {
    daemon: Daemon,
    qmp: Qmp,
    near: UnixStream,
    far: UnixStream,
}

impl Side {
    fn new(program: Program, more: &[&str]) -> Self {
        let daemon = Daemon::of(program).args(more).start();
        let mut qmp = daemon.client();
        let [near, far] = ["near", "far"].map(|name| {
            let path = daemon.directory().join(name);
            let addr = json!({"type": "unix", "path": path});
            qmp.ok("netdev_add", json!({"type": "stream", "id": name, "server": true, "addr": addr}));
            let port = json!({"type": "hubport", "id": format!("{name}-port"), "hubid": 0, "netdev": name});
            qmp.ok("netdev_add", port);
            let wire = connect(&path);
            qmp.event("NETDEV_STREAM_CONNECTED", wait::PATIENCE).expect("our own connection");
            wire
        });
        Self { daemon, qmp, near, far }
    }

    fn ours() -> Self {
        Self::new(Program::Netdevd, &[])
    }

    /// Adds a chardev that listens, and says where.
    fn listens(&mut self, id: &str) -> PathBuf {
        let path = self.daemon.directory().join(id);
        self.socket(id, &path, true);
        path
    }

    /// Adds a chardev that connects.
    fn connects(&mut self, id: &str, path: &Path) {
        self.socket(id, path, false);
    }

    fn socket(&mut self, id: &str, path: &Path, server: bool) {
        let addr = json!({"type": "unix", "data": {"path": path}});
        let mut data = json!({"addr": addr, "server": server});
        if server {
            data["wait"] = json!(false);
        }
        let backend = json!({"type": "socket", "data": data});
        self.qmp.ok("chardev-add", json!({"id": id, "backend": backend}));
    }

    /// Adds a filter `f` on the near netdev.
    fn filter(&mut self, kind: &str, more: &Value) {
        self.qmp.ok("object-add", filter(kind, more));
    }

    fn set(&mut self, property: &str, value: &Value) {
        self.qmp.ok("qom-set", json!({"path": "/objects/f", "property": property, "value": value}));
    }

    /// What the filter `f` has counted under that name.
    fn count(&mut self, name: &str) -> u64 {
        let all = self.qmp.ok("query-filter", json!({"id": "f"}));
        let counters = all[0]["counters"].as_array().expect("counters").clone();
        let one = counters.iter().find(|counter| counter["name"] == name);
        one.unwrap_or_else(|| panic!("no {name}: {all}"))["frames"].as_u64().expect("a number")
    }

    fn counts(&mut self, name: &str, wanted: u64) {
        let mut last = 0;
        let found = wait::until(wait::PATIENCE, || {
            last = self.count(name);
            (last == wanted).then_some(())
        });
        assert!(found.is_some(), "{name} is {last}, not {wanted}");
    }

    /// A frame goes from near to far.
    fn passes(&self, frame: &[u8]) {
        send(&mut &self.near, frame);
        assert!(receive(&mut &self.far) == frame, "a frame of {} bytes passes", frame.len());
    }
}

fn filter(kind: &str, more: &Value) -> Value {
    let mut all = json!({"qom-type": kind, "id": "f", "netdev": "near"});
    for (key, value) in more.as_object().expect("an object") {
        all[key] = value.clone();
    }
    all
}

fn connect(path: &Path) -> UnixStream {
    let stream = wait::until(wait::PATIENCE, || UnixStream::connect(path).ok()).expect("it listens");
    stream.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(wait::PATIENCE)).expect("a timeout");
    stream
}

/// Bytes of a frame, told from others by its length and number.
fn frame(length: usize, number: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(31) ^ number.wrapping_mul(7) ^ (at >> 8)) as u8).collect()
}

/// A frame as mirrors write it, without a virtio-net header.
fn record(frame: &[u8], vnet: bool) -> Vec<u8> {
    let header: &[u8] = if vnet { &[0; 4] } else { &[] };
    [&(frame.len() as u32).to_be_bytes()[..], header, frame].concat()
}

fn send(wire: &mut impl Write, frame: &[u8]) {
    wire.write_all(&record(frame, false)).expect("the peer takes a frame");
}

fn receive(wire: &mut impl Read) -> Vec<u8> {
    let mut length = [0; 4];
    wire.read_exact(&mut length).expect("a frame comes");
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    wire.read_exact(&mut frame).expect("all of it comes");
    frame
}

/// Reads exactly what is expected.
fn reads(wire: &mut impl Read, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    wire.read_exact(&mut got).expect("as many bytes come");
    assert!(got == expected, "{} bytes as expected", expected.len());
}

/// Frames of these lengths go from one end to others, some at a time: QEMU drops what a hub's slow leg has too much of.
fn carries(from: &UnixStream, to: &[&UnixStream], lengths: &[usize], what: &str) {
    let mut from = from.try_clone().expect("a copy");
    let (under_way, arrived) = sync_channel(64);
    let all = lengths.to_vec();
    let sender = std::thread::spawn(move || {
        for (number, length) in all.into_iter().enumerate() {
            under_way.send(()).expect("somebody reads");
            send(&mut from, &frame(length, number));
        }
    });
    for (number, length) in lengths.iter().enumerate() {
        for (place, mut to) in to.iter().copied().enumerate() {
            let got = receive(&mut to);
            assert!(
                got == frame(*length, number),
                "{what}, at {place}: frame {number} of {length} bytes, {} came",
                got.len()
            );
        }
        arrived.recv().expect("it was sent");
    }
    sender.join().expect("all are sent");
}
