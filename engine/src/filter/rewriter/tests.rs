use super::conn::{Conn, Known, Marks, Segment, State};
use super::table::{Key, MOST};
use super::*;
use crate::filter::Direction::{self, Rx, Tx};
use crate::filter::testing::{Bench, Bytes};
use crate::wire::checksum::{Sum, pseudo_v4};
use crate::wire::l4::{ACK, FIN, PSH, RST, SYN};
use crate::wire::vnet_hdr::{F_NEEDS_CSUM, VnetHdr};
use proptest::prelude::*;

const CLIENT: [u8; 4] = [10, 0, 0, 1];
const GUEST: [u8; 4] = [10, 0, 0, 2];

/// A TCP frame; toward the guest in direction tx.
fn tcp(direction: Direction, port: u16, flags: u16, seq: u32, ack: u32, data: &[u8]) -> Bytes {
    let (src, dst) = if direction == Tx { (CLIENT, GUEST) } else { (GUEST, CLIENT) };
    let ports = if direction == Tx { [port, 80] } else { [80, port] };
    let mut b = vec![0x52; 12];
    b.extend([8, 0, 0x45, 0]);
    b.extend((40 + data.len() as u16).to_be_bytes());
    b.extend([0, 1, 0x40, 0, 64, 6, 0, 0]);
    b.extend(src);
    b.extend(dst);
    let check = Sum::of(&b[14..34]).checksum();
    b[24..26].copy_from_slice(&check.to_be_bytes());
    ports.iter().for_each(|p| b.extend(p.to_be_bytes()));
    b.extend(seq.to_be_bytes());
    b.extend(ack.to_be_bytes());
    b.extend((0x5000 | flags).to_be_bytes());
    b.extend([0xff, 0xff, 0, 0, 0, 0]);
    b.extend(data);
    let check = l4_sum(&b).checksum();
    b[50..52].copy_from_slice(&check.to_be_bytes());
    (VnetHdr::NONE, b)
}

/// The sum over the TCP segment of a frame, with what its checksum field holds.
fn l4_sum(b: &[u8]) -> Sum {
    let mut sum = pseudo_v4(b[26..34].try_into().unwrap(), 6, (b.len() - 34) as u16);
    sum.add(&b[34..]);
    sum
}

fn field(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(b[at..at + 4].try_into().unwrap())
}

/// Number and acknowledgement; the checksum must be right.
fn seen((hdr, b): &Bytes) -> (u32, u32) {
    if !hdr.needs_csum() {
        assert_eq!(l4_sum(b).fold(), 0xffff, "the checksum fits");
    }
    (field(b, 38), field(b, 42))
}

struct Rig {
    bench: Bench,
    held: Rewriter,
    all: Vec<Box<dyn Filter>>,
}

impl Rig {
    fn new(workers: usize) -> Self {
        let bench = Bench::new();
        let (held, all) = Rewriter::open(Settings::new(true, true, true), &bench.arena, workers).unwrap();
        Self { bench, held, all }
    }

    /// The frame behind the filter; each direction may be another worker's.
    fn pass(&mut self, direction: Direction, frame: &Bytes) -> Bytes {
        let at = if direction == Tx { 0 } else { self.all.len() - 1 };
        let f = &mut *self.all[at];
        let mut out = self.bench.show(f, direction, std::slice::from_ref(frame));
        out.extend(self.bench.take(f, direction, usize::MAX));
        assert_eq!(out.len(), 1);
        out.remove(0)
    }

    fn count(&self, name: &str) -> u64 {
        self.held.counters().into_iter().find(|(n, _)| *n == name).unwrap().1
    }
}

/// A guest's end of one connection, that accepts only what fits it.
struct Guest {
    next: u32,
    expects: u32,
}

