//! Linux guests in virtual machines on netdevd's nics: QEMU 10.0 without KVM boots Debian's kernel.
//!
//! Each test has all cores for itself, a machine serves several cases, and traffic has a size and no time: a slow machine
//! takes longer, and nothing else.

mod af_xdp;
mod announce;
mod links;
mod migration;
mod restart;
mod shapes;
mod tap;
mod user;
mod vhost;
mod vp_vdpa;
mod wire;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::json;
use tests::daemon::Daemon;
use tests::lab::Lab;
use tests::machine::Machine;
use tests::netns::NetNs;
use tests::qmp::Qmp;
use tests::skip::Need;
use tests::wait;

/// Two guests need no privileges.
const GUESTS: &[Need] = &[Need::Guests];
/// A guest and the kernel of this machine.
const GUEST_AND_TAP: &[Need] =
    &[Need::Guests, Need::Root, Need::Tap, Need::Tool("ping"), Need::Tool("iperf3")];

/// What a nic or a tap may take to follow a change, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments for nics on hub `hub`, each listening on `NAME.sock`, with more properties (`,name=value...`).
fn nics(hub: i32, names: &[&str], properties: &str) -> Vec<String> {
    let nic = |name: &&str| {
        let port = format!("hubport,id={name}-port,hubid={hub}");
        let chardev = format!("socket,id={name}-socket,path={name}.sock,server=on,wait=off");
        let device = format!("virtio-net-pci,id={name},netdev={name}-port,chardev={name}-socket{properties}");
        [("-netdev", port), ("-chardev", chardev), ("-device", device)]
    };
    names.iter().flat_map(nic).flat_map(|(option, value)| [option.to_owned(), value]).collect()
}

/// The socket of a nic.
fn socket(daemon: &Daemon, nic: &str) -> PathBuf {
    daemon.directory().join(format!("{nic}.sock"))
}

/// Nics on hub 0, and the tap `t0` on the same hub, whose interface lies in a namespace of its own.
fn with_tap(names: &[&str], address: Ipv4Addr) -> (Lab, NetNs) {
    let arguments = nics(0, names, "");
    let mut lab = Lab::new(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let place = lab.home.sibling();
    lab.tap_at("t0", &place, address);
    lab.hub(0, &["t0"]);
    (lab, place)
}

/// How the connection of a nic stands: `listening`, `connecting`, `ready`, or `failed` with a reason behind it.
fn state(client: &mut Qmp, nic: &str) -> String {
    let transport = client.ok("query-netdev", json!({"name": nic}))[0]["transport"].clone();
    let text = |member: &str| transport[member].as_str().unwrap_or_default().to_owned();
    format!("{} {}", text("state"), text("error")).trim_end().to_owned()
}

/// What a port has counted, over all its queues: the members of `query-net-stats` of these names, or reasons of drops.
fn counted<const N: usize>(client: &mut Qmp, name: &str, what: [&str; N]) -> [u64; N] {
    let stats = client.ok("query-net-stats", json!({}));
    let ports = stats["ports"].as_array().cloned().unwrap_or_default();
    what.map(|what| {
        let mine = ports.iter().filter(|port| port["name"] == name);
        mine.filter_map(|port| port[what].as_u64().or_else(|| port["drops"][what].as_u64())).sum()
    })
}

/// Frames that a port has dropped, for whatever reason.
fn dropped(client: &mut Qmp, name: &str) -> u64 {
    let stats = client.ok("query-net-stats", json!({}));
    let ports = stats["ports"].as_array().cloned().unwrap_or_default();
    let mine = ports.iter().filter(|port| port["name"] == name);
    mine.flat_map(|port| port["drops"].as_object().cloned().unwrap_or_default())
        .filter_map(|(_, n)| n.as_u64())
        .sum()
}

/// Makes the neighbours know each other, and waits for it: a guest that has just come up may lose its first frames.
#[track_caller]
fn meet(from: &mut Machine, to: Ipv4Addr) {
    let (status, said) =
        from.attempt(&format!("for i in $(seq 30); do ping -q -c 1 -W 1 {to} && exit 0; done; exit 1"));
    assert_eq!(status, 0, "{to} never answers\n{said}");
}

/// Ten pings with that many bytes, and all are answered. One after the other: `ping` waits for late answers only while none
/// has come.
#[track_caller]
fn ping(from: &mut Machine, to: Ipv4Addr, bytes: usize) {
    meet(from, to);
    from.run(&ten_pings(to, bytes));
}

/// The shell command for that.
fn ten_pings(to: Ipv4Addr, bytes: usize) -> String {
    format!("for i in 1 2 3 4 5 6 7 8 9 10; do ping -q -c 1 -W 20 -s {bytes} {to} || exit 1; done")
}

/// iperf3 from a guest to a server, with a size among its options; all of it must arrive.
#[track_caller]
fn iperf(from: &mut Machine, to: Ipv4Addr, options: &str) {
    let run = format!("timeout 60 iperf3 -c {to} -i 0 {options}");
    let said = wait::until(PATIENCE, || Some(from.attempt(&run)).filter(|(_, said)| !turned_away(said)));
    let (status, said) = said.expect("the server has time");
    assert!(status == 0 && said.contains("iperf Done."), "{run}: {said}");
}

/// Whether iperf3's server was not there: between two clients it does not listen for a moment.
fn turned_away(said: &str) -> bool {
    let ways = ["Connection refused", "the server is busy", "control message: Connection reset"];
    ways.iter().any(|way| said.contains(way))
}

/// A process that is killed with the test.
struct Process(Child);

impl Process {
    fn start(mut command: std::process::Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().expect("a process"))
    }

    /// Interrupts it.
    fn interrupt(&self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
    }

    /// What it printed, when it has ended.
    fn said(mut self) -> String {
        assert!(wait::child(&mut self.0, PATIENCE * 3).is_some(), "it has not ended");
        std::io::read_to_string(self.0.stdout.take().expect("piped")).expect("text")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
