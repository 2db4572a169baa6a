//! Frames as this process needs them: where things lie in an IPv4 or IPv6 packet, and the Internet checksum (RFC 1071).

use std::net::IpAddr;

pub(crate) const ETHERNET: usize = 14;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Flags of a TCP header (RFC 9293).
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;
pub(crate) const URG: u8 = 32;

/// The two bytes at `at`, big endian; zero beyond the end.
pub(crate) fn word(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => 0,
    }
}

/// The four bytes at `at`, big endian; zero beyond the end.
pub(crate) fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) << 16 | u32::from(word(bytes, at + 2))
}

/// Writes two bytes, where they fit.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// Writes four bytes, where they fit.
pub(crate) fn put_long(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// The sum of 16 bit words, not folded: eight bytes a step, in two accumulators of 32 bit halves.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (mut high, mut low) = (0u64, 0u64);
    let (blocks, rest) = bytes.as_chunks::<8>();
    for block in blocks {
        let value = u64::from_ne_bytes(*block);
        high += value >> 32;
        low += value & 0xffff_ffff;
    }
    let mut last = [0u8; 8];
    last[..rest.len()].copy_from_slice(rest);
    let value = u64::from_ne_bytes(last);
    let native = fold(high + low + (value >> 32) + (value & 0xffff_ffff));
    u64::from(u16::from_be(native))
}

/// Folds a sum to 16 bits.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Which transport a packet carries, and its addresses and places. Only whole packets, no fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    /// IPv6, or IPv4.
    pub(crate) six: bool,
    /// TCP, UDP, or something else.
    pub(crate) transport: Transport,
    /// Where the transport's header begins in the frame.
    pub(crate) start: usize,
    /// Where its payload begins.
    pub(crate) payload: usize,
    /// Where the packet ends (padding of short frames is not part of it).
    pub(crate) end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl Packet {
    /// Finds them; `whole` says that the packet ends where the frame does, whatever its header says (a large one that is to be segmented).
    pub(crate) fn of(frame: &[u8], whole: bool) -> Option<Packet> {
        let ip = frame.get(ETHERNET..)?;
        let (six, next, header, length) = match word(frame, 12) {
            0x0800 => {
                let header = usize::from(*ip.first()? & 15) * 4;
                // More fragments, or not the first.
                if ip.first()? >> 4 != 4 || header < 20 || word(ip, 6) & 0x3fff != 0 {
                    return None;
                }
                (false, *ip.get(9)?, header, usize::from(word(ip, 2)))
            }
            0x86dd if ip.first()? >> 4 == 6 => (true, *ip.get(6)?, 40, 40 + usize::from(word(ip, 4))),
            _ => return None,
        };
        let start = ETHERNET + header;
        let end = if whole { frame.len() } else { ETHERNET + length };
        let (transport, payload) = match next {
            TCP => (Transport::Tcp, start + usize::from(*frame.get(start + 12)? >> 4) * 4),
            UDP => (Transport::Udp, start + 8),
            _ => return None,
        };
        let least = start + if transport == Transport::Tcp { 20 } else { 8 };
        (payload >= least && end >= payload && end <= frame.len()).then_some(Packet {
            six,
            transport,
            start,
            payload,
            end,
        })
    }

    /// Bytes of payload.
    pub(crate) fn bytes(&self) -> usize {
        self.end - self.payload
    }

    /// Flags of a TCP header.
    pub(crate) fn flags(&self, frame: &[u8]) -> u8 {
        frame.get(self.start + 13).copied().unwrap_or_default()
    }

    /// Source and destination.
    pub(crate) fn addresses(&self, frame: &[u8]) -> (IpAddr, IpAddr) {
        fn array<const N: usize>(frame: &[u8], at: usize) -> [u8; N] {
            frame.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
        }
        if self.six {
            (IpAddr::from(array::<16>(frame, 22)), IpAddr::from(array::<16>(frame, 38)))
        } else {
            (IpAddr::from(array::<4>(frame, 26)), IpAddr::from(array::<4>(frame, 30)))
        }
    }

    /// Where the checksum lies.
    pub(crate) fn checksum(&self) -> usize {
        self.start + if self.transport == Transport::Tcp { 16 } else { 6 }
    }

    /// The sum of the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1).
    pub(crate) fn pseudo(&self, frame: &[u8]) -> u64 {
        let addresses = if self.six { frame.get(22..54) } else { frame.get(26..34) };
        let number = if self.transport == Transport::Tcp { TCP } else { UDP };
        sum(addresses.unwrap_or_default()) + u64::from(number) + (self.end - self.start) as u64
    }

    /// Writes the lengths of the IP (and UDP) header for what the packet now is, and IPv4's checksum.
    pub(crate) fn write_lengths(&self, frame: &mut [u8]) {
        let length = self.end - ETHERNET;
        if self.six {
            put(frame, ETHERNET + 4, u16::try_from(length - 40).unwrap_or(u16::MAX));
        } else {
            put(frame, ETHERNET + 2, u16::try_from(length).unwrap_or(u16::MAX));
            put(frame, ETHERNET + 10, 0);
            let header = sum(frame.get(ETHERNET..self.start).unwrap_or_default());
            put(frame, ETHERNET + 10, !fold(header));
        }
        if self.transport == Transport::Udp {
            put(frame, self.start + 4, u16::try_from(self.end - self.start).unwrap_or(u16::MAX));
        }
    }

    /// Computes the transport's checksum anew.
    pub(crate) fn write_checksum(&self, frame: &mut [u8]) {
        put(frame, self.checksum(), 0);
        let total = self.pseudo(frame) + sum(frame.get(self.start..self.end).unwrap_or_default());
        let value = !fold(total);
        let none = self.transport == Transport::Udp && value == 0;
        put(frame, self.checksum(), if none { 0xffff } else { value });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071, a word at a time.
    fn plain(bytes: &[u8]) -> u16 {
        let word =
            |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or_default());
        fold(bytes.chunks(2).map(word).sum())
    }

    proptest! {
        #[test]
        fn sums_are_those_of_the_rfc(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            // All ones is another way to write zero.
            let same = |value: u16| if value == 0xffff { 0 } else { value };
            prop_assert_eq!(same(fold(sum(&bytes))), same(plain(&bytes)));
        }

        #[test]
        fn no_bytes_make_a_packet_that_reaches_beyond_them(mut bytes in prop::collection::vec(any::<u8>(), 0..200), whole: bool, six: bool) {
            let kind: [u8; 3] = if six { [0x86, 0xdd, 0x60] } else { [8, 0, 0x45] };
            for (at, value) in (12..).zip(kind) {
                if let Some(place) = bytes.get_mut(at) {
                    *place = value;
                }
            }
            if let Some(place) = bytes.get_mut(if six { 20 } else { 23 }) {
                *place = 6;
            }
            if let Some(packet) = Packet::of(&bytes, whole) {
                prop_assert!(packet.start < packet.payload && packet.payload <= packet.end && packet.end <= bytes.len());
            }
        }
    }
}
