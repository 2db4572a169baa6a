//! A connection against a socket that the test holds: bytes in, bytes out.

use super::*;
use crate::backend::testing::{World, frame, wake};
use crate::burst::{BURST, Burst, MAX_FRAME, Seg};
use crate::mem::arena::{Arena, ArenaConfig};
use crate::port::counters::DropReason;
use crate::port::testing::{Outside, port};
use crate::port::{Caps, Queue, QueueId, Turn};
use crate::uring::{FdIo, IoMode};
use crate::wire::vnet_hdr::VnetHdr;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::slice;

/// A connection on a worker, the test's end of it, and a port in memory that frames go to and come from.
struct Bench {
    world: World,
    stream: Opened,
    peer: UnixStream,
    port: Queue,
    outside: Outside,
    wake: Arc<OwnedFd>,
    _arena: Arc<Arena>,
}

impl Bench {
    fn new() -> Self {
        Self::over(UnixStream::pair().unwrap())
    }

    fn over((ours, peer): (UnixStream, UnixStream)) -> Self {
        let arena = Arena::new(&ArenaConfig { initial: 1 << 20, step: 1 << 20, hugepages: false }).unwrap();
        let (mut world, wake) = (World::new(), wake());
        let mut stream = open(ours.into(), &wake, &arena).unwrap();
        let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
        stream.rx.start(&mut turn);
        stream.tx.start(&mut turn);
        let (port, outside) = port(QueueId(1), 256, Caps::NONE);
        Self { world, stream, peer, port, outside, wake, _arena: arena }
    }

    /// Moves what has arrived to the port, until nothing more is there; all of it.
    fn received(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            self.world.hop(&mut *self.stream.rx, &mut *self.port.tx);
            all.extend(std::iter::from_fn(|| self.outside.received.pop()).map(|(_, bytes)| bytes));
            if !self.stream.rx.pending() {
                return all;
            }
        }
    }

    /// Sends frames from the port until the connection takes no more; whether all went.
    fn send(&mut self) -> bool {
        self.world.io.poll();
        while self.world.io.take_ready().is_some() {}
        while self.world.hop(&mut *self.port.rx, &mut *self.stream.tx).1 > 0 {}
        !self.port.rx.pending()
    }

    fn queue(&self, bytes: Vec<u8>) {
        self.outside.sent.push((VnetHdr::NONE, bytes)).unwrap();
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.world.counters.dropped(reason)
    }

    fn is_woken(&self) -> bool {
        nix::unistd::read(&*self.wake, &mut [0; 8]).is_ok()
    }
}

/// As it goes over the wire.
fn framed(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().flat_map(|f| [&(f.len() as u32).to_be_bytes()[..], f].concat()).collect()
}

/// Small and large ones in turns.
fn mixed(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| frame(14 + (i * 977) % if i % 3 == 0 { 9000 } else { 400 }, i as u8)).collect()
}

#[test]
fn every_size_arrives_unchanged_in_both_directions() {
    let mut bench = Bench::new();
    let mut peer = bench.peer.try_clone().unwrap();
    for len in (1..=1600).chain((1601..65535).step_by(373)).chain([65535, MAX_FRAME - 1, MAX_FRAME]) {
        let sent = frame(len, len as u8);
        let bytes = framed(slice::from_ref(&sent));
        peer.write_all(&bytes).unwrap();
        assert!(bench.received() == [sent.clone()], "{len} bytes from the peer");
        bench.queue(sent);
        assert!(bench.send());
        let mut got = vec![0; bytes.len()];
        peer.read_exact(&mut got).unwrap();
        assert!(got == bytes, "{len} bytes to the peer");
    }
    assert_eq!(bench.stream.report.end(), None);
}

#[test]
fn a_stream_may_be_cut_anywhere() {
    let mut bench = Bench::new();
    let frames = [frame(14, 1), frame(60, 2), frame(300, 3), frame(1, 4)];
    let bytes = framed(&frames);
    for cut in 0..=bytes.len() {
        bench.peer.write_all(&bytes[..cut]).unwrap();
        let mut got = bench.received();
        bench.peer.write_all(&bytes[cut..]).unwrap();
        got.extend(bench.received());
        assert!(got == frames, "cut at {cut}");
    }
    let mut got = Vec::new();
    for byte in &bytes {
        bench.peer.write_all(&[*byte]).unwrap();
        got.extend(bench.received());
    }
    assert!(got == frames, "byte by byte");
}

