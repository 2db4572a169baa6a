//! A ring's position as GET_VRING_BASE and SET_VRING_BASE carry it.
//!
//! Split: the next available index. Packed: in bits 0 to 14 the next available entry and in bit 15 its wrap counter; above
//! them the same for the used side. Back-ends that keep one position for both sides leave the upper half 0.

use crate::virtq::Position;

const INDEX: u16 = 0x7fff;
const WRAP: u16 = 0x8000;

/// Where a split ring stands whose next available buffer is `base`; all before it were used.
pub(super) const fn split(base: u32) -> Position {
    Position { avail: base as u16, used: base as u16, ..Position::START }
}

/// Where a packed ring stands.
pub(super) const fn packed(base: u32) -> Position {
    let avail = base as u16;
    let used = if base >> 16 == 0 { avail } else { (base >> 16) as u16 };
    Position {
        avail: avail & INDEX,
        avail_wrap: avail & WRAP != 0,
        used: used & INDEX,
        used_wrap: used & WRAP != 0,
    }
}

/// What GET_VRING_BASE answers.
pub(super) fn encode(position: Position, is_packed: bool) -> u32 {
    if !is_packed {
        return position.avail.into();
    }
    let half = |index: u16, wrap: bool| u32::from(index & INDEX | if wrap { WRAP } else { 0 });
    half(position.avail, position.avail_wrap) | half(position.used, position.used_wrap) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_base_holds_two_positions_with_their_wrap_counters() {
        let position = Position { avail: 300, avail_wrap: false, used: 290, used_wrap: true };
        assert_eq!(encode(position, true), 0x8122_012c);
        assert_eq!(packed(0x8122_012c), position);
        assert_eq!(packed(0x8000_8000), Position::START);
        assert_eq!(encode(Position::START, true), 0x8000_8000);
    }

    #[test]
    fn a_packed_base_without_its_upper_half_is_one_position_for_both_sides() {
        let position = Position { avail: 5, avail_wrap: true, used: 5, used_wrap: true };
        assert_eq!(packed(0x8005), position);
    }

    #[test]
    fn a_split_base_is_the_available_index() {
        assert_eq!(split(0xffff), Position { avail: 0xffff, used: 0xffff, ..Position::START });
        assert_eq!(encode(split(0xffff), false), 0xffff);
    }
}
