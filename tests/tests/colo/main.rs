//! `colo-compare`: the same frames to QEMU 10.0's and to ours give the same releases and notifications; sides that send nonsense; chardevs that come and go; a pair
//! of machines with guests.

mod pair;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use serde_json::{Value, json};
use tests::daemon::{Daemon, Program};
use tests::qmp::Qmp;
use tests::skip::{Need, ready};
use tests::wait;

/// Connections of a comparison.
const ENDS: [&str; 4] = ["primary", "secondary", "out", "notify"];

/// A comparison and its four connections.
struct Side {
    daemon: Daemon,
    qmp: Qmp,
    vnet: bool,
    wires: [UnixStream; 4],
}

impl Side {
    fn new(program: Program, vnet: bool, more: &Value) -> Self {
        let daemon = Daemon::of(program).start();
        let mut qmp = daemon.client();
        qmp.ok("object-add", json!({"qom-type": "iothread", "id": "t"}));
        for end in ENDS {
            let addr = json!({"type": "unix", "data": {"path": daemon.directory().join(end)}});
            let backend = json!({"type": "socket", "data": {"addr": addr, "wait": false}});
            qmp.ok("chardev-add", json!({"id": end, "backend": backend}));
        }
        let mut object = json!({"qom-type": "colo-compare", "id": "c", "primary_in": "primary", "secondary_in": "secondary",
            "outdev": "out", "notify_dev": "notify", "iothread": "t", "vnet_hdr_support": vnet});
        for (name, value) in more.as_object().into_iter().flatten() {
            object[name] = value.clone();
        }
        qmp.ok("object-add", object);
        let wires = ENDS.map(|end| connect(&daemon, end));
        let side = Self { daemon, qmp, vnet, wires };
        side.settle();
        side
    }

    /// Waits until all four connections are in use: an untagged foreign frame goes through, and a text is answered.
    fn settle(&self) {
        let [primary, _, out, notify] = &self.wires;
        wait::until(wait::PATIENCE, || {
            self.put(primary, &self.with_header(&eth(0x806, &[0; 28])));
            out.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
            something(out).then_some(())
        })
        .expect("a frame comes through");
        self.put(notify, b"COLO_USERSPACE_PROXY_INIT");
        assert_eq!(take(notify, false).expect("an answer").1, b"COLO_COMPARE_GET_XEN_INIT");
        let _ = self.released();
    }

    fn put(&self, mut wire: &UnixStream, bytes: &[u8]) {
        let mut message = (bytes.len() as u32).to_be_bytes().to_vec();
        if self.vnet {
            message.extend(10u32.to_be_bytes());
        }
        message.extend(bytes);
        wire.write_all(&message).expect("it is read");
    }

    /// All that has gone out, once all is read that was sent: a datagram that both sides send then comes through last.
    fn released(&self) -> Vec<Vec<u8>> {
        let [primary, secondary, out, _] = &self.wires;
        let mark = self.with_header(&udp(9, 0, b"mark"));
        self.put(secondary, &mark);
        self.put(primary, &mark);
        let mut frames = Vec::new();
        loop {
            let (len, frame) = take(out, self.vnet).expect("a frame");
            assert_eq!(len, if self.vnet { 10 } else { 0 });
            if frame == mark {
                return frames;
            }
            frames.push(frame);
        }
    }

    /// How many checkpoints were asked for, up to an answer that we ask for to know where the end is.
    fn notified(&self) -> usize {
        let [.., notify] = &self.wires;
        self.put(notify, b"COLO_USERSPACE_PROXY_INIT");
        let mut count = 0;
        loop {
            match &take(notify, false).expect("a text").1[..] {
                b"COLO_COMPARE_GET_XEN_INIT" => return count,
                b"DO_CHECKPOINT" => count += 1,
                other => panic!("{other:?}"),
            }
        }
    }

    fn with_header(&self, frame: &[u8]) -> Vec<u8> {
        if self.vnet { [&[0; 10], frame].concat() } else { frame.to_vec() }
    }

