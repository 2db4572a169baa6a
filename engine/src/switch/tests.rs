//! What a switch does with frames, case by case.

use super::state::Count;
use super::testing::{ALL, SECOND, Sent, World, frame, mac};
use crate::port::counters::DropReason;
use crate::topology::switch::{Mirror, Switch, SwitchPort, VlanSet};
use crate::wire::vnet_hdr::{F_NEEDS_CSUM, GSO_TCPV4, VnetHdr};
use std::collections::HashMap;

mod oracle;

fn access(vlan: u16) -> SwitchPort {
    SwitchPort::access(vlan)
}

fn trunk(native: u16, vlans: &[u16]) -> SwitchPort {
    let mut port = SwitchPort::access(native);
    port.tagged = VlanSet::NONE;
    vlans.iter().for_each(|vlan| port.tagged.add(*vlan));
    port
}

/// A world with these ports on one switch.
fn world<const N: usize>(ports: [SwitchPort; N]) -> World {
    let mut world = World::new();
    for port in ports {
        world.add(1, port);
    }
    world
}

/// Who got how many frames, lowest number first.
fn who(got: &HashMap<u32, Vec<Sent>>) -> Vec<(u32, usize)> {
    let mut all: Vec<_> = got.iter().map(|(slot, frames)| (*slot, frames.len())).collect();
    all.sort_unstable();
    all
}

#[test]
fn unknown_receivers_are_flooded_and_known_ones_are_not() {
    let mut w = world([access(1), access(1), access(1)]);
    assert_eq!(who(&w.send(0, &[frame(mac(2), mac(1), None)])), [(1, 1), (2, 1)]);
    let answer = frame(mac(1), mac(2), None);
    assert_eq!(w.send(1, std::slice::from_ref(&answer)), HashMap::from([(0, vec![answer])]));
    assert_eq!(who(&w.send(2, &[frame(mac(2), mac(3), None), frame(ALL, mac(3), None)])), [(0, 1), (1, 2)]);
    let state = w.state(1);
    assert_eq!((state.counted(Count::Learned), state.counted(Count::Flooded)), (3, 2));
}

#[test]
fn a_station_that_moves_is_followed_and_its_age_counts_anew() {
    let mut w = world([access(1), access(1), access(1)]);
    w.send(0, &[frame(ALL, mac(1), None)]);
    w.send(1, &[frame(ALL, mac(1), None)]);
    assert_eq!(who(&w.send(2, &[frame(mac(1), mac(3), None)])), [(1, 1)]);
    w.now = 200 * SECOND;
    w.send(1, &[frame(ALL, mac(1), None)]);
    w.now = 490 * SECOND;
    assert_eq!(who(&w.send(2, &[frame(mac(1), mac(3), None)])), [(1, 1)]);
    w.now = 510 * SECOND;
    assert_eq!(who(&w.send(2, &[frame(mac(1), mac(3), None)])), [(0, 1), (1, 1)], "forgotten");
    assert_eq!(w.state(1).counted(Count::Moved), 1);
}

#[test]
fn frames_back_to_where_they_came_from_are_dropped_by_name() {
    let mut w = world([access(1), access(1)]);
    w.send(0, &[frame(ALL, mac(1), None), frame(ALL, mac(2), None)]);
    assert_eq!(who(&w.send(0, &[frame(mac(2), mac(1), None)])), []);
    assert_eq!(w.all_drops(), 1);
}

#[test]
fn groups_and_no_address_are_never_learned() {
    let mut w = world([access(1), access(1)]);
    w.send(0, &[frame(ALL, [1, 0, 0, 0, 0, 9], None), frame(ALL, [0; 6], None), frame(ALL, ALL, None)]);
    assert_eq!(w.state(1).table.used(), 0);
}