/// A client talks to a primary whose first number is `primary`; the secondary's is `secondary`, and what it sends must look like the primary's.
fn talk(rig: &mut Rig, port: u16, (client, primary, secondary): (u32, u32, u32), ack_first: bool) {
    // The handshake, as the client has it with the primary.
    let syn = rig.pass(Tx, &tcp(Tx, port, SYN, client, 0, b""));
    assert_eq!(seen(&syn), (client, 0));
    let mut guest = Guest { next: secondary, expects: client.wrapping_add(1) };
    let first_ack = tcp(Tx, port, ACK, guest.expects, primary.wrapping_add(1), b"");
    if ack_first {
        rig.pass(Tx, &first_ack);
    }
    let syn_ack = rig.pass(Rx, &tcp(Rx, port, SYN | ACK, guest.next, guest.expects, b""));
    assert_eq!(seen(&syn_ack).0, secondary, "as QEMU: colo-compare does not look at it");
    guest.next = guest.next.wrapping_add(1);
    // What the client's side of the connection is, by the primary's numbers.
    let (mut sent, mut heard) = (client.wrapping_add(1), primary.wrapping_add(1));
    let again = rig.pass(Tx, &first_ack);
    assert_eq!(seen(&again), (sent, guest.next), "the secondary's handshake is complete");
    for round in 0..5u8 {
        let question = vec![round; 100 * usize::from(round) + 1];
        let at_guest = rig.pass(Tx, &tcp(Tx, port, ACK | PSH, sent, heard, &question));
        assert_eq!(seen(&at_guest), (guest.expects, guest.next));
        sent = sent.wrapping_add(question.len() as u32);
        guest.expects = guest.expects.wrapping_add(question.len() as u32);
        let answer = vec![round; 777];
        let at_client = rig.pass(Rx, &tcp(Rx, port, ACK, guest.next, guest.expects, &answer));
        assert_eq!(seen(&at_client), (heard, sent), "the stream that the primary sends too");
        assert_eq!(at_client.1[54..], answer[..]);
        guest.next = guest.next.wrapping_add(777);
        heard = heard.wrapping_add(777);
    }
    let before = rig.count("connections");
    // The client ends it.
    assert_eq!(seen(&rig.pass(Tx, &tcp(Tx, port, ACK | FIN, sent, heard, b""))), (guest.expects, guest.next));
    let fin = rig.pass(Rx, &tcp(Rx, port, ACK | FIN, guest.next, guest.expects.wrapping_add(1), b""));
    assert_eq!(seen(&fin).0, heard);
    let last = rig.pass(Tx, &tcp(Tx, port, ACK, sent.wrapping_add(1), heard.wrapping_add(1), b""));
    assert_eq!(seen(&last).1, guest.next.wrapping_add(1));
    assert_eq!(rig.count("connections"), before - 1);
}

#[test]
fn a_client_of_the_primary_talks_to_the_secondary() {
    for workers in [1, 2] {
        let mut rig = Rig::new(workers);
        talk(&mut rig, 1000, (7, 5_000_000, 9), false);
        talk(&mut rig, 1001, (u32::MAX - 50, u32::MAX - 3, 100), false);
        talk(&mut rig, 1001, (1, 100, u32::MAX - 3), true);
        // The numbers are the same: nothing is to be done.
        let before = rig.count("rewritten");
        talk(&mut rig, 1002, (1, 4242, 4242), false);
        assert_eq!((rig.count("rewritten"), rig.count("queue-full")), (before, 0));
    }
}

#[test]
fn a_checksum_that_is_left_to_be_computed_stays_so_and_a_wrong_one_stays_wrong() {
    let mut rig = Rig::new(1);
    rig.pass(Tx, &tcp(Tx, 5, SYN, 1, 0, b""));
    rig.pass(Rx, &tcp(Rx, 5, SYN | ACK, 1000, 2, b""));
    rig.pass(Tx, &tcp(Tx, 5, ACK, 2, 501, b""));
    let (_, mut b) = tcp(Rx, 5, ACK, 1001, 2, b"data");
    b[50..52].copy_from_slice(&[0x12, 0x34]);
    let hdr = VnetHdr { flags: F_NEEDS_CSUM, csum_start: 34, csum_offset: 16, ..VnetHdr::NONE };
    let (hdr_out, out) = rig.pass(Rx, &(hdr, b.clone()));
    assert_eq!((hdr_out, field(&out, 38), &out[50..52]), (hdr, 501, &[0x12, 0x34][..]));
    let (_, out) = rig.pass(Rx, &(VnetHdr::NONE, b));
    assert_eq!(field(&out, 38), 501);
    assert_ne!(l4_sum(&out).fold(), 0xffff);
}

