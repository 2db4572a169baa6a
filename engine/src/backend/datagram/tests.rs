//! Both halves on loopback and unix sockets, without privilege; messages of many datagrams with and without the kernel's help.

use super::buffers::Buffers;
use super::framing::{Framing, Plain};
use super::open::{Address, Runs, join, pair};
use super::*;
use crate::backend::pair::QueuePair;
use crate::backend::testing::{World, frame};
use crate::burst::BURST;
use crate::mem::arena::{Arena, ArenaConfig};
use crate::port::Turn;
use crate::port::counters::DropReason;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, getsockname, recv, send, socketpair,
};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::Ordering;

mod spread;

const ON: Runs = Runs { gro: true, segments: true };
const OFF: Runs = Runs { gro: false, segments: false };

fn arena() -> Arc<Arena> {
    Arena::new(&ArenaConfig { initial: 8 << 20, step: 8 << 20, hugepages: false }).unwrap()
}

/// A queue pair, and the program at its other end.
struct End {
    queue: QueuePair,
    outside: OwnedFd,
    drops: Vec<(DropReason, u64)>,
}

impl End {
    const fn new(queue: QueuePair, outside: OwnedFd) -> Self {
        Self { queue, outside, drops: Vec::new() }
    }

    fn send(&self, bytes: &[u8]) {
        assert_eq!(send(self.outside.as_raw_fd(), bytes, MsgFlags::empty()), Ok(bytes.len()));
    }

    /// Everything that has arrived outside.
    fn received(&self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 100_000];
        std::iter::from_fn(|| {
            let n = recv(self.outside.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
            Some(buffer[..n].to_vec())
        })
        .collect()
    }

    fn start(&mut self, world: &mut World) {
        let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
        self.queue.rx.start(&mut turn);
        self.queue.tx.start(&mut turn);
    }

    fn stop(&mut self, world: &mut World) {
        let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
        while !(self.queue.rx.stop(&mut turn) && self.queue.tx.stop(&mut turn)) {}
    }
}

fn address(socket: &UdpSocket) -> SockaddrIn {
    getsockname(socket.as_raw_fd()).unwrap()
}

/// Two UDP sockets that know each other; ours is not connected.
fn udp(runs: Runs) -> End {
    let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
    let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
    outside.connect(ours.local_addr().unwrap()).unwrap();
    let to = Address::new(&address(&outside));
    // Either is probed for; here they are forced, so that both ways are tested.
    let queue = if runs.gro {
        pair(ours.into(), Some(to), &Plain, &arena()).unwrap()
    } else {
        join(ours.into(), None, Some(to), &Plain, Buffers::new(&arena()).unwrap(), runs)
    };
    End::new(queue, outside.into())
}

fn unix() -> End {
    let (ours, outside) =
        socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC).unwrap();
    End::new(pair(ours, None, &Plain, &arena()).unwrap(), outside)
}

/// Moves what has come to `from` on to `to` until nothing more goes.
fn move_all(world: &mut World, from: &mut End, to: &mut End) -> usize {
    let mut gone = 0;
    loop {
        world.io.poll();
        let (read, went) = world.hop(&mut *from.queue.rx, &mut *to.queue.tx);
        gone += went;
        from.drops.extend(std::iter::from_fn(|| from.queue.rx.drops()));
        if (read == 0 && !from.queue.rx.pending()) || (read > 0 && went == 0) || to.queue.tx.blocked() {
            return gone;
        }
    }
}

#[test]
fn a_queue_whose_file_nobody_watches_drops_by_name_and_holds_up_nobody() {
    let (mut from, mut to, mut world) = (udp(ON), udp(ON), World::new());
    // That the kernel refused it is the same to the transmitting half as that nobody began.
    from.start(&mut world);
    for _ in 0..3 {
        from.send(&frame(60, 7));
    }
    assert_eq!(move_all(&mut world, &mut from, &mut to), 3);
    assert_eq!(world.counters.dropped(DropReason::NotConnected), 3);
    assert!(to.received().is_empty());
}

