//! `announce-self`: the frames and their times beside those of QEMU 10.0, which nics, which guests, and where the frames pass.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::backend::nic::NetFeatures;
use engine::wire::rarp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::daemon::{Daemon, Program, directory};
use tests::guest::Guest;
use tests::lab::{Lab, Leg};
use tests::nics::{SPLIT, Split, await_drop, plug, shown, socket};
use tests::qmp::Qmp;
use tests::skip::{Need, ready};
use tests::wait::{self, PATIENCE};

/// Time without a frame after which none is expected: ten times the rounds here.
const QUIET: Duration = Duration::from_millis(200);

const MAC: [[u8; 6]; 2] = [[0x52, 0x54, 0, 0, 0, 1], [0x52, 0x54, 0, 0, 0, 2]];

/// A program with a nic `n0` on a `dgram` netdev whose other end is a socket of the test's.
struct Side {
    qmp: Qmp,
    wires: Vec<UnixDatagram>,
    guests: Vec<Split>,
    daemon: Daemon,
    _files: TempDir,
}

fn wire(files: &Path, number: usize) -> (UnixDatagram, [String; 2]) {
    let far = files.join(format!("far{number}"));
    let near = files.join(format!("near{number}"));
    let socket = UnixDatagram::bind(&far).expect("a socket");
    let text = |kind: &str, path: PathBuf| format!("{kind}.type=unix,{kind}.path={}", path.display());
    let options = format!("dgram,id=d{number},{},{}", text("local", near), text("remote", far));
    (socket, ["-netdev".into(), options])
}

impl Side {
    /// QEMU, with a device.
    fn reference() -> Self {
        let files = directory();
        let (wire, netdev) = wire(files.path(), 0);
        let device = ["-device", "virtio-net-pci,id=n0,netdev=d0,mac=52:54:00:00:00:01,romfile="];
        let machine = ["-M", "pc", "-accel", "tcg", "-m", "32"];
        let daemon = Daemon::of(Program::Oracle).args(machine).args(netdev).args(device).start();
        Self { qmp: daemon.client(), wires: vec![wire], guests: Vec::new(), daemon, _files: files }
    }

    /// Ours, with so many nics and a guest on each.
    fn ours(nics: usize) -> Self {
        let mut side = Self::without_guests(nics);
        for nic in 0..nics {
            side.guests.push(plug(&side.daemon, &format!("n{nic}"), SPLIT));
        }
        side
    }

    fn without_guests(nics: usize) -> Self {
        let files = directory();
        let (mut wires, mut arguments) = (Vec::new(), Vec::new());
        for nic in 0..nics {
            let (socket, netdev) = wire(files.path(), nic);
            wires.push(socket);
            arguments.extend(netdev);
            let mac = format!("52:54:00:00:00:0{}", nic + 1);
            arguments.push("-netdev".into());
            arguments.push(format!("nic,id=n{nic},netdev=d{nic},addr=n{nic}.sock,macaddr={mac}"));
        }
        let daemon = Daemon::of(Program::Netdevd).args(arguments).start();
        Self { qmp: daemon.client(), wires, guests: Vec::new(), daemon, _files: files }
    }

    fn announce(&mut self, (initial, max, rounds, step): (i64, i64, i64, i64), more: Value) {
        let mut arguments = json!({"initial": initial, "max": max, "rounds": rounds, "step": step});
        if let (Some(all), Value::Object(more)) = (arguments.as_object_mut(), more) {
            all.extend(more);
        }
        assert_eq!(self.qmp.ok("announce-self", arguments), json!({}));
    }

    /// The next frame at a nic's peer.
    fn next(&self, nic: usize, limit: Duration) -> Option<Vec<u8>> {
        self.wires[nic].set_read_timeout(Some(limit)).expect("a timeout");
        let mut bytes = vec![0; 2048];
        let length = self.wires[nic].recv(&mut bytes).ok()?;
        bytes.truncate(length);
        Some(bytes)
    }

    #[track_caller]
    fn gets(&self, nic: usize, frames: usize) {
        for number in 0..frames {
            assert_eq!(self.next(nic, PATIENCE).as_deref(), Some(&rarp::frame(MAC[nic])[..]), "{number}");
        }
    }

