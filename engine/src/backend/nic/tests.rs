use super::{Halves, Mode, NetFeatures, Published, RxFilter, pair};
use crate::backend::testing::{World, frame, wake};
use crate::port::counters::DropReason;
use crate::port::{Doze, Turn};
use crate::virtq::packed::PackedDriver;
use crate::virtq::split::SplitDriver;
use crate::virtq::testing::{Format, Rig};
use crate::virtq::{DriverRing, DriverSeg, F_RING_PACKED, F_VERSION_1, RingFault};
use proptest::prelude::*;
use std::sync::Arc;

mod filtered;

const HEADER: usize = 12;
/// The receiver's address.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const MERGEABLE: u64 = NetFeatures::MRG_RXBUF;

/// A guest's ring, with the driver's side and one place for each buffer.
struct Ring<V> {
    rig: Rig,
    driver: V,
    stride: usize,
}

impl<V: DriverRing> Ring<V> {
    fn new(format: Format, size: u16, features: u64, stride: usize) -> Self {
        let packed = if format == Format::Packed { F_RING_PACKED } else { 0 };
        let rig =
            Rig::new(format, size, F_VERSION_1 | features | packed, usize::from(size) * stride).unwrap();
        let mut driver = V::new(&rig.config).unwrap();
        driver.want_calls(true); // so that no buffer waits to come back
        Self { rig, driver, stride }
    }

    /// Makes a frame available in pieces of these sizes, its header in front of all.
    fn send(&mut self, token: u32, frame: &[u8], pieces: &[usize]) {
        let mut bytes = vec![0; HEADER];
        bytes.extend_from_slice(frame);
        let at = self.rig.buffer(token as usize * self.stride);
        self.rig.write(at, &bytes);
        let (mut segs, mut from) = (Vec::new(), 0);
        for piece in pieces.iter().copied().chain([usize::MAX]) {
            let len = piece.min(bytes.len() - from);
            if len > 0 {
                segs.push(DriverSeg { addr: at + from as u64, len: len as u32 });
            }
            from += len;
        }
        assert!(self.driver.add(&segs, segs.len(), token));
        self.driver.publish();
    }

    /// Posts a receive buffer of `len` bytes.
    fn post(&mut self, token: u32, len: usize) {
        let addr = self.rig.buffer(token as usize * self.stride);
        assert!(self.driver.add(&[DriverSeg { addr, len: len as u32 }], 0, token));
        self.driver.publish();
    }

    fn bytes(&self, token: u32, len: usize) -> Vec<u8> {
        let at = self.rig.buffer(token as usize * self.stride);
        (0..len)
            .map(|i| {
                let word = self.rig.read_u16(at + (i & !1) as u64).to_le_bytes();
                word[i & 1]
            })
            .collect()
    }

    /// Takes one received frame: its bytes, and the buffers that it filled.
    fn receive(&mut self) -> Option<(Vec<u8>, Vec<u32>)> {
        let (token, written) = self.driver.used().unwrap()?;
        let mut bytes = self.bytes(token, written as usize);
        let mut tokens = vec![token];
        for _ in 1..u16::from_le_bytes([bytes[10], bytes[11]]) {
            let (token, written) =
                self.driver.used().unwrap().expect("all buffers of a frame are used at once");
            bytes.extend(self.bytes(token, written as usize));
            tokens.push(token);
        }
        bytes.drain(..HEADER);
        Some((bytes, tokens))
    }
}

/// A guest that sends and a guest that receives.
struct Two<V> {
    world: World,
    sender: Ring<V>,
    receiver: Ring<V>,
    from: Halves,
    to: Halves,
}

impl<V: DriverRing> Two<V> {
    fn new(format: Format, size: u16, features: u64, buffer: usize) -> Self {
        let sender = Ring::new(format, size, features, 70_000);
        let receiver = Ring::new(format, size, features, buffer.next_multiple_of(64));
        let from = pair(Some(&sender.rig.config), None, &wake(), &Arc::default()).unwrap();
        let to = pair(None, Some(&receiver.rig.config), &wake(), &Arc::default()).unwrap();
        Self { world: World::new(), sender, receiver, from, to }
    }

