//! Frames of both sides, and what comes of them.

use super::table::CONNECTIONS;
use super::*;
use crate::wire::bytes::put16;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

mod bad;
mod sockets;

/// What went out, in order.
#[derive(Default)]
pub(super) struct Out {
    pub(super) frames: Vec<Vec<u8>>,
    pub(super) texts: Vec<&'static str>,
}

impl Sink for Out {
    fn release(&mut self, frame: &[u8], _vnet_len: u32) {
        self.frames.push(frame.to_vec());
    }
    fn notify(&mut self, text: &'static str) {
        self.texts.push(text);
    }
}

/// A comparison and what came of it.
pub(super) struct Bench {
    pub(super) comparer: Comparer,
    pub(super) counters: Arc<Counters>,
    pub(super) out: Out,
    pub(super) now: u64,
    pub(super) vnet_len: u32,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with_queue(Settings::QUEUE)
    }

    fn with_queue(limit: u32) -> Self {
        let counters = Arc::new(Counters::default());
        let settings = Arc::new(Settings::new(Arc::new(AtomicU32::new(limit))));
        let comparer = Comparer::new(settings, counters.clone());
        Self { comparer, counters, out: Out::default(), now: 0, vnet_len: 0 }
    }

    pub(super) fn primary(&mut self, frame: &[u8]) {
        self.comparer.frame(Side::Primary, frame, self.vnet_len, self.now, &mut self.out);
    }

    pub(super) fn secondary(&mut self, frame: &[u8]) {
        self.comparer.frame(Side::Secondary, frame, self.vnet_len, self.now, &mut self.out);
    }

    fn text(&mut self, text: &str) {
        self.comparer.instruction(text.as_bytes(), &mut self.out);
    }

    /// What went out since the last call: frames, number of notifications.
    pub(super) fn take(&mut self) -> (Vec<Vec<u8>>, usize) {
        let out = std::mem::take(&mut self.out);
        (out.frames, out.texts.len())
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        let all = self.counters.list();
        all.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no counter {name}")).1
    }
}

pub(super) fn eth(ethertype: u16, rest: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(rest);
    frame
}

pub(super) fn ip(protocol: u8, id: u16, inner: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    put16(&mut packet, 2, 20 + inner.len() as u16);
    put16(&mut packet, 4, id);
    packet.extend(inner);
    eth(0x800, &packet)
}

pub(super) fn udp(port: u16, id: u16, data: &[u8]) -> Vec<u8> {
    let mut inner = vec![0, 0, 7, 208, 0, 0, 0, 0];
    put16(&mut inner, 0, port);
    inner.extend(data);
    ip(17, id, &inner)
}

pub(super) fn tcp(seq: u32, ack: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut inner = vec![3, 232, 0, 80];
    inner.extend(seq.to_be_bytes());
    inner.extend(ack.to_be_bytes());
    inner.extend([0x50, flags, 3, 232, 0, 0, 0, 0]);
    inner.extend(data);
    ip(6, seq as u16, &inner)
}

const ACK: u8 = 0x10;

#[test]
fn the_same_datagram_is_released_whatever_its_ip_header_says() {
    let mut b = Bench::new();
    b.primary(&udp(1, 7, b"one"));
    assert_eq!(b.take(), (vec![], 0), "held until the secondary has sent it");
    b.secondary(&udp(1, 8, b"one"));
    assert_eq!(b.take(), (vec![udp(1, 7, b"one")], 0));
    b.secondary(&ip(1, 1, b"\x08\0\0\0ping"));
    b.primary(&ip(1, 2, b"\x08\0\0\0ping"));
    assert_eq!(b.take(), (vec![ip(1, 2, b"\x08\0\0\0ping")], 0));
    assert_eq!(b.comparer.held(), 0);
}

#[test]
fn other_protocols_are_compared_with_their_headers() {
    let mut b = Bench::new();
    b.primary(&ip(99, 1, b"same"));
    b.secondary(&ip(99, 2, b"same"));
    assert_eq!(b.take(), (vec![], 1));
    b.text("COLO_CHECKPOINT");
    assert_eq!(b.take(), (vec![ip(99, 1, b"same")], 0));
    b.primary(&ip(99, 1, b"same"));
    b.secondary(&ip(99, 1, b"same"));
    assert_eq!(b.take(), (vec![ip(99, 1, b"same")], 0));
}

