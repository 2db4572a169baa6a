use super::*;
use proptest::prelude::*;

/// RFC 1071 as it is written: 16-bit words, carries added at the end, a last odd byte padded with zero.
fn oracle(bytes: &[u8]) -> u16 {
    let mut sum = 0_u128;
    for pair in bytes.chunks(2) {
        sum += u128::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[test]
fn the_example_of_rfc_1071_sums_to_ddf2() {
    assert_eq!(Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).fold(), 0xddf2);
}

#[test]
fn all_ones_fold_without_losing_a_carry() {
    for len in [0, 1, 2, 63, 64, 65, 127, 128, 129, 1500, 65536, 1 << 20] {
        let bytes = vec![0xff; len];
        assert_eq!(Sum::of(&bytes).fold(), oracle(&bytes), "{len} bytes");
    }
    assert_eq!(fold(u64::MAX), 0xffff);
    assert_eq!(fold(0xffff_ffff_ffff_0000), 0xffff);
    assert_eq!(fold(0xffff_0000_ffff_0001), 1);
}

#[test]
fn udp_sends_a_zero_checksum_as_ones() {
    assert_eq!(Sum::of(&[0xff, 0xff]).checksum(), 0);
    assert_eq!(Sum::of(&[0xff, 0xff]).udp_checksum(), 0xffff);
    assert_eq!(Sum::of(&[0xff, 0xfe]).udp_checksum(), 1);
}

#[test]
fn the_example_of_rfc_1624_updates_to_zero() {
    assert_eq!(update16(0xdd2f, 0x5555, 0x3285), 0);
}

proptest! {
    #[test]
    fn any_bytes_at_any_alignment_sum_as_the_oracle(
        bytes in prop::collection::vec(any::<u8>(), 0..3000), from in 0usize..9,
    ) {
        let bytes = bytes.get(from..).unwrap_or(&[]);
        prop_assert_eq!(Sum::of(bytes).fold(), oracle(bytes));
    }

    #[test]
    fn the_plain_and_the_wide_loop_agree(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let n = bytes.len() / BLOCK;
        // SAFETY: n blocks lie inside the vector.
        let plain = unsafe { blocks(bytes.as_ptr(), n) };
        prop_assert_eq!(u16::from_be(fold(plain)), oracle(&bytes[..n * BLOCK]));
    }

    #[test]
    fn pieces_with_odd_boundaries_sum_as_the_whole(
        bytes in prop::collection::vec(any::<u8>(), 0..600), cuts in prop::collection::vec(0usize..600, 0..8),
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut sum = Sum::default();
        for w in cuts.windows(2) {
            sum.add(&bytes[w[0]..w[1]]);
        }
        prop_assert_eq!(sum.fold(), oracle(&bytes));
    }

    #[test]
    fn pseudo_headers_sum_as_their_bytes(addrs in any::<[u8; 32]>(), protocol: u8, len: u16) {
        let v4: &[u8; 8] = addrs.first_chunk().unwrap();
        let bytes = [&v4[..], &[0, protocol], &len.to_be_bytes()].concat();
        prop_assert_eq!(pseudo_v4(v4, protocol, len).fold(), oracle(&bytes));
        let bytes = [&addrs[..], &u32::from(len).to_be_bytes(), &[0, 0, 0, protocol]].concat();
        prop_assert_eq!(pseudo_v6(&addrs, protocol, len.into()).fold(), oracle(&bytes));
    }

    #[test]
    fn an_updated_checksum_still_verifies(mut bytes in prop::collection::vec(any::<u8>(), 8..64), new: u16, wide: u32) {
        bytes.truncate(bytes.len() & !1);
        bytes[0] |= 1; // a field of zeros alone has no unique checksum (RFC 1624, section 3); no header is one
        let check = !oracle(&bytes);
        let old = u16::from_be_bytes([bytes[2], bytes[3]]);
        bytes[2..4].copy_from_slice(&new.to_be_bytes());
        let check = update16(check, old, new);
        prop_assert_eq!(oracle(&[&bytes[..], &check.to_be_bytes()].concat()), 0xffff);
        let old = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        bytes[4..8].copy_from_slice(&wide.to_be_bytes());
        let check = update32(check, old, wide);
        prop_assert_eq!(oracle(&[&bytes[..], &check.to_be_bytes()].concat()), 0xffff);
    }
}
