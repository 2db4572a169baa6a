//! Filters with a pcap expression, and captures beside tcpdump on the same frames.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tests::lab::{Lab, Leg};
use tests::skip::{Need, ready};
use tests::wait;

const NEEDS: &[Need] = &[Need::Root, Need::Tap];
const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// An IPv4 UDP frame to a port, with this at its end.
fn udp(to: [u8; 6], from: [u8; 6], port: u16, payload: &[u8]) -> Vec<u8> {
    let length = |more: usize| u16::try_from(more + payload.len()).expect("a short payload").to_be_bytes();
    let mut frame = [&to[..], &from, &[8, 0, 0x45, 0]].concat();
    frame.extend(length(28));
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, from[5], 10, 0, 0, to[5], 3, 232]);
    frame.extend(port.to_be_bytes());
    frame.extend(length(8));
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// A record of a capture: microseconds, length on the wire, bytes.
type Record = (u64, u32, Vec<u8>);

fn records(file: &Path) -> Vec<Record> {
    let bytes = fs::read(file).expect("the capture");
    let (mut found, mut rest) = (Vec::new(), &bytes[24..]);
    while rest.len() >= 16 {
        let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().expect("four bytes"));
        let when = u64::from(word(0)) * 1_000_000 + u64::from(word(4));
        let end = 16 + usize::try_from(word(8)).expect("a length");
        found.push((when, word(12), rest[16..end].to_vec()));
        rest = &rest[end..];
    }
    assert!(rest.is_empty(), "the last record is whole");
    found
}

/// tcpdump on a leg's tap, capturing whatever matches.
struct Tcpdump {
    child: Child,
    file: PathBuf,
}

impl Tcpdump {
    fn start(leg: &Leg, file: PathBuf, expression: &str) -> Self {
        // Its ring has a place of this length for each frame: of 64 KiB there are 32, and a busy machine fills them.
        let mut command = leg.place.command("tcpdump");
        command
            .args(["-i", &leg.name, "-U", "--immediate-mode", "-s", "2000", "-Z", "root", "-w"])
            .arg(&file);
        command.arg(expression).stderr(Stdio::null());
        let child = command.spawn().expect("tcpdump");
        wait::until(wait::PATIENCE, || fs::metadata(&file).is_ok_and(|data| data.len() >= 24).then_some(()))
            .expect("tcpdump listens");
        Self { child, file }
    }

    /// Its records once it has `count` of them.
    fn end(mut self, count: usize) -> Vec<Record> {
        let whole = || {
            let bytes = fs::metadata(&self.file).map_or(0, |data| data.len());
            (bytes > 24 && records(&self.file).len() >= count).then_some(())
        };
        wait::until(wait::PATIENCE, whole)
            .unwrap_or_else(|| panic!("tcpdump saw {} frames of {count}", records(&self.file).len()));
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("tcpdump runs");
        wait::child(&mut self.child, wait::PATIENCE).expect("tcpdump ends");
        records(&self.file)
    }
}

fn add(lab: &mut Lab, options: Value) {
    lab.qmp.ok("object-add", options);
}

#[test]
fn a_dump_is_what_tcpdump_sees_on_the_same_traffic_with_and_without_an_expression() {
    let name = "a_dump_is_what_tcpdump_sees_on_the_same_traffic_with_and_without_an_expression";
    if !ready(name, &[Need::Root, Need::Tap, Need::Tool("tcpdump")]) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let legs: Vec<_> = ["one", "two"].iter().map(|name| Leg::new(&mut lab, name)).collect();
    lab.hub(1, &["one", "two"]);
    let expression = "udp dst port 53 or (udp and greater 200)";
    let all = lab.daemon.directory().join("all");
    let some = lab.daemon.directory().join("some");
    add(&mut lab, json!({"qom-type": "filter-dump", "id": "all", "netdev": "one", "file": all}));
    let options =
        json!({"qom-type": "filter-dump", "id": "some", "netdev": "one", "file": some, "filter": expression});
    add(&mut lab, options);
    let every = Tcpdump::start(&legs[0], lab.daemon.directory().join("t-all"), "");
    let matching = Tcpdump::start(&legs[0], lab.daemon.directory().join("t-some"), expression);
    let mut wanted = 0;
    for i in 0..200_u16 {
        // Every other one the other way; each has arrived before the next is sent.
        let (from, to, macs) = if i % 2 == 0 { (0, 1, (B, A)) } else { (1, 0, (A, B)) };
        let port = if i % 3 == 0 { 53 } else { 54 };
        let payload = vec![i.to_le_bytes()[0]; 20 + usize::from(i)];
        let frame = udp(macs.0, macs.1, port, &payload);
        wanted += usize::from(port == 53 || frame.len() >= 200);
        legs[from].socket.send(&frame);
        assert_eq!(legs[to].socket.receive(wait::PATIENCE).as_deref(), Some(&frame[..]));
    }
    let (every, matching) = (every.end(200), matching.end(wanted));
    for id in ["all", "some"] {
        lab.qmp.ok("object-del", json!({"id": id}));
    }
    for (ours, theirs, count) in [(&all, &every, 200), (&some, &matching, wanted)] {
        let ours = records(ours);
        assert_eq!((ours.len(), theirs.len()), (count, count));
        assert!(ours.is_sorted_by_key(|record| record.0), "in the order of their time stamps");
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!((ours.1, &ours.2), (theirs.1, &theirs.2), "the same frame");
            assert!(ours.0.abs_diff(theirs.0) < 2_000_000, "at about the same time");
        }
    }
}

