use super::framing::{Fault, Format, HEADER, Parsed, append, parse};
use super::*;
use crate::burst::{Burst, MAX_FRAME, Seg};
use crate::filter::{Direction, Settings};
use crate::mem::arena::{Arena, ArenaConfig};
use crate::mem::records::Record;
use crate::wire::vnet_hdr::VnetHdr;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

fn arena() -> Arc<Arena> {
    Arena::new(&ArenaConfig { initial: 8 << 20, step: 8 << 20, hugepages: false }).unwrap()
}

fn frame(len: usize, mark: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(29) ^ mark).collect()
}

fn record(hdr: VnetHdr, bytes: &[u8]) -> Record<'_> {
    Record { hdr, weight: 1, bytes }
}

const PARTIAL: VnetHdr = VnetHdr { flags: 1, csum_start: 34, csum_offset: 16, ..VnetHdr::NONE };

fn settings(rx: bool, tx: bool) -> Arc<Settings> {
    Arc::new(Settings::new(true, rx, tx))
}

/// Two ends of a stream: ours, which must not block, and the peer's.
fn pair() -> (std::os::fd::OwnedFd, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    (ours.into(), theirs)
}

fn until(what: &str, mut probe: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !probe() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

fn count(counters: Vec<(&'static str, u64)>, name: &str) -> u64 {
    counters.into_iter().find(|(n, _)| *n == name).unwrap().1
}

/// Gives frames to an outlet, as a worker does.
fn take(outlet: &mut Outlet, frames: &[Vec<u8>]) {
    let mut burst = Burst::new();
    for bytes in frames {
        #[allow(unsafe_code)]
        // SAFETY: `frames` live as long as the burst.
        let seg = unsafe { Seg::new(NonNull::from(bytes.as_slice()).cast(), bytes.len() as u32) };
        assert!(burst.push(VnetHdr::NONE, &[seg]));
    }
    outlet.take(&burst, burst.all());
}

/// Takes what has come in one direction, as a worker does.
fn come(inlet: &mut Inlet, direction: Direction) -> Vec<(VnetHdr, Vec<u8>)> {
    let mut all = Vec::new();
    if inlet.due(direction) != 0 {
        let mut burst = Burst::new();
        inlet.lend(direction, 64, &mut burst);
        for one in burst.frames() {
            let mut bytes = vec![0; one.len()];
            burst.copy_out(one, 0, &mut bytes);
            all.push((one.hdr, bytes));
        }
        inlet.took(direction, burst.len());
        inlet.gone(direction, burst.len());
    }
    all
}

fn await_frames(inlet: &mut Inlet, direction: Direction, n: usize) -> Vec<(VnetHdr, Vec<u8>)> {
    let mut all = Vec::new();
    until("frames come", || {
        all.extend(come(inlet, direction));
        all.len() >= n
    });
    assert_eq!(all.len(), n);
    all
}

#[test]
fn records_are_qemus_byte_for_byte() {
    let mut to = Vec::new();
    assert!(append(&record(PARTIAL, &[1, 2, 3]), Format::default(), &mut to));
    assert_eq!(to, [0, 0, 0, 3, 1, 2, 3], "the frame as it is");
    to.clear();
    let vnet = Format { vnet: true, always: false };
    assert!(append(&record(VnetHdr::NONE, &[1, 2, 3]), vnet, &mut to));
    assert_eq!(to, [0, 0, 0, 3, 0, 0, 0, 0, 1, 2, 3], "no header");
    to.clear();
    assert!(append(&record(PARTIAL, &[1, 2, 3]), vnet, &mut to));
    let header = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    assert_eq!(to, [&[0, 0, 0, 15, 0, 0, 0, 12][..], &header, &[1, 2, 3]].concat());
    to.clear();
    let always = Format { vnet: true, always: true };
    assert!(append(&record(VnetHdr::NONE, &[1, 2, 3]), always, &mut to));
    assert_eq!(to, [&[0, 0, 0, 15, 0, 0, 0, 12][..], &[0; 12], &[1, 2, 3]].concat());
    // No reader takes a longer one.
    let long = vec![0; MAX_FRAME];
    to.clear();
    assert!(append(&record(VnetHdr::NONE, &long), vnet, &mut to));
    assert!(!append(&record(VnetHdr::NONE, &long), always, &mut to));
}

#[test]
fn what_was_written_is_read_however_it_is_cut() {
    for (vnet, hdr, len) in [(false, VnetHdr::NONE, 60), (true, VnetHdr::NONE, 60), (true, PARTIAL, 60)] {
        let mut bytes = Vec::new();
        assert!(append(&record(hdr, &frame(len, 3)), Format { vnet, always: false }, &mut bytes));
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut], vnet), Parsed::More, "{cut} bytes");
        }
        let Parsed::Frame(found, at) = parse(&bytes, vnet) else { panic!("a whole frame") };
        assert_eq!((found, &bytes[at]), (hdr, &frame(len, 3)[..]));
    }
}

