//! The frame by which neighbours learn where a guest is now (RFC 903, as QEMU announces guests).

use super::eth::RARP;

/// Bytes of the frame: the shortest that Ethernet has, without its checksum.
pub const LEN: usize = 60;

/// A reverse-ARP request of `mac` about itself, to all.
#[must_use]
pub fn frame(mac: [u8; 6]) -> [u8; LEN] {
    let mut frame = [0; LEN];
    let [r0, r1] = RARP.to_be_bytes();
    // Ethernet (1), IPv4 (0x0800), addresses of 6 and 4 bytes, request reverse (3).
    let fixed = [r0, r1, 0, 1, 8, 0, 6, 4, 0, 3];
    let parts: [&[u8]; 6] = [&[0xff; 6], &mac, &fixed, &mac, &[0; 4], &mac];
    for (to, from) in frame.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_where_qemu_puts_it() {
        let mac = [2, 3, 4, 5, 6, 7];
        let bytes = frame(mac);
        assert_eq!((&bytes[..6], &bytes[6..12]), (&[0xff; 6][..], &mac[..]));
        assert_eq!(bytes[12..22], [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
        assert_eq!((&bytes[22..28], &bytes[28..32]), (&mac[..], &[0; 4][..]));
        assert_eq!((&bytes[32..38], &bytes[38..]), (&mac[..], &[0; 22][..]));
    }
}