#[test]
fn everything_else_passes_untouched() {
    let mut rig = Rig::new(1);
    rig.pass(Tx, &tcp(Tx, 5, SYN, 1, 0, b""));
    rig.pass(Rx, &tcp(Rx, 5, SYN | ACK, 1000, 2, b""));
    rig.pass(Tx, &tcp(Tx, 5, ACK, 2, 501, b""));
    let like = tcp(Rx, 5, ACK, 1001, 2, b"data").1;
    let with = |at: usize, bytes: &[u8]| {
        let mut b = like.clone();
        b[at..at + bytes.len()].copy_from_slice(bytes);
        b
    };
    let mut tagged = like[..12].to_vec();
    tagged.extend([0x81, 0, 0, 5]);
    tagged.extend(&like[12..]);
    let others = [
        tagged,
        with(23, &[17]),
        with(20, &[0x20, 0]),
        with(20, &[0, 9]),
        with(12, &[0x86, 0xdd]),
        with(16, &[0xff, 0xff]),
        with(46, &[0xf0]),
        with(36, &[0, 6]),
        like[..50].to_vec(),
        like[..33].to_vec(),
        like[..14].to_vec(),
        vec![0; 20],
    ];
    for other in others {
        let frame = (VnetHdr::NONE, other);
        assert_eq!(rig.bench.show(&mut *rig.all[0], Rx, std::slice::from_ref(&frame)), [frame]);
    }
    assert_eq!(seen(&rig.pass(Rx, &(VnetHdr::NONE, like))).0, 501);
}

#[test]
fn what_comes_behind_a_changed_frame_stays_behind_it() {
    let mut rig = Rig::new(1);
    rig.pass(Tx, &tcp(Tx, 5, SYN, 1, 0, b""));
    rig.pass(Rx, &tcp(Rx, 5, SYN | ACK, 1000, 2, b""));
    rig.pass(Tx, &tcp(Tx, 5, ACK, 2, 501, b""));
    let (changed, other) = (tcp(Rx, 5, ACK, 1001, 2, b"x"), tcp(Rx, 6, ACK, 77, 2, b"y"));
    let f = &mut *rig.all[0];
    let frames = [other.clone(), changed.clone(), other.clone(), changed, other.clone()];
    assert_eq!(rig.bench.show(f, Rx, &frames).len(), 1);
    rig.held.set(false, true, true);
    assert_eq!(rig.bench.show(f, Rx, &[other]).len(), 0);
    let out: Vec<u32> = rig.bench.take(f, Rx, usize::MAX).iter().map(|f| seen(f).0).collect();
    assert_eq!(out, [501, 77, 501, 77, 77]);
}

#[test]
fn the_table_keeps_the_latest_and_a_failover_follows_no_new_ones() {
    let mut rig = Rig::new(1);
    let table = &rig.held.shared.table;
    let syn = Segment { flags: SYN, seq: 1, ack: 0, len: 0 };
    for n in 0..100_000u32 {
        table.pass(Key { addrs: 7, ports: n }, true, syn, u64::from(n) * 1_000_000_000, true);
    }
    let (all, shifted) = table.count();
    assert!(all <= MOST as u64 && all > MOST as u64 * 9 / 10, "{all} are kept");
    assert_eq!(shifted, 0);
    rig.held.tune("failover", 1);
    talk_untracked(&mut rig, 9000);
    let mut rig = Rig::new(1);
    rig.pass(Tx, &tcp(Tx, 5, SYN, 1, 0, b""));
    rig.pass(Rx, &tcp(Rx, 5, SYN | ACK, 1000, 2, b""));
    rig.pass(Tx, &tcp(Tx, 5, ACK, 2, 501, b""));
    rig.held.tune("failover", 1);
    assert_eq!(seen(&rig.pass(Rx, &tcp(Rx, 5, ACK, 1001, 2, b"x"))).0, 501, "it goes on");
    rig.held.tune("checkpoint", 1);
    assert_eq!(seen(&rig.pass(Rx, &tcp(Rx, 5, ACK, 1001, 2, b"x"))).0, 1001, "both are the same");
}