#[test]
fn nonsense_is_told_apart() {
    let head = |len: u32, header: u32| [len.to_be_bytes(), header.to_be_bytes()].concat();
    let with = |len: u32, header: u32| [head(len, header), vec![0xff; len as usize]].concat();
    assert_eq!(parse(&head(u32::MAX, 0), false), Parsed::TooLong);
    assert_eq!(parse(&(MAX_FRAME as u32 + 1).to_be_bytes(), true), Parsed::TooLong);
    assert_eq!(parse(&[0; 4], false), Parsed::Skip(Fault::Empty, 4));
    assert_eq!(parse(&with(0, 0), true), Parsed::Skip(Fault::Empty, 8));
    assert_eq!(parse(&with(60, 11), true), Parsed::Skip(Fault::Header, 68));
    assert_eq!(parse(&with(60, u32::MAX), true), Parsed::Skip(Fault::Header, 68));
    assert_eq!(parse(&with(8, 12), true), Parsed::Skip(Fault::Header, 16), "longer than the record");
    assert_eq!(parse(&with(60, 12), true), Parsed::Skip(Fault::Header, 68), "a checksum behind the frame");
    let bare = [&head(HEADER as u32, HEADER as u32)[..], &[0; HEADER]].concat();
    assert_eq!(parse(&bare, true), Parsed::Skip(Fault::Empty, 20), "a header alone");
}

#[test]
fn two_workers_write_whole_frames() {
    let (thread, mut outlets) = OutletThread::start(&arena(), 2, false).unwrap();
    take(&mut outlets[0], &[frame(60, 0)]);
    assert_eq!(count(thread.counters(), "not-connected"), 1);
    let (ours, mut peer) = pair();
    thread.link().connect(ours);
    let workers: Vec<_> = outlets
        .into_iter()
        .enumerate()
        .map(|(worker, mut outlet)| {
            std::thread::spawn(move || {
                for number in 0..2000u32 {
                    let mut one = frame(100 + number as usize * 7 % 1400, worker as u8);
                    one[..4].copy_from_slice(&number.to_be_bytes());
                    take(&mut outlet, &[one]);
                    // Not faster than it is read: nothing is to be lost here.
                    std::thread::yield_now();
                }
            })
        })
        .collect();
    let mut next = [0u32; 2];
    for _ in 0..4000 {
        let mut len = [0; 4];
        peer.read_exact(&mut len).unwrap();
        let mut got = vec![0; u32::from_be_bytes(len) as usize];
        peer.read_exact(&mut got).unwrap();
        let number = u32::from_be_bytes(got[..4].try_into().unwrap());
        let worker = (got[4] ^ frame(5, 0)[4]) as usize;
        assert_eq!(number, next[worker], "in order per worker");
        next[worker] += 1;
        assert_eq!(got[4..], frame(got.len(), worker as u8)[4..]);
    }
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    // It counts when it has written, and the peer may be sooner.
    until("all are counted", || count(thread.counters(), "sent") == 4000);
    thread.link().close();
    assert!(thread.link().wait(PATIENCE), "it ends between two frames");
}

#[test]
fn a_peer_that_does_not_read_costs_copies_and_one_that_goes_cuts_them() {
    let (thread, mut outlets) = OutletThread::start(&arena(), 1, false).unwrap();
    let (ours, peer) = pair();
    thread.link().connect(ours);
    let frames: Vec<_> = (0..32).map(|mark| frame(9000, mark)).collect();
    until("the ring is full", || {
        take(&mut outlets[0], &frames);
        count(thread.counters(), "ring-full") != 0
    });
    assert!(!thread.link().take_end());
    drop(peer);
    until("the end is told", || thread.link().take_end());
    assert!(count(thread.counters(), "cut") > 0);
    // The next peer begins with a whole frame.
    let (ours, mut peer) = pair();
    thread.link().connect(ours);
    take(&mut outlets[0], &[frame(60, 1)]);
    let mut got = [0; 64];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got[..], [&[0, 0, 0, 60][..], &frame(60, 1)].concat());
    // One that is stuck when the filter goes: the connection is of no use to anybody else.
    until("the ring is full", || {
        let before = count(thread.counters(), "ring-full");
        take(&mut outlets[0], &frames);
        count(thread.counters(), "ring-full") != before
    });
    thread.link().close();
    assert!(!thread.link().wait(PATIENCE));
    assert!(thread.link().is_over());
}

