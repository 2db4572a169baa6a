//! `set_link` beside QEMU 10.0: what passes, and what filters see of it, after each step of the same commands.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::daemon::{Daemon, Program, directory};
use tests::nics::{SPLIT, Split, frame, plug};
use tests::qmp::Qmp;
use tests::skip::{Need, ready};
use tests::wait::{self, PATIENCE};

use super::wire;

/// What came of one frame: whether it arrived, and how many of the filters named saw it, sent to their netdev and by it.
type Seen = (bool, Vec<[usize; 2]>);

/// A program with `dgram` netdevs whose other ends are sockets of the test's.
struct Side {
    program: Program,
    qmp: Qmp,
    wires: Vec<(UnixDatagram, PathBuf)>,
    guest: Option<Split>,
    /// Clients that get captures.
    names: &'static [&'static str],
    daemon: Daemon,
    _files: TempDir,
}

impl Side {
    /// Two netdevs on a hub.
    fn hub(program: Program) -> Self {
        let files = directory();
        let mut arguments = Vec::new();
        let wires = ["a", "b"].map(|id| {
            let (socket, near, netdev) = wire(files.path(), id);
            arguments.extend(netdev);
            arguments.extend(["-netdev".into(), format!("hubport,id={id}-port,hubid=0,netdev={id}")]);
            (socket, near)
        });
        let daemon = Daemon::of(program).args(arguments).start();
        let qmp = daemon.client();
        let names = &["a", "a-port", "b-port", "b"];
        Self { program, qmp, wires: wires.into(), guest: None, names, daemon, _files: files }
    }

    /// A nic on a netdev. QEMU's is one that takes frames without a driver.
    fn nic(program: Program) -> Self {
        let files = directory();
        let (socket, near, netdev) = wire(files.path(), "a");
        let more: &[&str] = match program {
            Program::Oracle => {
                &["-M", "pc", "-accel", "tcg", "-m", "32", "-device", "ne2k_pci,id=n0,netdev=a,romfile="]
            }
            Program::Netdevd => &["-netdev", "nic,id=n0,netdev=a,addr=n0.sock"],
        };
        let daemon = Daemon::of(program).args(netdev).args(more).start();
        let guest = (program == Program::Netdevd).then(|| plug(&daemon, "n0", SPLIT));
        let qmp = daemon.client();
        Self { program, qmp, wires: vec![(socket, near)], guest, names: &["a"], daemon, _files: files }
    }

    fn set(&mut self, name: &str, up: bool) {
        assert_eq!(self.qmp.ok("set_link", json!({"name": name, "up": up})), json!({}));
    }

    /// Frames that ours has dropped, wherever.
    fn dropped(&mut self) -> u64 {
        let stats = self.qmp.ok("query-net-stats", json!({}));
        let ports = stats["ports"].as_array().expect("ports");
        ports
            .iter()
            .flat_map(|port| port["drops"].as_object().expect("drops").values())
            .filter_map(Value::as_u64)
            .sum()
    }

    /// Does `what`, and waits until the frame that it sends has come to its end; whether `arrived` has seen it.
    fn sent(&mut self, what: impl FnOnce(&mut Self), mut arrived: impl FnMut(&mut Self) -> bool) -> Seen {
        let files: Vec<_> =
            self.names.iter().map(|name| self.daemon.directory().join(format!("{name}.pcap"))).collect();
        let dumps = |side: &mut Self| {
            for (name, file) in side.names.iter().zip(&files) {
                for queue in ["rx", "tx"] {
                    let file = file.with_extension(queue);
                    let options = json!({"qom-type": "filter-dump", "id": format!("{name}.{queue}"), "netdev": name,
                        "queue": queue, "file": file});
                    side.qmp.ok("object-add", options);
                }
            }
        };
        dumps(self);
        let before = if self.program == Program::Netdevd { self.dropped() } else { 0 };
        what(self);
        let came = match self.program {
            // Its one loop serves the netdev, if need be, before it answers for the second time.
            Program::Oracle => {
                (0..3).for_each(|_| drop(self.qmp.ok("query-status", json!({}))));
                arrived(self)
            }
            Program::Netdevd => {
                let end = wait::until(PATIENCE, || match arrived(self) {
                    true => Some(true),
                    false => (self.dropped() > before).then_some(false),
                });
                end.expect("it arrives, or is dropped")
            }
        };
        let seen = self.names.iter().zip(&files).map(|(name, file)| {
            ["rx", "tx"].map(|queue| {
                self.qmp.ok("object-del", json!({"id": format!("{name}.{queue}")}));
                records(&file.with_extension(queue))
            })
        });
        let seen = seen.collect();
        (came, seen)
    }

