//! What a vxlan device of the kernel's leaves undone where no wire lies between it and us.
//!
//! Over a veth or another virtual link, the kernel hands on an inner frame as it came from its own stack: the checksum field holds the
//! pseudo header's sum only, and TCP and UDP (`UDP_SEGMENT`) come as one large frame, up to 64 KiB (`SKB_GSO_UDP_TUNNEL`). A socket is not told. It shows in
//! the frame. Of UDP's segments it is told the length, but as that of datagrams of ours (net/ipv4/udp.c `udp_cmsg_recv`).

use crate::wire::bytes::get16;
use crate::wire::checksum::pseudo_v4;
use crate::wire::eth::{HEADER, IPV4};
use crate::wire::headers::{Headers, Net, Transport};
use crate::wire::ip::{self, MF, OFFSET, V4_ADDRS, V4_FRAG, V4_HEADER, V4_TOTAL_LEN};
use crate::wire::l4::{CWR, TCP_CHECK, TCP_FLAGS, UDP_CHECK};
use crate::wire::vnet_hdr::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VnetHdr};

/// Whether a frame of at most `total` bytes that begins with `front` is longer than `len`, by what its IP header says.
pub(super) fn is_longer(front: &[u8], len: usize, total: usize) -> bool {
    Headers::parse(front, total).is_ok_and(|at| at.net != Net::Other && at.end > len)
}

/// The offload state of a frame of `len` bytes that begins with `front`; IP packets longer than `mtu` are large ones. The payload of its segments is
/// `segment`, where that was told (UDP), else 0.
///
/// A checksum that is whole and by chance the same as the pseudo header's sum is taken for a partial one. That is harmless: completed, it is
/// what it was.
#[inline]
pub(super) fn offload(front: &[u8], len: usize, mtu: usize, segment: usize) -> VnetHdr {
    if is_done(front) {
        return VnetHdr::NONE;
    }
    let Ok(at) = Headers::parse(front, len) else { return VnetHdr::NONE };
    let Some(offset) = at.transport.check_offset() else { return VnetHdr::NONE };
    let pseudo = at.pseudo(front, at.end - at.l4).fold();
    if at.routed || get16(front, at.l4 + offset) != Some(pseudo) {
        return VnetHdr::NONE;
    }
    let hdr = at.partial();
    if at.transport == Transport::Udp && segment != 0 && at.end == len {
        return VnetHdr { gso_type: GSO_UDP_L4, gso_size: segment as u16, hdr_len: at.payload as u16, ..hdr };
    }
    if at.transport != Transport::Tcp || at.end - at.l3 <= mtu || at.end != len {
        return hdr;
    }
    // How long the sender's segments are is not told. Those that fit the tunnel are right for any receiver on this path.
    let size = mtu.saturating_sub(at.payload - at.l3);
    let ecn = if get16(front, at.l4 + TCP_FLAGS).is_some_and(|flags| flags & CWR != 0) { GSO_ECN } else { 0 };
    let kind = if at.net == Net::V4 { GSO_TCPV4 } else { GSO_TCPV6 };
    VnetHdr { gso_type: kind | ecn, gso_size: size as u16, hdr_len: at.payload as u16, ..hdr }
}