#[test]
fn every_size_passes_unchanged() {
    for (mut from, mut to) in [(udp(ON), udp(ON)), (udp(OFF), udp(OFF)), (unix(), udp(ON)), (udp(ON), unix())]
    {
        let mut world = World::new();
        from.start(&mut world);
        to.start(&mut world);
        let sizes = (1..1600).chain((1600..65_507).step_by(1013)).chain([65_505, 65_506, 65_507]);
        for size in sizes {
            from.send(&frame(size, 7));
            assert_eq!(move_all(&mut world, &mut from, &mut to), 1, "{size} bytes");
            assert!(to.received() == [frame(size, 7)], "{size} bytes");
        }
    }
}

#[test]
fn bursts_of_mixed_sizes_keep_their_order() {
    // Runs of one length, runs with a shorter end, and lengths that go up.
    let sizes = [
        60, 60, 60, 40, 60, 61, 1514, 1514, 1514, 14, 14, 9000, 9000, 9000, 9000, 9000, 9000, 9000, 9000, 100,
    ];
    for runs in [ON, OFF] {
        let (mut world, mut from, mut to) = (World::new(), udp(runs), udp(runs));
        from.start(&mut world);
        to.start(&mut world);
        for round in 0..20 {
            let frames: Vec<_> = sizes.iter().zip(round..).map(|(size, mark)| frame(*size, mark)).collect();
            frames.iter().for_each(|frame| from.send(frame));
            assert_eq!(move_all(&mut world, &mut from, &mut to), frames.len());
            assert!(to.received() == frames, "round {round}");
        }
        let bytes = 20 * sizes.iter().sum::<usize>() as u64;
        assert_eq!((world.counters.tx.frames.get(), world.counters.tx.bytes.get()), (400, bytes));
    }
}

#[test]
fn a_message_of_many_datagrams_is_many_frames() {
    // Source -> a -> (one message) -> b -> sink.
    let (mut world, mut source, mut sink) = (World::new(), udp(ON), udp(ON));
    let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let (to_a, to_b) = (Address::new(&address(&a)), Address::new(&address(&b)));
    let mut a = pair(a.into(), Some(to_b), &Plain, &arena()).unwrap();
    let mut b = pair(b.into(), Some(to_a), &Plain, &arena()).unwrap();
    source.start(&mut world);
    sink.start(&mut world);
    let World { io, pool, .. } = &mut world;
    for queue in [&mut a, &mut b] {
        queue.rx.start(&mut Turn { now: 0, io, pool });
    }
    let frames: Vec<_> = (0..BURST).map(|i| frame(if i == BURST - 1 { 33 } else { 60 }, i as u8)).collect();
    frames.iter().for_each(|frame| source.send(frame));
    assert_eq!(world.hop(&mut *source.queue.rx, &mut *a.tx), (BURST, BURST));
    // They come as one message, and what is not taken is lent again.
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    world.burst.clear();
    b.rx.rx(&mut turn, 10, &mut world.burst);
    assert_eq!(world.burst.len(), 10);
    b.rx.release(&mut turn, 4);
    assert_eq!(world.hop(&mut *b.rx, &mut *sink.queue.tx), (BURST - 4, BURST - 4));
    assert!(sink.received() == frames[4..]);
}