#[test]
fn vlans_are_apart_and_learn_apart() {
    let mut w = world([access(10), access(10), access(20), access(20)]);
    assert_eq!(who(&w.send(0, &[frame(ALL, mac(1), None)])), [(1, 1)]);
    assert_eq!(who(&w.send(2, &[frame(ALL, mac(1), None)])), [(3, 1)]);
    assert_eq!(who(&w.send(1, &[frame(mac(1), mac(2), None)])), [(0, 1)]);
    assert_eq!(who(&w.send(3, &[frame(mac(1), mac(2), None)])), [(2, 1)]);
    assert_eq!(w.state(1).counted(Count::Moved), 0);
}

#[test]
fn tags_are_put_on_and_taken_off_at_trunks() {
    let mut w = world([access(10), access(20), trunk(30, &[10, 20]), access(30)]);
    for (port, vlan) in [(0, 10), (1, 20)] {
        let got = w.send(port, &[frame(ALL, mac(vlan), None)]);
        assert_eq!(got, HashMap::from([(2, vec![frame(ALL, mac(vlan), Some(vlan.into()))])]));
    }
    // Back: the priority of the tag goes with it.
    let got = w.send(2, &[frame(mac(10), mac(9), Some(0xe00a)), frame(ALL, mac(9), None)]);
    let expected = [(0, vec![frame(mac(10), mac(9), None)]), (3, vec![frame(ALL, mac(9), None)])];
    assert_eq!(got, HashMap::from(expected));
    // A tag of the native VLAN is taken as well, one without a VLAN is of the native one.
    for tag in [30, 0x6000] {
        let got = w.send(2, &[frame(ALL, mac(9), Some(tag))]);
        assert_eq!(got, HashMap::from([(3, vec![frame(ALL, mac(9), None)])]), "{tag:x}");
    }
}

#[test]
fn a_tag_goes_from_trunk_to_trunk_with_its_priority() {
    let mut w = world([trunk(0, &[10]), trunk(7, &[10]), trunk(10, &[7])]);
    let got = w.send(0, &[frame(ALL, mac(1), Some(0xa00a))]);
    let expected = [(1, vec![frame(ALL, mac(1), Some(0xa00a))]), (2, vec![frame(ALL, mac(1), None)])];
    assert_eq!(got, HashMap::from(expected));
    // A tag without a VLAN gets that of the port.
    let got = w.send(1, &[frame(ALL, mac(2), Some(0xc000))]);
    assert_eq!(got, HashMap::from([(2, vec![frame(ALL, mac(2), Some(0xc007))])]));
}

#[test]
fn what_a_port_does_not_carry_is_dropped_by_name() {
    let mut w = World::new();
    let (plain, id) = w.add(1, access(10));
    let (tagged, trunk_id) = w.add(1, trunk(0, &[10]));
    // An access port has no tags, not even its own; a trunk has its VLANs only, and nothing without a tag here.
    let sent = [frame(ALL, mac(1), Some(10)), frame(ALL, mac(1), Some(11))];
    assert_eq!(who(&w.send(plain, &sent)), []);
    let sent = [None, Some(11), Some(4095), Some(0)].map(|tag| frame(ALL, mac(1), tag));
    assert_eq!(who(&w.send(tagged, &sent)), []);
    assert_eq!((w.dropped(id, DropReason::Vlan), w.dropped(trunk_id, DropReason::Vlan)), (2, 4));
    assert_eq!(w.state(1).table.used(), 0);
}

#[test]
fn private_ports_do_not_reach_each_other() {
    let private = || SwitchPort { private: true, ..access(1) };
    let mut w = World::new();
    let (_, id) = w.add(1, private());
    w.add(1, private());
    w.add(1, access(1));
    for (port, expected) in [(0, vec![(2, 1)]), (1, vec![(2, 1)]), (2, vec![(0, 1), (1, 1)])] {
        assert_eq!(who(&w.send(port, &[frame(ALL, mac(port as u8), None)])), expected);
    }
    assert_eq!(who(&w.send(0, &[frame(mac(1), mac(0), None), frame(mac(2), mac(0), None)])), [(2, 1)]);
    assert_eq!(w.dropped(id, DropReason::Private), 1);
}

