#![allow(unsafe_code)] // lends bytes of its own

use super::*;
use std::ptr::NonNull;

/// The command of these bytes, in segments of that length.
fn parse(bytes: &[u8], piece: usize) -> Option<Command> {
    // SAFETY: the bytes outlive the segments.
    let seg = |part: &[u8]| unsafe { Seg::new(NonNull::from(&part[0]), part.len() as u32) };
    let segs: Vec<_> = bytes.chunks(piece).map(seg).collect();
    Command::parse(Bytes::new(&segs))
}

fn each(bytes: &[u8]) -> Option<Command> {
    let whole = parse(bytes, bytes.len().max(1));
    for piece in 1..bytes.len() {
        assert_eq!(parse(bytes, piece), whole, "in pieces of {piece}");
    }
    whole
}

#[test]
fn commands_are_read_whatever_their_segments() {
    assert_eq!(each(&[0, 0, 1]), Some(Command::Mode(Mode::Promiscuous, true)));
    assert_eq!(each(&[0, 5, 0]), Some(Command::Mode(Mode::NoBroadcast, false)));
    assert_eq!(each(&[1, 1, 2, 0, 0, 0, 0, 7]), Some(Command::Address([2, 0, 0, 0, 0, 7])));
    assert_eq!(each(&[2, 0, 5, 1]), Some(Command::Vlan(0x105, true)));
    assert_eq!(each(&[2, 1, 5, 0]), Some(Command::Vlan(5, false)));
    assert_eq!(each(&[3, 0]), Some(Command::Announced));
    assert_eq!(each(&[4, 0, 2, 0]), Some(Command::Pairs(2)));
    assert_eq!(each(&[5, 0, 1, 0, 0, 0, 0, 0, 0, 1]), Some(Command::Offloads(1 << 56 | 1)));
    // More than a value is as good as the value.
    assert_eq!(each(&[0, 1, 9, 9, 9]), Some(Command::Mode(Mode::AllMulticast, true)));
    assert_eq!(each(&[2, 0, 5, 0, 9]), Some(Command::Vlan(5, true)));
}

#[test]
fn what_is_cut_or_unknown_is_no_command() {
    for bytes in [
        &[][..],
        &[0],
        &[0, 0],
        &[0, 6, 1],
        &[1, 1, 2, 0, 0, 0, 0],
        &[1, 1, 2, 0, 0, 0, 0, 7, 7],
        &[1, 2, 0, 0, 0, 0, 0, 0, 0, 0],
        &[2, 0, 5],
        &[2, 2, 5, 0],
        &[3, 1],
        &[4, 0, 1],
        &[4, 1, 1, 0],
        &[5, 0, 1, 0, 0, 0, 0, 0, 0],
        &[5, 1, 1, 0, 0, 0, 0, 0, 0, 0],
        &[6, 0, 0, 0],
        &[255, 255],
    ] {
        assert_eq!(each(bytes), None, "{bytes:?}");
    }
}

#[test]
fn a_table_has_two_lists_and_nothing_else() {
    let list = |addresses: &[[u8; 6]]| {
        let mut bytes = (addresses.len() as u32).to_le_bytes().to_vec();
        addresses.iter().for_each(|address| bytes.extend(address));
        bytes
    };
    let whole = [vec![1, 0], list(&[[2; 6], [4; 6]]), list(&[[3; 6]])].concat();
    let Some(Command::Table(table)) = each(&whole) else { panic!("no table") };
    assert_eq!((table.unicast(), table.multicast()), (&[[2; 6], [4; 6]][..], &[[3; 6]][..]));
    for cut in 2..whole.len() {
        assert_eq!(each(&whole[..cut]), None, "{cut} bytes");
    }
    assert_eq!(each(&[&whole[..], &[0]].concat()), None);
    // A length that no chain could hold, and one whose bytes would wrap around 32 bits.
    for count in [u32::MAX, 0x2aaa_aaab] {
        assert_eq!(each(&[&[1, 0][..], &count.to_le_bytes(), &[0; 12]].concat()), None);
    }
    let many = [vec![1, 0], list(&[[2; 6]; 100]), list(&[[3; 6]; 65])].concat();
    let Some(Command::Table(table)) = parse(&many, 7) else { panic!("no table") };
    assert!(table.unicast_overflow && table.multicast_overflow && table.multicast().is_empty());
}
