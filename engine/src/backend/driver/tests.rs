//! The other side is the nic of this project, or its device rings driven by hand.

use super::{Halves, Opened, Shape, WANTED, open};
use crate::backend::nic::{self, NetFeatures};
use crate::backend::testing::{World, frame, wake};
use crate::burst::BURST;
use crate::port::counters::DropReason;
use crate::port::testing::{Outside, port};
use crate::port::{Caps, Doze, Queue, QueueId, RxQueue, Turn, TxQueue};
use crate::virtq::packed::PackedDevice;
use crate::virtq::split::SplitDevice;
use crate::virtq::{Access, DeviceRing, F_EVENT_IDX, F_RING_PACKED, F_VERSION_1, Found, RingFault};
use crate::wire::headers::Headers;
use crate::wire::vnet_hdr::{F_DATA_VALID, F_NEEDS_CSUM, VnetHdr};
use proptest::prelude::*;
use std::os::fd::OwnedFd;
use std::sync::Arc;

const MERGEABLE: u64 = F_VERSION_1 | NetFeatures::MRG_RXBUF;
const ALL: u64 = WANTED & !F_RING_PACKED;

fn driver(features: u64) -> (Opened, Halves) {
    let mut opened = open(&Shape::new(features, 1), false, &wake(), None).unwrap();
    let halves = opened.pairs.remove(0);
    (opened, halves)
}

/// A port of this process, a driver, a nic that serves it, and another port.
struct Line {
    world: World,
    near: (Queue, Outside),
    driver: Halves,
    device: nic::Halves,
    far: (Queue, Outside),
}

impl Line {
    fn new(features: u64) -> Self {
        let (opened, driver) = driver(features);
        let device =
            nic::pair(Some(&opened.rings[1]), Some(&opened.rings[0]), &wake(), &Arc::default()).unwrap();
        let end = |id| port(QueueId(id), 512, Caps::NONE);
        Self { world: World::new(), near: end(1), driver, device, far: end(2) }
    }

    /// Frames from the driver's side to the device's and on, or the other way: what came.
    fn carry(&mut self, there: bool, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let Self { world, near, driver, device, far } = self;
        let (from, to) = if there { (near, far) } else { (far, near) };
        for frame in frames {
            from.1.sent.push((VnetHdr::NONE, frame.clone())).unwrap();
        }
        let mut got = Vec::new();
        let mut idle = 0;
        while idle < 3 {
            let (a, b): (&mut dyn TxQueue, &mut dyn RxQueue) =
                if there { (&mut *driver.tx, &mut *device.rx) } else { (&mut *device.tx, &mut *driver.rx) };
            let (_, first) = world.hop(&mut *from.0.rx, a);
            let (_, second) = world.hop(b, &mut *to.0.tx);
            while let Some((_, bytes)) = to.1.received.pop() {
                got.push(bytes);
            }
            idle = if first + second == 0 { idle + 1 } else { 0 };
            // Workers look often at what has nothing; buffers that come back a little later come then.
            (0..if idle > 0 { 250 } else { 0 }).for_each(|_| {
                let rx: &mut dyn RxQueue = if there { &mut *device.rx } else { &mut *driver.rx };
                rx.is_empty();
            });
        }
        got
    }
}

#[test]
fn frames_cross_in_both_directions_as_they_were_sent() {
    for features in [MERGEABLE, F_VERSION_1, 0, ALL, ALL | F_RING_PACKED, MERGEABLE | F_RING_PACKED] {
        let mut line = Line::new(features);
        // A device that cannot join buffers must fit each frame into one of ours.
        let longest = if features & NetFeatures::MRG_RXBUF == 0 { 9000 } else { 65_000 };
        let lengths = [14, 15, 60, 1500, 2036, 2037, 4084, 4085, 9000, longest];
        let frames: Vec<_> = (0..).zip(lengths).map(|(mark, len)| frame(len, mark)).collect();
        for there in [true, false] {
            // Several times, so that every buffer is used again.
            for round in 0..60 {
                let got = line.carry(there, &frames);
                assert!(got == frames, "features {features:#x}, {there}, round {round}");
            }
        }
        let received = line.world.counters.tx.frames.get();
        assert_eq!(received, 2 * 2 * 60 * frames.len() as u64);
    }
}