#[test]
fn bounds_of_port_and_table_stop_learning_only() {
    let mut w = World::new();
    w.settings(Switch { stations: 4, ..Switch::new(1) });
    w.add(1, SwitchPort { limit: 2, ..access(1) });
    w.add(1, access(1));
    let flood: Vec<Sent> = (0..40).map(|n| frame(ALL, mac(n), None)).collect();
    assert_eq!(who(&w.send(0, &flood)), [(1, 40)]);
    assert_eq!((w.state(1).table.used(), w.state(1).counted(Count::Limit)), (2, 38));
    let flood: Vec<Sent> = (100..140).map(|n| frame(ALL, mac(n), None)).collect();
    w.send(1, &flood);
    assert_eq!((w.state(1).table.used(), w.state(1).counted(Count::TableFull)), (4, 38));
    assert_eq!(who(&w.send(1, &[frame(mac(0), mac(200), None)])), [(0, 1)], "the first stay known");
}

#[test]
fn static_stations_stay_where_they_are() {
    let here = SwitchPort { stations: vec![(mac(1), 1)], ..access(1) };
    let mut w = world([here, access(1), access(1)]);
    w.send(1, &[frame(ALL, mac(1), None)]);
    w.now = 10_000 * SECOND;
    assert_eq!(who(&w.send(2, &[frame(mac(1), mac(3), None)])), [(0, 1)]);
    assert_eq!(w.state(1).counted(Count::Static), 1);
}

#[test]
fn a_mirror_gets_copies_and_takes_no_other_part() {
    let mut w = World::new();
    let (_, id) = w.add(1, trunk(1, &[5]));
    w.add(1, access(5));
    let mirror = |rx, tx| SwitchPort { mirror: Some(Mirror { of: id, rx, tx }), ..access(1) };
    w.add(1, mirror(true, false));
    w.add(1, mirror(false, true));
    let (both, both_id) = w.add(1, mirror(true, true));
    // In the form in which they come and go at the port.
    let tagged = frame(ALL, mac(1), Some(5));
    let got = w.send(0, &[tagged.clone(), frame(ALL, mac(1), Some(9))]);
    let received = vec![tagged, frame(ALL, mac(1), Some(9))];
    assert_eq!(
        got,
        HashMap::from([(1, vec![frame(ALL, mac(1), None)]), (2, received.clone()), (4, received)])
    );
    let got = w.send(1, &[frame(mac(1), mac(2), None)]);
    let left = vec![frame(mac(1), mac(2), Some(5))];
    assert_eq!(got, HashMap::from([(0, left.clone()), (3, left.clone()), (4, left)]));
    assert_eq!(who(&w.send(both, &[frame(ALL, mac(7), None)])), []);
    assert_eq!(w.dropped(both_id, DropReason::MirrorPort), 1);
}

#[test]
fn a_full_port_is_tried_once_more_and_holds_nobody_up() {
    let mut w = world([access(1), access(1), access(1)]);
    w.out.room.insert(1, 2);
    let frames: Vec<Sent> = (0..5).map(|n| frame(ALL, mac(n), None)).collect();
    assert_eq!(who(&w.send(0, &frames)), [(1, 2), (2, 5)]);
    assert_eq!(w.out.offers, [(1, false), (2, false), (1, true)]);
    assert_eq!(w.out.tx_full, 3);
}

#[test]
fn frames_in_pieces_keep_their_bytes() {
    for pieces in 1..9 {
        let mut w = world([access(10), trunk(0, &[10]), access(10)]);
        w.pieces = pieces;
        let sent = frame(ALL, mac(1), None);
        let got = w.send(0, std::slice::from_ref(&sent));
        assert_eq!(
            got,
            HashMap::from([(1, vec![frame(ALL, mac(1), Some(10))]), (2, vec![sent])]),
            "{pieces}"
        );
        let got = w.send(1, &[frame(mac(1), mac(2), Some(10))]);
        assert_eq!(got, HashMap::from([(0, vec![frame(mac(1), mac(2), None)])]), "{pieces}");
    }
}