/// Whether a glance shows that nothing is left to do: an untagged IPv4 packet without options, no fragment, whose checksum field holds something else than
/// the pseudo header's sum. So it is with every frame that has crossed a wire.
#[inline]
fn is_done(front: &[u8]) -> bool {
    const L4: usize = HEADER + V4_HEADER;
    let Some(head) = front.first_chunk::<{ L4 + TCP_CHECK + 2 }>() else { return false };
    let field = |at| get16(head, at).unwrap_or(0);
    let (protocol, check) = match head[HEADER + 9] {
        ip::TCP => (ip::TCP, L4 + TCP_CHECK),
        ip::UDP => (ip::UDP, L4 + UDP_CHECK),
        _ => return false,
    };
    if field(12) != IPV4 || head[HEADER] != 0x45 || field(HEADER + V4_FRAG) & (MF | OFFSET) != 0 {
        return false;
    }
    let Some(addresses) = head.get(HEADER + V4_ADDRS..).and_then(|b| b.first_chunk()) else { return false };
    let len = field(HEADER + V4_TOTAL_LEN).wrapping_sub(V4_HEADER as u16);
    field(check) != pseudo_v4(addresses, protocol, len).fold()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::vnet_hdr::{F_NEEDS_CSUM, GSO_NONE};

    /// A TCP segment over IPv4 with this many bytes of payload and a checksum that is still to be completed.
    fn tcp(payload: usize) -> Vec<u8> {
        let total = (40 + payload) as u16;
        let mut bytes = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 8, 0];
        bytes.extend_from_slice(&[0x45, 0, (total >> 8) as u8, total as u8, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        bytes.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend_from_slice(&[0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.resize(54 + payload, 0x5a);
        let at = Headers::parse(&bytes, bytes.len()).unwrap();
        let sum = at.pseudo(&bytes, 20 + payload).fold();
        bytes[50..52].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn of(bytes: &[u8]) -> VnetHdr {
        offload(&bytes[..bytes.len().min(120)], bytes.len(), 1450, 0)
    }

    #[test]
    fn a_partial_checksum_is_left_to_the_receiver() {
        for payload in [0, 1, 1410] {
            let hdr = of(&tcp(payload));
            assert_eq!((hdr.flags, hdr.gso_type), (F_NEEDS_CSUM, GSO_NONE), "{payload} bytes");
            assert_eq!((hdr.csum_start, hdr.csum_offset), (34, 16));
        }
    }

    #[test]
    fn a_whole_checksum_is_left_alone() {
        let mut bytes = tcp(100);
        bytes[50] ^= 0x10;
        assert_eq!(of(&bytes), VnetHdr::NONE);
        let arp = [&[0xff; 12][..], &[8, 6], &[0; 46]].concat();
        assert_eq!(of(&arp), VnetHdr::NONE);
        assert_eq!(of(&[0; 9]), VnetHdr::NONE);
    }

    #[test]
    fn a_glance_says_only_what_a_walk_finds() {
        let walk = |bytes: &[u8]| {
            let at = Headers::parse(bytes, bytes.len());
            let field =
                |at: &Headers| at.transport.check_offset().and_then(|offset| get16(bytes, at.l4 + offset));
            at.is_ok_and(|at| field(&at) == Some(at.pseudo(bytes, at.end - at.l4).fold()))
        };
        let mut whole = tcp(100);
        whole[50] ^= 0x10;
        assert!(is_done(&whole) && !is_done(&tcp(100)));
        for frame in [tcp(100), whole] {
            for bit in 0..54 * 8 {
                let mut bytes = frame.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(!(is_done(&bytes) && walk(&bytes)), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_large_tcp_frame_is_cut_to_what_the_tunnel_takes() {
        let mut bytes = tcp(1411);
        let hdr = of(&bytes);
        assert_eq!((hdr.gso_type, hdr.gso_size, hdr.hdr_len), (GSO_TCPV4, 1410, 54));
        bytes = tcp(64_000);
        bytes[47] |= 0x80;
        assert_eq!(of(&bytes).gso_type, GSO_TCPV4 | GSO_ECN, "a CWR flag is the first segment's alone");
    }

    #[test]
    fn a_large_udp_frame_has_the_segments_that_were_told() {
        let mut bytes = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 8, 0];
        let total = 28 + 3000u16;
        let [high, low] = total.to_be_bytes();
        bytes.extend_from_slice(&[0x45, 0, high, low, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let [high, low] = (total - 20).to_be_bytes();
        bytes.extend_from_slice(&[0, 1, 0, 2, high, low, 0, 0]);
        bytes.resize(14 + usize::from(total), 0x5a);
        let at = Headers::parse(&bytes, bytes.len()).unwrap();
        let sum = at.pseudo(&bytes, usize::from(total) - 20).fold();
        bytes[40..42].copy_from_slice(&sum.to_be_bytes());
        let front = &bytes[..120];
        let hdr = offload(front, bytes.len(), 1450, 1000);
        assert_eq!((hdr.gso_type, hdr.gso_size, hdr.hdr_len), (GSO_UDP_L4, 1000, 42));
        assert!(is_longer(front, 1000, bytes.len()));
        // Datagrams of the tunnel that came as one message: the first says itself that it is no longer.
        assert!(!is_longer(front, bytes.len(), 3 * bytes.len()));
        assert!(!is_longer(front, 1000, 2000), "longer than the message: no frame at all");
        assert!(!is_longer(&[0xff; 60], 1000, 2000));
    }

    #[test]
    fn padding_behind_a_packet_changes_nothing() {
        let mut bytes = tcp(0);
        bytes.resize(60, 0);
        assert_eq!(of(&bytes).flags, F_NEEDS_CSUM);
        assert_eq!(of(&bytes).gso_type, GSO_NONE);
    }
}