#[test]
fn datagrams_find_their_twins_in_any_order_and_leave_oldest_first() {
    let mut b = Bench::new();
    for data in [b"1", b"2", b"3"] {
        b.primary(&udp(1, 0, data));
    }
    b.secondary(&udp(1, 0, b"1"));
    b.secondary(&udp(1, 0, b"3"));
    assert_eq!(b.take(), (vec![udp(1, 0, b"1"), udp(1, 0, b"3")], 0));
    b.secondary(&udp(1, 0, b"x"));
    assert_eq!(b.take(), (vec![], 1));
    b.primary(&udp(2, 0, b"4"));
    b.primary(&udp(1, 0, b"5"));
    assert_eq!(b.take(), (vec![], 1), "one connection differs still");
    b.text("COLO_CHECKPOINT");
    assert_eq!(b.take(), (vec![udp(1, 0, b"2"), udp(1, 0, b"5"), udp(2, 0, b"4")], 0));
    assert_eq!((b.comparer.held(), b.count("checkpoint"), b.count("mismatch")), (0, 1, 2));
}

#[test]
fn frames_that_are_no_untagged_ipv4_pass_on_one_side_and_end_on_the_other() {
    let mut b = Bench::new();
    let tagged = eth(0x8100, &[0, 1, 8, 0, 0x45]);
    for frame in [eth(0x806, &[1; 28]), eth(0x86dd, &[6; 40]), tagged, eth(0x88a8, &[0, 1, 8, 0])] {
        b.primary(&frame);
        b.secondary(&frame);
        assert_eq!(b.take(), (vec![frame], 0));
    }
    assert_eq!((b.count("passed"), b.count("secondary-ignored"), b.count("malformed")), (4, 4, 0));
}

#[test]
fn segments_without_payload_wait_for_any_word_of_the_secondary() {
    let mut b = Bench::new();
    b.primary(&tcp(100, 0, 2, b""));
    assert_eq!(b.take(), (vec![], 0));
    b.secondary(&tcp(100, 0, 2, b""));
    assert_eq!(b.take(), (vec![tcp(100, 0, 2, b"")], 0));
    b.primary(&tcp(101, 5, 0x14, b""));
    b.secondary(&tcp(101, 5, 0x14, b""));
    assert_eq!(b.take(), (vec![tcp(101, 5, 0x14, b"")], 0), "a reset");
}

#[test]
fn an_acknowledgement_that_the_secondary_has_not_given_asks_for_a_checkpoint() {
    let mut b = Bench::new();
    b.primary(&tcp(119, 80, ACK, b"xxxx"));
    b.primary(&tcp(123, 80, ACK, b"yyyy"));
    b.secondary(&tcp(119, 75, ACK, b"xxxxyyyy"));
    assert_eq!(b.take(), (vec![], 1));
    b.secondary(&tcp(127, 80, ACK, b""));
    assert_eq!(b.take(), (vec![tcp(119, 80, ACK, b"xxxx"), tcp(123, 80, ACK, b"yyyy")], 0));
}

#[test]
fn a_retransmission_is_released_and_only_its_new_part_is_compared() {
    let mut b = Bench::new();
    b.primary(&tcp(1, 5, ACK, b"abcd"));
    b.secondary(&tcp(1, 5, ACK, b"abcd"));
    assert_eq!(b.take().0.len(), 1);
    b.primary(&tcp(1, 5, ACK, b"abcdefgh"));
    b.secondary(&tcp(5, 5, ACK, b"efgh"));
    assert_eq!(b.take(), (vec![tcp(1, 5, ACK, b"abcdefgh")], 0));
    b.secondary(&tcp(9, 5, ACK, b"ij"));
    b.primary(&tcp(1, 5, ACK, b"abcd"));
    assert_eq!(b.take(), (vec![tcp(1, 5, ACK, b"abcd")], 0));
    b.primary(&tcp(9, 5, ACK, b"iX"));
    assert_eq!(b.take(), (vec![], 1));
}