#[test]
fn more_than_a_buffer_holds_comes_in_order() {
    let mut bench = Bench::new();
    let frames: Vec<_> = mixed(3000).into_iter().chain((0..40).map(|i| frame(MAX_FRAME - i, 9))).collect();
    let bytes = framed(&frames);
    let mut peer = bench.peer.try_clone().unwrap();
    let writer = std::thread::spawn(move || peer.write_all(&bytes));
    let mut got = Vec::new();
    while got.len() < frames.len() {
        got.extend(bench.received());
        assert_eq!(bench.stream.report.end(), None);
    }
    writer.join().unwrap().unwrap();
    assert!(got == frames);
}

#[test]
fn a_frame_without_a_byte_is_counted_and_harms_nothing() {
    let mut bench = Bench::new();
    let (one, two) = (frame(60, 1), frame(61, 2));
    let empty = [0; 4];
    let bytes =
        [&empty[..], &framed(slice::from_ref(&one)), &empty, &empty, &framed(slice::from_ref(&two)), &empty]
            .concat();
    bench.peer.write_all(&bytes).unwrap();
    let mut malformed = 0;
    let mut got = Vec::new();
    loop {
        bench.world.hop(&mut *bench.stream.rx, &mut *bench.port.tx);
        malformed += bench.stream.rx.drops().map_or(0, |(reason, n)| {
            assert_eq!(reason, DropReason::Malformed);
            n
        });
        got.extend(std::iter::from_fn(|| bench.outside.received.pop()).map(|(_, bytes)| bytes));
        if !bench.stream.rx.pending() {
            break;
        }
    }
    assert!(got == [one, two]);
    assert_eq!((malformed, bench.stream.report.end()), (4, None));
}

#[test]
fn a_length_that_cannot_be_ends_the_connection_behind_the_frames_before_it() {
    for length in [MAX_FRAME as u32 + 1, 1 << 24, u32::MAX] {
        let mut bench = Bench::new();
        let frames = [frame(60, 1), frame(1500, 2)];
        let bytes = [framed(&frames), length.to_be_bytes().to_vec(), framed(&frames)].concat();
        bench.peer.write_all(&bytes).unwrap();
        assert!(bench.received() == frames, "{length}");
        assert_eq!(bench.stream.report.end(), Some(End::TooLong));
        assert!(bench.is_woken());
        assert!(bench.received().is_empty(), "nothing behind it is believed");
        assert_eq!(End::TooLong.to_string(), "the peer announced a frame of more than 69632 bytes");
    }
}

#[test]
fn the_end_is_told_behind_the_last_frame_and_sends_are_refused_by_name() {
    let mut bench = Bench::new();
    let last = frame(100, 7);
    bench.peer.write_all(&framed(slice::from_ref(&last))).unwrap();
    bench.peer.write_all(&[0, 0]).unwrap(); // of a frame that never comes
    drop(std::mem::replace(&mut bench.peer, UnixStream::pair().unwrap().0));
    bench.queue(frame(60, 1));
    bench.queue(frame(60, 2));
    assert!(bench.send(), "nobody waits for a peer that has gone");
    assert_eq!(bench.dropped(DropReason::NotConnected), 2);
    assert_eq!(bench.stream.report.end(), None, "what it had sent comes first");
    assert!(bench.received() == [last]);
    assert_eq!(bench.stream.report.end(), Some(End::Closed));
    assert!(bench.is_woken());
}

#[test]
fn a_peer_that_stops_reading_loses_nothing_when_it_goes_on() {
    let mut bench = Bench::new();
    setsockopt(&bench.peer, sockopt::RcvBuf, &4096).unwrap();
    let frames = mixed(200);
    frames.iter().for_each(|f| bench.queue(f.clone()));
    // Until the socket is full.
    assert!(!bench.send(), "the socket takes all of it");
    assert!(bench.stream.tx.blocked());
    let mut turn = Turn { now: 0, io: &mut bench.world.io, pool: &mut bench.world.pool };
    assert_eq!(bench.stream.tx.room(&mut turn, 1), 0);
    // Then it reads, in pieces that fit no frame.
    let expected = framed(&frames);
    let mut got = Vec::new();
    let mut piece = [0; 777];
    while got.len() < expected.len() {
        let n = bench.peer.read(&mut piece).unwrap();
        got.extend_from_slice(&piece[..n]);
        bench.send();
    }
    assert!(got == expected, "all of it, in order");
    assert!(bench.send());
    assert_eq!(bench.world.counters.tx.frames.get(), 200);
    assert_eq!(bench.world.counters.tx.bytes.get(), frames.iter().map(|f| f.len() as u64).sum::<u64>());
    assert!(!bench.stream.tx.blocked());
}

