//! Front-ends and guests that break the rules: their nic stops with a named reason and takes another guest, and nobody else notices.

mod restart;

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use engine::virtq::DriverRing;
use engine::virtq::packed::PackedDriver;
use engine::virtq::split::SplitDriver;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::json;
use tests::daemon::{Daemon, Program};
use tests::guest::{Guest, Part, RING, Shape, borrow, message, send};
use tests::nics::{Packed, SPLIT, Split, arrives, cross, frame, hub, plug, shown, socket};
use tests::qmp::Qmp;
use tests::wait::{self, PATIENCE};

const PACKED: Shape = Shape { packed: true, mergeable: true };

/// Descriptor flags.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Nics `n0` and `n1` on one hub, `n2` and `n3` on another.
fn two_pairs() -> (Daemon, Qmp) {
    let nic = |n: usize| {
        let hub = n / 2;
        let port = format!("hubport,id=h{n},hubid={hub}");
        ["-netdev".to_owned(), port, "-netdev".to_owned(), format!("nic,id=n{n},netdev=h{n},addr=n{n}.sock")]
    };
    let arguments: Vec<String> = (0..4).flat_map(nic).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Daemon::netdevd(&arguments)
}

/// A split descriptor.
fn desc(addr: u64, len: u32, flags: u16, next: u16) -> Vec<u8> {
    let (addr, len) = (addr.to_le_bytes(), len.to_le_bytes());
    [&addr[..], &len, &flags.to_le_bytes(), &next.to_le_bytes()].concat()
}

/// Makes `head` available on a fresh split transmit ring and kicks.
fn offer(guest: &mut Split, head: u16) {
    guest.poke(1, Part::Available, 4, &head.to_le_bytes());
    guest.poke(1, Part::Available, 2, &1u16.to_le_bytes());
    guest.kick(1);
}

/// What a guest does to its fresh transmit ring, and what the nic says of it.
type Crime<R> = (fn(&mut Guest<R>), &'static str);

/// A descriptor in slot 0 of a fresh split ring.
fn one(guest: &mut Split, addr: u64, len: u32, flags: u16) {
    guest.poke(1, Part::Descriptors, 0, &desc(addr, len, flags, 0));
    offer(guest, 0);
}

const SPLIT_CRIMES: &[Crime<SplitDriver>] = &[
    (|guest| one(guest, 0, 64, NEXT), "loops or is too long"),
    (
        |guest| {
            // Every descriptor points to the next one, and the last to the first.
            for i in 0..64u16 {
                guest.poke(1, Part::Descriptors, u64::from(i) * 16, &desc(0, 64, NEXT, (i + 1) % 64));
            }
            offer(guest, 7);
        },
        "loops or is too long",
    ),
    (|guest| offer(guest, 64), "descriptor 64 lies beyond a table of 64"),
    (
        |guest| {
            guest.poke(1, Part::Descriptors, 0, &desc(0, 64, NEXT, 999));
            offer(guest, 0);
        },
        "descriptor 999 lies beyond",
    ),
    (|guest| one(guest, 1 << 40, 64, 0), "lies outside of guest memory"),
    (|guest| one(guest, Split::end() - 10, 64, 0), "lies outside of guest memory"),
    (|guest| one(guest, u64::MAX - 5, 64, 0), "lies outside of guest memory"),
    (|guest| one(guest, 0, u32::MAX, 0), "lies outside of guest memory"),
    (|guest| one(guest, 0, 0, 0), "no bytes"),
    (|guest| one(guest, 0, 64, WRITE), "wrong direction"),
    (|guest| one(guest, 0, 64, INDIRECT), "indirect table"),
    (Guest::jump, "jumped from 0 to 28672"),
    (
        |guest| {
            guest.poke(1, Part::Available, 2, &65u16.to_le_bytes());
            guest.kick(1);
        },
        "jumped from 0 to 65",
    ),
];

/// A packed descriptor in slot 0 of a fresh ring, available.
fn slot(guest: &mut Packed, addr: u64, len: u32, id: u16, flags: u16) {
    guest.poke(1, Part::Descriptors, 0, &desc(addr, len, id, flags | 1 << 7));
    guest.kick(1);
}

const PACKED_CRIMES: &[Crime<PackedDriver>] = &[
    (|guest| slot(guest, 1 << 40, 64, 0, 0), "lies outside of guest memory"),
    (|guest| slot(guest, Packed::end() - 1, 2, 0, 0), "lies outside of guest memory"),
    (|guest| slot(guest, 0, 0, 0, 0), "no bytes"),
    (|guest| slot(guest, 0, 64, 0, WRITE), "wrong direction"),
    (|guest| slot(guest, 0, 64, 0, INDIRECT), "indirect table"),
    (
        |guest| {
            for i in (0..64).rev() {
                guest.poke(1, Part::Descriptors, i * 16, &desc(0, 64, 0, NEXT | 1 << 7));
            }
            guest.kick(1);
        },
        "loops or is too long",
    ),
];

/// Mappings of guests' memory in the daemon.
fn mappings(daemon: &Daemon) -> usize {
    let maps = fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).expect("maps");
    maps.lines().filter(|line| line.contains("memfd:guest")).count()
}