#[test]
fn short_frames_are_switched_or_malformed() {
    let mut w = world([trunk(1, &[10]), access(1), access(10)]);
    let cut = |tag, len| {
        let (hdr, mut bytes) = frame(ALL, mac(1), tag);
        bytes.truncate(len);
        (hdr, bytes)
    };
    for len in [14, 15, 16, 17] {
        let sent = cut(None, len);
        assert_eq!(w.send(0, std::slice::from_ref(&sent)), HashMap::from([(1, vec![sent])]), "{len}");
    }
    let got = w.send(0, &[cut(Some(10), 18)]);
    assert_eq!(got, HashMap::from([(2, vec![cut(None, 14)])]));
    let got = w.send(2, &[cut(None, 14)]);
    assert_eq!(got, HashMap::from([(0, vec![cut(Some(10), 18)])]));
    assert_eq!(who(&w.send(0, &[cut(None, 13), cut(None, 1), cut(Some(10), 17)])), []);
    assert_eq!(w.all_drops(), 3);
}

#[test]
fn offloads_move_with_the_tag() {
    let mut w = world([access(10), trunk(0, &[10])]);
    let hdr = VnetHdr {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 54,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
    };
    let (_, bytes) = frame(ALL, mac(1), None);
    let got = w.send(0, &[(hdr, bytes)]);
    let tagged = VnetHdr { csum_start: 38, hdr_len: 58, ..hdr };
    assert_eq!(got, HashMap::from([(1, vec![(tagged, frame(ALL, mac(1), Some(10)).1)])]));
    let got = w.send(1, &[(tagged, frame(ALL, mac(2), Some(10)).1)]);
    assert_eq!(got, HashMap::from([(0, vec![(hdr, frame(ALL, mac(2), None).1)])]));
    // A checksum in the headers would change what was decided on.
    let bad = VnetHdr { csum_start: 17, ..tagged };
    assert_eq!(who(&w.send(1, &[(bad, frame(ALL, mac(2), Some(10)).1)])), []);
    assert_eq!(who(&w.send(0, &[(VnetHdr { csum_start: 13, ..hdr }, frame(ALL, mac(1), None).1)])), []);
    assert_eq!(w.all_drops(), 2);
}

#[test]
fn switches_and_hubs_behind_each_other_are_crossed_once() {
    let mut w = World::new();
    w.add(1, access(10));
    w.cable((1, trunk(0, &[10])), (2, trunk(0, &[10])));
    w.add(2, access(10));
    w.cable((2, access(10)), (3, access(1)));
    w.add(3, access(1));
    w.cable_to_hub(3, 7);
    w.on_hub(7);
    w.on_hub(7);
    assert_eq!(who(&w.send(0, &[frame(ALL, mac(1), None)])), [(1, 1), (2, 1), (3, 1), (4, 1)]);
    assert_eq!(who(&w.send(3, &[frame(mac(1), mac(2), None)])), [(0, 1), (4, 1)]);
    assert_eq!(w.all_drops(), 0);
    // A second cable makes a loop: every place is entered once by a frame, and the rest has a name.
    w.cable((1, access(10)), (3, access(1)));
    let got = w.send(0, &[frame(ALL, mac(1), None)]);
    assert_eq!(who(&got), [(1, 1), (2, 1), (3, 1), (4, 1)]);
    assert!(w.all_drops() > 0);
}

#[test]
fn nine_switches_in_a_row_are_one_too_many() {
    let mut w = World::new();
    w.add(1, access(1));
    for n in 1..9 {
        w.cable((n, access(1)), (n + 1, access(1)));
    }
    w.add(8, access(1));
    w.add(9, access(1));
    assert_eq!(who(&w.send(0, &[frame(ALL, mac(1), None)])), [(1, 1)]);
    assert_eq!(w.all_drops(), 1);
}
