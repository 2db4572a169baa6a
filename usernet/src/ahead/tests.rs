//! A stack that keeps to what it is told, a guest that takes what it likes, and a way between them that loses frames.

use super::*;
use crate::wire::{Transport, sum};
use proptest::prelude::*;

const MSS: u16 = 1000;
/// Sequence numbers that wrap.
const FIRST_OF_STACK: u32 = u32::MAX - 5000;
const FIRST_OF_GUEST: u32 = 77;

/// A frame of TCP over IPv6; options are multiples of four bytes.
fn frame(numbers: (u32, u32), flags: u8, window: u16, options: &[u8], payload: &[u8]) -> (Packet, Vec<u8>) {
    let mut frame = vec![2; 12];
    frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 6, 64]);
    frame.extend_from_slice(&[0xfe; 32]);
    let start = frame.len();
    frame.extend_from_slice(&[0, 1, 0, 2]);
    frame.extend_from_slice(&numbers.0.to_be_bytes());
    frame.extend_from_slice(&numbers.1.to_be_bytes());
    frame.extend_from_slice(&[u8::try_from((20 + options.len()) << 2).expect("short"), flags]);
    frame.extend_from_slice(&window.to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(options);
    let at = frame.len();
    frame.extend_from_slice(payload);
    let packet = Packet { six: true, transport: Transport::Tcp, start, payload: at, end: frame.len() };
    packet.write_lengths(&mut frame);
    packet.write_checksum(&mut frame);
    (packet, frame)
}

fn valid(frame: &[u8]) -> Packet {
    let packet = Packet::of(frame, false).expect("a packet");
    let covered = sum(&frame[packet.start..packet.end]);
    assert_eq!(fold(packet.pseudo(frame) + covered), 0xffff, "the checksum");
    assert_eq!(frame.len(), packet.end);
    packet
}

/// What the line is asked to send.
type Way = Vec<Vec<u8>>;

fn from_stack(line: &mut Line, way: &mut Way, numbers: (u32, u32), flags: u8, payload: &[u8]) {
    let (packet, frame) = frame(numbers, flags, 60_000, &[], payload);
    line.stack_sends(&packet, &frame, MSS, &mut |frame| way.push(frame.to_vec()));
}

/// An acknowledgement of the guest's; whether the stack sees it, and what of it.
fn from_guest(line: &mut Line, way: &mut Way, acknowledged: u32, window: u16) -> Option<(u32, u16)> {
    let (packet, mut frame) = frame((FIRST_OF_GUEST + 1, acknowledged), ACK, window, &[], &[]);
    line.guest_sends(&packet, &mut frame, true, MSS, &mut |frame| way.push(frame.to_vec())).then(|| {
        valid(&frame);
        (long(&frame, packet.start + 8), word(&frame, packet.start + 14))
    })
}

/// A connection that the guest has asked for; its windows are shifted by `shift`, if it offers that.
fn begun(shift: Option<u8>, window: u16) -> Line {
    let mut line = Line::default();
    let offer = shift.map(|shift| [1, 3, 3, shift]);
    let (packet, syn) =
        frame((FIRST_OF_GUEST, 0), SYN, window, offer.as_ref().map_or(&[], |offer| &offer[..]), &[]);
    line.guest_begins(&packet, &syn);
    let mut way = Way::new();
    from_stack(&mut line, &mut way, (FIRST_OF_STACK, FIRST_OF_GUEST + 1), SYN | ACK, &[]);
    let packet = valid(&way[0]);
    let agreed = super::shift(&packet, &way[0]);
    assert_eq!(agreed, shift.map(|_| 0), "who offers gets an offer");
    assert_eq!(
        from_guest(&mut line, &mut way, FIRST_OF_STACK.wrapping_add(1), window),
        Some((FIRST_OF_STACK.wrapping_add(1), OPEN))
    );
    line
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| u8::try_from(at % 251).expect("small")).collect()
}

