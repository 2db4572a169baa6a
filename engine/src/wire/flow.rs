//! Which flow a frame is of: a number from the addresses and ports in its headers.

use super::bytes::{get16, get32};
use super::eth;
use super::ip;

/// Bytes of a frame that [`flow`] looks at, at most.
pub const SEEN: usize = eth::HEADER + eth::MAX_TAGS * eth::TAG + ip::V6_HEADER + 4;

/// Odd, and its bits are as good as random: 2^64 over the golden ratio.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number that all frames of one flow share: of IP addresses, protocol and ports, and where there is no IP of Ethernet addresses and type. Fragments of
/// one packet share it as well, since only the first has ports. `front` has the frame's first bytes: [`SEEN`] of them, or all.
#[must_use]
pub fn flow(front: &[u8]) -> u32 {
    let (mut kind, mut l3) = (get16(front, 12), eth::HEADER);
    for _ in 0..eth::MAX_TAGS {
        if !matches!(kind, Some(eth::VLAN | eth::QINQ)) {
            break;
        }
        kind = get16(front, l3 + 2);
        l3 += eth::TAG;
    }
    let found = match kind {
        Some(eth::IPV4) => v4(front, l3),
        Some(eth::IPV6) => v6(front, l3),
        _ => None,
    };
    let mixed = found.unwrap_or_else(|| {
        let addresses = [0, 4, 8].map(|at| get32(front, at).unwrap_or_default());
        addresses.into_iter().chain([kind.unwrap_or_default().into()]).fold(0, mix)
    });
    (mixed >> 32) as u32
}

/// One more word.
#[inline]
const fn mix(sum: u64, word: u32) -> u64 {
    (sum.rotate_left(29) ^ word as u64).wrapping_mul(MIX)
}

#[inline]
fn v4(front: &[u8], l3: usize) -> Option<u64> {
    let lengths = *front.get(l3)?;
    let protocol = *front.get(l3 + 9)?;
    let [from, to] = [get32(front, l3 + ip::V4_ADDRS)?, get32(front, l3 + ip::V4_ADDRS + 4)?];
    let sum = mix(mix(mix(0, protocol.into()), from), to);
    let whole = get16(front, l3 + ip::V4_FRAG)? & (ip::MF | ip::OFFSET) == 0;
    let ports = (whole && has_ports(protocol)).then(|| get32(front, l3 + usize::from(lengths & 15) * 4));
    Some(ports.flatten().map_or(sum, |ports| mix(sum, ports)))
}

#[inline]
fn v6(front: &[u8], l3: usize) -> Option<u64> {
    let protocol = *front.get(l3 + ip::V6_NEXT_HEADER)?;
    let addresses = front.get(l3 + ip::V6_ADDRS..l3 + ip::V6_HEADER)?;
    // Behind an extension header there may be a fragment.
    let ports = has_ports(protocol).then(|| get32(front, l3 + ip::V6_HEADER)).flatten();
    let sum = addresses.chunks_exact(4).filter_map(|word| get32(word, 0)).fold(mix(0, protocol.into()), mix);
    Some(ports.map_or(sum, |ports| mix(sum, ports)))
}

/// TCP, UDP, DCCP, SCTP, UDP-Lite: the ports stand first.
const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, ip::TCP | ip::UDP | 33 | 132 | 136)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn packet(tags: &[u8], protocol: u8, fragment: u16, ports: [u16; 2]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        bytes.extend_from_slice(tags);
        bytes.extend_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 1]);
        bytes.extend_from_slice(&fragment.to_be_bytes());
        bytes.extend_from_slice(&[64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        bytes.resize(100, 7);
        bytes
    }

    fn packet6(next: u8, ports: [u16; 2]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, next, 64];
        bytes.extend_from_slice(&[0x20; 32]);
        bytes.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        bytes
    }

    #[test]
    fn ports_and_protocol_tell_flows_apart() {
        let flows: HashSet<u32> = (0..1000).map(|port| flow(&packet(&[], ip::TCP, 0, [port, 80]))).collect();
        assert_eq!(flows.len(), 1000);
        let mut eighths = [0; 8];
        (0..1000).for_each(|port| eighths[flow(&packet(&[], ip::UDP, 0, [port, 80])) as usize % 8] += 1);
        assert!(eighths.iter().all(|count| (80..170).contains(count)), "{eighths:?}");
        assert_ne!(flow(&packet(&[], ip::TCP, 0, [1, 2])), flow(&packet(&[], ip::UDP, 0, [1, 2])));
        assert_ne!(flow(&packet6(ip::TCP, [1, 2])), flow(&packet6(ip::TCP, [1, 3])));
        let tag = [0x81, 0, 0, 5];
        assert_ne!(flow(&packet(&tag, ip::TCP, 0, [1, 2])), flow(&packet(&tag, ip::TCP, 0, [1, 3])));
    }

    #[test]
    fn payload_checksum_and_length_change_nothing() {
        let one = packet(&[], ip::TCP, ip::DF, [1, 2]);
        let mut two = one.clone();
        two[17] = 90;
        two[24] ^= 0xff;
        two[60] ^= 0xff;
        assert_eq!(flow(&one), flow(&two));
        assert_eq!(flow(&one), flow(&one[..SEEN]));
    }

    #[test]
    fn fragments_of_a_packet_stay_together() {
        let first = flow(&packet(&[], ip::UDP, ip::MF, [1, 2]));
        assert_eq!(first, flow(&packet(&[], ip::UDP, 185, [7777, 8888])));
        assert_eq!(flow(&packet6(44, [1, 2])), flow(&packet6(44, [7777, 8888])));
        assert_eq!(flow(&packet(&[], 1, 0, [1, 2])), flow(&packet(&[], 1, 0, [3, 4])), "ICMP has no ports");
    }

    #[test]
    fn other_frames_go_by_their_addresses_and_short_ones_by_what_they_have() {
        let arp = |last| [&[0xff; 6][..], &[2, 0, 0, 0, 0, last, 8, 6], &[last; 46]].concat();
        assert_ne!(flow(&arp(1)), flow(&arp(2)));
        assert_eq!(flow(&arp(1)[..20]), flow(&arp(1)));
        for len in 0..100 {
            let _ = flow(&packet(&[0x81, 0, 0, 5], ip::TCP, 0, [1, 2])[..len]);
        }
        assert_eq!(flow(&[]), flow(&[]));
    }
}