#[test]
fn a_small_send_buffer_cuts_frames_and_no_byte_is_lost() {
    let (ours, peer) = UnixStream::pair().unwrap();
    setsockopt(&ours, sockopt::SndBuf, &1).unwrap(); // the kernel makes it its least
    let mut bench = Bench::over((ours, peer));
    let frames: Vec<_> =
        (0..60).map(|i| frame(if i % 7 == 0 { MAX_FRAME - i } else { 14 + i * 31 }, i as u8)).collect();
    let expected = framed(&frames);
    let mut waiting = frames.iter();
    let (mut got, mut piece) = (Vec::new(), [0; 5000]);
    while got.len() < expected.len() {
        while bench.outside.sent.len() < 64 {
            let Some(frame) = waiting.next() else { break };
            bench.queue(frame.clone());
        }
        bench.send();
        let n = bench.peer.read(&mut piece).unwrap();
        assert!(got.len() + n <= expected.len());
        got.extend_from_slice(&piece[..n]);
    }
    assert!(got == expected);
    bench.send();
    assert_eq!(bench.world.counters.tx.frames.get(), 60);
}

#[test]
#[allow(unsafe_code)]
fn frames_in_many_pieces_arrive_whole() {
    let mut bench = Bench::new();
    let bytes = frame(1900, 3);
    // SAFETY: the vector outlives the burst.
    let seg = |at: usize, len: usize| unsafe { Seg::new(NonNull::from(&bytes[at]), len as u32) };
    let mut burst = Burst::new();
    let small: Vec<Seg> = (0..20).map(|i| seg(i * 5, 5)).collect();
    let pieces: Vec<Seg> = (0..1900).map(|i| seg(i, 1)).collect();
    assert!(burst.push(VnetHdr::NONE, &small));
    assert!(burst.push(VnetHdr::NONE, &pieces));
    assert!(burst.push(VnetHdr::NONE, &[seg(0, 700), seg(700, 1200)]));
    let mut turn = Turn { now: 0, io: &mut bench.world.io, pool: &mut bench.world.pool };
    assert_eq!(bench.stream.tx.tx(&mut turn, &burst, burst.all()), 3);
    bench.stream.tx.settle(&mut turn, &bench.world.counters);
    let expected = framed(&[bytes[..100].to_vec(), bytes.clone(), bytes.clone()]);
    let mut got = vec![0; expected.len()];
    bench.peer.read_exact(&mut got).unwrap();
    assert!(got == expected);
    assert_eq!(bench.world.counters.tx.frames.get(), 3);
}

#[test]
fn a_selection_is_sent_and_what_is_no_frame_is_named() {
    let mut bench = Bench::new();
    for bytes in [frame(60, 1), vec![], frame(61, 2), frame(MAX_FRAME + 1, 3), frame(62, 4)] {
        bench.queue(bytes);
    }
    assert!(bench.send());
    let expected = framed(&[frame(60, 1), frame(61, 2), frame(62, 4)]);
    let mut got = vec![0; expected.len()];
    bench.peer.read_exact(&mut got).unwrap();
    assert!(got == expected);
    assert_eq!((bench.dropped(DropReason::Malformed), bench.dropped(DropReason::TooLong)), (1, 1));
}

#[test]
fn frames_that_nobody_takes_are_lent_again() {
    let mut bench = Bench::new();
    let frames = mixed(100);
    bench.peer.write_all(&framed(&frames)).unwrap();
    let mut got: Vec<Vec<u8>> = Vec::new();
    let mut burst = Burst::new();
    for round in 0.. {
        let mut turn = Turn { now: 0, io: &mut bench.world.io, pool: &mut bench.world.pool };
        burst.clear();
        bench.stream.rx.rx(&mut turn, BURST, &mut burst);
        let taken = burst.len().min(round % 4);
        for f in &burst.frames()[..taken] {
            let mut bytes = vec![0; f.len()];
            burst.copy_out(f, 0, &mut bytes);
            got.push(bytes);
        }
        bench.stream.rx.release(&mut turn, taken);
        if !bench.stream.rx.pending() {
            break;
        }
    }
    assert!(got == frames);
}