#[test]
fn a_new_handshake_forgets_what_was_compared_before_it() {
    let mut b = Bench::new();
    b.primary(&tcp(1000, 5, ACK, b"old"));
    b.secondary(&tcp(1000, 5, ACK, b"old"));
    b.primary(&tcp(9, 0, 2, b""));
    b.secondary(&tcp(9, 0, 2, b""));
    b.take();
    b.primary(&tcp(10, 5, ACK, b"new"));
    b.secondary(&tcp(10, 5, ACK, b"NEW"));
    assert_eq!(b.take(), (vec![], 1), "not taken for a retransmission");
}

#[test]
fn a_frame_that_waited_too_long_asks_for_one_checkpoint_a_look() {
    let mut b = Bench::new();
    b.primary(&udp(1, 0, b"a"));
    b.secondary(&udp(2, 0, b"b"));
    b.comparer.scan(Settings::TIMEOUT, &mut b.out);
    assert_eq!(b.take(), (vec![], 0), "not older than it may be");
    b.comparer.scan(Settings::TIMEOUT + 1, &mut b.out);
    assert_eq!(b.take(), (vec![], 1));
    b.comparer.checkpoint(&mut b.out);
    assert_eq!(b.take(), (vec![udp(1, 0, b"a")], 0));
    b.comparer.scan(u64::MAX, &mut b.out);
    assert_eq!((b.take(), b.count("timeout")), ((vec![], 0), 1));
}

#[test]
fn a_secondary_segment_compared_to_its_end_does_not_wait() {
    let mut b = Bench::new();
    b.primary(&tcp(1, 5, ACK, b"abcdef"));
    b.secondary(&tcp(1, 5, ACK, b"abc"));
    b.secondary(&tcp(4, 5, ACK, b"def"));
    assert_eq!(b.take().0.len(), 1);
    b.comparer.scan(u64::MAX, &mut b.out);
    assert_eq!(b.take(), (vec![], 0));
    b.primary(&tcp(1, 5, ACK, b"abcdef"));
    assert_eq!(b.take().0.len(), 1, "a repetition goes out at once");
}

#[test]
fn the_virtio_net_header_is_not_compared() {
    let mut b = Bench::new();
    b.vnet_len = 10;
    let with = |fill: u8, frame: Vec<u8>| [vec![fill; 10], frame].concat();
    b.primary(&with(1, udp(1, 0, b"a")));
    b.secondary(&with(2, udp(1, 0, b"a")));
    assert_eq!(b.take(), (vec![with(1, udp(1, 0, b"a"))], 0));
    b.primary(&with(1, tcp(1, 5, ACK, b"abcd")));
    b.secondary(&with(2, tcp(1, 5, ACK, b"abcd")));
    assert_eq!(b.take(), (vec![with(1, tcp(1, 5, ACK, b"abcd"))], 0));
}

#[test]
fn a_connection_holds_one_frame_more_than_its_limit() {
    let mut b = Bench::with_queue(2);
    for data in [b"1", b"2", b"3", b"4"] {
        b.primary(&udp(1, 0, data));
    }
    assert_eq!(b.count("queue-full"), 1);
    b.comparer.checkpoint(&mut b.out);
    assert_eq!(b.take().0, [udp(1, 0, b"1"), udp(1, 0, b"2"), udp(1, 0, b"3")]);
}

#[test]
fn the_connection_that_was_idle_longest_makes_room() {
    let mut b = Bench::new();
    for port in 0..CONNECTIONS {
        b.primary(&udp(port as u16, 0, b"a"));
    }
    b.primary(&udp(0, 0, b"b"));
    b.primary(&ip(1, 0, b"a newcomer"));
    assert_eq!(b.count("table-full"), 1);
    b.secondary(&udp(1, 0, b"a"));
    assert_eq!(b.take(), (vec![], 0), "it went");
    b.secondary(&udp(0, 0, b"b"));
    assert_eq!(b.take().0, [udp(0, 0, b"b")]);
}

