//! Flows that leave by sockets of their own.

use super::super::open::spread_pair;
use super::super::spread::Spread;
use super::*;
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

/// A frame of a UDP flow: its number is the source port, and what is in it.
fn datagram(flow: u16, len: usize, mark: u8) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 100, 0, 0, 0, 0, 64, 17, 0, 0];
    bytes.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend_from_slice(&flow.to_be_bytes());
    bytes.extend_from_slice(&[0, 80]);
    bytes.resize(len, mark);
    bytes
}

/// The flow of a frame.
fn flow(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[34], frame[35]])
}

/// A queue pair that sends from eight ports.
fn eight() -> (End, UdpSocket) {
    let sockets: Vec<OwnedFd> = (0..8).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap().into()).collect();
    let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
    let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
    outside.set_nonblocking(true).unwrap();
    let to = Address::new(&address(&outside));
    let queue = spread_pair(ours.into(), sockets, Some(to), &Plain, &arena()).unwrap();
    (End::new(queue, udp(OFF).outside), outside)
}

fn from_whom(socket: &UdpSocket) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut buffer = vec![0; 70_000];
    let next = || socket.recv_from(&mut buffer).ok().map(|(n, from)| (from, buffer[..n].to_vec()));
    std::iter::from_fn(next).collect()
}

#[test]
fn each_flow_keeps_its_port_and_its_order() {
    let (mut world, mut from, (mut to, outside)) = (World::new(), udp(ON), eight());
    from.start(&mut world);
    to.start(&mut world);
    for round in 0..5 {
        for number in 0..30 {
            from.send(&datagram(number, 60 + usize::from(number % 3), round));
        }
    }
    assert_eq!(move_all(&mut world, &mut from, &mut to), 150);
    let mut seen: HashMap<u16, (SocketAddr, u8)> = HashMap::new();
    for (port, frame) in from_whom(&outside) {
        let mark = *frame.last().unwrap();
        let (first, next) = seen.entry(flow(&frame)).or_insert((port, 0));
        assert_eq!((*first, *next), (port, mark), "flow {}", flow(&frame));
        *next += 1;
    }
    assert_eq!(seen.len(), 30);
    assert!(seen.values().all(|(_, rounds)| *rounds == 5));
    let ports: HashSet<SocketAddr> = seen.values().map(|(port, _)| *port).collect();
    assert!((5..=8).contains(&ports.len()), "{ports:?}");
}

#[test]
fn equally_long_datagrams_of_a_flow_are_still_one_message() {
    let (mut world, mut from, (mut to, outside)) = (World::new(), udp(ON), eight());
    setsockopt(&outside, sockopt::UdpGroSegment, &true).unwrap();
    from.start(&mut world);
    to.start(&mut world);
    let burst: Vec<_> = (0..20).map(|mark| datagram(7, 1400, mark)).collect();
    burst.iter().for_each(|frame| from.send(frame));
    assert_eq!(move_all(&mut world, &mut from, &mut to), 20);
    let came = from_whom(&outside);
    assert_eq!(came.iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>(), [28_000]);
    assert!(came[0].1 == burst.concat());
}

/// A queue pair with two sockets of its own for flows, whose other ends are small queues.
fn two(room: Option<usize>) -> (End, [OwnedFd; 2]) {
    let pair = || socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let (ours, [one, two]) = (pair(), [pair(), pair()]);
    for (socket, _) in [&one, &two] {
        if let Some(room) = room {
            setsockopt(socket, sockopt::SndBuf, &room).unwrap();
        }
    }
    let spread = Spread::new(vec![one.0, two.0]);
    let queue = join(ours.0, Some(spread), None, &Plain, Buffers::new(&arena()).unwrap(), OFF);
    (End::new(queue, ours.1), [one.1, two.1])
}

fn next(socket: &OwnedFd) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 2000];
    let n = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
    buffer.truncate(n);
    Some(buffer)
}

#[test]
fn where_a_socket_may_be_full_frames_go_in_order_and_none_is_lost() {
    let (mut world, mut from, (mut to, outside)) = (World::new(), udp(ON), two(Some(0)));
    from.start(&mut world);
    to.start(&mut world);
    let mut wanted: HashMap<u16, Vec<u8>> = HashMap::new();
    for mark in 0..40 {
        for number in [1, 2, 3, 4, 5] {
            from.send(&datagram(number, 200, mark));
            wanted.entry(number).or_default().push(mark);
        }
    }
    let (mut came, mut moved, mut waited) = (HashMap::<u16, Vec<u8>>::new(), 0, false);
    while moved < 200 {
        moved += move_all(&mut world, &mut from, &mut to);
        waited |= to.queue.tx.blocked();
        let mut before = 0;
        for frame in outside.iter().filter_map(next) {
            came.entry(flow(&frame)).or_default().push(*frame.last().unwrap());
            before += 1;
        }
        assert!(before > 0, "{moved} frames moved, and nothing came");
        world.now += 1_000_000;
    }
    for frame in outside.iter().flat_map(|socket| std::iter::from_fn(|| next(socket))) {
        came.entry(flow(&frame)).or_default().push(*frame.last().unwrap());
    }
    assert!(waited, "no socket was ever full");
    assert_eq!(came, wanted);
    assert_eq!(world.counters.dropped(DropReason::TxFull), 0);
}

#[test]
fn what_a_socket_refuses_although_it_has_room_is_lost_by_name() {
    let (mut world, mut from, (mut to, outside)) = (World::new(), udp(ON), two(None));
    from.start(&mut world);
    to.start(&mut world);
    for mark in 0..20 {
        for number in [1, 2, 3, 4, 5] {
            from.send(&datagram(number, 200, mark));
        }
    }
    // The queue behind a unix socket ends at some number of datagrams, of which the sender's buffer does not know.
    assert_eq!(move_all(&mut world, &mut from, &mut to), 100);
    let came = outside.iter().flat_map(|socket| std::iter::from_fn(|| next(socket))).count() as u64;
    let lost = world.counters.dropped(DropReason::TxFull);
    assert_eq!(came + lost, 100);
    assert!(came >= 20, "{came} came");
}