#[test]
fn the_offload_header_goes_along_where_it_was_agreed_on() {
    let hdr = VnetHdr { flags: F_NEEDS_CSUM, csum_start: 14, csum_offset: 16, ..VnetHdr::NONE };
    for (features, expected) in [(ALL, hdr), (MERGEABLE, VnetHdr::NONE)] {
        let mut line = Line::new(features);
        line.near.1.sent.push((hdr, frame(60, 1))).unwrap();
        line.far.1.sent.push((hdr, frame(60, 2))).unwrap();
        line.world.hop(&mut *line.near.0.rx, &mut *line.driver.tx);
        line.world.hop(&mut *line.device.rx, &mut *line.far.0.tx);
        line.world.hop(&mut *line.far.0.rx, &mut *line.device.tx);
        line.world.hop(&mut *line.driver.rx, &mut *line.near.0.tx);
        assert_eq!(line.far.1.received.pop().unwrap().0, expected, "to the device");
        assert_eq!(line.near.1.received.pop().unwrap().0, expected, "to us");
    }
    let (_, with) = driver(ALL);
    let (_, without) = driver(MERGEABLE);
    assert!(with.tx.caps().tso4 && with.tx.caps().uso && with.tx.caps().csum);
    assert_eq!(without.tx.caps(), Caps::NONE);
}

#[test]
fn a_device_that_takes_nothing_is_back_pressure_and_nothing_is_lost() {
    for features in [ALL, ALL | F_RING_PACKED] {
        let mut line = Line::new(features);
        let frames: Vec<_> = (0..400).map(|i| frame(100 + i, i as u8)).collect();
        for frame in &frames {
            line.near.1.sent.push((VnetHdr::NONE, frame.clone())).unwrap();
        }
        let mut gone = 0;
        for _ in 0..20 {
            gone += line.world.hop(&mut *line.near.0.rx, &mut *line.driver.tx).1;
        }
        assert_eq!(gone, 256, "as many as the ring has entries");
        let got = line.carry(true, &[]);
        assert!(got == frames);
        // Large frames: as many as there are large buffers.
        for _ in 0..40 {
            line.near.1.sent.push((VnetHdr::NONE, frame(60_000, 9))).unwrap();
        }
        let mut gone = 0;
        for _ in 0..20 {
            gone += line.world.hop(&mut *line.near.0.rx, &mut *line.driver.tx).1;
        }
        assert_eq!(gone, 32);
        assert!(line.carry(true, &[]) == vec![frame(60_000, 9); 40]);
    }
}

#[test]
fn what_was_not_taken_is_lent_again_in_the_same_order() {
    let mut line = Line::new(ALL);
    for mark in 0..10 {
        line.far.1.sent.push((VnetHdr::NONE, frame(6000, mark))).unwrap();
    }
    line.world.hop(&mut *line.far.0.rx, &mut *line.device.tx);
    let World { io, pool, burst, .. } = &mut line.world;
    let mut turn = Turn { now: 0, io, pool };
    let mut next = 0;
    for taken in [0, 3, 0, 1, 6, 0] {
        burst.clear();
        line.driver.rx.rx(&mut turn, BURST, burst);
        assert_eq!(burst.len(), 10 - next);
        for (mark, lent) in (next..).zip(burst.frames()) {
            let mut bytes = vec![0; lent.len()];
            burst.copy_out(lent, 0, &mut bytes);
            assert!(bytes == frame(6000, mark as u8));
        }
        line.driver.rx.release(&mut turn, taken);
        next += taken;
    }
}