    /// One step, and what came of it.
    fn step(&self, step: &Step) -> (Vec<Vec<u8>>, usize) {
        let [primary, secondary, _, notify] = &self.wires;
        match step {
            P(frame) => self.put(primary, &self.with_header(frame)),
            S(frame) => self.put(secondary, &self.with_header(frame)),
            Checkpoint => self.put(notify, b"COLO_CHECKPOINT"),
            Timeout => {
                let came = wait::until(wait::PATIENCE, || (self.notified() > 0).then_some(()));
                return (self.released(), usize::from(came.is_some()));
            }
        }
        // A checkpoint has been made when the text behind it is answered, and a frame been compared when the mark behind it is out.
        let before = self.notified();
        let frames = self.released();
        (frames, before + self.notified())
    }

    fn counter(&mut self, name: &str) -> u64 {
        let all = self.qmp.ok("query-colo-compare", json!({}));
        let counters = all[0]["counters"].as_array().expect("counters").clone();
        counters.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("no {name} in {all}"))["number"]
            .as_u64()
            .expect("a number")
    }

    fn counts(&mut self, name: &str, number: u64) {
        let mut last = 0;
        let right = wait::until(wait::PATIENCE, || {
            last = self.counter(name);
            (last == number).then_some(())
        });
        assert!(right.is_some(), "{name} is {last}, not {number}");
    }
}

/// Whether a byte comes within the read timeout.
fn something(wire: &UnixStream) -> bool {
    recv(wire.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK).is_ok_and(|count| count == 1)
}

fn connect(daemon: &Daemon, end: &str) -> UnixStream {
    let path = daemon.directory().join(end);
    let wire = wait::until(wait::PATIENCE, || UnixStream::connect(&path).ok()).expect("it listens");
    wire.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
    wire.set_write_timeout(Some(wait::PATIENCE)).expect("a timeout");
    wire
}

fn take(mut wire: &UnixStream, vnet: bool) -> std::io::Result<(u32, Vec<u8>)> {
    wire.set_read_timeout(Some(wait::PATIENCE))?;
    let mut head = [0; 4];
    wire.read_exact(&mut head)?;
    let mut len = [0; 4];
    if vnet {
        wire.read_exact(&mut len)?;
    }
    let mut frame = vec![0; u32::from_be_bytes(head) as usize];
    wire.read_exact(&mut frame)?;
    Ok((u32::from_be_bytes(len), frame))
}

fn eth(ethertype: u16, rest: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(rest);
    frame
}