    /// A frame from one wire to the other.
    fn crosses(&mut self, from: usize, seed: u8) -> Seen {
        let sent = [&[0xff; 6][..], &frame(60, seed)[6..]].concat();
        let to = 1 - from;
        let put = sent.clone();
        self.sent(
            |side| assert!(side.wires[from].0.send_to(&put, &side.wires[from].1).is_ok()),
            |side| taken(&side.wires[to].0, |got| got == sent),
        )
    }

    /// The nic's announcement.
    fn announces(&mut self) -> Seen {
        self.sent(
            |side| {
                drop(side.qmp.ok("announce-self", json!({"initial": 1, "max": 1, "rounds": 1, "step": 0})));
            },
            |side| taken(&side.wires[0].0, |got| got[12..14] == [0x80, 0x35]),
        )
    }

    /// A frame to the nic; where it ends is known by ours only.
    fn comes(&mut self, seed: u8) -> Vec<[usize; 2]> {
        let sent = [&[0xff; 6][..], &frame(60, seed)[6..]].concat();
        let seen = self.sent(
            |side| assert!(side.wires[0].0.send_to(&sent, &side.wires[0].1).is_ok()),
            |side| {
                side.guest.as_mut().is_some_and(|guest| guest.receive(std::time::Duration::ZERO).is_some())
            },
        );
        seen.1
    }
}

/// Whether a frame is there, which is the one.
fn taken(wire: &UnixDatagram, is: impl Fn(&[u8]) -> bool) -> bool {
    wire.set_nonblocking(true).expect("a flag");
    let mut bytes = [0; 2048];
    let got = wire.recv(&mut bytes).map(|length| is(&bytes[..length]));
    assert_ne!(got.as_ref().ok(), Some(&false), "no other frame comes");
    got.is_ok()
}

/// Records in a capture.
fn records(file: &std::path::Path) -> usize {
    let bytes = fs::read(file).expect("the capture");
    let (mut found, mut at) = (0, 24);
    while at < bytes.len() {
        at += 16 + u32::from_ne_bytes(bytes[at + 8..at + 12].try_into().expect("a length")) as usize;
        found += 1;
    }
    found
}

#[test]
fn clients_of_a_hub_are_cut_off_as_in_qemu() {
    if !ready("clients_of_a_hub_are_cut_off_as_in_qemu", &[Need::Oracle]) {
        return;
    }
    let mut sides = [Program::Oracle, Program::Netdevd].map(Side::hub);
    let one = ["a", "a-port", "b-port", "b"].into_iter().flat_map(|name| [(name, false), (name, true)]);
    // Two at once, in both orders of their return; one twice.
    let both = [("a", false), ("a-port", false), ("a", true), ("a-port", true)];
    let far = [("b", false), ("a", false), ("b", true), ("b", true), ("a", true)];
    let (mut passed, mut cut) = (0, 0);
    for (number, (name, up)) in one.chain(both).chain(far).enumerate() {
        let [theirs, ours] = sides.each_mut().map(|side| {
            side.set(name, up);
            [0, 1].map(|from| side.crosses(from, number as u8))
        });
        assert_eq!(theirs, ours, "step {number}: {name} up {up}");
        passed += usize::from(ours[0].0);
        cut += usize::from(!ours[0].0);
    }
    assert!(passed > 4 && cut > 4, "{passed} passed, {cut} did not");
}

#[test]
fn a_nic_and_its_netdev_are_cut_off_as_in_qemu() {
    if !ready("a_nic_and_its_netdev_are_cut_off_as_in_qemu", &[Need::Oracle]) {
        return;
    }
    let mut sides = [Program::Oracle, Program::Netdevd].map(Side::nic);
    let mut cut = 0;
    // The netdev takes the nic along, and not the other way round.
    let steps =
        [("n0", true), ("n0", false), ("n0", true), ("a", false), ("n0", true), ("a", true), ("a", false)];
    let more = [("a", true), ("n0", false), ("a", false), ("a", true)];
    for (number, (name, up)) in steps.into_iter().chain(more).enumerate() {
        let [theirs, ours] = sides.each_mut().map(|side| {
            side.set(name, up);
            (side.announces(), side.comes(number as u8))
        });
        assert_eq!(theirs, ours, "step {number}: {name} up {up}");
        cut += usize::from(!ours.0.0);
    }
    assert!(cut > 3, "{cut} steps cut it off");
}