#[test]
fn a_sleeper_is_woken_by_the_device_and_kicks_it() {
    for features in [MERGEABLE, ALL, ALL | F_RING_PACKED] {
        let (opened, mut driver) = driver(features);
        let mut device =
            nic::pair(Some(&opened.rings[1]), Some(&opened.rings[0]), &wake(), &Arc::default()).unwrap();
        let mut world = World::new();
        let (mut near, outside) = port(QueueId(1), 8, Caps::NONE);
        let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
        driver.rx.start(&mut turn);
        device.rx.start(&mut turn);
        assert_eq!((driver.rx.doze(), device.rx.doze()), (Doze::Sleep, Doze::Sleep));
        let told =
            |event: &Option<Arc<OwnedFd>>| nix::unistd::read(event.as_deref().unwrap(), &mut [0; 8]).is_ok();
        outside.sent.push((VnetHdr::NONE, frame(60, 1))).unwrap();
        outside.sent.push((VnetHdr::NONE, frame(60, 2))).unwrap();
        world.hop(&mut *near.rx, &mut *driver.tx);
        assert!(told(&opened.rings[1].kick), "the device sleeps");
        world.hop(&mut *device.rx, &mut *device.tx);
        assert!(told(&opened.rings[0].call), "we sleep");
        assert_eq!(driver.rx.doze(), Doze::Stay);
        driver.rx.rise();
        world.hop(&mut *driver.rx, &mut *near.tx);
        assert_eq!(outside.received.len(), 2);
    }
}

/// What a device does wrong, by hand.
fn hostile<D: DeviceRing>(features: u64, write: impl Fn(&mut D, &mut Found, &Found)) -> (Halves, World) {
    let (opened, driver) = driver(features);
    let mut device = D::new(&opened.rings[0]).unwrap();
    let (mut found, none) = (Found::new(), Found::new());
    device.look(8, Access::Write, &mut found).unwrap();
    write(&mut device, &mut found, &none);
    device.publish();
    (driver, World::new())
}

/// Writes bytes into a buffer of ours, as a device does.
fn scribble(found: &Found, chain: usize, bytes: &[u8]) {
    let seg = found.segs(&found.chains()[chain])[0];
    assert!(bytes.len() <= seg.len());
    // SAFETY: the segment is a receive buffer of this test's region.
    #[allow(unsafe_code)]
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), seg.ptr().cast_mut(), bytes.len());
    }
}

/// A header that names so many buffers, and a body.
fn merged(buffers: u16, body: usize) -> Vec<u8> {
    let mut bytes = vec![0; 12 + body];
    bytes[10..12].copy_from_slice(&buffers.to_le_bytes());
    bytes
}

fn faults<D: DeviceRing>(format: u64) {
    type Case<D> = (fn(&mut D, &Found), RingFault);
    let cases: [Case<D>; 3] = [
        (
            |device, found| device.give(&found.chains()[0], 5000),
            RingFault::Overrun { written: 5000, room: 4096 },
        ),
        (
            |device, found| {
                scribble(found, 0, &merged(0, 100));
                device.give(&found.chains()[0], 112);
            },
            RingFault::Merged(0),
        ),
        (
            |device, found| {
                scribble(found, 0, &merged(257, 100));
                device.give(&found.chains()[0], 112);
            },
            RingFault::Merged(257),
        ),
    ];
    for (case, expected) in cases {
        // A good frame is in front: it still arrives.
        let (mut driver, mut world) = hostile::<D>(MERGEABLE | format, |device, found, _| {
            scribble(found, 0, &merged(1, 60));
            device.give(&found.chains()[0], 72);
            let mut rest = Found::new();
            device.look(8, Access::Write, &mut rest).unwrap();
            case(device, &rest);
        });
        let (mut near, outside) = port(QueueId(1), 8, Caps::NONE);
        assert_eq!(world.hop(&mut *driver.rx, &mut *near.tx), (1, 1));
        assert_eq!(driver.reports[0].fault(), None);
        assert_eq!(world.hop(&mut *driver.rx, &mut *near.tx), (0, 0));
        assert_eq!(driver.reports[0].fault(), Some(expected));
        assert_eq!(world.hop(&mut *driver.rx, &mut *near.tx), (0, 0));
        assert_eq!(outside.received.len(), 1);
        // The other ring of the pair goes on.
        outside.sent.push((VnetHdr::NONE, frame(60, 1))).unwrap();
        assert_eq!(world.hop(&mut *near.rx, &mut *driver.tx), (1, 1));
        assert_eq!(driver.reports[1].fault(), None);
    }
}

