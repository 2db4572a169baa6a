//! Frames of several slots between two ports of one region: each of their buffers changes hands.

use super::super::testing::Fake;
use super::{Regions, bytes, start, to_both};
use crate::backend::netmap::abi::{NS_BUF_CHANGED, NS_MOREFRAG, NS_REPORT, Slot};
use crate::backend::testing::{World, frame};
use crate::burst::{BURST, Burst, Mask};
use crate::port::Turn;
use crate::wire::vnet_hdr::{F_NEEDS_CSUM, GSO_TCPV4, VnetHdr};
use std::sync::Arc;

/// A frame in slots of that many bytes.
fn cut(frame: &[u8], len: usize) -> Vec<(u16, Vec<u8>)> {
    let last = frame.len().div_ceil(len) - 1;
    let slots = frame.chunks(len).enumerate();
    slots.map(|(n, part)| (if n < last { NS_MOREFRAG } else { 0 }, part.to_vec())).collect()
}

/// The first slots of a port's receive ring.
fn received(fake: &Arc<Fake>, port: usize, count: u32) -> Vec<u32> {
    let state = fake.state();
    (0..count).map(|n| fake.slot(&state.ports[port].rx[0], n).buf_idx).collect()
}

/// The first slots of its transmit ring.
fn transmitted(fake: &Arc<Fake>, port: usize, count: u32) -> Vec<Slot> {
    let state = fake.state();
    (0..count).map(|n| fake.slot(&state.ports[port].tx[0], n)).collect()
}

#[test]
fn the_buffers_of_a_frame_of_several_slots_change_hands() {
    let (mut world, fake, regions) = (World::new(), Fake::new(), Regions::default());
    let mut one = start(&mut world, &fake, &regions, "netmap:a").remove(0);
    let mut two = start(&mut world, &fake, &regions, "netmap:b").remove(0);
    let (came, stood) = (received(&fake, 0, 3), transmitted(&fake, 1, 3));
    let long = frame(5000, 3);
    fake.send(0, 0, cut(&long, 2000));
    assert_eq!(world.hop(&mut *one.rx, &mut *two.tx), (1, 1));
    let sent = fake.sent(1, 0);
    let flags: Vec<u16> = sent.iter().map(|(flags, _)| *flags).collect();
    let more = NS_BUF_CHANGED | NS_MOREFRAG;
    assert_eq!(flags, [more, more, NS_BUF_CHANGED | NS_REPORT]);
    let lengths: Vec<usize> = sent.iter().map(|(_, bytes)| bytes.len()).collect();
    assert_eq!((lengths, bytes(sent).concat()), (vec![2000, 2000, 1000], long));
    let now: Vec<u32> = transmitted(&fake, 1, 3).iter().map(|slot| slot.buf_idx).collect();
    assert_eq!(now, came, "the very buffers that it came in");
    let stood: Vec<u32> = stood.iter().map(|slot| slot.buf_idx).collect();
    assert_eq!(received(&fake, 0, 3), stood, "and those that stood there for them");
    assert_eq!((world.counters.tx.frames.get(), world.counters.tx.bytes.get()), (1, 5000));
    // Around the ring's end, many times.
    for round in 0..60 {
        let long = frame(2500 + 40 * round, round as u8);
        fake.send(0, 0, cut(&long, 1500 + 9 * round));
        fake.send(0, 0, [(0, frame(60, round as u8))]);
        while world.hop(&mut *one.rx, &mut *two.tx).0 > 0 {}
        let sent = fake.sent(1, 0);
        assert!(sent.iter().all(|(flags, _)| flags & NS_BUF_CHANGED != 0), "round {round}");
        assert_eq!(bytes(sent).concat(), [long, frame(60, round as u8)].concat());
        fake.census();
    }
    assert_eq!(world.counters.tx.frames.get(), 121);
}