    fn hop(&mut self) -> (usize, usize) {
        self.world.hop(&mut *self.from.rx, &mut *self.to.tx)
    }
}

fn frames_arrive_as_they_were_sent<V: DriverRing>(format: Format) {
    let lengths = [14, 15, 60, 64, 65, 128, 129, 1500, 2036, 2037, 9000, 65_000];
    for pieces in [vec![], vec![HEADER], vec![5], vec![HEADER, 20, 20], vec![HEADER + 14, 1]] {
        let mut two = Two::<V>::new(format, 64, MERGEABLE, 2048);
        for (token, &len) in lengths.iter().enumerate() {
            two.sender.send(token as u32, &frame(len, token as u8), &pieces);
        }
        for token in 0..64 {
            two.receiver.post(token, 2048);
        }
        let mut got = 0;
        while got < lengths.len() {
            two.hop();
            let Some((bytes, tokens)) = two.receiver.receive() else { panic!("frame {got} of {lengths:?}") };
            assert_eq!(bytes, frame(lengths[got], got as u8), "{} bytes in {pieces:?}", lengths[got]);
            assert_eq!(tokens.len(), (lengths[got] + HEADER).div_ceil(2048));
            got += 1;
        }
        let mut back = 0;
        while two.sender.driver.used().unwrap().is_some() {
            back += 1;
        }
        assert_eq!(back, lengths.len(), "every buffer comes back to the sender");
    }
}

#[test]
fn frames_arrive_as_they_were_sent_through_split_rings() {
    frames_arrive_as_they_were_sent::<SplitDriver>(Format::Split);
}

#[test]
fn frames_arrive_as_they_were_sent_through_packed_rings() {
    frames_arrive_as_they_were_sent::<PackedDriver>(Format::Packed);
}

#[test]
fn a_full_receiver_stops_the_sender_and_nothing_is_lost() {
    let mut two = Two::<SplitDriver>::new(Format::Split, 8, MERGEABLE, 2048);
    for token in 0..8 {
        two.sender.send(token, &frame(100, token as u8), &[]);
    }
    two.receiver.post(0, 2048);
    two.receiver.post(1, 2048);
    assert_eq!(two.hop(), (2, 2));
    assert_eq!(two.hop(), (0, 0));
    for token in 2..8 {
        two.receiver.post(token, 2048);
    }
    assert_eq!(two.hop(), (6, 6));
    for mark in 0..8 {
        assert_eq!(two.receiver.receive().unwrap().0, frame(100, mark));
    }
}

fn back<V: DriverRing>(ring: &mut Ring<V>) -> usize {
    std::iter::from_fn(|| ring.driver.used().unwrap()).count()
}

fn hundred_frames<V: DriverRing>(format: Format, calls: bool) -> Two<V> {
    let mut two = Two::<V>::new(format, 128, 0, 2048);
    two.sender.driver.want_calls(calls);
    (0..100).for_each(|token| two.sender.send(token, &frame(60, 1), &[]));
    (0..128).for_each(|token| two.receiver.post(token, 2048));
    while two.hop().1 > 0 {}
    two
}

#[test]
fn a_driver_that_polls_gets_its_last_buffers_back_a_little_later() {
    let mut two = hundred_frames::<SplitDriver>(Format::Split, false);
    assert_eq!(back(&mut two.sender), 68, "a quarter of the ring waits");
    assert!((0..1000).all(|_| two.from.rx.is_empty()));
    assert_eq!(back(&mut two.sender), 32);
}

#[test]
fn a_driver_that_sleeps_gets_all_buffers_back_at_once() {
    let mut two = hundred_frames::<SplitDriver>(Format::Split, true);
    assert_eq!(back(&mut two.sender), 100);
    let mut two = hundred_frames::<PackedDriver>(Format::Packed, false);
    assert_eq!(back(&mut two.sender), 100);
}