/// A worker that sleeps is woken by what arrives, by room, and by the end, in both modes.
#[test]
fn events_wake_a_sleeping_worker() {
    for mode in [IoMode::Batched, IoMode::Uring] {
        let Ok((io, _)) = FdIo::new(Some(mode)) else {
            println!("no {mode:?} here");
            continue;
        };
        let (ours, peer) = UnixStream::pair().unwrap();
        setsockopt(&ours, sockopt::SndBuf, &1).unwrap();
        let arena = Arena::new(&ArenaConfig { initial: 1 << 20, step: 1 << 20, hugepages: false }).unwrap();
        let mut world = World::new();
        world.io = io;
        let wake = wake();
        let mut stream = open(ours.into(), &wake, &arena).unwrap();
        let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
        stream.rx.start(&mut turn);
        stream.tx.start(&mut turn);
        let (mut port, outside) = port(QueueId(1), 256, Caps::NONE);
        let second = Some(1_000_000_000);
        let mut peer = peer;
        for round in 0..3 {
            while world.io.take_ready().is_some() {}
            world.hop(&mut *stream.rx, &mut *port.tx);
            assert!(!stream.rx.pending());
            peer.write_all(&framed(&[frame(60, round)])).unwrap();
            world.io.sleep(second);
            assert!(world.io.take_ready().is_some(), "{mode:?}: a frame wakes, {round}");
            world.hop(&mut *stream.rx, &mut *port.tx);
            assert_eq!(outside.received.pop().map(|f| f.1), Some(frame(60, round)));
            while stream.rx.pending() {
                world.hop(&mut *stream.rx, &mut *port.tx);
            }
            // Until it is full, then room.
            while !stream.tx.blocked() {
                outside.sent.push((VnetHdr::NONE, frame(1000, round))).unwrap();
                world.hop(&mut *port.rx, &mut *stream.tx);
                world.io.poll();
            }
            while world.io.take_ready().is_some() {}
            let mut sink = vec![0; 1 << 20];
            while stream.tx.blocked() {
                assert!(peer.read(&mut sink).unwrap() > 0);
                world.io.sleep(second);
                world.hop(&mut *port.rx, &mut *stream.tx);
            }
        }
        while world.io.take_ready().is_some() {}
        drop(peer);
        world.io.sleep(second);
        assert!(world.io.take_ready().is_some(), "{mode:?}: the end wakes");
        world.hop(&mut *stream.rx, &mut *port.tx);
        // What it had not read makes this a reset.
        assert!(matches!(stream.report.end(), Some(End::Closed | End::Failed(Errno::ECONNRESET))));
        let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
        while !(stream.rx.stop(&mut turn) && stream.tx.stop(&mut turn)) {}
    }
}

/// What a peer may send: a frame, one without a byte, or a length that cannot be with anything behind it.
#[derive(Debug, Clone)]
enum Sent {
    Frame(usize),
    Empty,
    Garbage(u32, Vec<u8>),
}

fn sent() -> impl proptest::strategy::Strategy<Value = Sent> {
    use proptest::prelude::*;
    prop_oneof![
        6 => (1..3000_usize).prop_map(Sent::Frame),
        1 => (60_000..=MAX_FRAME).prop_map(Sent::Frame),
        1 => Just(Sent::Empty),
        1 => (MAX_FRAME as u32 + 1.., proptest::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(length, rest)| Sent::Garbage(length, rest)),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 200, ..proptest::test_runner::Config::default() })]

    /// However a stream is cut and whatever it announces: the frames before what cannot be arrive, and nothing else does.
    #[test]
    fn lengths_of_garbage_never_harm(all in proptest::collection::vec(sent(), 1..30), cuts in proptest::collection::vec(1..4000_usize, 1..40)) {
        let mut bench = Bench::new();
        let (mut bytes, mut expected, mut whole) = (Vec::new(), Vec::new(), true);
        for (number, one) in all.iter().enumerate() {
            match one {
                Sent::Frame(len) => {
                    let one = frame(*len, number as u8);
                    bytes.extend(framed(slice::from_ref(&one)));
                    if whole {
                        expected.push(one);
                    }
                }
                Sent::Empty => bytes.extend([0; 4]),
                Sent::Garbage(length, rest) => {
                    bytes.extend(length.to_be_bytes());
                    bytes.extend(rest);
                    whole = false;
                }
            }
        }
        let (mut got, mut rest) = (Vec::new(), &bytes[..]);
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*cut));
            bench.peer.write_all(now).unwrap();
            got.extend(bench.received());
            rest = later;
            if rest.is_empty() || bench.stream.report.end().is_some() {
                break;
            }
        }
        proptest::prop_assert!(got == expected);
        proptest::prop_assert_eq!(bench.stream.report.end(), if whole { None } else { Some(End::TooLong) });
    }
}