#[test]
fn a_second_receiver_of_a_frame_of_several_slots_copies_it() {
    let (mut world, fake, regions) = (World::new(), Fake::new(), Regions::default());
    let mut one = start(&mut world, &fake, &regions, "netmap:a").remove(0);
    let mut two = start(&mut world, &fake, &regions, "netmap:b").remove(0);
    let mut three = start(&mut world, &fake, &regions, "netmap:c").remove(0);
    let (came, stood) = (received(&fake, 0, 3), transmitted(&fake, 2, 3));
    let long = frame(5000, 3);
    fake.send(0, 0, cut(&long, 2000));
    to_both(&mut world, &mut one, [&mut two, &mut three], 1);
    assert_eq!([1, 2].map(|port| bytes(fake.sent(port, 0)).concat()), [long.clone(), long]);
    let buffers = |slots: Vec<Slot>| slots.into_iter().map(|slot| slot.buf_idx).collect::<Vec<_>>();
    assert_eq!(buffers(transmitted(&fake, 1, 3)), came);
    assert_eq!(buffers(transmitted(&fake, 2, 3)), buffers(stood), "its own, which it copied to");
    fake.census();
}

#[test]
fn a_frame_whose_second_buffer_went_before_is_copied_and_its_first_stays() {
    let (mut world, fake, regions) = (World::new(), Fake::new(), Regions::default());
    let mut one = start(&mut world, &fake, &regions, "netmap:a").remove(0);
    let mut two = start(&mut world, &fake, &regions, "netmap:b").remove(0);
    let (first, second) = (frame(4000, 3), frame(4000, 5));
    fake.send(0, 0, cut(&first, 2000).into_iter().chain(cut(&second, 2000)));
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    one.rx.rx(&mut turn, BURST, &mut world.burst);
    let [a, b] = world.burst.frames() else { panic!("two frames") };
    let mut mixed = Burst::new();
    assert!(mixed.push(VnetHdr::NONE, &[world.burst.segs(b)[0], world.burst.segs(a)[1]]));
    assert_eq!(two.tx.tx(&mut turn, &world.burst, Mask::first(1)), 1);
    assert_eq!(two.tx.tx(&mut turn, &mixed, mixed.all()), 1);
    two.tx.settle(&mut turn, &world.counters);
    one.rx.release(&mut turn, 2);
    let sent = fake.sent(1, 0);
    let changed: Vec<bool> = sent.iter().map(|(flags, _)| flags & NS_BUF_CHANGED != 0).collect();
    assert_eq!(changed, [true, true, false, false]);
    assert_eq!(bytes(sent).concat(), [&first[..], &second[..2000], &first[2000..]].concat());
    fake.census();
}

#[test]
fn a_large_frame_of_a_vale_port_moves_with_its_header_and_is_copied_with_another() {
    let (mut world, fake, regions) = (World::new(), Fake::new(), Regions::default());
    let mut one = start(&mut world, &fake, &regions, "vale0:1").remove(0);
    let mut two = start(&mut world, &fake, &regions, "vale0:2").remove(0);
    let hdr = VnetHdr {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        hdr_len: 54,
    };
    let stream = [&hdr.encode()[..], &frame(6000, 2)].concat();
    let came = received(&fake, 0, 4);
    fake.send(0, 0, cut(&stream, 1800));
    assert_eq!(world.hop(&mut *one.rx, &mut *two.tx), (1, 1));
    assert_eq!(bytes(fake.sent(1, 0)).concat(), stream);
    let now: Vec<u32> = transmitted(&fake, 1, 4).iter().map(|slot| slot.buf_idx).collect();
    assert_eq!(now, came);
    // With a header that was changed on the way the first buffer cannot go as it is, and with it none.
    fake.send(0, 0, cut(&stream, 1800));
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    world.burst.clear();
    one.rx.rx(&mut turn, BURST, &mut world.burst);
    world.burst.frames_mut()[0].hdr.gso_size = 1400;
    assert_eq!(two.tx.tx(&mut turn, &world.burst, world.burst.all()), 1);
    two.tx.settle(&mut turn, &world.counters);
    one.rx.release(&mut turn, 1);
    let sent = bytes(fake.sent(1, 0)).concat();
    assert_eq!(sent[..10], VnetHdr { gso_size: 1400, ..hdr }.encode());
    assert_eq!(sent[10..], stream[10..]);
    fake.census();
}