    #[track_caller]
    fn gets_no_more(&self) {
        for nic in 0..self.wires.len() {
            assert_eq!(self.next(nic, QUIET), None, "nic {nic}");
        }
    }

    /// Waits for what is under way, until nothing has come for [`QUIET`].
    fn drain(&self, nic: usize) {
        while self.next(nic, QUIET).is_some() {}
    }
}

/// The frames of one announcement: their bytes, and milliseconds since before the command. Each comes when it is due, and not before.
#[track_caller]
fn measured(side: &mut Side, parameters: (i64, i64, i64, i64), due: &[u64]) -> Vec<Vec<u8>> {
    let begun = Instant::now();
    side.announce(parameters, json!({}));
    let mut frames = Vec::new();
    for due in due {
        let frame = side.next(0, PATIENCE).expect("a frame");
        let at = begun.elapsed();
        // QEMU's clock has whole milliseconds.
        assert!(at + Duration::from_millis(2) >= Duration::from_millis(*due), "{at:?}, due at {due} ms");
        frames.push(frame);
    }
    side.gets_no_more();
    frames
}

#[test]
fn frames_and_times_are_those_of_the_reference() {
    if !ready("frames_and_times_are_those_of_the_reference", &[Need::Oracle]) {
        return;
    }
    let (mut theirs, mut ours) = (Side::reference(), Side::ours(1));
    for (parameters, due) in [
        ((50, 200, 6, 50), &[0, 50, 150, 300, 500, 700][..]),
        // A time that is negative or too long is the longest; so is one that became negative.
        ((-10, 60, 3, 5), &[0, 60, 120]),
        ((500, 60, 3, 5), &[0, 60, 120]),
        ((30, 70, 4, -20), &[0, 30, 40, 110]),
        ((0, 0, 3, 0), &[0, 0, 0]),
        ((10, 10, 1, 0), &[0]),
        ((10, 10, 0, 0), &[]),
    ] {
        let (their, our) = (measured(&mut theirs, parameters, due), measured(&mut ours, parameters, due));
        assert_eq!(their, our, "{parameters:?}");
        assert!(our.iter().all(|frame| *frame == rarp::frame(MAC[0])), "{our:02x?}");
    }
    // The human monitor has times of its own, for all nics or those that are named.
    for (line, frames) in [
        ("announce_self", 5),
        ("announce_self \"\" x", 5),
        ("announce_self n0", 5),
        ("announce_self n1,n2 y", 0),
    ] {
        for side in [&mut theirs, &mut ours] {
            assert_eq!(side.qmp.ok("human-monitor-command", json!({"command-line": line})), "");
            side.gets(0, frames);
        }
    }
    theirs.gets_no_more();
    ours.gets_no_more();
}

#[test]
fn the_schedule_is_kept() {
    let mut ours = Side::ours(1);
    let frames = measured(&mut ours, (50, 200, 6, 50), &[0, 50, 150, 300, 500, 700]);
    assert!(frames.iter().all(|frame| *frame == rarp::frame(MAC[0])));
}

#[test]
fn rounds_end_are_replaced_and_run_side_by_side() {
    let mut side = Side::ours(2);
    // Negative: until somebody ends it. Another id is another announcement.
    side.announce((10, 10, -1, 0), json!({"id": "a", "interfaces": ["n0"]}));
    side.announce((15, 15, 4, 0), json!({"id": "b", "interfaces": ["n1"]}));
    side.gets(0, 20);
    side.gets(1, 4);
    side.announce((10, 10, 0, 0), json!({"id": "b"}));
    side.announce((10, 10, 0, 0), json!({"id": "unknown"}));
    side.gets(0, 20);
    side.announce((10, 10, 0, 0), json!({"id": "a"}));
    side.drain(0);
    side.gets_no_more();
    // Those without an id are one: the second has the place of the first, whose next round never comes.
    side.announce((100, 100, -1, 0), json!({"interfaces": ["n0"]}));
    side.announce((10, 10, 3, 0), json!({"id": "", "interfaces": ["n1"]}));
    side.gets(0, 1);
    side.gets(1, 3);
    side.gets_no_more();
}

