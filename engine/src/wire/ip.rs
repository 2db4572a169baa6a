//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers as checked values.

use super::bytes::{get16, get32};
use super::headers::HeaderError;

/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// Bytes of an IPv4 header without options.
pub const V4_HEADER: usize = 20;
/// Bytes of an IPv6 header without extension headers.
pub const V6_HEADER: usize = 40;
/// Extension headers that are walked; a frame with more is not looked into.
pub const MAX_EXTENSIONS: usize = 8;

/// IPv4: offset of the total length.
pub const V4_TOTAL_LEN: usize = 2;
/// IPv4: offset of the identification.
pub const V4_ID: usize = 4;
/// IPv4: offset of flags and fragment offset.
pub const V4_FRAG: usize = 6;
/// IPv4: offset of the header checksum.
pub const V4_CHECK: usize = 10;
/// IPv4: offset of the source address; the destination follows.
pub const V4_ADDRS: usize = 12;
/// IPv6: offset of the payload length.
pub const V6_PAYLOAD_LEN: usize = 4;
/// IPv6: offset of the next header; the hop limit follows.
pub const V6_NEXT_HEADER: usize = 6;
/// IPv6: offset of the source address; the destination follows.
pub const V6_ADDRS: usize = 8;

/// IPv4 flag: do not fragment.
pub const DF: u16 = 0x4000;
/// IPv4 flag: more fragments follow.
pub const MF: u16 = 0x2000;
/// IPv4: the bits of the fragment offset, in units of 8 bytes.
pub const OFFSET: u16 = 0x1fff;
/// ECN field of TOS or traffic class (RFC 3168); its value 3 is "congestion experienced".
pub const ECN: u8 = 3;

/// An IPv4 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4 {
    /// Bytes of the header with options, 20 to 60.
    pub header_len: usize,
    /// Bytes of the packet, header included; never more than the frame holds.
    pub total_len: usize,
    /// Type of service (DSCP and ECN).
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset.
    pub frag: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol number of what follows.
    pub protocol: u8,
}

impl Ipv4 {
    /// Decodes the header at the start of `b`; `room` is what the frame holds from there to its end.
    ///
    /// # Errors
    /// Too short, another version, or lengths that contradict each other or the frame.
    pub fn parse(b: &[u8], room: usize) -> Result<Self, HeaderError> {
        let h: &[u8; V4_HEADER] = b.first_chunk().ok_or(HeaderError::Short("IPv4"))?;
        if h[0] >> 4 != 4 {
            return Err(HeaderError::Version);
        }
        let header_len = usize::from(h[0] & 15) * 4;
        let total_len = usize::from(u16::from_be_bytes([h[2], h[3]]));
        if header_len < V4_HEADER || total_len < header_len || total_len > room {
            return Err(HeaderError::Length("IPv4"));
        }
        if header_len > b.len() {
            return Err(HeaderError::Short("IPv4"));
        }
        Ok(Self {
            header_len,
            total_len,
            tos: h[1],
            id: u16::from_be_bytes([h[4], h[5]]),
            frag: u16::from_be_bytes([h[6], h[7]]),
            ttl: h[8],
            protocol: h[9],
        })
    }

    /// Whether this is a fragment of a larger packet.
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.frag & (MF | OFFSET) != 0
    }
}

/// An IPv6 header and the walk over its extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6 {
    /// Bytes from the start of the header to the upper-layer header.
    pub header_len: usize,
    /// Bytes of the packet, header included; never more than the frame holds.
    pub total_len: usize,
    /// Version, traffic class and flow label.
    pub first_word: u32,
    /// Hop limit.
    pub hop_limit: u8,
    /// Protocol number of what follows the extension headers.
    pub protocol: u8,
    /// A fragment header was met; the walk ended behind it.
    pub fragment: bool,
    /// A routing header has segments left: the packet's final destination is not the header's.
    pub routed: bool,
}

impl Ipv6 {
    /// Decodes the header at the start of `b` and walks hop-by-hop, routing and destination options (RFC 8200,
    /// section 4) up to the first header of another kind. `room` is what the frame holds from there to its end.
    ///
    /// # Errors
    /// Too short, another version, too many extension headers, or lengths that contradict each other or the frame.
    pub fn parse(b: &[u8], room: usize) -> Result<Self, HeaderError> {
        let h: &[u8; V6_HEADER] = b.first_chunk().ok_or(HeaderError::Short("IPv6"))?;
        if h[0] >> 4 != 6 {
            return Err(HeaderError::Version);
        }
        let total_len = V6_HEADER + usize::from(get16(b, V6_PAYLOAD_LEN).unwrap_or(0));
        if total_len > room {
            return Err(HeaderError::Length("IPv6"));
        }
        let mut ip = Self {
            header_len: V6_HEADER,
            total_len,
            first_word: get32(b, 0).unwrap_or(0),
            hop_limit: h[7],
            protocol: h[6],
            fragment: false,
            routed: false,
        };
        ip.walk(b)?;
        Ok(ip)
    }