fn talk_untracked(rig: &mut Rig, port: u16) {
    rig.pass(Tx, &tcp(Tx, port, SYN, 1, 0, b""));
    rig.pass(Rx, &tcp(Rx, port, SYN | ACK, 1000, 2, b""));
    rig.pass(Tx, &tcp(Tx, port, ACK, 2, 501, b""));
    assert_eq!(seen(&rig.pass(Rx, &tcp(Rx, port, ACK, 1001, 2, b"x"))).0, 1001);
}

#[test]
fn a_late_copy_of_the_handshake_changes_nothing_and_a_new_one_does() {
    let mut conn = Conn::default();
    let mut marks = Marks::default();
    let seg = |flags, seq, ack| Segment { flags, seq, ack, len: 0 };
    conn.to_guest(marks, seg(SYN, 1, 0));
    conn.from_guest(&mut marks, seg(SYN | ACK, 1000, 2));
    assert_eq!(conn.to_guest(marks, seg(ACK, 2, 501)), 500);
    conn.to_guest(marks, seg(SYN, 1, 0));
    conn.from_guest(&mut marks, seg(SYN | ACK, 1000, 2));
    assert_eq!((conn.to_guest(marks, seg(ACK, 2, 601)), conn.known), (500, Known::Offset));
    conn.to_guest(marks, seg(SYN, 9, 0));
    assert_eq!(conn.from_guest(&mut marks, seg(RST | ACK, 1001, 2)), 500, "the old one, until it answers");
    conn.from_guest(&mut marks, seg(SYN | ACK, 4000, 10));
    assert_eq!(conn.to_guest(marks, seg(ACK, 10, 3001)), 1000);
    // The guest ends it.
    conn.from_guest(&mut marks, seg(ACK | FIN, 4001, 10));
    assert_eq!(conn.state, State::GuestEnded);
    assert_eq!(conn.to_guest(marks, seg(ACK | FIN, 10, 3002)), 1000);
    assert_eq!((conn.state, conn.from_guest(&mut marks, seg(ACK, 4002, 11))), (State::Closed, 1000));
    // The guest calls: nothing changes.
    let mut conn = Conn::default();
    conn.from_guest(&mut marks, seg(SYN, 5, 0));
    conn.to_guest(marks, seg(SYN | ACK, 8, 6));
    assert_eq!((conn.state, conn.from_guest(&mut marks, seg(ACK, 6, 9))), (State::Open, 0));
}

proptest! {
    #[test]
    fn rewriting_and_back_is_identity(
        seq: u32, ack: u32, add in 1u32.., data in proptest::collection::vec(any::<u8>(), 0..200), partial: bool, to_guest: bool,
    ) {
        let direction = if to_guest { Tx } else { Rx };
        let (_, b) = tcp(direction, 5, ACK, seq, ack, &data);
        let at = if to_guest { 42 } else { 38 };
        let check = (!partial).then_some(50);
        let mut changed = b.clone();
        instance::Change { at, check, add }.apply(&mut changed);
        prop_assert_eq!(field(&changed, at), field(&b, at).wrapping_add(add));
        if !partial {
            prop_assert_eq!(l4_sum(&changed).fold(), 0xffff);
        }
        instance::Change { at, check, add: add.wrapping_neg() }.apply(&mut changed);
        prop_assert_eq!(l4_sum(&changed).fold(), l4_sum(&b).fold());
        prop_assert_eq!(&changed[..50], &b[..50]);
        prop_assert_eq!(&changed[52..], &b[52..]);
    }

    #[test]
    fn a_connection_is_a_word(state in 0u64..7, known in 0u64..4, again in 0u64..2, value: u32) {
        let word = u64::from(value) << 32 | again << 16 | known << 8 | state;
        prop_assert_eq!(Conn::unpack(word).pack(), word);
    }
}