#[test]
fn ids_and_interfaces_mean_what_they_mean_in_qemu() {
    if !ready("ids_and_interfaces_mean_what_they_mean_in_qemu", &[Need::Oracle]) {
        return;
    }
    for mut side in [Side::reference(), Side::ours(1)] {
        for (interfaces, count) in
            [(json!(["n0"]), 1), (json!(["nope", "n0", "n0"]), 1), (json!(["nope", "d0"]), 0), (json!([]), 0)]
        {
            side.announce((1, 1, 1, 0), json!({ "interfaces": interfaces }));
            side.gets(0, count);
            side.gets_no_more();
        }
        // Without end, until another of its name takes its place, which ends by itself.
        side.announce((5, 5, -1, 0), json!({"id": "a"}));
        side.gets(0, 10);
        side.announce((10, 10, 3, 0), json!({"id": "a", "interfaces": ["nope"]}));
        side.drain(0);
        side.announce((5, 5, -1, 0), json!({"id": "a"}));
        side.announce((5, 5, -1, 0), json!({"id": "b"}));
        // Ended, by its name: the other one goes on.
        side.announce((5, 5, 0, 0), json!({"id": "a"}));
        side.gets(0, 10);
        side.announce((5, 5, 0, 0), json!({"id": "b"}));
        side.drain(0);
        side.gets_no_more();
    }
}

#[test]
fn announcements_of_one_moment_all_go() {
    let mut side = Side::ours(2);
    for number in 0..10 {
        side.announce((1, 1, 1, 0), json!({"id": format!("i{number}")}));
    }
    side.gets(0, 10);
    side.gets(1, 10);
    side.gets_no_more();
}

#[test]
fn interfaces_are_names_of_nics() {
    let mut side = Side::ours(2);
    for (interfaces, counts) in [
        (json!(["n1"]), [0, 1]),
        (json!(["nope", "n0"]), [1, 0]),
        (json!(["nope", "d0"]), [0, 0]),
        (json!([]), [0, 0]),
        (json!(["n0", "n1", "n0"]), [1, 1]),
    ] {
        side.announce((1, 1, 1, 0), json!({ "interfaces": interfaces }));
        side.gets(0, counts[0]);
        side.gets(1, counts[1]);
        side.gets_no_more();
    }
    side.announce((1, 1, 1, 0), json!({}));
    side.gets(0, 1);
    side.gets(1, 1);
}

#[test]
fn a_guest_that_agreed_announces_itself_and_by_its_present_address() {
    type Net = NetFeatures;
    let mut side = Side::without_guests(1);
    let features = Net::MAC | Net::CTRL_VQ | Net::CTRL_RX | Net::CTRL_MAC_ADDR | Net::GUEST_ANNOUNCE;
    let mut guest: Split =
        Guest::connect_with(&socket(&side.daemon, "n0"), SPLIT, features, 1).expect("a guest");
    side.announce((1, 1, 1, 0), json!({}));
    side.gets(0, 1);
    guest.config_change();
    let status = |guest: &mut Split| u16::from_le_bytes([guest.config()[6], guest.config()[7]]);
    assert_eq!(status(&mut guest), 3);
    assert_eq!((guest.command(&[3, 0]), guest.command(&[3, 0])), (0, 1), "acknowledged once");
    assert_eq!((status(&mut guest), guest.has_news()), (1, false));
    // Who is not named is not asked.
    side.announce((1, 1, 1, 0), json!({"interfaces": ["nope"]}));
    assert_eq!((status(&mut guest), guest.has_news()), (1, false));
    assert_eq!(guest.command(&[1, 1, 2, 0, 0, 0, 0, 9]), 0);
    side.announce((1, 1, 1, 0), json!({}));
    assert_eq!(side.next(0, PATIENCE).as_deref(), Some(&rarp::frame([2, 0, 0, 0, 0, 9])[..]));
    guest.config_change();
    // What the guest sends then goes as ever.
    let sent = tests::nics::frame(60, 1);
    assert!(guest.send(&sent));
    assert_eq!(side.next(0, PATIENCE), Some(sent));
}

#[test]
fn without_a_guest_nothing_is_sent_and_a_cut_link_counts_what_is_lost() {
    let mut side = Side::without_guests(1);
    side.announce((1, 1, 2, 0), json!({}));
    side.gets_no_more();
    let guest: Split = plug(&side.daemon, "n0", SPLIT);
    assert_eq!(side.next(0, QUIET), None, "what was before is not made up for");
    side.qmp.ok("set_link", json!({"name": "n0", "up": false}));
    side.announce((1, 1, 3, 0), json!({}));
    await_drop(&mut side.qmp, "n0", "link-down", 3);
    side.gets_no_more();
    side.qmp.ok("set_link", json!({"name": "n0", "up": true}));
    side.announce((1, 1, 1, 0), json!({}));
    side.gets(0, 1);
    drop(guest);
}

