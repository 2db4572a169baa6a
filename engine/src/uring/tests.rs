//! Both modes on sockets and pipes; needs no privilege.

use super::*;
use crate::burst::Seg;
use crate::mem::arena::{Arena, ArenaConfig};
use crate::wire::vnet_hdr::VnetHdr;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn arena() -> Arc<Arena> {
    Arena::new(&ArenaConfig { initial: 4 << 20, step: 1 << 20, hugepages: false }).unwrap()
}

/// One `FdIo` for each mode that this machine has.
fn modes() -> Vec<FdIo> {
    let batched = FdIo::new(Some(IoMode::Batched)).unwrap().0;
    match FdIo::new(Some(IoMode::Uring)) {
        Ok((io, _)) => vec![io, batched],
        Err(e) => {
            eprintln!("skipped for io_uring: {e}");
            vec![batched]
        }
    }
}

fn pair(kind: SockType) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC).unwrap()
}

fn write(fd: &OwnedFd, bytes: &[u8]) {
    assert_eq!(nix::unistd::write(fd, bytes).unwrap(), bytes.len());
}

/// What the other side of a pair sent, read until nothing is left.
fn read_all(fd: &OwnedFd) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut bytes = [0; 4096];
    while let Ok(n @ 1..) = nix::unistd::read(fd, &mut bytes) {
        all.push(bytes[..n].to_vec());
    }
    all
}

fn frame(io: &FdIo, id: FileId, i: usize) -> Option<Vec<u8>> {
    let seg = io.received(id, i)?;
    let mut bytes = vec![0; seg.len()];
    seg.copy_to(0, &mut bytes);
    Some(bytes)
}

fn seg(bytes: &[u8]) -> Seg {
    // SAFETY: the tests keep `bytes` alive until the submission.
    unsafe { Seg::new(std::ptr::NonNull::from(&bytes[0]), bytes.len() as u32) }
}

fn close(io: &mut FdIo, id: FileId) -> Option<Buffers> {
    while !io.close(id) {
        std::thread::yield_now();
    }
    io.remove(id)
}

/// Polls until a file is ready.
fn await_ready(io: &mut FdIo) -> FileId {
    loop {
        if let Some(id) = io.take_ready() {
            return id;
        }
        io.sleep(Some(1_000_000_000));
    }
}

#[test]
fn frames_arrive_whole_in_order_and_the_file_is_ready_once() {
    for mut io in modes() {
        let (near, far) = pair(SockType::Datagram);
        let id = io.register(near.as_fd(), Some(Buffers::new(&arena(), 8, 256).unwrap())).unwrap();
        for mark in 1..=5u8 {
            write(&far, &[mark; 100]);
        }
        io.poll();
        assert_eq!(io.take_ready(), Some(id), "{:?}", io.mode());
        assert_eq!(io.take_ready(), None);
        assert_eq!(io.backlog(id), 5);
        for i in 0..5 {
            assert_eq!(frame(&io, id, i).unwrap(), [i as u8 + 1; 100]);
        }
        io.recycle(id, 2);
        assert_eq!(frame(&io, id, 0).unwrap()[0], 3);
        assert_eq!(frame(&io, id, 3), None);
    }
}

#[test]
fn running_out_of_buffers_leaves_frames_with_the_kernel_until_some_return() {
    for mut io in modes() {
        let (near, far) = pair(SockType::Datagram);
        let id = io.register(near.as_fd(), Some(Buffers::new(&arena(), 4, 64).unwrap())).unwrap();
        for mark in 0..10u8 {
            write(&far, &[mark; 10]);
        }
        let mut seen = Vec::new();
        for round in 0..20 {
            io.poll();
            assert!(io.backlog(id) <= 4);
            if round < 3 {
                continue; // blocked: nothing is lost, nothing more arrives
            }
            while let Some(frame) = frame(&io, id, 0) {
                seen.push(frame[0]);
                io.recycle(id, 1);
            }
        }
        assert_eq!(seen, (0..10).collect::<Vec<_>>(), "{:?}", io.mode());
    }
}