#[test]
fn a_device_that_breaks_the_rules_stops_its_ring_with_the_reason() {
    faults::<SplitDevice>(0);
    faults::<PackedDevice>(F_RING_PACKED);
}

#[test]
fn frames_for_a_ring_that_stopped_are_dropped_by_name() {
    let (opened, mut driver) = driver(MERGEABLE);
    let mut device = SplitDevice::new(&opened.rings[1]).unwrap();
    let mut world = World::new();
    let (mut near, outside) = port(QueueId(1), 512, Caps::NONE);
    for _ in 0..300 {
        outside.sent.push((VnetHdr::NONE, frame(60, 1))).unwrap();
    }
    while world.hop(&mut *near.rx, &mut *driver.tx).1 > 0 {}
    let mut found = Found::new();
    device.look(1, Access::Read, &mut found).unwrap();
    let chain = found.chains()[0];
    device.give(&chain, 0);
    device.give(&chain, 0); // twice: it has come back already
    device.publish();
    assert_eq!(world.hop(&mut *near.rx, &mut *driver.tx), (44, 44));
    assert!(matches!(driver.reports[1].fault(), Some(RingFault::NotUnderWay(_))));
    assert_eq!(world.counters.dropped(DropReason::NotConnected), 44);
}

#[test]
fn what_is_no_frame_is_dropped_by_name_and_its_buffers_go_back() {
    let (mut driver, mut world) = hostile::<SplitDevice>(MERGEABLE, |device, found, _| {
        for (at, (written, buffers)) in [(0, 1), (11, 1), (25, 1), (12, 70)].into_iter().enumerate() {
            scribble(found, at, &merged(buffers, 60));
            device.give(&found.chains()[at], written);
        }
    });
    let (mut near, _outside) = port(QueueId(1), 8, Caps::NONE);
    for _ in 0..3 {
        assert_eq!(world.hop(&mut *driver.rx, &mut *near.tx), (0, 0));
        assert_eq!(driver.rx.drops(), Some((DropReason::Malformed, 1)));
    }
    // 70 buffers were announced and one came: the rest may follow.
    assert_eq!(world.hop(&mut *driver.rx, &mut *near.tx), (0, 0));
    assert_eq!((driver.rx.drops(), driver.reports[0].fault()), (None, None));
}

#[test]
fn a_frame_that_came_in_part_waits_for_its_rest_without_keeping_the_worker_awake() {
    let (opened, mut driver) = driver(MERGEABLE | F_EVENT_IDX);
    let mut device = SplitDevice::new(&opened.rings[0]).unwrap();
    let mut world = World::new();
    let (mut near, outside) = port(QueueId(1), 8, Caps::NONE);
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    driver.rx.start(&mut turn);
    let mut found = Found::new();
    device.look(2, Access::Write, &mut found).unwrap();
    scribble(&found, 0, &merged(2, 500));
    scribble(&found, 1, &[7; 100]);
    let [first, second] = [found.chains()[0], found.chains()[1]];
    device.give(&first, 512);
    device.publish();
    assert_eq!(world.hop(&mut *driver.rx, &mut *near.tx), (0, 0));
    assert_eq!(driver.rx.doze(), Doze::Sleep);
    driver.rx.rise();
    device.give(&second, 100);
    device.publish();
    assert_eq!(driver.rx.doze(), Doze::Stay);
    driver.rx.rise();
    assert_eq!(world.hop(&mut *driver.rx, &mut *near.tx), (1, 1));
    let (_, bytes) = outside.received.pop().unwrap();
    assert_eq!((bytes.len(), &bytes[500..]), (600, &[7; 100][..]));
}