#[test]
fn filters_see_announcements() {
    let mut side = Side::ours(1);
    let file = side.daemon.directory().join("capture");
    // `rx`: what is sent to the netdev.
    let options = json!({"qom-type": "filter-dump", "id": "f0", "netdev": "d0", "queue": "rx", "file": file});
    side.qmp.ok("object-add", options);
    side.announce((1, 1, 2, 0), json!({}));
    side.gets(0, 2);
    side.qmp.ok("object-del", json!({"id": "f0"}));
    let bytes = fs::read(&file).expect("the capture");
    let frame = rarp::frame(MAC[0]);
    let found = bytes.windows(frame.len()).filter(|part| *part == frame).count();
    assert_eq!((found, bytes.len()), (2, 24 + 2 * (16 + frame.len())));
}

#[test]
fn the_next_switch_learns_where_the_guest_is() {
    if !ready("the_next_switch_learns_where_the_guest_is", &[Need::Root, Need::Tap]) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let leg = Leg::new(&mut lab, "t0");
    lab.qmp.ok(
        "netdev_add",
        json!({"type": "nic", "id": "n0", "netdev": "t0", "addr": "n0.sock", "macaddr": "52:54:00:00:00:01"}),
    );
    let _guest: Split = plug(&lab.daemon, "n0", SPLIT);
    lab.qmp.ok("announce-self", json!({"initial": 20, "max": 20, "rounds": 3, "step": 0}));
    for _ in 0..3 {
        assert_eq!(leg.socket.receive(PATIENCE).as_deref(), Some(&rarp::frame(MAC[0])[..]));
    }
}

fn carrier(leg: &Leg) -> bool {
    // The holder's files are those of another namespace: look from inside.
    let shown = leg.place.ip(&format!("-o link show dev {}", leg.name));
    !shown.contains("NO-CARRIER")
}

#[test]
fn the_host_of_a_tap_sees_its_link_and_that_of_its_peer() {
    if !ready("the_host_of_a_tap_sees_its_link_and_that_of_its_peer", &[Need::Root, Need::Tap]) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let leg = Leg::new(&mut lab, "t0");
    let port = json!({"type": "hubport", "id": "h0", "hubid": 0, "netdev": "t0"});
    lab.qmp.ok("netdev_add", port.clone());
    #[track_caller]
    fn shows(leg: &Leg, up: bool) {
        assert!(wait::until(PATIENCE, || (carrier(leg) == up).then_some(())).is_some(), "carrier {up}");
    }
    shows(&leg, true);
    for name in ["t0", "h0"] {
        lab.qmp.ok("set_link", json!({"name": name, "up": false}));
        shows(&leg, false);
        lab.qmp.ok("set_link", json!({"name": name, "up": true}));
        shows(&leg, true);
    }
    // The netdev's own link is as it was; a peer that goes takes nothing with it.
    lab.qmp.ok("set_link", json!({"name": "h0", "up": false}));
    shows(&leg, false);
    assert_eq!(shown(&mut lab.qmp, "t0")["link"], true);
    lab.qmp.ok("netdev_del", json!({"id": "h0"}));
    shows(&leg, true);
    // The link of a nic, and one that is down from the start.
    let nic = json!({"type": "nic", "id": "n0", "netdev": "t0", "addr": "n0.sock"});
    lab.qmp.ok("netdev_add", nic);
    lab.qmp.ok("set_link", json!({"name": "n0", "up": false}));
    shows(&leg, false);
    lab.qmp.ok("set_link", json!({"name": "n0", "up": true}));
    shows(&leg, true);
    lab.tap("low", &json!({"link": false}));
    lab.home.ip("link set low up");
    assert!(lab.home.ip("-o link show dev low").contains("NO-CARRIER"));
    // What lies in which memory is another matter.
    let said = lab.daemon.stderr();
    let warned = said.lines().any(|line| line.contains("WARN") && !line.contains("hugepages"));
    assert!(!warned, "{said}");
}