#[test]
fn no_buffer_waits_when_the_worker_sleeps_or_the_ring_stops() {
    let mut two = hundred_frames::<SplitDriver>(Format::Split, false);
    two.from.rx.doze();
    assert_eq!(back(&mut two.sender), 100);
    let mut two = hundred_frames::<SplitDriver>(Format::Split, false);
    let mut turn = Turn { now: 0, io: &mut two.world.io, pool: &mut two.world.pool };
    assert!(two.from.rx.stop(&mut turn));
    assert_eq!(back(&mut two.sender), 100);
}

fn what_was_looked_at_and_not_taken_is_lent_again<V: DriverRing>(format: Format) {
    let mut two = Two::<V>::new(format, 8, MERGEABLE, 2048);
    assert!(two.from.rx.is_empty());
    for token in 0..4 {
        two.sender.send(token, &frame(100, token as u8), &[]);
    }
    assert!(!two.from.rx.is_empty());
    assert_eq!((two.from.rx.peek(), two.from.rx.peek()), (4, 4));
    two.receiver.post(0, 2048);
    assert_eq!(two.hop(), (1, 1));
    assert!(!two.from.rx.is_empty(), "three are held, though the ring has no more");
    // One that comes later stands behind them.
    two.sender.send(4, &frame(100, 4), &[]);
    assert_eq!(two.from.rx.peek(), 4);
    for token in 1..8 {
        two.receiver.post(token, 2048);
    }
    assert_eq!(two.hop(), (4, 4));
    assert!(two.from.rx.is_empty());
    for mark in 0..5 {
        assert_eq!(two.receiver.receive().unwrap().0, frame(100, mark));
    }
    for token in 0..5 {
        assert_eq!(two.sender.driver.used().unwrap().unwrap().0, token);
    }
    assert_eq!(two.sender.driver.used().unwrap(), None, "each is given back once");
}

#[test]
fn what_was_looked_at_and_not_taken_is_lent_again_through_both_rings() {
    what_was_looked_at_and_not_taken_is_lent_again::<SplitDriver>(Format::Split);
    what_was_looked_at_and_not_taken_is_lent_again::<PackedDriver>(Format::Packed);
}

fn a_receiver_that_has_not_read_a_quarter_of_its_ring_is_behind<V: DriverRing>(format: Format) {
    let mut two = Two::<V>::new(format, 256, MERGEABLE, 128);
    for token in 0..256 {
        two.receiver.post(token, 128);
    }
    let mut sent = 0;
    while sent < 128 {
        assert_eq!(two.to.tx.is_behind(), sent > 64, "{sent} frames that were not read");
        two.sender.send(sent, &frame(60, 1), &[]);
        assert_eq!(two.hop(), (1, 1));
        sent += 1;
    }
    for _ in 0..128 {
        let (_, tokens) = two.receiver.receive().unwrap();
        two.receiver.post(tokens[0], 128);
    }
    assert!(!two.to.tx.is_behind(), "all were read, and their buffers given back");
}

#[test]
fn a_receiver_that_has_not_read_a_quarter_of_its_ring_is_behind_with_both_rings() {
    a_receiver_that_has_not_read_a_quarter_of_its_ring_is_behind::<SplitDriver>(Format::Split);
    a_receiver_that_has_not_read_a_quarter_of_its_ring_is_behind::<PackedDriver>(Format::Packed);
}

#[test]
fn a_large_frame_waits_for_enough_buffers() {
    let mut two = Two::<SplitDriver>::new(Format::Split, 64, MERGEABLE, 2048);
    two.sender.send(0, &frame(9000, 1), &[]);
    for token in 0..4 {
        two.receiver.post(token, 2048);
    }
    assert_eq!(two.hop(), (1, 0));
    two.receiver.post(4, 2048);
    assert_eq!(two.hop(), (1, 1));
    assert_eq!(two.receiver.receive().unwrap(), (frame(9000, 1), vec![0, 1, 2, 3, 4]));
}