    fn walk(&mut self, b: &[u8]) -> Result<(), HeaderError> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const DESTINATION: u8 = 60;
        for _ in 0..=MAX_EXTENSIONS {
            if !matches!(self.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
                return Ok(());
            }
            let ext: &[u8; 8] =
                b.get(self.header_len..).and_then(|b| b.first_chunk()).ok_or(HeaderError::Short("IPv6"))?;
            let len = if self.protocol == FRAGMENT { 8 } else { (usize::from(ext[1]) + 1) * 8 };
            self.routed |= self.protocol == ROUTING && ext[3] != 0;
            self.fragment = self.protocol == FRAGMENT;
            self.protocol = ext[0];
            self.header_len += len;
            if self.header_len > self.total_len {
                return Err(HeaderError::Length("IPv6"));
            }
            if self.header_len > b.len() {
                return Err(HeaderError::Short("IPv6"));
            }
            if self.fragment {
                return Ok(());
            }
        }
        Err(HeaderError::Extensions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(ihl: u8, total: u16) -> Vec<u8> {
        let mut b = vec![0; 60];
        b[0] = 0x40 | ihl;
        b[2..4].copy_from_slice(&total.to_be_bytes());
        b[9] = TCP;
        b
    }

    fn v6(next: u8, payload: u16, rest: &[u8]) -> Vec<u8> {
        let mut b = vec![0x60, 0, 0, 0];
        b.extend(payload.to_be_bytes());
        b.extend([next, 64]);
        b.extend([0; 32]);
        b.extend(rest);
        b
    }

    #[test]
    fn ipv4_lengths_must_agree() {
        let ip = Ipv4::parse(&v4(6, 60), 60).unwrap();
        assert_eq!((ip.header_len, ip.total_len, ip.protocol), (24, 60, TCP));
        assert_eq!(Ipv4::parse(&v4(4, 60), 60), Err(HeaderError::Length("IPv4")));
        assert_eq!(Ipv4::parse(&v4(6, 23), 60), Err(HeaderError::Length("IPv4")));
        assert_eq!(Ipv4::parse(&v4(5, 61), 60), Err(HeaderError::Length("IPv4")));
        assert_eq!(Ipv4::parse(&v4(15, 60)[..59], 60), Err(HeaderError::Short("IPv4")));
        assert_eq!(Ipv4::parse(&[0x45; 19], 60), Err(HeaderError::Short("IPv4")));
        assert_eq!(Ipv4::parse(&[0x60; 40], 60), Err(HeaderError::Version));
    }

    #[test]
    fn fragments_are_known_by_offset_or_more_flag() {
        let mut b = v4(5, 20);
        assert!(!Ipv4::parse(&b, 20).unwrap().is_fragment());
        b[6] = 0x40; // DF alone
        assert!(!Ipv4::parse(&b, 20).unwrap().is_fragment());
        b[6] = 0x20;
        assert!(Ipv4::parse(&b, 20).unwrap().is_fragment());
        b[6..8].copy_from_slice(&[0, 1]);
        assert!(Ipv4::parse(&b, 20).unwrap().is_fragment());
    }

    #[test]
    fn extension_headers_are_walked_to_the_upper_layer() {
        let hop = [60, 0, 0, 0, 0, 0, 0, 0];
        let mut options = [0; 16];
        (options[0], options[1]) = (UDP, 1);
        let b = v6(0, 24, &[&hop[..], &options].concat());
        let ip = Ipv6::parse(&b, b.len()).unwrap();
        assert_eq!((ip.header_len, ip.protocol, ip.fragment, ip.routed), (64, UDP, false, false));
        assert_eq!(Ipv6::parse(&b[..63], b.len()), Err(HeaderError::Short("IPv6")));
        assert_eq!(Ipv6::parse(&b, 63), Err(HeaderError::Length("IPv6")));
    }

    #[test]
    fn fragment_and_routing_headers_are_told() {
        let b = v6(44, 8, &[TCP, 0, 0, 1, 0, 0, 0, 0]);
        assert!(Ipv6::parse(&b, 48).unwrap().fragment);
        let b = v6(43, 8, &[TCP, 0, 2, 1, 0, 0, 0, 0]);
        let ip = Ipv6::parse(&b, 48).unwrap();
        assert!(ip.routed && ip.protocol == TCP);
    }

    #[test]
    fn an_endless_chain_of_extensions_is_refused() {
        let b = v6(0, 200, &[0; 200]);
        assert_eq!(Ipv6::parse(&b, 240), Err(HeaderError::Extensions));
        let b = v6(0, 8, &[0, 9, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Ipv6::parse(&b, 48), Err(HeaderError::Length("IPv6")));
    }
}