/// Files and mappings are again as many as before.
#[track_caller]
fn as_before(daemon: &Daemon, before: (usize, usize)) {
    let now = || (daemon.open_files(), mappings(daemon));
    let same = wait::until(PATIENCE, || (now() == before).then_some(()));
    assert_eq!(same, Some(()), "files and mappings: {before:?} before, {:?} now", now());
}

/// Waits until the nic has stopped, for this reason; an event, its state and its ring say so.
#[track_caller]
fn stopped(client: &mut Qmp, nic: &str, reason: &str) {
    let event =
        client.event("NIC_STOPPED", PATIENCE).unwrap_or_else(|e| panic!("no NIC_STOPPED ({reason}): {e}"));
    assert_eq!(event["data"]["name"], nic);
    let said = event["data"]["reason"].as_str().unwrap_or_default();
    assert!(said.contains(reason), "'{said}' instead of '{reason}'");
    let now = shown(client, nic);
    assert_eq!(now["transport"]["state"], "failed");
    assert!(now["transport"]["error"].as_str().is_some_and(|error| error.contains(reason)), "{now}");
}

/// Commits each crime on `n2`, beside traffic on the other hub, and lets an honest guest in afterwards.
fn commit<R: DriverRing>(shape: Shape, crimes: &[Crime<R>]) {
    let (daemon, mut client) = two_pairs();
    let (mut a, mut b): (Split, Packed) = (plug(&daemon, "n0", SPLIT), plug(&daemon, "n1", PACKED));
    let mut d: Split = plug(&daemon, "n3", SPLIT);
    cross(&mut a, &mut b);
    let before = (daemon.open_files(), mappings(&daemon));
    for (crime, reason) in crimes {
        let mut bad: Guest<R> = plug(&daemon, "n2", shape);
        crime(&mut bad);
        cross(&mut a, &mut b);
        cross(&mut b, &mut a);
        stopped(&mut client, "n2", reason);
        drop(bad);
        client.event("NETDEV_VHOST_USER_DISCONNECTED", PATIENCE).expect("an event");
        let mut good: Guest<R> = plug(&daemon, "n2", shape);
        let sent = frame(600, 9);
        assert!(good.send(&sent));
        arrives(&mut d, &sent);
        assert_eq!(shown(&mut client, "n2")["transport"]["state"], "ready");
        drop(good);
        client.event("NETDEV_VHOST_USER_DISCONNECTED", PATIENCE).expect("an event");
    }
    as_before(&daemon, before);
}

#[test]
fn a_split_ring_that_breaks_a_rule_stops_its_nic_alone() {
    commit(SPLIT, SPLIT_CRIMES);
}

#[test]
fn a_packed_ring_that_breaks_a_rule_stops_its_nic_alone() {
    commit(PACKED, PACKED_CRIMES);
}

#[test]
fn receive_buffers_that_break_a_rule_stop_their_nic_when_a_frame_comes() {
    let (daemon, mut client) = two_pairs();
    let mut d: Split = plug(&daemon, "n3", SPLIT);
    for (addr, len, flags, reason) in [
        (1 << 40, 256, WRITE, "lies outside of guest memory"),
        (0, 0, WRITE, "no bytes"),
        (0, 256, 0, "wrong direction"),
        (0, 256, WRITE | NEXT, "loops or is too long"),
    ] {
        let mut bad: Split = plug(&daemon, "n2", SPLIT);
        // A nic reads buffers before it has frames for them. So all are filled first, and come back bad.
        bad.keep();
        for n in 0..RING {
            let sent = frame(100, n as u8);
            assert_eq!(wait::until(PATIENCE, || d.send(&sent).then_some(())), Some(()));
            arrives(&mut bad, &sent);
        }
        for i in 0..RING {
            bad.poke(0, Part::Descriptors, u64::from(i) * 16, &desc(addr, len, flags, i));
        }
        bad.poke(0, Part::Available, 2, &(2 * RING).to_le_bytes());
        bad.kick(0);
        assert_eq!(wait::until(PATIENCE, || d.send(&frame(100, 1)).then_some(())), Some(()));
        stopped(&mut client, "n2", reason);
    }
}