#[test]
fn a_full_receiver_is_waited_for_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["ours", "outside"].map(|name| directory.path().join(name));
    let loose = {
        let options = DatagramOptions::Unix {
            local: paths[0].to_str().unwrap().into(),
            remote: paths[1].to_str().unwrap().into(),
        };
        let outside = UnixDatagram::bind(&paths[1]).unwrap();
        let queue = open(options, &arena()).unwrap().queue;
        outside.connect(&paths[0]).unwrap();
        End::new(queue, outside.into())
    };
    for (mut to, told) in [(unix(), true), (loose, false)] {
        let (mut world, mut from) = (World::new(), udp(ON));
        from.start(&mut world);
        to.start(&mut world);
        let frames: Vec<_> = (0..400u32).map(|i| frame(60 + i as usize, i as u8)).collect();
        let (mut sent, mut got) = (frames.iter(), Vec::new());
        while got.len() < frames.len() {
            sent.by_ref().take(50).for_each(|frame| from.send(frame));
            world.io.poll();
            world.hop(&mut *from.queue.rx, &mut *to.queue.tx);
            if to.queue.tx.blocked() {
                let mut turn = Turn { now: world.now, io: &mut world.io, pool: &mut world.pool };
                assert_eq!(to.queue.tx.room(&mut turn, BURST), 0, "told {told}");
                let before = got.len();
                got.extend(to.received());
                assert!(got.len() > before, "it was full");
                // The socket says so, or time passes.
                world.io.poll();
                world.now += if told { 1 } else { 1_000_000 };
            } else {
                got.extend(to.received());
            }
        }
        assert!(got == frames, "told {told}");
        assert_eq!(DropReason::ALL.map(|reason| world.counters.dropped(reason)).iter().sum::<u64>(), 0);
    }
}

#[test]
fn empty_and_cut_datagrams_are_dropped_by_name_and_harm_nothing() {
    for (mut from, most) in [(udp(ON), None), (udp(OFF), None), (unix(), Some(90_000))] {
        let (mut world, mut to) = (World::new(), udp(ON));
        from.start(&mut world);
        to.start(&mut world);
        from.send(&[]);
        from.send(&frame(60, 1));
        from.send(&[]);
        from.send(&frame(60, 2));
        if let Some(most) = most {
            from.send(&frame(most, 3));
        }
        from.send(&frame(70, 4));
        move_all(&mut world, &mut from, &mut to);
        assert!(to.received() == [frame(60, 1), frame(60, 2), frame(70, 4)]);
        let cut = most.map(|_| (DropReason::Truncated, 1));
        assert_eq!(from.drops, [(DropReason::Malformed, 2)].into_iter().chain(cut).collect::<Vec<_>>());
        assert!(!from.queue.rx.pending());
    }
}

#[test]
fn what_is_too_long_is_dropped_and_the_rest_goes() {
    let (mut world, mut from, mut to) = (World::new(), unix(), udp(ON));
    from.start(&mut world);
    to.start(&mut world);
    let frames = [frame(60, 1), frame(65_508, 2), frame(65_508, 3), frame(60, 4)];
    for one in &frames {
        from.send(one);
        // A unix queue is short.
        assert_eq!(move_all(&mut world, &mut from, &mut to), 1);
    }
    assert!(to.received() == [frame(60, 1), frame(60, 4)]);
    assert_eq!(world.counters.dropped(DropReason::TooLong), 2);
    assert_eq!(world.counters.tx_trouble.load(Ordering::Relaxed), 0);
}

#[test]
fn a_peer_that_is_absent_gets_nothing_and_one_that_is_back_does() {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["ours", "outside"].map(|name| directory.path().join(name).to_str().unwrap().to_owned());
    let options = DatagramOptions::Unix { local: paths[0].clone(), remote: paths[1].clone() };
    let (mut world, mut from) = (World::new(), udp(ON));
    let (ours, outside) = (open(options, &arena()).unwrap().queue, udp(OFF).outside);
    let mut to = End::new(ours, outside);
    from.start(&mut world);
    to.start(&mut world);
    for mark in 0..3 {
        from.send(&frame(60, mark));
    }
    assert_eq!(move_all(&mut world, &mut from, &mut to), 3);
    assert_eq!(world.counters.dropped(DropReason::NotConnected), 3);
    assert_eq!(world.counters.tx_trouble.load(Ordering::Relaxed), libc::ENOENT);
    to.outside = UnixDatagram::bind(&paths[1]).unwrap().into();
    from.send(&frame(60, 9));
    assert_eq!(move_all(&mut world, &mut from, &mut to), 1);
    assert!(to.received() == [frame(60, 9)]);
    assert_eq!(world.counters.tx_trouble.load(Ordering::Relaxed), 0);
}