#[test]
fn a_frame_that_can_never_fit_is_dropped_by_name() {
    // Not mergeable: one buffer must hold it.
    let mut two = Two::<SplitDriver>::new(Format::Split, 8, 0, 2048);
    two.sender.send(0, &frame(3000, 1), &[]);
    two.sender.send(1, &frame(60, 2), &[]);
    two.receiver.post(0, 2048);
    two.receiver.post(1, 2048);
    assert_eq!(two.hop(), (2, 2));
    assert_eq!(two.receiver.receive().unwrap().0, frame(60, 2));
    assert_eq!(two.world.counters.dropped(DropReason::TooLong), 1);
    // Mergeable, and longer than all buffers of the ring together.
    let mut two = Two::<SplitDriver>::new(Format::Split, 2, MERGEABLE, 2048);
    two.sender.send(0, &frame(5000, 1), &[]);
    two.receiver.post(0, 2048);
    two.receiver.post(1, 2048);
    assert_eq!(two.hop(), (1, 1));
    assert_eq!(two.world.counters.dropped(DropReason::TooLong), 1);
}

#[test]
fn a_frame_too_short_for_ethernet_is_consumed_and_named() {
    let mut two = Two::<SplitDriver>::new(Format::Split, 8, MERGEABLE, 2048);
    two.sender.send(0, &[1, 2, 3], &[]);
    two.sender.send(1, &frame(60, 9), &[]);
    two.receiver.post(0, 2048);
    assert_eq!(two.hop(), (0, 0));
    assert_eq!(two.from.rx.drops(), Some((DropReason::Malformed, 1)));
    assert_eq!(two.hop(), (1, 1));
    assert_eq!(two.receiver.receive().unwrap().0, frame(60, 9));
}

#[test]
fn a_hostile_ring_stops_with_its_reason_and_wakes_control() {
    let sender = Ring::<SplitDriver>::new(Format::Split, 8, MERGEABLE, 2048);
    let wake = wake();
    let mut from = pair(Some(&sender.rig.config), None, &wake, &Arc::default()).unwrap();
    // The available index jumps: two bytes behind the start of the available ring.
    let avail = sender.rig.guest(sender.rig.config.avail.as_ptr());
    sender.rig.write(avail + 2, &100u16.to_le_bytes());
    let mut world = World::new();
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    world.burst.clear();
    from.rx.rx(&mut turn, 64, &mut world.burst);
    assert_eq!(from.rx_shared.fault(), Some(RingFault::Jump { from: 0, to: 100, size: 8 }));
    assert!(from.rx_shared.position().is_some());
    let mut count = [0; 8];
    assert_eq!(nix::unistd::read(&*wake, &mut count), Ok(8));
    from.rx.rx(&mut turn, 64, &mut world.burst);
    assert!(world.burst.is_empty());
}

#[test]
fn frames_for_a_ring_that_does_not_run_are_dropped_by_name() {
    let sender = Ring::<SplitDriver>::new(Format::Split, 8, MERGEABLE, 70_000);
    let mut from = pair(Some(&sender.rig.config), None, &wake(), &Arc::default()).unwrap();
    let mut to = pair(None, None, &wake(), &Arc::default()).unwrap();
    let mut sender = sender;
    sender.send(0, &frame(60, 0), &[]);
    let mut world = World::new();
    assert_eq!(world.hop(&mut *from.rx, &mut *to.tx), (1, 1));
    assert_eq!(world.counters.dropped(DropReason::NotConnected), 1);
}

