//! filter-dump: files that tshark and tcpdump read, and what happens when the disk is full.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tests::daemon::{Daemon, Program};
use tests::lab::{Lab, Leg};
use tests::netns::NetNs;
use tests::packet::frame;
use tests::skip::{Need, ready};
use tests::wait;

const BROADCAST: [u8; 6] = [0xff; 6];
const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn dump(lab: &mut Lab, id: &str, netdev: &str, queue: &str, maxlen: u32) -> std::path::PathBuf {
    let file = lab.daemon.directory().join(id);
    let options = json!({
        "qom-type": "filter-dump", "id": id, "netdev": netdev, "file": file, "queue": queue, "maxlen": maxlen,
    });
    lab.qmp.ok("object-add", options);
    file
}

/// Lengths of the records in a pcap file, captured and original, the short frames first.
fn records(file: &Path) -> Vec<(u32, u32)> {
    let bytes = fs::read(file).expect("the capture");
    assert_eq!(bytes[..4], 0xa1b2_c3d4_u32.to_ne_bytes(), "a classic pcap file in the host's byte order");
    assert_eq!((bytes[4], bytes[6], bytes[20]), (2, 4, 1), "version 2.4, Ethernet");
    let mut found = Vec::new();
    let mut rest = &bytes[24..];
    while rest.len() >= 16 {
        let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().expect("four bytes"));
        found.push((word(8), word(12)));
        rest = &rest[16 + usize::try_from(word(8)).expect("a length")..];
    }
    assert!(rest.is_empty(), "the last record is whole");
    // Frames of two taps reach the daemon in any order.
    found.sort_unstable_by_key(|(_, original)| *original);
    found
}

#[test]
fn a_capture_holds_what_passed_in_its_direction() {
    if !ready("a_capture_holds_what_passed_in_its_direction", &[Need::Root, Need::Tap]) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let legs: Vec<_> = ["one", "two"].iter().map(|name| Leg::new(&mut lab, name)).collect();
    lab.hub(1, &["one", "two"]);
    let all = dump(&mut lab, "all", "one", "all", 65536);
    let rx = dump(&mut lab, "rx", "one", "rx", 65536);
    let tx = dump(&mut lab, "tx", "one", "tx", 65536);
    let short = dump(&mut lab, "short", "one", "all", 20);
    // tx = frames that the netdev sends into the engine; rx = frames sent to it.
    for _ in 0..3 {
        legs[0].socket.send(&frame(BROADCAST, SOURCE, &[7; 86]));
    }
    legs[1].socket.send(&frame(BROADCAST, SOURCE, &[8; 186]));
    assert_eq!((legs[1].payloads().len(), legs[0].payloads().len()), (3, 1));
    for id in ["all", "rx", "tx", "short"] {
        lab.qmp.ok("object-del", json!({"id": id}));
    }
    assert_eq!(records(&tx), [(100, 100); 3]);
    assert_eq!(records(&rx), [(200, 200)]);
    assert_eq!(records(&all).len(), 4);
    assert_eq!(records(&short), [(20, 100), (20, 100), (20, 100), (20, 200)]);
}

#[test]
fn tshark_and_tcpdump_read_a_capture() {
    let tools = [Need::Root, Need::Tap, Need::Tool("tshark"), Need::Tool("tcpdump")];
    if !ready("tshark_and_tcpdump_read_a_capture", &tools) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let legs: Vec<_> = ["one", "two"].iter().map(|name| Leg::new(&mut lab, name)).collect();
    lab.hub(1, &["one", "two"]);
    let file = dump(&mut lab, "f", "one", "all", 65536);
    for _ in 0..5 {
        legs[0].socket.send(&frame(BROADCAST, SOURCE, b"seen"));
    }
    assert_eq!(legs[1].payloads().len(), 5);
    lab.qmp.ok("object-del", json!({"id": "f"}));
    let mut tshark = Command::new("tshark");
    tshark.args(["-r"]).arg(&file).args(["-T", "fields", "-e", "eth.src", "-e", "eth.type"]);
    let text = wait::success(&tshark, 30);
    assert_eq!(text.matches("02:00:00:00:00:01\t0x88b5").count(), 5, "{text}");
    let mut tcpdump = Command::new("tcpdump");
    tcpdump.args(["-n", "-e", "-r"]).arg(&file);
    let text = wait::success(&tcpdump, 30);
    assert_eq!(text.matches("02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff").count(), 5, "{text}");
}

#[test]
fn a_capture_that_is_off_captures_nothing_until_it_is_on() {
    if !ready("a_capture_that_is_off_captures_nothing_until_it_is_on", &[Need::Root, Need::Tap]) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let legs: Vec<_> = ["one", "two"].iter().map(|name| Leg::new(&mut lab, name)).collect();
    lab.hub(1, &["one", "two"]);
    let file = dump(&mut lab, "f", "one", "all", 65536);
    for (status, size) in [("off", 10), ("on", 20), ("off", 30)] {
        lab.qmp.ok("qom-set", json!({"path": "f", "property": "status", "value": status}));
        legs[0].socket.send(&frame(BROADCAST, SOURCE, &vec![1; size + 50]));
        assert_eq!(legs[1].payloads().len(), 1);
    }
    lab.qmp.ok("object-del", json!({"id": "f"}));
    assert_eq!(records(&file), [(84, 84)]);
}

#[test]
fn a_full_disk_loses_captured_frames_and_no_traffic() {
    if !ready("a_full_disk_loses_captured_frames_and_no_traffic", &[Need::Root, Need::Tap, Need::Mount]) {
        return;
    }
    let home = NetNs::new();
    let place = tests::daemon::directory();
    let small = place.path().join("small");
    fs::create_dir(&small).expect("a directory");
    let mount = format!("mount -t tmpfs -o size=64k none {} && exec \"$@\"", small.display());
    let wrapper = ["unshare", "-m", "sh", "-c", &mount, "sh"];
    let daemon = Daemon::of(Program::Netdevd).within(&home).under(wrapper).start();
    let qmp = daemon.client();
    let mut lab = Lab { qmp, daemon, home };
    let legs: Vec<_> = ["one", "two"].iter().map(|name| Leg::new(&mut lab, name)).collect();
    lab.hub(1, &["one", "two"]);
    let options =
        json!({"qom-type": "filter-dump", "id": "f", "netdev": "one", "file": small.join("capture")});
    lab.qmp.ok("object-add", options);
    let before = legs[0].counts().tx_dropped;
    for _ in 0..500 {
        legs[0].socket.send(&frame(BROADCAST, SOURCE, &[9; 1400]));
    }
    let delivered = wait::until(wait::PATIENCE, || {
        let lost = legs[0].counts().tx_dropped - before;
        (legs[1].counts().rx_packets + lost >= 500).then_some(())
    });
    delivered.expect("every frame passes though the disk is full");
    lab.qmp.ok("query-status", json!({}));
    lab.qmp.ok("object-del", json!({"id": "f"}));
    let file = format!("/proc/{}/root{}", lab.daemon.pid(), small.join("capture").display());
    let size = fs::metadata(&file).map_or(0, |data| data.len());
    assert!(size <= 65536, "{size} bytes on a disk of 64 KiB");
}