#[test]
fn every_send_has_its_result_after_submit() {
    for mut io in modes() {
        let (near, far) = pair(SockType::Datagram);
        let id = io.register(near.as_fd(), None).unwrap();
        let hdr = VnetHdr { gso_size: 7, ..VnetHdr::NONE };
        let (a, b) = ([1u8; 20], [2u8; 30]);
        let one = io.send(id, Some(&hdr), 1, &[seg(&a), seg(&b)]).unwrap();
        let two = io.send(id, None, 1, &[seg(&b)]).unwrap();
        assert_eq!(io.sent(one).unwrap().result, None);
        io.submit();
        assert_eq!(io.sent(one).unwrap(), Sent { len: 50, hdr, weight: 1, result: Some(Ok(60)) });
        assert_eq!(io.sent(two).unwrap().result, Some(Ok(30)));
        let mut lens = Vec::new();
        io.sent_segs(one, |s| lens.push(s.len()));
        assert_eq!(lens, [20, 30]);
        let got = read_all(&far);
        assert_eq!((&got[0][..10], &got[0][10..30], got[1].len()), (&hdr.encode()[..], &a[..], 30));
    }
}

#[test]
fn a_full_receiver_refuses_now_and_is_ready_when_it_has_room() {
    for mut io in modes() {
        let (near, far) = pair(SockType::Datagram);
        let id = io.register(near.as_fd(), None).unwrap();
        let bytes = [3u8; 200];
        let mut refused = 0;
        for _ in 0..100 {
            for _ in 0..16 {
                io.send(id, None, 1, &[seg(&bytes)]).unwrap();
            }
            io.submit();
            refused +=
                (0..16).filter(|&i| io.sent(Ticket(i)).unwrap().result == Some(Err(Errno::EAGAIN))).count();
            if refused > 0 {
                break;
            }
        }
        assert!(refused > 0, "{:?}", io.mode());
        assert_eq!(io.write_now(id, None, &[seg(&bytes)]), Err(Errno::EAGAIN));
        io.want_writable(id);
        io.poll();
        assert_eq!(io.take_ready(), None);
        read_all(&far);
        assert_eq!(await_ready(&mut io), id);
        assert_eq!(io.write_now(id, None, &[seg(&bytes)]), Ok(200));
    }
}

#[test]
fn more_sends_than_the_queue_holds_are_submitted_in_between() {
    for mut io in modes() {
        let (near, far) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).map(|(r, w)| (w, r)).unwrap();
        let id = io.register(near.as_fd(), None).unwrap();
        let byte = [9u8; 4];
        let mut taken = 0;
        while io.send(id, None, 1, &[seg(&byte)]).is_some() {
            taken += 1;
        }
        assert!(taken >= 4096 && io.send_room() == 0);
        io.submit();
        assert!((0..taken).all(|i| io.sent(Ticket(i)).unwrap().result == Some(Ok(4))), "{:?}", io.mode());
        assert_eq!(read_all(&far).concat().len(), taken as usize * 4);
        assert!(io.send_room() > 0 && io.send(id, None, 1, &[seg(&byte)]) == Some(Ticket(0)));
        io.submit();
    }
}

#[test]
fn the_end_of_a_file_is_reported_once_and_costs_nothing_after() {
    for mut io in modes() {
        let (near, far) = pair(SockType::Stream);
        let id = io.register(near.as_fd(), Some(Buffers::new(&arena(), 4, 64).unwrap())).unwrap();
        drop(far);
        assert_eq!(await_ready(&mut io), id);
        assert!(io.ended(id).is_some(), "{:?}", io.mode());
        for _ in 0..10 {
            io.poll();
            assert_eq!(io.take_ready(), None);
        }
        assert!(close(&mut io, id).is_some());
    }
}