#[test]
fn what_the_stack_sends_is_told_at_once_and_kept_until_the_guest_has_it() {
    let mut line = begun(Some(3), 1000);
    let (mut way, start) = (Way::new(), FIRST_OF_STACK.wrapping_add(1));
    for at in [0, 4000, 8000] {
        from_stack(&mut line, &mut way, (start.wrapping_add(at), FIRST_OF_GUEST + 1), ACK, &bytes(4000));
    }
    assert_eq!(way.len(), 2, "a thousand shifted by three takes two");
    assert_eq!(line.tell(), Some((FIRST_OF_GUEST + 1, start.wrapping_add(12_000), OPEN)));
    assert_eq!(line.tell(), None, "it has been told");
    assert_eq!(
        from_guest(&mut line, &mut way, start.wrapping_add(4000), 1000),
        None,
        "the stack knows already"
    );
    assert_eq!(way.len(), 3);
    assert_eq!(from_guest(&mut line, &mut way, start.wrapping_add(12_000), 1000), None);
    assert!(!line.waits() && line.bytes == 0);
    assert!(
        from_guest(&mut line, &mut way, start.wrapping_add(12_000), 1000).is_some(),
        "an idle one is seen"
    );
}

#[test]
fn what_is_lost_is_sent_again_after_three_duplicates_or_some_time() {
    let mut line = begun(None, 60_000);
    let (mut way, start) = (Way::new(), FIRST_OF_STACK.wrapping_add(1));
    for at in 0..5 {
        from_stack(
            &mut line,
            &mut way,
            (start.wrapping_add(at * 1000), FIRST_OF_GUEST + 1),
            ACK,
            &bytes(1000),
        );
    }
    way.clear();
    for _ in 0..4 {
        let _ = from_guest(&mut line, &mut way, start, 60_000);
    }
    let number = |frame: &[u8]| long(frame, valid(frame).start + 4).wrapping_sub(start);
    assert_eq!(way.iter().map(|frame| number(frame)).collect::<Vec<_>>(), [0]);
    let _ = from_guest(&mut line, &mut way, start.wrapping_add(2000), 60_000);
    assert_eq!(number(&way[1]), 2000, "another one was lost with it");
    let _ = from_guest(&mut line, &mut way, start.wrapping_add(4000), 60_000);
    way.clear();
    for _ in 0..PATIENCE[0] * 3 {
        line.tick(MSS, &mut |frame| way.push(frame.to_vec()));
    }
    assert_eq!(way.iter().map(|frame| number(frame)).collect::<Vec<_>>(), [4000, 4000], "ever more seldom");
}

#[test]
fn a_guest_that_takes_nothing_closes_the_window_of_the_stack() {
    let mut line = begun(None, 2000);
    let (mut way, start) = (Way::new(), FIRST_OF_STACK.wrapping_add(1));
    let (mut next, mut told) = (0, OPEN);
    while told > 0 {
        from_stack(&mut line, &mut way, (start.wrapping_add(next), FIRST_OF_GUEST + 1), ACK, &bytes(16_000));
        next += 16_000;
        told = line.tell().expect("told").2;
        assert!(next < 1 << 20, "it never closes");
    }
    assert!(way.iter().map(|frame| valid(frame).bytes()).sum::<usize>() <= 2000, "more than the guest takes");
    from_stack(&mut line, &mut way, (start.wrapping_add(next), FIRST_OF_GUEST + 1), ACK, &[1]);
    assert_eq!(
        line.tell().map(|told| (told.1, told.2)),
        Some((start.wrapping_add(next), 0)),
        "who asks is answered"
    );
    // An acknowledgement of the stack's does not run ahead of its data.
    way.clear();
    from_stack(&mut line, &mut way, (start.wrapping_add(next), FIRST_OF_GUEST + 9), ACK, &[]);
    assert_eq!(long(&way[0], valid(&way[0]).start + 4), start.wrapping_add(2000));
    let mut acknowledged = 2000;
    while line.waits() {
        let _ = from_guest(&mut line, &mut way, start.wrapping_add(acknowledged), 2000);
        acknowledged = (acknowledged + 2000).min(next);
    }
    assert_eq!(line.tell().map(|told| told.2), Some(OPEN), "it opens again");
}