#[test]
fn offloads_follow_what_the_guest_asks_for() {
    type Net = NetFeatures;
    let asked: Arc<Published> = Arc::default();
    let features = MERGEABLE | Net::GUEST_CSUM | Net::GUEST_TSO4 | Net::GUEST_TSO6;
    let receiver = Ring::<SplitDriver>::new(Format::Split, 8, features, 2048);
    let mut to = pair(None, Some(&receiver.rig.config), &wake(), &asked).unwrap();
    let mut world = World::new();
    let mut caps = |offloads| {
        asked.publish(&RxFilter::new(MAC), offloads);
        to.tx.room(&mut Turn { now: 0, io: &mut world.io, pool: &mut world.pool }, 64);
        let caps = to.tx.caps();
        (caps.csum, caps.tso4, caps.tso6, caps.uso)
    };
    assert_eq!(caps(u64::MAX), (true, true, true, false));
    assert_eq!(caps(Net::GUEST_CSUM | Net::GUEST_TSO6), (true, false, true, false));
    assert_eq!(caps(0), (false, false, false, false));
    assert_eq!(caps(Net::GUEST_OFFLOADS), (true, true, true, false));
}

/// A receive ring with a kick, and a worker that began with it.
fn receiver_with_kick<V: DriverRing>(format: Format) -> Two<V> {
    let mut two = Two::<V>::new(format, 8, MERGEABLE, 2048);
    two.receiver.rig.config.kick = Some(wake());
    two.to = pair(None, Some(&two.receiver.rig.config), &wake(), &Arc::default()).unwrap();
    two.to.tx.start(&mut Turn { now: 0, io: &mut two.world.io, pool: &mut two.world.pool });
    two
}

/// Posts a receive buffer; whether a kick is asked for.
fn kicks<V: DriverRing>(ring: &mut Ring<V>, token: u32) -> bool {
    let addr = ring.rig.buffer(token as usize * ring.stride);
    assert!(ring.driver.add(&[DriverSeg { addr, len: 2048 }], 0, token));
    ring.driver.publish()
}

fn full_rings_ask_for_kicks<V: DriverRing>(format: Format) {
    let mut two = receiver_with_kick::<V>(format);
    two.sender.send(0, &frame(60, 1), &[]);
    two.sender.send(1, &frame(5000, 2), &[]);
    assert_eq!(two.hop(), (0, 0));
    assert_eq!(two.to.tx.doze(), Doze::Sleep);
    assert!(kicks(&mut two.receiver, 0), "a sleeping worker hears of the first buffer");
    assert_eq!(two.to.tx.doze(), Doze::Stay);
    two.to.tx.rise();
    assert!(!kicks(&mut two.receiver, 1), "nobody kicks a worker that is awake");
    // One buffer for the first frame; one is too few for the second.
    assert_eq!(two.hop(), (2, 1));
    assert_eq!(two.to.tx.doze(), Doze::Sleep);
    assert!(kicks(&mut two.receiver, 2));
    assert_eq!(two.to.tx.doze(), Doze::Stay);
    two.to.tx.rise();
    kicks(&mut two.receiver, 3);
    assert_eq!(two.hop(), (1, 1));
    // Without a kick to watch somebody must look.
    let mut deaf = pair(None, Some(&two.sender.rig.config), &wake(), &Arc::default()).unwrap();
    deaf.tx.start(&mut Turn { now: 0, io: &mut two.world.io, pool: &mut two.world.pool });
    assert_ne!(deaf.tx.doze(), Doze::Sleep);
    let mut turn = Turn { now: 0, io: &mut two.world.io, pool: &mut two.world.pool };
    assert!(two.to.tx.stop(&mut turn));
}

#[test]
fn full_receive_rings_ask_for_kicks_before_a_sleep() {
    full_rings_ask_for_kicks::<SplitDriver>(Format::Split);
    full_rings_ask_for_kicks::<PackedDriver>(Format::Packed);
}