#[test]
fn memory_that_is_taken_away_under_traffic_stops_its_nic_alone() {
    let (daemon, mut client) = two_pairs();
    let (mut a, mut b): (Split, Packed) = (plug(&daemon, "n0", SPLIT), plug(&daemon, "n1", PACKED));
    let mut d: Split = plug(&daemon, "n3", SPLIT);
    cross(&mut a, &mut b);
    let before = (daemon.open_files(), mappings(&daemon));
    for _ in 0..3 {
        let mut c: Split = plug(&daemon, "n2", SPLIT);
        cross(&mut c, &mut d);
        cross(&mut d, &mut c);
        for seed in 0..40 {
            assert!(c.send(&frame(1000, seed)));
            d.send(&frame(1000, seed));
        }
        c.shorten();
        cross(&mut a, &mut b);
        d.send(&frame(1000, 77));
        stopped(&mut client, "n2", "memory was taken away");
        cross(&mut b, &mut a);
        drop(c);
        client.event("NETDEV_VHOST_USER_DISCONNECTED", PATIENCE).expect("an event");
        while d.receive(Duration::ZERO).is_some() {}
        let mut again: Packed = plug(&daemon, "n2", PACKED);
        let sent = frame(600, 9);
        // What was under way from the guest that has gone comes before.
        assert!(again.send(&sent));
        let came = wait::until(PATIENCE, || d.receive(PATIENCE).filter(|got| *got == sent));
        assert!(came.is_some());
        drop(again);
        client.event("NETDEV_VHOST_USER_DISCONNECTED", PATIENCE).expect("an event");
    }
    as_before(&daemon, before);
}

#[test]
fn a_call_that_is_full_and_blocks_makes_no_worker_wait() {
    let (daemon, _client) = two_pairs();
    let (mut a, mut b): (Split, Packed) = (plug(&daemon, "n0", SPLIT), plug(&daemon, "n1", PACKED));
    let (mut c, mut d): (Split, Split) = (plug(&daemon, "n2", SPLIT), plug(&daemon, "n3", SPLIT));
    c.ask_for_calls();
    for ring in [0, 1] {
        let call = c.call(ring);
        // One below the top, where the next write waits for a reader; a call may come before it is so.
        let full = wait::until(PATIENCE, || {
            let _ = call.read();
            call.write(u64::MAX - 1).ok()
        });
        assert_eq!(full, Some(()));
        fcntl(borrow(call), FcntlArg::F_SETFL(OFlag::empty())).expect("F_SETFL");
    }
    // Nobody reads: each of these calls finds it full.
    for seed in 0..40 {
        assert!(d.send(&frame(300, seed)));
        assert!(c.send(&frame(300, seed)));
        arrives(&mut d, &frame(300, seed));
    }
    cross(&mut a, &mut b);
    cross(&mut b, &mut a);
}

#[test]
fn files_that_are_no_eventfds_are_refused() {
    let (daemon, mut client) = hub(2);
    let (mut a, mut b): (Split, Split) = (plug(&daemon, "n0", SPLIT), plug(&daemon, "n1", SPLIT));
    let pipe = nix::unistd::pipe().expect("a pipe");
    let pair = std::os::unix::net::UnixStream::pair().expect("a pair");
    let regular = tempfile::tempfile().expect("a file");
    let others = [pipe.0.as_raw_fd(), pipe.1.as_raw_fd(), pair.0.as_raw_fd(), regular.as_raw_fd()];
    // SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR.
    for request in [12, 13, 14] {
        for file in others {
            assert_eq!(a.say_with(request, &1u64.to_ne_bytes(), &[file]), Some(1), "{request}");
        }
    }
    cross(&mut a, &mut b);
    cross(&mut b, &mut a);
    assert_eq!(shown(&mut client, "n0")["transport"]["state"], "ready");
}

#[test]
fn a_full_receive_ring_wakes_its_worker_by_a_kick() {
    let (daemon, _client) = hub(2);
    for packed in [false, true] {
        if packed {
            full::<PackedDriver>(&daemon, PACKED);
        } else {
            full::<SplitDriver>(&daemon, SPLIT);
        }
    }
}