#[test]
fn an_end_that_the_stack_says_again_still_acknowledges() {
    let mut line = begun(None, 60_000);
    let (mut way, start) = (Way::new(), FIRST_OF_STACK.wrapping_add(1));
    from_stack(&mut line, &mut way, (start, FIRST_OF_GUEST + 1), ACK | FIN, b"bye");
    assert_eq!(
        line.tell().map(|told| told.1),
        Some(start.wrapping_add(3)),
        "its end is the guest's to acknowledge"
    );
    way.clear();
    from_stack(&mut line, &mut way, (start.wrapping_add(3), FIRST_OF_GUEST + 2), ACK | FIN, &[]);
    let packet = valid(&way[0]);
    assert_eq!((packet.flags(&way[0]), long(&way[0], packet.start + 8)), (ACK, FIRST_OF_GUEST + 2));
    let seen = from_guest(&mut line, &mut way, start.wrapping_add(4), 60_000);
    assert_eq!(seen.map(|seen| seen.0), Some(start.wrapping_add(4)), "the stack hears of its end");
    assert!(!line.waits());
}

#[test]
fn where_all_together_hold_too_much_the_stack_keeps_its_own_pace() {
    let mut line = begun(Some(3), 1000);
    let (mut way, start) = (Way::new(), FIRST_OF_STACK.wrapping_add(1));
    let send = |line: &mut Line, way: &mut Way, at: u32| {
        from_stack(line, way, (start.wrapping_add(at), FIRST_OF_GUEST + 1), ACK, &bytes(4000));
    };
    line.full = true;
    send(&mut line, &mut way, 0);
    assert_eq!((way.len(), valid(&way[0]).bytes()), (1, 4000), "as it came");
    assert_eq!((line.bytes(), line.tell()), (0, None), "nothing is kept here, and nothing told");
    let told = from_guest(&mut line, &mut way, start.wrapping_add(3000), 1000);
    assert_eq!(told, Some((start.wrapping_add(3000), 8000)), "what the guest said, unscaled");
    send(&mut line, &mut way, 0);
    assert_eq!(way.len(), 1, "the guest has its beginning: the stack hears that");
    assert_eq!(line.tell(), Some((FIRST_OF_GUEST + 1, start.wrapping_add(3000), 8000)));
    // What comes is kept again; the stack is not told before the guest has what went by.
    line.full = false;
    send(&mut line, &mut way, 4000);
    assert!(line.bytes() > 4000);
    assert_eq!(line.tell(), None);
    assert_eq!(from_guest(&mut line, &mut way, start.wrapping_add(4000), 1000), None);
    assert_eq!(line.tell(), Some((FIRST_OF_GUEST + 1, start.wrapping_add(8000), OPEN)));
    // One that holds something takes no more.
    line.full = true;
    let before = line.bytes();
    send(&mut line, &mut way, 8000);
    assert_eq!(line.bytes(), before);
    assert_eq!(line.tell(), Some((FIRST_OF_GUEST + 1, start.wrapping_add(8000), 0)));
    assert_eq!(from_guest(&mut line, &mut way, start.wrapping_add(8000), 2000), None);
    assert_eq!(
        (line.bytes(), line.tell()),
        (0, Some((FIRST_OF_GUEST + 1, start.wrapping_add(8000), 16_000)))
    );
}

/// A small generator, so that a case is told by its number.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// The guest of a run: what it has, whether it has the end, where its window ends, which never moves back.
struct Guest {
    got: Vec<u8>,
    ended: bool,
    edge: usize,
}

impl Guest {
    fn awaits(&self) -> u32 {
        let got = u32::try_from(self.got.len()).expect("short");
        FIRST_OF_STACK.wrapping_add(1).wrapping_add(got).wrapping_add(u32::from(self.ended))
    }

    /// Its window, once it has found so much more room.
    fn window(&mut self, more: usize) -> u16 {
        self.edge = self.edge.max(self.got.len() + more);
        u16::try_from((self.edge - self.got.len()) >> 2).expect("a window")
    }