#[test]
fn a_guest_is_announced_once_by_a_frame_of_its_own() {
    let mut two = Two::<SplitDriver>::new(Format::Split, 8, MERGEABLE, 2048);
    two.from.rx_shared.announce([2, 0, 0, 0, 0, 9], 1);
    two.sender.send(0, &frame(60, 1), &[]);
    assert_eq!(two.from.rx.doze(), Doze::Stay);
    assert_eq!(two.hop(), (0, 0), "not before there is room");
    two.receiver.post(0, 2048);
    two.receiver.post(1, 2048);
    assert_eq!(two.hop(), (1, 1));
    assert_eq!(two.receiver.receive().unwrap().0, crate::wire::rarp::frame([2, 0, 0, 0, 0, 9]));
    assert_eq!(two.hop(), (1, 1));
    assert_eq!(two.receiver.receive().unwrap().0, frame(60, 1));
    // Also where only the other ring runs.
    two.to.rx_shared.announce([2, 0, 0, 0, 0, 8], 1);
    two.world.burst.clear();
    let mut turn = Turn { now: 0, io: &mut two.world.io, pool: &mut two.world.pool };
    two.to.rx.rx(&mut turn, 64, &mut two.world.burst);
    assert_eq!(two.world.burst.len(), 1);
    two.to.rx.release(&mut turn, 1);
    assert_eq!(two.to.rx.doze(), Doze::Sleep);
}

#[test]
fn announcements_that_wait_are_counted_and_go_one_by_one_by_the_last_address() {
    let mut two = Two::<SplitDriver>::new(Format::Split, 8, MERGEABLE, 2048);
    let shared = two.from.rx_shared.clone();
    shared.announce([2, 0, 0, 0, 0, 9], 1);
    shared.announce([2, 0, 0, 0, 0, 9], 1);
    shared.announce([2, 0, 0, 0, 0, 7], 1);
    assert_eq!(shared.unannounced(), Some(([2, 0, 0, 0, 0, 7], 3)));
    (0..4).for_each(|token| two.receiver.post(token, 2048));
    for left in [Some(([2, 0, 0, 0, 0, 7], 2)), Some(([2, 0, 0, 0, 0, 7], 1)), None] {
        assert_eq!(two.hop(), (1, 1));
        assert_eq!(two.receiver.receive().unwrap().0, crate::wire::rarp::frame([2, 0, 0, 0, 0, 7]));
        assert_eq!(shared.unannounced(), left);
    }
    assert_eq!(two.hop(), (0, 0));
    shared.announce([2, 0, 0, 0, 0, 7], 60);
    shared.announce([2, 0, 0, 0, 0, 7], u16::MAX);
    assert_eq!(shared.unannounced(), Some(([2, 0, 0, 0, 0, 7], 64)), "a bounded number");
}

proptest! {
    /// Whatever the sizes of frames, pieces and buffers, what arrives is what was sent, in order.
    #[test]
    fn any_frames_through_any_buffers(
        frames in proptest::collection::vec((14usize..9000, 1usize..3000), 1..32),
        buffer in 300usize..5000,
        packed: bool,
    ) {
        fn run<V: DriverRing>(format: Format, frames: &[(usize, usize)], buffer: usize) {
            let mut two = Two::<V>::new(format, 64, MERGEABLE, buffer);
            for (token, &(len, piece)) in frames.iter().enumerate() {
                let cut = [HEADER + len.min(piece)];
                two.sender.send(token as u32, &frame(len, token as u8), &cut);
            }
            let mut free: Vec<u32> = (0..64).collect();
            let mut got = 0;
            let sent = frames.len().min(32);
            while got < sent {
                while let Some(token) = free.pop() {
                    two.receiver.post(token, buffer);
                }
                two.hop();
                let before = got;
                while let Some((bytes, tokens)) = two.receiver.receive() {
                    assert_eq!(bytes, frame(frames[got].0, got as u8));
                    free.extend(tokens);
                    got += 1;
                }
                assert!(got > before, "it goes on: {got} of {sent}");
            }
        }
        if packed {
            run::<PackedDriver>(Format::Packed, &frames, buffer);
        } else {
            run::<SplitDriver>(Format::Split, &frames, buffer);
        }
    }
}