#[test]
fn texts_are_answered_or_counted() {
    let mut b = Bench::new();
    b.text("COLO_USERSPACE_PROXY_INIT");
    assert_eq!(b.out.texts, ["COLO_COMPARE_GET_XEN_INIT"]);
    b.text("COLO_CHECKPOINT ");
    b.text("");
    assert_eq!((b.count("unknown-instruction"), b.count("checkpoint")), (2, 0));
}

/// Cuts `stream` at random places.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..40usize, 1..60)
}

/// The segments of a stream, from `seq` on.
fn segments(stream: &[u8], seq: u32, cuts: &[usize]) -> Vec<Vec<u8>> {
    let (mut at, mut frames) = (0, Vec::new());
    for len in cuts.iter().cycle() {
        if at == stream.len() {
            break;
        }
        let end = (at + len).min(stream.len());
        frames.push(tcp(seq.wrapping_add(at as u32), 5, ACK, &stream[at..end]));
        at = end;
    }
    frames
}

/// Plays both sides in a random order of arrival.
fn play(b: &mut Bench, primary: &[Vec<u8>], secondary: &[Vec<u8>], turns: &[bool]) {
    let (mut p, mut s) = (primary.iter(), secondary.iter());
    for first in turns.iter().cycle() {
        let (side, frame) =
            match if *first { p.next().map(|f| (true, f)) } else { s.next().map(|f| (false, f)) } {
                Some(next) => next,
                None => match p.next().map(|f| (true, f)).or_else(|| s.next().map(|f| (false, f))) {
                    Some(next) => next,
                    None => break,
                },
            };
        if side { b.primary(frame) } else { b.secondary(frame) }
    }
}

proptest! {
    #[test]
    fn a_stream_is_the_same_however_it_is_cut(
        stream in prop::collection::vec(any::<u8>(), 1..600), seq in any::<u32>(),
        ours in cuts(), theirs in cuts(), turns in prop::collection::vec(any::<bool>(), 1..50),
    ) {
        let mut b = Bench::new();
        let primary = segments(&stream, seq, &ours);
        play(&mut b, &primary, &segments(&stream, seq, &theirs), &turns);
        prop_assert_eq!(b.take(), (primary, 0));
        b.comparer.checkpoint(&mut b.out);
        prop_assert_eq!((b.take(), b.comparer.held()), ((vec![], 0), 0));
    }

    #[test]
    fn one_other_byte_is_always_seen(
        stream in prop::collection::vec(any::<u8>(), 1..600), seq in any::<u32>(), at in any::<prop::sample::Index>(),
        ours in cuts(), theirs in cuts(), turns in prop::collection::vec(any::<bool>(), 1..50),
    ) {
        let mut b = Bench::new();
        let mut other = stream.clone();
        let at = at.index(other.len());
        other[at] ^= 1;
        play(&mut b, &segments(&stream, seq, &ours), &segments(&other, seq, &theirs), &turns);
        let (released, notified) = b.take();
        prop_assert!(notified > 0);
        let sent: usize = released.iter().map(|frame| frame.len() - 54).sum();
        prop_assert!(sent <= at, "{sent} bytes went out, byte {at} differs");
    }

    #[test]
    fn frames_are_read_however_the_stream_is_cut(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..20), vnet in any::<bool>(), cut in 1..40usize,
    ) {
        let mut bytes = Vec::new();
        for frame in &frames {
            bytes.extend((frame.len() as u32).to_be_bytes());
            if vnet {
                bytes.extend(9u32.to_be_bytes());
            }
            bytes.extend(frame);
        }
        let (mut reader, mut read) = (Reader::new(vnet), Vec::new());
        for piece in bytes.chunks(cut) {
            reader.feed(piece, |frame, len| read.push((frame.to_vec(), len))).unwrap();
        }
        let len = if vnet { 9 } else { 0 };
        prop_assert_eq!(read, frames.into_iter().map(|frame| (frame, len)).collect::<Vec<_>>());
        prop_assert!(!reader.inside());
    }

    #[test]
    fn nothing_that_arrives_is_too_strange(data in prop::collection::vec(any::<u8>(), 0..2000)) {
        fuzz(&data);
    }
}