#[test]
fn an_answer_to_an_earlier_datagram_costs_no_later_one() {
    let (mut world, mut from) = (World::new(), udp(ON));
    let (ours, outside) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let (at, back) = (outside.local_addr().unwrap(), ours.local_addr().unwrap());
    ours.connect(at).unwrap();
    drop(outside);
    let mut to = End::new(pair(ours.into(), None, &Plain, &arena()).unwrap(), udp(OFF).outside);
    from.start(&mut world);
    to.start(&mut world);
    for mark in 0..5 {
        // Nobody is there: the kernel answers by ECONNREFUSED, to the next call.
        from.send(&frame(60 + usize::from(mark), mark));
        assert_eq!(move_all(&mut world, &mut from, &mut to), 1);
    }
    let outside = UdpSocket::bind(at).unwrap();
    outside.connect(back).unwrap();
    to.outside = outside.into();
    from.send(&frame(60, 7));
    assert_eq!(move_all(&mut world, &mut from, &mut to), 1);
    assert!(to.received() == [frame(60, 7)]);
    // And the other way: an error that is pending does not stop reception.
    to.send(&frame(61, 8));
    assert_eq!(move_all(&mut world, &mut to, &mut from), 1);
    assert!(from.received() == [frame(61, 8)]);
}

#[test]
fn datagrams_longer_than_the_mtu_go_one_by_one() {
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("skipped: no network namespace: {errno} (needs root)");
        return;
    }
    let done =
        std::process::Command::new("ip").args(["link", "set", "lo", "mtu", "1500", "up"]).status().unwrap();
    assert!(done.success());
    let (mut world, mut from, mut to) = (World::new(), udp(OFF), udp(ON));
    from.start(&mut world);
    to.start(&mut world);
    for size in [2000, 1472, 1473, 60] {
        let frames: Vec<_> = (0..20).map(|mark| frame(size, mark)).collect();
        frames.iter().for_each(|frame| from.send(frame));
        assert_eq!(move_all(&mut world, &mut from, &mut to), 20, "{size} bytes");
        assert!(to.received() == frames, "{size} bytes");
    }
    assert_eq!(world.counters.dropped(DropReason::TooLong), 0);
}

/// A number before each frame.
#[derive(Debug, Clone)]
struct Numbered {
    next: u32,
}

impl Framing for Numbered {
    fn len(&self) -> usize {
        4
    }

    fn head(&mut self, to: &mut [u8]) {
        to.copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
    }

    fn undo(&mut self, frames: usize) {
        self.next -= frames as u32;
    }

    fn strip(&mut self, front: &[u8], _total: usize) -> Result<usize, DropReason> {
        match front {
            [0, ..] => Ok(4),
            _ => Err(DropReason::NotConnected),
        }
    }
}

#[test]
fn what_stands_before_a_frame_is_written_once_a_frame_and_looked_at() {
    let (ours, outside) =
        socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let mut to = End::new(pair(ours, None, &Numbered { next: 1 }, &arena()).unwrap(), outside);
    let (mut world, mut from) = (World::new(), udp(ON));
    from.start(&mut world);
    to.start(&mut world);
    let frames: Vec<_> = (0..50).map(|mark| frame(60, mark)).collect();
    frames.iter().for_each(|frame| from.send(frame));
    let mut got = Vec::new();
    // The queue of the receiver is shorter than the burst.
    while got.len() < frames.len() {
        move_all(&mut world, &mut from, &mut to);
        got.extend(to.received());
        world.io.poll();
    }
    let expected = frames.iter().zip(1u32..).map(|(frame, n)| [&n.to_be_bytes()[..], frame].concat());
    assert!(got == expected.collect::<Vec<_>>());
    to.send(&[&[0, 0, 0, 5][..], &frame(60, 1)].concat());
    to.send(&[&[9, 0, 0, 5][..], &frame(60, 2)].concat());
    to.send(&[0, 0, 0, 5]);
    to.send(&[&[0, 0, 0, 5][..], &frame(1, 3)].concat());
    assert_eq!(move_all(&mut world, &mut to, &mut from), 2);
    assert!(from.received() == [frame(60, 1), frame(1, 3)]);
    assert_eq!(to.drops, [(DropReason::NotConnected, 1), (DropReason::Malformed, 1)]);
}