#[test]
fn frames_come_in_every_way_that_they_are_cut() {
    let (thread, mut inlet) = InletThread::start(&arena(), &settings(false, true), true, None).unwrap();
    let (ours, mut peer) = pair();
    thread.link().connect(ours);
    let mut bytes = Vec::new();
    let vnet = Format { vnet: true, always: false };
    assert!(append(&record(PARTIAL, &frame(60, 1)), vnet, &mut bytes));
    assert!(append(&record(VnetHdr::NONE, &frame(61, 2)), vnet, &mut bytes));
    for cut in 0..bytes.len() {
        peer.write_all(&bytes[..cut]).unwrap();
        std::thread::yield_now();
        peer.write_all(&bytes[cut..]).unwrap();
        let got = await_frames(&mut inlet, Direction::Tx, 2);
        assert_eq!(got, [(PARTIAL, frame(60, 1)), (VnetHdr::NONE, frame(61, 2))], "cut at {cut}");
    }
    assert_eq!(thread.held(), 0);
    thread.link().close();
    assert!(thread.link().wait(PATIENCE), "it ends between two frames");
}

#[test]
fn a_frame_for_both_directions_goes_once_in_each_and_waits_for_both() {
    let (thread, mut inlet) = InletThread::start(&arena(), &settings(true, true), false, None).unwrap();
    let (ours, mut peer) = pair();
    thread.link().connect(ours);
    let writer = std::thread::spawn(move || {
        for mark in 0..2000u32 {
            let one = frame(9000, mark as u8);
            peer.write_all(&[&9000u32.to_be_bytes()[..], &one].concat()).unwrap();
        }
        peer
    });
    // One direction takes all that it can get; the other nothing yet: then the ring is full, and the peer is held up.
    let mut first = Vec::new();
    until("it is held up", || {
        first.extend(come(&mut inlet, Direction::Rx));
        thread.held() > 400 && first.len() > 400 && inlet.due(Direction::Rx) == 0
    });
    let mut second = Vec::new();
    until("all come both ways", || {
        first.extend(come(&mut inlet, Direction::Rx));
        second.extend(come(&mut inlet, Direction::Tx));
        first.len() == 2000 && second.len() == 2000
    });
    for (mark, one) in first.iter().enumerate() {
        assert!(one.1 == frame(9000, mark as u8), "frame {mark}");
    }
    assert!(first == second);
    drop(writer.join().unwrap());
    until("the end is told", || thread.link().take_end());
    assert_eq!((thread.held(), count(thread.counters(), "injected")), (0, 2000));
}

#[test]
fn what_makes_no_sense_is_the_end_and_what_is_off_waits() {
    let on = settings(false, true);
    let (thread, mut inlet) = InletThread::start(&arena(), &on, false, None).unwrap();
    let (ours, mut peer) = pair();
    on.set(false, false, true);
    thread.link().connect(ours);
    let one = [&60u32.to_be_bytes()[..], &frame(60, 1)].concat();
    peer.write_all(&[&one[..], &one, &[0xff; 8], &one].concat()).unwrap();
    assert!(!thread.link().take_end());
    assert_eq!(inlet.due(Direction::Tx), 0, "off, nothing is read");
    on.set(true, false, true);
    thread.changed();
    assert_eq!(await_frames(&mut inlet, Direction::Tx, 2).len(), 2);
    until("detached", || thread.link().is_detached());
    peer.write_all(&one).unwrap();
    drop(peer);
    until("the end is told", || thread.link().take_end());
    let counters = thread.counters();
    assert_eq!((count(counters.clone(), "detached"), count(counters, "injected")), (1, 2));
    // For good, until it is switched on anew.
    let (ours, mut peer) = pair();
    thread.link().connect(ours);
    peer.write_all(&one).unwrap();
    thread.attach();
    assert_eq!(await_frames(&mut inlet, Direction::Tx, 1).len(), 1);
}

#[test]
fn frames_taken_before_the_thread_ran_are_written_and_the_connection_stays() {
    let arena = arena();
    for _ in 0..50 {
        let (thread, mut outlets) = OutletThread::start(&arena, 1, false).unwrap();
        let (ours, mut peer) = pair();
        thread.link().connect(ours);
        take(&mut outlets[0], &[frame(60, 1), frame(60, 2)]);
        drop(outlets);
        thread.link().close();
        assert!(thread.link().wait(PATIENCE), "somebody else can go on with the connection");
        let mut got = [0; 128];
        peer.read_exact(&mut got).unwrap();
        until("both are counted", || count(thread.counters(), "sent") == 2);
        let (thread, inlet) = InletThread::start(&arena, &settings(false, true), false, None).unwrap();
        let (ours, _peer) = pair();
        thread.link().connect(ours);
        drop(inlet);
        thread.link().close();
        assert!(thread.link().wait(PATIENCE), "nothing was read");
    }
}
