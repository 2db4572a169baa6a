//! Against a process of the shell's, and against the other end of a socket that is ours.

use super::header::Header;
use super::options::{HEADER, LONGEST};
use super::{UserError, UserOptions, open};
use crate::backend::child::testing::script;
use crate::backend::datagram::open::pair;
use crate::backend::pair::QueuePair;
use crate::backend::testing::{World, frame};
use crate::burst::BURST;
use crate::mem::arena::{Arena, ArenaConfig};
use crate::port::Turn;
use crate::port::counters::DropReason;
use crate::wire::vnet_hdr::{F_NEEDS_CSUM, GSO_TCPV4, VnetHdr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn arena() -> Arc<Arena> {
    Arena::new(&ArenaConfig { initial: 1 << 20, step: 1 << 20, hugepages: false }).unwrap()
}

/// A queue pair and the process's end.
fn joined(world: &mut World) -> (QueuePair, OwnedFd) {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let mut queue = pair(ours, None, &Header::default(), &arena()).unwrap();
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    queue.rx.start(&mut turn);
    queue.tx.start(&mut turn);
    (queue, theirs)
}

fn message(hdr: &VnetHdr, frame: &[u8]) -> Vec<u8> {
    [&hdr.encode()[..], &[0, 0], frame].concat()
}

fn put(socket: &OwnedFd, bytes: &[u8]) {
    assert_eq!(send(socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT).unwrap(), bytes.len());
}

fn take(socket: &OwnedFd) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 70_000];
    let n = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).ok()?;
    bytes.truncate(n);
    Some(bytes)
}

#[test]
fn frames_cross_with_what_is_left_to_do() {
    let mut world = World::new();
    let (mut queue, process) = joined(&mut world);
    let large = VnetHdr {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 54,
        gso_size: 1460,
        csum_start: 34,
        csum_offset: 16,
    };
    assert!(queue.tx.caps().csum && queue.tx.caps().tso4 && queue.tx.caps().tso6 && queue.tx.caps().uso);
    for (hdr, len) in [(VnetHdr::NONE, 14), (VnetHdr::NONE, 1514), (large, 65_000), (large, LONGEST)] {
        let sent = message(&hdr, &frame(len, 5));
        put(&process, &sent);
        assert_eq!(world.hop(queue.rx.as_mut(), queue.tx.as_mut()), (1, 1), "{len} bytes");
        assert!(take(&process).unwrap() == sent, "{len} bytes are others");
    }
}

#[test]
fn messages_that_are_no_frames_are_dropped_by_name() {
    let mut world = World::new();
    let (mut queue, process) = joined(&mut world);
    for len in [1, HEADER, HEADER + 13] {
        put(&process, &vec![0; len]);
        assert_eq!(world.hop(queue.rx.as_mut(), queue.tx.as_mut()), (0, 0));
        assert_eq!(queue.rx.drops(), Some((DropReason::Malformed, 1)), "{len} bytes");
    }
    put(&process, &message(&VnetHdr::NONE, &frame(LONGEST + 1, 1)));
    assert_eq!(world.hop(queue.rx.as_mut(), queue.tx.as_mut()), (1, 1));
    assert_eq!(world.counters.dropped(DropReason::TooLong), 1, "the process takes no longer one");
    assert_eq!(take(&process), None);
}

#[test]
fn a_full_socket_holds_frames_and_loses_none() {
    let mut world = World::new();
    let (mut queue, process) = joined(&mut world);
    let (mut sent, mut gone, mut seen) = (0_u64, 0, 0);
    while queue.tx.room(&mut Turn { now: world.now, io: &mut world.io, pool: &mut world.pool }, BURST) > 0 {
        put(&process, &message(&VnetHdr::NONE, &frame(60_000, sent as u8)));
        sent += 1;
        gone += world.hop(queue.rx.as_mut(), queue.tx.as_mut()).1;
        assert!(sent < 1000, "it is never full");
    }
    assert_eq!(gone as u64, sent - 1, "the last one waits");
    let began = Instant::now();
    while seen < sent {
        if let Some(bytes) = take(&process) {
            assert!(bytes[HEADER..] == frame(60_000, seen as u8), "frame {seen} is another");
            seen += 1;
        }
        world.now += 1_000_000;
        world.hop(queue.rx.as_mut(), queue.tx.as_mut());
        assert!(began.elapsed() < Duration::from_secs(20), "{seen} of {sent} come");
    }
    assert_eq!(world.counters.dropped(DropReason::NotConnected), 0);
}

#[test]
fn the_end_of_the_process_is_no_storm_and_drops_by_name() {
    let mut world = World::new();
    let (mut queue, process) = joined(&mut world);
    put(&process, &message(&VnetHdr::NONE, &frame(64, 1)));
    drop(process);
    assert_eq!(world.hop(queue.rx.as_mut(), queue.tx.as_mut()), (1, 1), "what it had sent still comes");
    for _ in 0..3 {
        assert_eq!(world.hop(queue.rx.as_mut(), queue.tx.as_mut()), (0, 0));
    }
    assert_eq!(world.counters.dropped(DropReason::NotConnected), 1);
    assert_eq!(queue.rx.drops(), None, "the end is no frame");
    assert_eq!(queue.rx.trouble(), libc::EPIPE);
    assert!(!queue.rx.pending(), "a worker may sleep");
}

fn readable(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(10_000_u16)).unwrap() == 1
}

#[test]
fn a_process_has_both_sockets_and_its_end_is_told() {
    let held = std::fs::File::open("/dev/null").unwrap();
    let path = script("ls -l /proc/self/fd | grep -c socket: >&4; exit 3");
    let mut opened = open(&UserOptions { program: path.to_path_buf() }, &arena()).unwrap();
    assert!(readable(&opened.control));
    assert_eq!(take(&opened.control).unwrap(), b"2\n");
    assert!(readable(&opened.process), "its end is not told");
    assert_eq!(opened.process.how_it_ended().as_deref(), Some("ended with status 3"));
    drop(held);
    let path = script("exec sleep 1000");
    let opened = open(&UserOptions { program: path.to_path_buf() }, &arena()).unwrap();
    let proc = PathBuf::from(format!("/proc/{}", opened.process.id()));
    assert!(proc.exists());
    drop(opened);
    assert!(!proc.exists(), "it goes with its owner");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let refused = open(&UserOptions { program: "/nonexistent/netdevd-user".into() }, &arena());
    let error = refused.err().unwrap();
    assert!(matches!(error, UserError::Program { .. }));
    let text = "user: '/nonexistent/netdevd-user' cannot be run: No such file or directory";
    assert_eq!(error.to_string(), text);
}