    fn take(&mut self, frame: &[u8]) {
        let packet = valid(frame);
        let sequence = long(frame, packet.start + 4);
        let behind = self.awaits().wrapping_sub(sequence) as usize;
        if self.ended || behind > packet.bytes() {
            return;
        }
        let fresh = &frame[packet.payload + behind..packet.end];
        let takes = fresh.len().min(self.edge - self.got.len());
        self.got.extend_from_slice(&fresh[..takes]);
        self.ended = takes == fresh.len() && packet.flags(frame) & FIN != 0;
    }
}

fn run(seed: u64, loss: u64, often_full: u64) {
    let mut dice = Dice(seed | 1);
    let mut line = begun(Some(2), 4000);
    let data = bytes(1_500_000);
    let start = FIRST_OF_STACK.wrapping_add(1);
    let mut guest = Guest { got: Vec::new(), ended: false, edge: 16_000 };
    let (mut sent, mut most, mut finished, mut way) = (0, 0, false, Way::new());
    let (mut acknowledged, mut window) = (0, usize::from(OPEN));
    let mut silent = 0;
    for _ in 0..200_000 {
        if dice.throw(20) == 0 {
            line.full = dice.throw(100) < often_full;
        }
        // It sends again what was not acknowledged for a while, and asks for a window that is closed.
        silent += 1;
        if silent > 10 {
            (sent, finished, silent) = (acknowledged, false, 0);
            window = window.max(1);
        }
        // The stack sends what its window has room for.
        while sent < data.len() && sent < acknowledged + window {
            let size =
                (data.len() - sent).min(acknowledged + window - sent).min(1 + dice.throw(16_384) as usize);
            let number = start.wrapping_add(u32::try_from(sent).expect("short"));
            from_stack(&mut line, &mut way, (number, FIRST_OF_GUEST + 1), ACK, &data[sent..sent + size]);
            sent += size;
            most = most.max(sent);
        }
        if sent == data.len() && !finished && acknowledged == sent {
            let number = start.wrapping_add(u32::try_from(sent).expect("short"));
            from_stack(&mut line, &mut way, (number, FIRST_OF_GUEST + 1), ACK | FIN, &[]);
            finished = true;
        }
        if way.is_empty() {
            line.tick(MSS, &mut |frame| way.push(frame.to_vec()));
        }
        let mut told = line.tell().map(|(_, number, window)| (number, window));
        for frame in std::mem::take(&mut way) {
            if dice.throw(100) >= loss {
                guest.take(&frame);
            }
            if dice.throw(100) >= loss {
                let window = guest.window([0, 0, 1200, 16_000, 64_000][dice.throw(5) as usize]);
                told = from_guest(&mut line, &mut way, guest.awaits(), window).or(told);
            }
        }
        if dice.throw(4) == 0 {
            let window = guest.window(64_000);
            told = from_guest(&mut line, &mut way, guest.awaits(), window).or(told);
        }
        if let Some((number, size)) = told {
            let number = number.wrapping_sub(start) as usize;
            assert!(
                number <= most || guest.ended,
                "more than was sent, or an end that the guest has not: {number}"
            );
            let number = number.min(most);
            if number > acknowledged {
                (acknowledged, silent) = (number, 0);
                sent = sent.max(number);
            }
            window = usize::from(size);
        }
        assert!(line.bytes <= MOST + 2 * usize::from(OPEN), "{} bytes wait", line.bytes);
        let weights: usize = line.frames.iter().map(Held::weight).sum();
        assert_eq!(line.bytes, weights, "what is counted");
        if guest.ended && !line.waits() {
            assert!(guest.got == data, "the guest got something else");
            return;
        }
    }
    panic!("{} of {} bytes, ended {}", guest.got.len(), data.len(), guest.ended);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_guest_gets_all_bytes_in_order_whatever_is_lost(seed: u64, loss in 0u64..20, often_full in 0u64..=100) {
        run(seed, loss, often_full);
    }
}
