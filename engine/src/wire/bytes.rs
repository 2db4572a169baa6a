//! Big-endian fields in a byte slice, without a panic: what lies outside is `None`, or is not written.

/// The 16-bit field at `at`.
#[must_use]
pub fn get16(b: &[u8], at: usize) -> Option<u16> {
    b.get(at..)?.first_chunk().map(|f| u16::from_be_bytes(*f))
}

/// The 32-bit field at `at`.
#[must_use]
pub fn get32(b: &[u8], at: usize) -> Option<u32> {
    b.get(at..)?.first_chunk().map(|f| u32::from_be_bytes(*f))
}

/// Stores a 16-bit field at `at`; outside of `b` nothing is written.
pub fn put16(b: &mut [u8], at: usize, value: u16) {
    if let Some(field) = b.get_mut(at..).and_then(|b| b.first_chunk_mut()) {
        *field = value.to_be_bytes();
    }
}

/// Stores a 32-bit field at `at`; outside of `b` nothing is written.
pub fn put32(b: &mut [u8], at: usize, value: u32) {
    if let Some(field) = b.get_mut(at..).and_then(|b| b.first_chunk_mut()) {
        *field = value.to_be_bytes();
    }
}

/// Bytes `from..to` of `b`; empty when they are not all there.
#[must_use]
pub fn part(b: &[u8], from: usize, to: usize) -> &[u8] {
    b.get(from..to).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_round_trip_in_network_order() {
        let mut b = [0; 8];
        put16(&mut b, 1, 0x1234);
        put32(&mut b, 4, 0x5678_9abc);
        assert_eq!(b, [0, 0x12, 0x34, 0, 0x56, 0x78, 0x9a, 0xbc]);
        assert_eq!((get16(&b, 1), get32(&b, 4)), (Some(0x1234), Some(0x5678_9abc)));
    }

    #[test]
    fn fields_outside_are_none_and_not_written() {
        let mut b = [7; 4];
        put16(&mut b, 3, 0);
        put32(&mut b, 1, 0);
        put16(&mut b, usize::MAX, 0);
        assert_eq!(b, [7; 4]);
        assert_eq!((get16(&b, 3), get32(&b, 1), get16(&b, usize::MAX)), (None, None, None));
        assert!(part(&b, 3, 2).is_empty() && part(&b, 2, 5).is_empty());
        assert_eq!(part(&b, 1, 3), [7, 7]);
    }
}