#[test]
fn a_queue_goes_on_where_it_stopped_on_another_worker() {
    let (mut world, mut from, mut to) = (World::new(), udp(ON), udp(ON));
    from.start(&mut world);
    to.start(&mut world);
    (0..5).for_each(|mark| from.send(&frame(60, mark)));
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    from.queue.rx.rx(&mut turn, BURST, &mut world.burst);
    assert_eq!(world.burst.len(), 5);
    from.queue.rx.release(&mut turn, 2);
    from.stop(&mut world);
    to.stop(&mut world);
    let mut other = World::new();
    from.start(&mut other);
    to.start(&mut other);
    from.send(&frame(60, 5));
    assert_eq!(move_all(&mut other, &mut from, &mut to), 4);
    assert!(to.received() == [2, 3, 4, 5].map(|mark| frame(60, mark)));
}

#[test]
fn members_of_a_group_hear_each_other_and_themselves() {
    let group = SocketAddrV4::new(Ipv4Addr::new(239, 77, 3, 9), 39_311);
    let member = || {
        let options = DatagramOptions::Multicast { group, interface: Some(Ipv4Addr::LOCALHOST) };
        let sink = udp(ON);
        (End::new(open(options, &arena()).unwrap().queue, udp(OFF).outside), sink)
    };
    let (mut world, mut source) = (World::new(), udp(ON));
    let (mut one, mut two) = (member(), member());
    source.start(&mut world);
    for (member, sink) in [&mut one, &mut two] {
        member.start(&mut world);
        sink.start(&mut world);
    }
    let frames: Vec<_> = (0..30).map(|mark| frame(200, mark)).collect();
    frames.iter().for_each(|frame| source.send(frame));
    assert_eq!(move_all(&mut world, &mut source, &mut one.0), 30);
    for (member, sink) in [&mut one, &mut two] {
        assert_eq!(move_all(&mut world, member, sink), 30);
        assert!(sink.received() == frames);
    }
}

#[test]
fn a_path_is_made_free_of_sockets_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let unix = |local: &str| DatagramOptions::Unix { local: path(local), remote: path("remote") };
    drop(open(unix("a"), &arena()).unwrap());
    assert!(open(unix("a"), &arena()).is_ok(), "the socket that was left there goes");
    std::fs::write(path("file"), "kept").unwrap();
    let why = open(unix("file"), &arena()).err().unwrap().to_string();
    assert_eq!(why, format!("failed to unlink socket {}: File exists", path("file")));
    assert_eq!(std::fs::read_to_string(path("file")).unwrap(), "kept");
    let why = open(unix("no/where"), &arena()).err().unwrap().to_string();
    assert_eq!(why, format!("can't bind unix={} to socket: No such file or directory", path("no/where")));
    let long = "x".repeat(200);
    let why = open(unix(&long), &arena()).err().unwrap().to_string();
    assert_eq!(why, format!("UNIX socket path '{}' is too long", path(&long)));
}

#[test]
fn addresses_that_cannot_be_are_named() {
    let why = |options| open(options, &arena()).err().unwrap().to_string();
    let group = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 1234);
    let none = DatagramOptions::Multicast { group, interface: None };
    assert_eq!(why(none), "specified mcastaddr 10.0.0.1 (0x0a000001) does not contain a multicast address");
    let (local, remote) = (SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 77), 1), group);
    let foreign = DatagramOptions::Inet { local, remote };
    assert_eq!(why(foreign), "can't bind ip=192.0.2.77 to socket: Cannot assign requested address");
}
