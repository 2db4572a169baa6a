use super::*;
use crate::burst::Seg;
use crate::mem::arena::ArenaConfig;
use crate::mem::pool::Pool;
use crate::uring::FdIo;
use crate::wire::vnet_hdr::VnetHdr;
use std::ptr::NonNull;

/// What an instance lets pass of three frames in a direction, and how many it copied.
fn pass(steals: bool, set: (bool, bool, bool), direction: Direction) -> (Mask, usize) {
    let arena = Arena::new(&ArenaConfig { initial: 8 << 20, step: 8 << 20, hugepages: false }).unwrap();
    let (held, mut instance, mut reader) = Mirror::unread(&arena, steals).unwrap();
    held.set(set.0, set.1, set.2);
    let mut pool = Pool::set(1, &arena).unwrap().remove(0);
    let (mut io, _) = FdIo::new(None).unwrap();
    let bytes = [7u8; 60];
    let mut burst = Burst::new();
    for _ in 0..4 {
        #[allow(unsafe_code)]
        // SAFETY: `bytes` live as long as the burst.
        let seg = unsafe { Seg::new(NonNull::from(&bytes[..]).cast(), 60) };
        assert!(burst.push(VnetHdr::NONE, &[seg]));
    }
    let mut turn = Turn { now: 0, io: &mut io, pool: &mut pool };
    let on = instance.frames(&mut turn, direction, &burst, Mask(0b1011));
    let mut copied = 0;
    while reader.first().is_some_and(|record| record.bytes == bytes) {
        reader.pop();
        copied += 1;
    }
    (on, copied)
}

#[test]
fn a_mirror_copies_and_a_redirector_takes_away() {
    let all = Mask(0b1011);
    for direction in Direction::BOTH {
        assert_eq!(pass(false, (true, true, true), direction), (all, 3));
        assert_eq!(pass(true, (true, true, true), direction), (Mask::NONE, 3));
        assert_eq!(pass(true, (false, true, true), direction), (all, 0), "off");
    }
    assert_eq!(pass(true, (true, true, false), Direction::Tx), (all, 0), "not its direction");
    assert_eq!(pass(true, (true, true, false), Direction::Rx), (Mask::NONE, 3));
}