#[test]
fn a_closed_file_gives_its_buffers_and_unread_frames_back_and_its_slot_starts_afresh() {
    for mut io in modes() {
        let (near, far) = pair(SockType::Datagram);
        let id = io.register(near.as_fd(), Some(Buffers::new(&arena(), 4, 64).unwrap())).unwrap();
        write(&far, b"old");
        io.poll();
        let kept = close(&mut io, id).unwrap();
        assert_eq!((kept.count(), kept.len()), (4, 1));
        assert_eq!((io.received(id, 0).is_none(), io.take_ready()), (true, None));
        // Nothing reads the closed file any more, and another file may have the slot.
        write(&far, b"later");
        let (near2, far2) = pair(SockType::Datagram);
        let again = io.register(near2.as_fd(), Some(kept)).unwrap();
        assert_eq!(again, id);
        write(&far2, b"new");
        io.poll();
        assert_eq!(frame(&io, again, 0).unwrap(), b"old", "frames move with the buffers");
        assert_eq!(frame(&io, again, 1).unwrap(), b"new");
        assert_eq!(frame(&io, again, 2), None);
        assert_eq!(read_all(&near), [b"later".to_vec()]);
    }
}

#[test]
fn closing_releases_the_file_itself() {
    for mut io in modes() {
        let (near, far) = pair(SockType::Datagram);
        let id = io.register(near.as_fd(), Some(Buffers::new(&arena(), 4, 64).unwrap())).unwrap();
        io.want_writable(id);
        io.poll();
        close(&mut io, id);
        drop(near);
        // No request of the kernel holds the other end open.
        assert_eq!(nix::unistd::write(&far, b"x"), Err(Errno::ECONNREFUSED), "{:?}", io.mode());
    }
}

#[test]
fn a_wake_ends_a_sleep_and_is_never_lost() {
    for mut io in modes() {
        let waker = io.waker.clone();
        let start = Instant::now();
        waker.wake(); // before the sleep
        io.sleep(None);
        let other = std::thread::spawn(move || {
            while waker_state(&waker) == 0 {
                std::thread::yield_now();
            }
            waker.nudge();
        });
        io.announce();
        io.sleep(None);
        other.join().unwrap();
        assert!(start.elapsed() < Duration::from_secs(5));
        let start = Instant::now();
        io.sleep(Some(20_000_000));
        io.sleep(Some(20_000_000));
        assert!(start.elapsed() >= Duration::from_millis(15), "an old wake wakes once at most");
    }
}

/// The kick may come between the announcement and the wait, and be taken in with other completions: most easily when the
/// waker's poll is new.
#[test]
fn a_kick_that_comes_while_the_sleep_begins_is_not_lost() {
    let limit = Duration::from_secs(20);
    for _ in 0..300 {
        for mut io in modes() {
            let waker = io.waker.clone();
            let over = Arc::new(AtomicBool::new(false));
            let awake = over.clone();
            // A sleep may end for no reason, before anybody could see it: then there is nothing to kick.
            let other = std::thread::spawn(move || {
                while waker_state(&waker) == 0 && !awake.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                waker.nudge();
            });
            let start = Instant::now();
            io.sleep(Some(limit.as_nanos() as u64));
            assert!(start.elapsed() < limit, "{:?}: the sleep ended by its time only", io.mode());
            over.store(true, Ordering::Relaxed);
            other.join().unwrap();
        }
    }
}

fn waker_state(waker: &Waker) -> u32 {
    waker.state_for_test()
}

#[test]
fn a_frame_ends_a_sleep() {
    for mut io in modes() {
        let (near, far) = pair(SockType::Datagram);
        let id = io.register(near.as_fd(), Some(Buffers::new(&arena(), 4, 64).unwrap())).unwrap();
        io.poll();
        let waker = io.waker.clone();
        let other = std::thread::spawn(move || {
            while waker_state(&waker) == 0 {
                std::thread::yield_now();
            }
            write(&far, b"hello");
            far
        });
        io.sleep(None);
        assert_eq!(io.take_ready(), Some(id));
        let _far = other.join().unwrap();
    }
}

#[test]
fn a_made_ring_works_on_the_thread_that_uses_it_first() {
    for mut io in modes() {
        std::thread::spawn(move || {
            let (near, far) = pair(SockType::Datagram);
            let id = io.register(near.as_fd(), Some(Buffers::new(&arena(), 4, 64).unwrap())).unwrap();
            write(&far, b"x");
            io.poll();
            assert_eq!(io.take_ready(), Some(id));
        })
        .join()
        .unwrap();
    }
}