/// A TCP segment over IPv4, or a UDP datagram over IPv6, whose checksum is `check`; its checksum's place, and what the pseudo header sums up to.
fn segment(six: bool, payload: usize, check: u16) -> (Vec<u8>, usize, u16) {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let l4 = if six { 8 } else { 20 } + payload;
    let [high, low] = (l4 as u16 + if six { 0 } else { 20 }).to_be_bytes();
    if six {
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, high, low, 17, 64]);
        bytes.extend([0xfd; 32]);
        bytes.extend([0, 1, 0, 2, high, low]);
    } else {
        bytes.extend([8, 0, 0x45, 0, high, low, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend([0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff]);
    }
    let at = bytes.len();
    bytes.extend(check.to_be_bytes());
    bytes.extend(vec![0; if six { 0 } else { 2 }]);
    bytes.extend(frame(payload, 3));
    let pseudo = Headers::parse(&bytes, bytes.len()).unwrap().pseudo(&bytes, l4).fold();
    (bytes, at, pseudo)
}

#[test]
fn a_checksum_that_a_device_vouches_for_and_has_not_computed_is_left_to_the_receiver() {
    for (six, payload, check, undone) in [
        (false, 100, 0, true),
        (false, 3000, 0, true),
        (false, 100, 0x1234, false),
        (true, 100, 0xffff, true),
        (true, 3000, 0, true),
        (true, 100, 0x1234, false),
    ] {
        let (bytes, at, pseudo) = segment(six, payload, check);
        let mut whole = [&[0; 12][..], &bytes].concat();
        whole[0] = F_DATA_VALID;
        let parts: Vec<&[u8]> = whole.chunks(2048).collect();
        let count = parts.len();
        let mut first = parts[0].to_vec();
        first[10..12].copy_from_slice(&(count as u16).to_le_bytes());
        let (mut driver, mut world) = hostile::<SplitDevice>(MERGEABLE, |device, found, _| {
            for (chain, part) in parts.iter().enumerate() {
                scribble(found, chain, if chain == 0 { &first } else { part });
                device.give(&found.chains()[chain], part.len() as u32);
            }
        });
        let (mut near, outside) = port(QueueId(1), 8, Caps { csum: true, ..Caps::NONE });
        // What is lent again is found undone again.
        let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
        driver.rx.rx(&mut turn, BURST, &mut world.burst);
        driver.rx.release(&mut turn, 0);
        assert_eq!(world.hop(&mut *driver.rx, &mut *near.tx), (1, 1));
        let (hdr, got) = outside.received.pop().unwrap();
        let mut expected = bytes.clone();
        if undone {
            expected[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
        }
        assert!(got == expected, "{six} {payload} {check:#x}");
        assert_eq!(hdr.needs_csum(), undone, "{six} {payload} {check:#x}");
        let place = usize::from(hdr.csum_start) + usize::from(hdr.csum_offset);
        assert_eq!(place, if undone { at } else { 0 });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Whatever the sizes and the features, what arrives is what was sent, in order.
    #[test]
    fn any_frames_cross(
        lengths in proptest::collection::vec(14usize..9000, 1..200),
        packed: bool, mergeable: bool, event: bool, there: bool,
    ) {
        let bit = |on: bool, bit: u64| if on { bit } else { 0 };
        let features = F_VERSION_1 | bit(packed, F_RING_PACKED) | bit(mergeable, NetFeatures::MRG_RXBUF) | bit(event, F_EVENT_IDX);
        let mut line = Line::new(features);
        let frames: Vec<_> = (0..).zip(&lengths).map(|(mark, len)| frame(*len, mark as u8)).collect();
        prop_assert!(line.carry(there, &frames) == frames);
    }
}