#[test]
fn a_match_drops_passes_and_dumps_and_changes_while_in_force() {
    if !ready("a_match_drops_passes_and_dumps_and_changes_while_in_force", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let legs: Vec<_> = ["one", "two"].iter().map(|name| Leg::new(&mut lab, name)).collect();
    lab.hub(1, &["one", "two"]);
    // Sends to ports 1 and 2; those that arrive.
    let arrive = || -> Vec<u16> {
        for port in [1, 2] {
            legs[0].socket.send(&udp(B, A, port, &[7; 30]));
        }
        let frames = legs[1].socket.drain(Duration::from_millis(100)).into_iter();
        frames.filter(|f| f[12..14] == [8, 0]).map(|f| u16::from_be_bytes([f[36], f[37]])).collect()
    };
    let matching = |action: &str, expression: &str| json!({"qom-type": "filter-match", "id": "m", "netdev": "one", "match": expression, "action": action});
    let get =
        |lab: &mut Lab, property: &str| lab.qmp.ok("qom-get", json!({"path": "m", "property": property}));
    let set = |lab: &mut Lab, property: &str, value: &str| {
        lab.qmp.ok("qom-set", json!({"path": "m", "property": property, "value": value}));
    };
    add(&mut lab, matching("drop", "udp dst port 1"));
    assert_eq!(arrive(), [2]);
    set(&mut lab, "match", "udp dst port 2");
    assert_eq!(arrive(), [1]);
    assert_eq!((get(&mut lab, "seen"), get(&mut lab, "matched")), (json!(4), json!(2)));
    set(&mut lab, "queue", "rx");
    assert_eq!(arrive(), [1, 2], "it sees only what is sent to its netdev");
    let stats = lab.qmp.ok("query-net-stats", json!({}));
    assert!(stats.to_string().contains("\"filter\":2"), "dropped by name: {stats}");
    lab.qmp.ok("object-del", json!({"id": "m"}));
    add(&mut lab, matching("pass", "udp dst port 1"));
    assert_eq!(arrive(), [1]);
    lab.qmp.ok("object-del", json!({"id": "m"}));
    let mut dump = matching("dump", "udp dst port 1");
    let file = lab.daemon.directory().join("m");
    dump["file"] = json!(file);
    add(&mut lab, dump);
    assert_eq!(arrive(), [1, 2]);
    set(&mut lab, "match", "udp");
    assert_eq!(arrive(), [1, 2]);
    assert_eq!((get(&mut lab, "seen"), get(&mut lab, "matched")), (json!(4), json!(3)));
    // All properties at once show the same.
    let all = lab.qmp.ok("qom-list-get", json!({"paths": ["/objects/m"]}));
    let shown = |name: &str| {
        let all = all[0]["properties"].as_array().expect("properties");
        all.iter().find(|property| property["name"] == name).map(|property| property["value"].clone())
    };
    assert_eq!([shown("seen"), shown("matched")], [Some(json!(4)), Some(json!(3))]);
    lab.qmp.ok("object-del", json!({"id": "m"}));
    let ports: Vec<u16> = records(&file).iter().map(|r| u16::from_be_bytes([r.2[36], r.2[37]])).collect();
    assert_eq!(ports, [1, 1, 2]);
}

#[test]
fn an_expression_that_does_not_compile_leaves_nothing_behind() {
    if !ready("an_expression_that_does_not_compile_leaves_nothing_behind", &[Need::Root]) {
        return;
    }
    let mut lab = Lab::new(&[]);
    lab.qmp.ok("netdev_add", json!({"type": "hubport", "id": "h", "hubid": 1}));
    let file = lab.daemon.directory().join("kept");
    fs::write(&file, "what was there").expect("a file");
    let words = "cannot compile filter expression 'udp prot 53': ";
    for options in [
        json!({"qom-type": "filter-dump", "id": "f", "netdev": "h", "file": file, "filter": "udp prot 53"}),
        json!({"qom-type": "filter-match", "id": "f", "netdev": "h", "match": "udp prot 53", "action": "drop"}),
        json!({"qom-type": "filter-match", "id": "f", "netdev": "h", "match": "udp prot 53", "action": "dump",
               "file": file}),
    ] {
        let said = lab.qmp.refused("object-add", options);
        assert!(said.starts_with(words) && said.contains("syntax error"), "{said}");
    }
    assert_eq!(fs::read_to_string(&file).expect("the file"), "what was there");
    let objects = lab.qmp.ok("qom-list", json!({"path": "/objects"}));
    assert_eq!(objects, json!([{"name": "type", "type": "string"}]));
    // The place is free, and one in force keeps its expression.
    add(
        &mut lab,
        json!({"qom-type": "filter-match", "id": "f", "netdev": "h", "match": "udp", "action": "drop"}),
    );
    let bad = json!({"path": "f", "property": "match", "value": "host ("});
    lab.qmp.refused("qom-set", bad);
    assert_eq!(lab.qmp.ok("qom-get", json!({"path": "f", "property": "match"})), json!("udp"));
}

#[test]
fn a_match_comes_changes_and_goes_under_traffic_and_no_frame_is_lost_or_overtakes() {
    if !ready("a_match_comes_changes_and_goes_under_traffic_and_no_frame_is_lost_or_overtakes", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let legs: Vec<_> = ["one", "two"].iter().map(|name| Leg::new(&mut lab, name)).collect();
    lab.hub(1, &["one", "two"]);
    let stop = AtomicBool::new(false);
    let (sent, changes) = std::thread::scope(|scope| {
        let pump = scope.spawn(|| {
            let mut sent = 0_u32;
            // One that is under way at a time could not be overtaken; a window of 50 can, and overruns no queue.
            let mut next = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                while sent - next < 50 {
                    legs[0].socket.send(&udp(B, A, 9, &sent.to_be_bytes()));
                    sent += 1;
                }
                let frame = legs[1].socket.receive(wait::PATIENCE).expect("no frame is lost");
                if frame[12..14] == [8, 0] {
                    let number = u32::from_be_bytes([frame[42], frame[43], frame[44], frame[45]]);
                    assert_eq!(number, next, "in order");
                    next += 1;
                }
            }
            while next < sent {
                let frame = legs[1].socket.receive(wait::PATIENCE).expect("no frame is lost");
                next += u32::from(frame[12..14] == [8, 0]);
            }
            sent
        });
        let mut changes = 0;
        let set = |lab: &mut Lab, property: &str, value: &str| {
            lab.qmp.ok("qom-set", json!({"path": "m", "property": property, "value": value}));
        };
        for round in 0..1000 {
            // Whatever is in force, all frames go on.
            let (action, expression, other) = match round % 2 {
                0 => ("drop", "tcp", "udp dst port 10"),
                _ => ("pass", "udp", "greater 20"),
            };
            let options = json!({"qom-type": "filter-match", "id": "m", "netdev": "one", "match": expression,
                                 "action": action});
            add(&mut lab, options);
            set(&mut lab, "match", other);
            set(&mut lab, "queue", "tx");
            set(&mut lab, "status", "off");
            set(&mut lab, "status", "on");
            lab.qmp.ok("object-del", json!({"id": "m"}));
            changes += 6;
        }
        stop.store(true, Ordering::Relaxed);
        (pump.join().expect("the sender"), changes)
    });
    assert!(sent > 1000, "{sent} frames during {changes} changes");
}