/// Times that the daemon's threads have gone to sleep.
fn sleeps(daemon: &Daemon) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("tasks").flatten();
    let status = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let of = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).map(str::trim);
        line.and_then(|n| n.parse::<u64>().ok())
    };
    status.filter_map(of).sum()
}

fn full<R: DriverRing>(daemon: &Daemon, shape: Shape) {
    let (mut a, mut b): (Guest<R>, Guest<R>) = (plug(daemon, "n0", shape), plug(daemon, "n1", shape));
    b.keep();
    // As many as it has buffers, and as many more that must wait.
    for seed in 0..64 {
        assert_eq!(wait::until(PATIENCE, || a.send(&frame(100, seed)).then_some(())), Some(()));
        arrives(&mut b, &frame(100, seed));
    }
    for seed in 64..100 {
        assert_eq!(wait::until(PATIENCE, || a.send(&frame(100, seed)).then_some(())), Some(()));
    }
    // A worker that looks every 200 us would sleep hundreds of times in this window.
    let calm = wait::until(PATIENCE, || {
        let before = sleeps(daemon);
        std::thread::sleep(Duration::from_millis(200));
        (sleeps(daemon) - before < 100).then_some(())
    });
    assert_eq!(calm, Some(()), "the worker looks by timer");
    assert!(b.give_back(), "a kick is asked for");
    for seed in 64..100 {
        arrives(&mut b, &frame(100, seed));
    }
}

#[test]
fn a_guest_is_announced_toward_its_peer_and_its_mtu_is_shown() {
    let (daemon, mut client) = hub(2);
    let (mut a, mut b): (Split, Packed) = (plug(&daemon, "n0", SPLIT), plug(&daemon, "n1", PACKED));
    let mac = [2, 0, 0, 0, 0, 7];
    let rx = |client: &mut Qmp| {
        let stats = client.ok("query-net-stats", json!({}));
        let ports = stats["ports"].as_array().cloned().unwrap_or_default();
        ports.iter().find(|port| port["name"] == "n0").and_then(|port| port["rx-frames"].as_u64())
    };
    for round in 1..4 {
        // SEND_RARP: eight bytes, of which the first six are the address.
        assert_eq!(a.say(19, &[2, 0, 0, 0, 0, 7, 0, 0]), Some(0));
        arrives(&mut b, &engine::wire::rarp::frame(mac));
        assert_eq!(rx(&mut client), Some(round));
    }
    assert_eq!(shown(&mut client, "n0").get("mtu"), None);
    // NET_SET_MTU.
    assert_eq!(a.say(20, &1400u64.to_ne_bytes()), Some(0));
    assert_eq!(shown(&mut client, "n0")["mtu"], 1400);
    assert_eq!(a.mtu(), 1400);
    assert_eq!(a.say(20, &60u64.to_ne_bytes()), Some(1), "no such MTU");
    // As QEMU's and DPDK's back-ends: it binds the guest, and is not enforced.
    cross(&mut a, &mut b);
    drop(a);
    client.event("NETDEV_VHOST_USER_DISCONNECTED", PATIENCE).expect("an event");
    assert_eq!(shown(&mut client, "n0").get("mtu"), None);
    let mut other: Split = plug(&daemon, "n0", SPLIT);
    assert_eq!(other.mtu(), 1500);
}

/// What a VMM says until both rings run, as bytes and files.
fn handshake(memory: RawFd, event: RawFd) -> Vec<(Vec<u8>, Vec<RawFd>)> {
    let steps = steps(memory, event, 1 << 16, 2).into_iter();
    steps.map(|(request, payload, files)| (message(request, 1, &payload), files)).collect()
}

/// A request, its payload, its files.
type Step = (u32, Vec<u8>, Vec<RawFd>);

/// As [`handshake`], for so many rings in so many bytes of memory.
fn steps(memory: RawFd, event: RawFd, bytes: u64, rings: u32) -> Vec<Step> {
    let longs = |all: &[u64]| all.iter().flat_map(|n| n.to_ne_bytes()).collect::<Vec<u8>>();
    let words = |all: &[u32]| all.iter().flat_map(|n| n.to_ne_bytes()).collect::<Vec<u8>>();
    let user = 0x7000_0000_0000;
    let table = [words(&[1, 0]), longs(&[0, bytes, user, 0])].concat();
    let mut steps = vec![
        (1, vec![], vec![]),
        (15, vec![], vec![]),
        (16, longs(&[1 << 3 | 1]), vec![]),
        (17, vec![], vec![]),
        (3, vec![], vec![]),
        (2, longs(&[1 << 32 | 1 << 30]), vec![]),
        (5, table, vec![memory]),
    ];
    for ring in 0..rings {
        let at = user + u64::from(ring) * 0x1000;
        let address = [words(&[ring, 0]), longs(&[at, at + 0x800, at + 0x400, 0])].concat();
        steps.extend([
            (8, words(&[ring, 64]), vec![]),
            (9, address, vec![]),
            (10, words(&[ring, 0]), vec![]),
            (13, longs(&[ring.into()]), vec![event]),
            (12, longs(&[ring.into()]), vec![event]),
            (18, words(&[ring, 1]), vec![]),
        ]);
    }
    steps
}

