#![allow(unsafe_code)] // lends bytes of its own

use super::*;
use crate::burst::Seg;
use crate::wire::vnet_hdr::VnetHdr;
use std::ptr::NonNull;

const OWN: Mac = [0x52, 0x54, 0, 0, 0, 1];
const OTHER: Mac = [0x52, 0x54, 0, 0, 0, 2];
const THIRD: Mac = [0x52, 0x54, 0, 0, 0, 3];
const GROUP: Mac = [1, 0, 0x5e, 0, 0, 1];
const GROUP2: Mac = [0x33, 0x33, 0, 0, 0, 1];
const ALL: Mac = [0xff; 6];

/// A frame to that address, with a tag of that type if there is one.
fn to(mac: Mac, tag: Option<(u16, u16)>) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..6].copy_from_slice(&mac);
    let (kind, tag) = tag.unwrap_or((0x0800, 0x4500));
    head[12..14].copy_from_slice(&kind.to_be_bytes());
    head[14..].copy_from_slice(&tag.to_be_bytes());
    head
}

fn filter(modes: &[Mode]) -> RxFilter {
    let mut filter = RxFilter::new(OWN);
    filter.set_mode(Mode::Promiscuous, false);
    modes.iter().for_each(|mode| filter.set_mode(*mode, true));
    filter
}

fn table(unicast: &[Mac], multicast: &[Mac]) -> MacTable {
    let parts = [unicast, multicast];
    MacTable::fill(parts.map(|part| part.len() as u64), |part, place| {
        place.copy_from_slice(&parts[part][..place.len()]);
        true
    })
    .unwrap()
}

/// What a filter says of frames to: itself, another address, a third, two groups, all.
fn says(filter: &RxFilter) -> [bool; 6] {
    [OWN, OTHER, THIRD, GROUP, GROUP2, ALL].map(|mac| filter.takes(to(mac, None)))
}

#[test]
fn a_nic_takes_everything_until_its_driver_says_otherwise() {
    let new = RxFilter::new(OWN);
    assert_eq!(says(&new), [true; 6]);
    assert!(new.takes(to(OTHER, Some((0x8100, 5)))));
    assert_eq!(says(&filter(&[])), [true, false, false, false, false, true]);
}

#[test]
fn modes_and_tables_follow_qemus_rules() {
    use Mode::*;
    let mut tabled = filter(&[]);
    tabled.table = table(&[OTHER], &[GROUP]);
    assert_eq!(says(&tabled), [true, true, false, true, false, true]);
    for (modes, expected) in [
        (&[AllMulticast][..], [true, true, false, true, true, true]),
        (&[AllUnicast], [true, true, true, true, false, true]),
        (&[NoMulticast], [true, true, false, false, false, true]),
        (&[NoUnicast], [false, false, false, true, false, true]),
        (&[NoBroadcast], [true, true, false, true, false, false]),
        // No beats all.
        (&[NoMulticast, AllMulticast], [true, true, false, false, false, true]),
        (&[NoUnicast, AllUnicast], [false, false, false, true, false, true]),
        // Broadcast is no multicast.
        (&[NoBroadcast, AllMulticast], [true, true, false, true, true, false]),
        (&[Promiscuous, NoUnicast, NoMulticast, NoBroadcast], [true; 6]),
    ] {
        let mut one = tabled.clone();
        modes.iter().for_each(|mode| one.set_mode(*mode, true));
        assert_eq!(says(&one), expected, "{modes:?}");
    }
}

#[test]
fn a_vlan_is_looked_at_before_the_address_and_behind_promiscuous() {
    let mut one = filter(&[]);
    (0..4096).for_each(|vlan| assert!(one.set_vlan(vlan, false)));
    let takes = |filter: &RxFilter, kind, tag| filter.takes(to(OWN, Some((kind, tag))));
    assert!(!takes(&one, 0x8100, 5));
    assert!(one.set_vlan(5, true) && one.set_vlan(4095, true) && !one.set_vlan(4096, true));
    // Priority bits do not matter, service tags are not looked at.
    assert!(takes(&one, 0x8100, 5) && takes(&one, 0x8100, 0xe005) && takes(&one, 0x88a8, 6));
    assert!(!takes(&one, 0x8100, 6));
    assert!(!one.takes(to(OTHER, Some((0x8100, 5)))));
    assert!(!one.takes(to(ALL, Some((0x8100, 6)))));
    assert_eq!(one.vlans().collect::<Vec<_>>(), [4095, 5]);
    one.set_vlan(5, false);
    assert!(!takes(&one, 0x8100, 5));
    one.set_mode(Mode::Promiscuous, true);
    assert!(takes(&one, 0x8100, 5));
}

#[test]
fn a_table_overflows_at_64_as_in_qemu() {
    let many = |n: usize, first: u8| -> Vec<Mac> { (0..n).map(|i| [first, 0, 0, 0, 1, i as u8]).collect() };
    // Too many unicast addresses: none is kept, all are taken, and the multicast ones have all the room.
    let over = table(&many(65, 2), &many(64, 3));
    assert_eq!((over.unicast_overflow, over.multicast_overflow), (true, false));
    assert_eq!((over.unicast().len(), over.multicast().len()), (0, 64));
    // Multicast addresses fit into what is left, or not at all.
    for (unicast, multicast, fits) in
        [(60, 4, true), (60, 5, false), (64, 0, true), (64, 1, false), (0, 65, false)]
    {
        let one = table(&many(unicast, 2), &many(multicast, 3));
        assert_eq!(
            (one.unicast_overflow, one.multicast_overflow),
            (false, !fits),
            "{unicast} and {multicast}"
        );
        assert_eq!(one.unicast().len(), unicast);
        assert_eq!(one.multicast().len(), if fits { multicast } else { 0 });
    }
    let mut all = filter(&[]);
    all.table = table(&many(65, 2), &many(65, 3));
    assert_eq!(says(&all), [true; 6]);
    all.set_mode(Mode::NoUnicast, true);
    assert_eq!(says(&all), [false, false, false, true, true, true]);
}

#[test]
fn a_filter_is_the_same_after_it_was_words() {
    let mut one = filter(&[Mode::AllMulticast, Mode::NoBroadcast]);
    one.table = table(&[OTHER, THIRD], &[GROUP]);
    one.set_vlan(77, false);
    let mut over = RxFilter::new(OTHER);
    over.table = table(&[OTHER; 65], &[GROUP; 3]);
    for filter in [one, over, RxFilter::new(OWN)] {
        assert_eq!(RxFilter::of(&filter.words()), filter);
    }
}

#[test]
fn a_head_is_gathered_from_segments_and_padded() {
    let bytes: Vec<u8> = (1..=20).collect();
    let seg = |from: usize, len: usize| {
        let at = NonNull::from(&bytes[from]);
        // SAFETY: the bytes outlive the burst.
        unsafe { Seg::new(at, len as u32) }
    };
    let mut burst = Burst::new();
    burst.push(VnetHdr::NONE, &[seg(0, 5), seg(5, 1), seg(6, 14)]);
    burst.push(VnetHdr::NONE, &[seg(0, 14)]);
    let heads: Vec<_> = burst.frames().iter().map(|frame| head(&burst, frame)).collect();
    assert_eq!(heads[0][..], bytes[..16]);
    assert_eq!((&heads[1][..14], &heads[1][14..]), (&bytes[..14], &[0, 0][..]));
}