#[test]
fn a_regular_file_is_refused_or_ends_by_name() {
    for mut io in modes() {
        let file = tempfile();
        let buffers = Buffers::new(&arena(), 4, 64).unwrap();
        match io.register(file.as_fd(), Some(buffers)) {
            Err(refused) => assert!(refused.buffers.is_some()),
            Ok(id) => {
                assert_eq!(await_ready(&mut io), id);
                assert!(io.ended(id).is_some());
            }
        }
    }
}

fn tempfile() -> OwnedFd {
    nix::sys::memfd::memfd_create("test", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap()
}

#[derive(Debug, Clone)]
enum Op {
    Arrive(u8),
    Poll,
    Recycle(usize),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => any::<u8>().prop_map(Op::Arrive),
        3 => Just(Op::Poll),
        3 => (0usize..5).prop_map(Op::Recycle),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// A model of the buffers: frames come out as they went in, none twice, none lost, and every buffer is in exactly one
    /// place, whatever is received, taken and closed in between.
    #[test]
    fn every_buffer_is_in_one_place(ops in proptest::collection::vec(op(), 1..80)) {
        for mut io in modes() {
            let (near, far) = pair(SockType::SeqPacket);
            let mut id = io.register(near.as_fd(), Some(Buffers::new(&arena(), 4, 64).unwrap())).unwrap();
            let mut sent = VecDeque::new();
            for op in &ops {
                match op {
                    Op::Arrive(mark) => {
                        if nix::unistd::write(&far, &[*mark; 9]).is_ok() {
                            sent.push_back(*mark);
                        }
                    }
                    Op::Poll => io.poll(),
                    Op::Recycle(n) => {
                        let n = (*n).min(io.backlog(id));
                        for i in 0..n {
                            prop_assert_eq!(frame(&io, id, i).map(|f| f[0]), sent.pop_front());
                        }
                        io.recycle(id, n);
                    }
                    Op::Reopen => {
                        let buffers = close(&mut io, id).unwrap();
                        prop_assert_eq!(buffers.with_kernel(), 0);
                        id = io.register(near.as_fd(), Some(buffers)).unwrap();
                    }
                }
                check(&io, id)?;
            }
            while let Some(mark) = sent.pop_front() {
                io.poll();
                prop_assert_eq!(frame(&io, id, 0).map(|f| f[0]), Some(mark));
                io.recycle(id, 1);
            }
        }
    }
}

fn check(io: &FdIo, id: FileId) -> Result<(), TestCaseError> {
    let buffers = io.files.get(id).unwrap().buffers.as_ref().unwrap();
    prop_assert_eq!(buffers.free() + buffers.len() + buffers.with_kernel(), buffers.count());
    let mut places: Vec<u16> = buffers.places().collect();
    places.sort_unstable();
    places.dedup();
    prop_assert_eq!(places.len(), buffers.free() + buffers.len());
    Ok(())
}

#[test]
fn a_header_that_lies_in_front_of_its_frame_goes_out_with_it_unless_it_changed() {
    let hdr = VnetHdr { gso_size: 1400, csum_start: 34, ..VnetHdr::NONE };
    let changed = VnetHdr { gso_size: 700, ..hdr };
    let bytes = [&hdr.encode()[..], &[7; 50]].concat();
    let frame = seg(&bytes).behind(VnetHdr::LEN);
    assert!(frame.with_front(VnetHdr::LEN + 1).is_none() && frame.slice(1, 9).with_front(1).is_none());
    for mut io in modes() {
        let (near, far) = pair(SockType::Datagram);
        let id = io.register(near.as_fd(), None).unwrap();
        let sent = [hdr, changed].map(|hdr| io.send(id, Some(&hdr), 1, &[frame]).unwrap());
        io.submit();
        for ticket in sent {
            assert_eq!(io.sent(ticket).unwrap().result, Some(Ok(60)), "{:?}", io.mode());
            let mut segs = Vec::new();
            io.sent_segs(ticket, |seg| segs.push((seg.ptr(), seg.len())));
            assert_eq!(segs, [(frame.ptr(), 50)]);
        }
        let expected = [hdr, changed].map(|hdr| [&hdr.encode()[..], &[7; 50]].concat());
        assert_eq!(read_all(&far), expected, "{:?}", io.mode());
    }
}