#[test]
fn a_vmm_may_go_at_any_point_of_the_handshake() {
    let (daemon, mut client) = two_pairs();
    let (mut a, mut b): (Split, Packed) = (plug(&daemon, "n0", SPLIT), plug(&daemon, "n1", PACKED));
    cross(&mut a, &mut b);
    let before = (daemon.open_files(), mappings(&daemon));
    let memory = memfd_create("guest-half", MFdFlags::MFD_CLOEXEC).expect("a memfd");
    nix::unistd::ftruncate(&memory, 1 << 16).expect("ftruncate");
    let event = EventFd::new().expect("an eventfd");
    let steps = handshake(memory.as_raw_fd(), event.as_raw_fd());
    for end in 0..=steps.len() {
        for half in [false, true] {
            let connect = || UnixStream::connect(socket(&daemon, "n2")).ok();
            let vmm = wait::until(PATIENCE, connect).expect("it listens");
            for (bytes, files) in &steps[..end] {
                send(vmm.as_raw_fd(), bytes, files).expect("sent");
            }
            if let Some((bytes, files)) = steps.get(end).filter(|_| half) {
                send(vmm.as_raw_fd(), &bytes[..bytes.len() / 2], files).expect("sent");
            }
            drop(vmm);
            client.event("NETDEV_VHOST_USER_DISCONNECTED", PATIENCE).expect("an event");
        }
    }
    assert_eq!(shown(&mut client, "n2")["transport"]["state"], "listening");
    cross(&mut a, &mut b);
    cross(&mut b, &mut a);
    as_before(&daemon, before);
}

/// How long it takes from the connection of a VMM until so many pairs of `n2` run. QEMU waits for an answer to each enabling.
fn start(daemon: &Daemon, client: &mut Qmp, pairs: u32, waits: bool) -> Duration {
    let memory = memfd_create("guest-pairs", MFdFlags::MFD_CLOEXEC).expect("a memfd");
    nix::unistd::ftruncate(&memory, 1 << 20).expect("ftruncate");
    let event = EventFd::new().expect("an eventfd");
    let steps = steps(memory.as_raw_fd(), event.as_raw_fd(), 1 << 20, 2 * pairs);
    let connect = || UnixStream::connect(socket(daemon, "n2")).ok();
    let mut vmm = wait::until(PATIENCE, connect).expect("it listens");
    let begin = Instant::now();
    for (request, payload, files) in &steps {
        let enables = waits && *request == 18;
        send(vmm.as_raw_fd(), &message(*request, if enables { 9 } else { 1 }, payload), files).expect("sent");
        match request {
            1 | 15 => vmm.read_exact(&mut [0; 20]).expect("an answer"),
            18 if waits => vmm.read_exact(&mut [0; 20]).expect("an answer"),
            _ => {}
        }
    }
    let all = wait::until(PATIENCE, || {
        let now = shown(client, "n2");
        let rings = now["rings"].as_array()?;
        (rings.iter().filter(|ring| ring["state"] == "running").count() == 2 * pairs as usize).then_some(())
    });
    let took = begin.elapsed();
    assert_eq!(all, Some(()), "{pairs} pairs run: {}", shown(client, "n2"));
    drop(vmm);
    client.event("NETDEV_VHOST_USER_DISCONNECTED", PATIENCE).expect("an event");
    took
}

#[test]
fn many_pairs_start_without_holding_anybody_up() {
    let arguments =
        ["-netdev", "hubport,id=h2,hubid=1", "-netdev", "nic,id=n2,netdev=h2,addr=n2.sock,queues=64"];
    let (daemon, mut client) = Daemon::netdevd(&arguments);
    for (pairs, waits) in [(1, false), (64, false), (1, true), (64, true)] {
        let took = start(&daemon, &mut client, pairs, waits);
        println!("{pairs} pairs, answers {}: {took:?}", if waits { "awaited" } else { "not asked for" });
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}
