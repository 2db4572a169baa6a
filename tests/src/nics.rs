//! Daemons with nics, guests on them, and frames between guests.

use std::path::PathBuf;

use engine::virtq::DriverRing;
use engine::virtq::packed::PackedDriver;
use engine::virtq::split::SplitDriver;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::guest::{Guest, Shape};
use crate::qmp::Qmp;
use crate::wait::{self, PATIENCE};

/// Split rings with mergeable buffers.
pub const SPLIT: Shape = Shape { packed: false, mergeable: true };

/// A guest with split rings.
pub type Split = Guest<SplitDriver>;
/// A guest with packed rings.
pub type Packed = Guest<PackedDriver>;

/// A daemon with this many nics `n0`... on hub 0.
#[must_use]
pub fn hub(nics: usize) -> (Daemon, Qmp) {
    let mut arguments = Vec::new();
    for n in 0..nics {
        arguments.push("-netdev".to_owned());
        arguments.push(format!("hubport,id=h{n},hubid=0"));
        arguments.push("-netdev".to_owned());
        arguments.push(format!("nic,id=n{n},netdev=h{n},addr=n{n}.sock"));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Daemon::netdevd(&arguments)
}

/// Where a nic listens.
#[must_use]
pub fn socket(daemon: &Daemon, nic: &str) -> PathBuf {
    daemon.directory().join(format!("{nic}.sock"))
}

/// A guest on a nic.
///
/// # Panics
/// When it is refused.
pub fn plug<R: DriverRing>(daemon: &Daemon, nic: &str, shape: Shape) -> Guest<R> {
    Guest::connect(&socket(daemon, nic), shape).expect("a guest")
}

/// A frame of that many bytes, told from others by its seed.
#[must_use]
pub fn frame(len: usize, seed: u8) -> Vec<u8> {
    let head = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    let body = (0..len - head.len()).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed));
    head.into_iter().chain(body).collect()
}

/// The next frame is this one.
///
/// # Panics
/// It is not.
#[track_caller]
pub fn arrives<R: DriverRing>(at: &mut Guest<R>, sent: &[u8]) {
    let got = at.receive(PATIENCE);
    let head = |frame: &[u8]| format!("{} bytes, {:02x?}", frame.len(), &frame[..frame.len().min(20)]);
    assert!(
        got.as_deref() == Some(sent),
        "expected {}, got {:?}; {}",
        head(sent),
        got.as_deref().map(head),
        at.books()
    );
}

/// Frames of several sizes from one guest to the other.
///
/// # Panics
/// One does not arrive.
#[track_caller]
pub fn cross<A: DriverRing, B: DriverRing>(from: &mut Guest<A>, to: &mut Guest<B>) {
    for (seed, len) in [60, 14, 244, 245, 1000, 1514].into_iter().enumerate() {
        let sent = frame(len, seed as u8);
        assert!(from.send(&sent), "room for {len} bytes");
        arrives(to, &sent);
    }
    // More than a ring holds: buffers come back.
    for seed in 0..200 {
        let sent = frame(100, seed);
        assert_eq!(wait::until(PATIENCE, || from.send(&sent).then_some(())), Some(()));
        arrives(to, &sent);
    }
}

/// What `query-netdev` says of a netdev or nic.
pub fn shown(client: &mut Qmp, name: &str) -> Value {
    client.ok("query-netdev", json!({"name": name}))[0].clone()
}

/// Frames dropped at a nic for that reason.
pub fn dropped(client: &mut Qmp, name: &str, reason: &str) -> u64 {
    let stats = client.ok("query-net-stats", json!({}));
    let ports = stats["ports"].as_array().cloned().unwrap_or_default();
    let mine = ports.iter().filter(|port| port["name"] == name);
    mine.filter_map(|port| port["drops"][reason].as_u64()).sum()
}

/// Waits until so many frames were dropped at a nic for that reason.
///
/// # Panics
/// They are not.
pub fn await_drop(client: &mut Qmp, name: &str, reason: &str, least: u64) {
    let reached = wait::until(PATIENCE, || (dropped(client, name, reason) >= least).then_some(()));
    assert_eq!(reached, Some(()), "{least} frames dropped as {reason} at {name}");
}