fn ip(protocol: u8, id: u16, inner: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + inner.len() as u16).to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend([0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(inner);
    eth(0x800, &packet)
}

fn udp(port: u16, id: u16, data: &[u8]) -> Vec<u8> {
    let mut inner = port.to_be_bytes().to_vec();
    inner.extend([7, 208, 0, 0, 0, 0]);
    inner.extend(data);
    ip(17, id, &inner)
}

fn tcp(seq: u32, ack: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut inner = vec![3, 232, 0, 80];
    inner.extend(seq.to_be_bytes());
    inner.extend(ack.to_be_bytes());
    inner.extend([0x50, flags, 3, 232, 0, 0, 0, 0]);
    inner.extend(data);
    ip(6, seq as u16, &inner)
}

/// What is done to a comparison.
enum Step {
    /// A frame of the primary.
    P(Vec<u8>),
    /// A frame of the secondary.
    S(Vec<u8>),
    /// A checkpoint was made.
    Checkpoint,
    /// A frame waits too long.
    Timeout,
}
use Step::{Checkpoint, P, S, Timeout};

const ACK: u8 = 0x10;
const SYN: u8 = 0x12;
const FIN: u8 = 0x11;
const RST: u8 = 0x14;

/// Pairs of streams, by what they show.
fn scenarios() -> Vec<(&'static str, Vec<Step>)> {
    let t = |seq, data: &[u8]| tcp(seq, 50, ACK, data);
    let handshake = || vec![P(tcp(100, 50, SYN, b"")), S(tcp(100, 50, SYN, b""))];
    let with = |steps| handshake().into_iter().chain(steps).collect::<Vec<_>>();
    let ping = |id| ip(1, id, b"\x08\0\0\0ping");
    vec![
        (
            "the same",
            with(vec![P(t(101, b"hello")), S(t(101, b"hello")), S(t(106, b"more")), P(t(106, b"more"))]),
        ),
        (
            "another payload",
            with(vec![
                P(t(101, b"good")),
                S(t(101, b"evil")),
                P(t(105, b"on")),
                S(t(105, b"on")),
                Checkpoint,
                P(t(107, b"x")),
                S(t(107, b"x")),
            ]),
        ),
        (
            "other segments",
            with(vec![
                P(t(101, b"0123456789")),
                S(t(101, b"0123")),
                S(t(105, b"456789")),
                P(t(111, b"abcd")),
                P(t(115, b"efgh")),
                S(t(111, b"abcdefgh")),
                S(t(119, b"abcdef")),
                P(t(119, b"ab")),
                P(t(121, b"cdef")),
            ]),
        ),
        (
            "another byte in other segments",
            with(vec![P(t(101, b"0123456789")), S(t(101, b"0123")), S(t(105, b"45x789")), Checkpoint]),
        ),
        (
            "retransmissions",
            with(vec![
                P(t(101, b"abcd")),
                S(t(101, b"abcd")),
                P(t(101, b"abcd")),
                S(t(101, b"abcd")),
                P(t(105, b"ef")),
                S(t(105, b"ef")),
            ]),
        ),
        (
            "an acknowledgement too far",
            with(vec![
                P(tcp(101, 80, ACK, b"xxxx")),
                P(tcp(105, 80, ACK, b"yyyy")),
                S(tcp(101, 75, ACK, b"xxxxyyyy")),
                S(tcp(109, 80, ACK, b"")),
                Checkpoint,
            ]),
        ),
        (
            "the end of a connection",
            with(vec![
                P(tcp(101, 50, FIN, b"bye")),
                S(tcp(101, 50, FIN, b"bye")),
                P(tcp(105, 50, RST, b"")),
                S(tcp(105, 50, RST, b"")),
            ]),
        ),
        (
            "across sequence number 0",
            vec![
                P(t(u32::MAX - 2, b"abcdef")),
                S(t(u32::MAX - 2, b"abc")),
                S(t(0, b"def")),
                P(t(3, b"g")),
                S(t(3, b"g")),
            ],
        ),
        ("the secondary is late", vec![P(udp(1, 0, b"late")), Timeout, S(udp(1, 0, b"late"))]),
        ("the secondary is late for good", vec![P(t(1, b"late")), Timeout, Checkpoint]),
        (
            "foreign frames",
            vec![
                P(eth(0x806, &[1; 28])),
                S(eth(0x806, &[1; 28])),
                P(eth(0x86dd, &[6; 40])),
                P(eth(0x8100, &[0, 1, 8, 0, 9])),
                S(eth(0x8100, &[0])),
            ],
        ),
        (
            "datagrams",
            vec![
                P(udp(1, 1, b"a")),
                S(udp(1, 2, b"a")),
                P(udp(1, 1, b"b")),
                S(udp(1, 1, b"c")),
                Checkpoint,
                P(udp(1, 1, b"d")),
                S(udp(1, 1, b"dd")),
                Checkpoint,
            ],
        ),
        (
            "echo requests",
            vec![P(ping(1)), S(ping(2)), P(ping(3)), S(ip(1, 3, b"\x08\0\0\0pong")), Checkpoint],
        ),
        (
            "another protocol",
            vec![P(ip(99, 1, b"a")), S(ip(99, 1, b"a")), P(ip(99, 1, b"a")), S(ip(99, 2, b"a")), Checkpoint],
        ),
        (
            "a checkpoint without reason",
            vec![Checkpoint, P(t(1, b"abc")), P(t(4, b"def")), S(t(1, b"ab")), Checkpoint],
        ),
    ]
}

#[test]
fn the_same_frames_bring_the_same_releases_and_notifications_as_with_qemu() {
    if !ready("the_same_frames_bring_the_same_releases_and_notifications_as_with_qemu", &[Need::Oracle]) {
        return;
    }
    for vnet in [false, true] {
        for (name, steps) in scenarios() {
            let late = steps.iter().any(|step| matches!(step, Timeout));
            let waits = if late {
                json!({"compare_timeout": 200, "expired_scan_cycle": 100})
            } else {
                json!({"compare_timeout": 60_000})
            };
            let [ours, theirs] =
                [Program::Netdevd, Program::Oracle].map(|program| Side::new(program, vnet, &waits));
            for (number, step) in steps.iter().enumerate() {
                // Where frames are late, checkpoints are asked for at each look: how often by then is chance.
                let count = |n: usize| if late { n.min(1) } else { n };
                let ((frames, told), (their_frames, they_told)) = (ours.step(step), theirs.step(step));
                assert_eq!(frames, their_frames, "{name}, step {number}, vnet {vnet}: released");
                if !late || matches!(step, Timeout) {
                    assert_eq!(count(told), count(they_told), "{name}, step {number}, vnet {vnet}: notified");
                }
            }
        }
    }
}

#[test]
fn a_side_that_sends_nonsense_is_counted_and_the_others_go_on() {
    let mut side = Side::new(Program::Netdevd, false, &json!({}));
    let mut bad = tcp(1, 2, ACK, b"abc");
    bad[14] = 0x41;
    for length in 0..bad.len() {
        side.put(&side.wires[1], &bad[..length]);
    }
    assert_eq!(side.released(), Vec::<Vec<u8>>::new());
    assert!(side.counter("malformed") > 0 && side.counter("secondary-ignored") > 0);
    side.put(&side.wires[3], b"what?");
    side.counts("unknown-instruction", 1);
    (&side.wires[1]).write_all(&[0xff; 100]).expect("it is taken");
    side.counts("oversized", 1);
    assert_eq!(side.qmp.ok("query-colo-compare", json!({}))[0]["detached"], json!(["secondary_in"]));
    side.put(&side.wires[0], &eth(0x806, &[7; 28]));
    assert_eq!(take(&side.wires[2], false).expect("the primary goes on").1, eth(0x806, &[7; 28]));
}

#[test]
fn connections_come_and_go_and_chardevs_are_free_in_the_end() {
    let mut side = Side::new(Program::Netdevd, false, &json!({}));
    for _ in 0..3 {
        for (number, end) in ENDS.iter().enumerate() {
            let fresh = connect(&side.daemon, end);
            // One client at a time: this one is served once the other has gone.
            side.wires[number] = fresh;
        }
        side.settle();
    }
    (&side.wires[0]).write_all(&[0, 0, 1]).expect("it is taken");
    side.wires[0] = connect(&side.daemon, "primary");
    side.counts("truncated", 1);
    let held = udp(1, 0, b"held");
    side.put(&side.wires[0], &held);
    let _ = side.released();
    let refused = side.qmp.refused("chardev-remove", json!({"id": "primary"}));
    assert_eq!(refused, "Chardev 'primary' is busy");
    side.qmp.ok("object-del", json!({"id": "c"}));
    assert_eq!(take(&side.wires[2], false).expect("what was held goes out").1, held);
    for end in ENDS {
        side.qmp.ok("chardev-remove", json!({"id": end}));
    }
    assert_eq!(side.qmp.ok("query-colo-compare", json!({})), json!([]));
}

#[test]
fn objects_and_chardevs_of_the_command_line_make_a_comparison() {
    let (daemon, mut qmp) = Daemon::netdevd(&[
        "-chardev",
        "socket,id=p,path=p,server=on,wait=off",
        "-chardev",
        "socket,id=s,path=s,server=on,wait=off",
        "-chardev",
        "socket,id=o,path=o,server=on,wait=off",
        "-object",
        "iothread,id=t",
        "-object",
        "colo-compare,id=c,primary_in=p,secondary_in=s,outdev=o,iothread=t,compare_timeout=77",
    ]);
    assert_eq!(qmp.ok("qom-get", json!({"path": "c", "property": "compare_timeout"})), 77);
    assert_eq!(qmp.ok("qom-get", json!({"path": "c", "property": "iothread"})), "/objects/t");
    drop(daemon);
}
