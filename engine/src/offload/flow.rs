//! One frame as the coalescer sees it, and the rules by which the next one may join it.
//!
//! The rules are those of Linux's GRO (`inet_gro_receive`, `ipv6_gro_receive`, `tcp_gro_receive`,
//! `udp_gro_receive_segment`), tightened so that segmenting the result gives back the very bytes that came: the IPv4
//! identification must count up by one, and a checksum must be in the form in which segmentation would write it.

use crate::burst::{Burst, Frame};
use crate::wire::bytes::{get16, get32, part};
use crate::wire::checksum::Sum;
use crate::wire::eth::HEADER as ETH;
use crate::wire::headers::{Headers, Net, Transport};
use crate::wire::ip::{ECN, V4_ADDRS, V4_CHECK, V4_FRAG, V4_HEADER, V4_ID, V6_ADDRS, V6_NEXT_HEADER};
use crate::wire::l4::{ACK, CWR, ECE, FIN, PSH};
use crate::wire::l4::{
    TCP_ACK, TCP_CHECK, TCP_FLAGS, TCP_HEADER, TCP_SEQ, TCP_URGENT, TCP_WINDOW, UDP_CHECK, UDP_HEADER,
    UDP_LEN,
};
use crate::wire::vnet_hdr::{F_DATA_VALID, VnetHdr};

/// Bytes of a frame that the coalescer looks at: two VLAN tags, IPv6 and TCP with timestamps need 94. A frame whose headers are
/// longer is not coalesced. Behind a virtio-net header these are two cache lines; a third one, of payload, would be waited for.
pub(super) const LOOK: usize = 96;

/// A frame's headers, copied and taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// The frame's first bytes; only those before `at.payload` are used.
    pub(super) head: [u8; LOOK],
    pub(super) at: Headers,
    /// A hash of addresses and ports.
    pub(super) hash: u32,
    /// Offload state that came with the frame.
    pub(super) hdr: VnetHdr,
    /// Bytes of payload.
    pub(super) len: usize,
}

/// What a frame is to the coalescer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Belongs to no flow of TCP or UDP; nothing to do with the others.
    Outside,
    /// Belongs to some flow that cannot be told (a fragment, options, malformed): no run may pass it.
    Unknown,
    /// Belongs to its flow, and must stay alone.
    Alone,
    /// May start a run, or join one.
    Joins,
    /// May join a run, and ends it.
    Ends,
}

impl Candidate {
    /// A candidate before its first [`Candidate::read`].
    pub(super) const EMPTY: Self =
        Self { head: [0; LOOK], at: Headers::NONE, hash: 0, hdr: VnetHdr::NONE, len: 0 };

    /// Copies and classifies a frame. `tcp4`, `tcp6`, `udp`: kinds that the receiver takes large.
    pub(super) fn read(&mut self, burst: &Burst, frame: &Frame, takes: Takes) -> Class {
        let copied = match burst.segs(frame) {
            [first, ..] if first.copy_first(&mut self.head) => LOOK,
            _ => burst.copy_out(frame, 0, &mut self.head),
        };
        let head = self.head.get(..copied).unwrap_or(&[]);
        let Ok(at) = Headers::parse(head, frame.len()) else { return Class::Unknown };
        if at.net == Net::Other {
            return Class::Outside;
        }
        if at.fragment || !at.plain {
            return Class::Unknown;
        }
        if at.transport == Transport::Other {
            return Class::Outside;
        }
        (self.at, self.hdr, self.len) = (at, frame.hdr, at.end - at.payload);
        self.hash = self.hash();
        if frame.hdr.gso_type != 0 || at.end != frame.len() || self.len == 0 || self.congested() {
            return Class::Alone;
        }
        match (at.transport, at.net) {
            (Transport::Tcp, Net::V4) if !takes.tcp4 => Class::Alone,
            (Transport::Tcp, Net::V6) if !takes.tcp6 => Class::Alone,
            (Transport::Tcp, _) => self.tcp_class(takes),
            _ if takes.udp => self.udp_class(),
            _ => Class::Alone,
        }
    }

    fn tcp_class(&self, takes: Takes) -> Class {
        let flags = self.flags();
        // A checksum of ffff is never written by segmentation (it writes 0), so it could not come back.
        if flags & 0xff & !(ACK | PSH | FIN | ECE | CWR) != 0 || self.field(self.at.l4 + TCP_CHECK) == 0xffff
        {
            return Class::Alone;
        }
        match (flags & (PSH | FIN) != 0, flags & CWR != 0) {
            // CWR is kept on the first segment only: it may start a run, and join none.
            (true, true) => Class::Alone,
            (false, true) if !takes.ecn => Class::Alone,
            (true, false) => Class::Ends,
            _ => Class::Joins,
        }
    }

    fn udp_class(&self) -> Class {
        let whole = usize::from(self.field(self.at.l4 + UDP_LEN)) == self.at.end - self.at.l4;
        // Without checksum it stays so (RFC 768); a partial one is never 0, since the pseudo header is not.
        if whole && self.field(self.at.l4 + UDP_CHECK) != 0 { Class::Joins } else { Class::Alone }
    }

    /// The 16-bit field at `at`; headers were checked when they were parsed.
    pub(super) fn field(&self, at: usize) -> u16 {
        get16(&self.head, at).unwrap_or(0)
    }

    /// TCP's data offset, reserved bits and flags.
    pub(super) fn flags(&self) -> u16 {
        self.field(self.at.l4 + TCP_FLAGS)
    }

    /// TCP's sequence number.
    pub(super) fn seq(&self) -> u32 {
        get32(&self.head, self.at.l4 + TCP_SEQ).unwrap_or(0)
    }

    /// IPv4's identification.
    pub(super) fn id(&self) -> u16 {
        self.field(self.at.l3 + V4_ID)
    }

    /// Congestion experienced (RFC 3168): the receiver counts such frames, so they stay what they are.
    fn congested(&self) -> bool {
        let tos = match self.at.net {
            Net::V4 => self.field(self.at.l3) as u8,
            _ => (self.field(self.at.l3) >> 4) as u8,
        };
        tos & ECN == ECN
    }

    /// A hash of the addresses and the ports behind them.
    fn hash(&self) -> u32 {
        const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
        let from = self.at.l3 + if self.at.net == Net::V4 { V4_ADDRS } else { V6_ADDRS };
        let ports = get32(&self.head, self.at.l4).unwrap_or(0);
        let mut hash = u64::from(ports).wrapping_mul(MIX);
        for word in part(&self.head, from, self.at.l4).as_chunks::<8>().0 {
            hash = (hash ^ u64::from_ne_bytes(*word)).wrapping_mul(MIX);
            hash ^= hash >> 32;
        }
        hash as u32
    }

    /// Whether the `N` bytes at `at` are the same in both; `N` is constant, so this is a compare or two.
    #[inline]
    fn same<const N: usize>(&self, other: &Self, at: usize) -> bool {
        let chunk = |b: &[u8; LOOK]| b.get(at..).and_then(|b| b.first_chunk::<N>()).copied();
        chunk(&self.head) == chunk(&other.head)
    }

    /// Whether both are of one flow: Ethernet header with tags, addresses, protocol and ports.
    pub(super) fn same_flow(&self, other: &Self) -> bool {
        let (Headers { l3, l4, .. }, b) = (self.at, other);
        self.hash == other.hash
            && self.at.net == other.at.net
            && self.at.transport == other.at.transport
            && l3 == other.at.l3
            && self.same::<ETH>(b, 0)
            && (l3 == ETH || part(&self.head, ETH, l3) == part(&b.head, ETH, l3))
            && self.same::<4>(b, l4)
            && match self.at.net {
                Net::V4 => self.same::<8>(b, l3 + V4_ADDRS),
                _ => self.same::<32>(b, l3 + V6_ADDRS),
            }
    }

    /// Whether `next`, of the same flow, has the same headers but for lengths, checksums, and what counts up.
    pub(super) fn alike(&self, next: &Self) -> bool {
        let Headers { l3, l4, payload, .. } = self.at;
        let ip = match self.at.net {
            // Version and TOS; flags (DF) and fragment offset, TTL, protocol.
            Net::V4 => self.same::<2>(next, l3) && self.same::<4>(next, l3 + V4_FRAG),
            // Version, traffic class and flow label; next header and hop limit.
            _ => self.same::<4>(next, l3) && self.same::<2>(next, l3 + V6_NEXT_HEADER),
        };
        let transport = self.at.transport == Transport::Udp
            // Acknowledgement; flags but those that only a first or last segment has; window; urgent pointer, options.
            || self.same::<4>(next, l4 + TCP_ACK)
                && (self.flags() ^ next.flags()) & !(CWR | PSH | FIN) == 0
                && next.flags() & CWR == 0
                && self.same::<2>(next, l4 + TCP_WINDOW)
                && self.same::<2>(next, l4 + TCP_URGENT)
                && part(&self.head, l4 + TCP_HEADER, payload) == part(&next.head, l4 + TCP_HEADER, payload);
        payload == next.at.payload && ip && transport
    }

    /// Whether a frame that begins with `next` is the datagram behind this verified one, as far as equal bytes can tell: UDP over IPv4,
    /// untagged, checksum left to the receiver, all as here but for the identification and an IPv4 checksum that is right.
    #[inline]
    pub(super) fn precedes(&self, next: &[u8; LOOK], frame: &Frame) -> bool {
        const L4: usize = ETH + V4_HEADER;
        let same = |from: usize, to: usize| part(&self.head, from, to) == part(next, from, to);
        let field = |head, at| get16(head, ETH + at).unwrap_or(0);
        // Only these two differ, so their sums must agree (RFC 1624), in ones' complement.
        let sum = |head| (u32::from(field(head, V4_ID)) + u32::from(field(head, V4_CHECK))) % 0xffff;
        let Headers { net, transport, l3, payload, end, .. } = self.at;
        (net, transport, l3, payload) == (Net::V4, Transport::Udp, ETH, L4 + UDP_HEADER)
            && self.hdr.needs_csum()
            && (frame.hdr, frame.len()) == (self.hdr, end)
            && same(0, ETH + V4_ID)
            && same(ETH + V4_FRAG, ETH + V4_CHECK)
            && same(ETH + V4_ADDRS, L4 + UDP_HEADER)
            && sum(next) == sum(&self.head)
            && field(next, V4_CHECK) != 0xffff
    }

    /// Whether a frame that begins with `next` is a segment as long as this one, behind it in its flow, as far as equal bytes can tell: TCP with
    /// the same headers but for IPv4's identification and checksum, the sequence number and the checksum.
    #[inline]
    pub(super) fn heads(&self, next: &[u8; LOOK], frame: &Frame) -> bool {
        let Headers { net, transport, l3, l4, payload, end, .. } = self.at;
        let same = |from: usize, to: usize| part(&self.head, from, to) == part(next, from, to);
        let ip = || match net {
            Net::V4 => {
                same(0, l3 + V4_ID) && same(l3 + V4_FRAG, l3 + V4_CHECK) && same(l3 + V4_ADDRS, l4 + TCP_SEQ)
            }
            _ => same(0, l4 + TCP_SEQ),
        };
        transport == Transport::Tcp
            && self.flags() & CWR == 0
            && (frame.hdr, frame.len()) == (self.hdr, end)
            && ip()
            && same(l4 + TCP_ACK, l4 + TCP_CHECK)
            && same(l4 + TCP_URGENT, payload)
            && get16(next, l4 + TCP_CHECK) != Some(0xffff)
    }

    /// Whether the frame's checksums are right, as far as they are there to be verified.
    pub(super) fn verified(&self, burst: &Burst, frame: &Frame) -> bool {
        let Headers { l3, l4, payload, end, net, transport, .. } = self.at;
        if net == Net::V4 {
            let right = Sum::of(part(&self.head, l3, l4)).fold() == 0xffff;
            if !right || self.field(l3 + V4_CHECK) == 0xffff {
                return false;
            }
        }
        let mut sum = self.at.pseudo(&self.head, end - l4);
        if self.hdr.needs_csum() {
            let VnetHdr { csum_start, csum_offset, .. } = self.hdr;
            let placed =
                usize::from(csum_start) == l4 && Some(usize::from(csum_offset)) == transport.check_offset();
            return placed && self.field(l4 + usize::from(csum_offset)) == sum.fold();
        }
        if self.hdr.flags & F_DATA_VALID != 0 {
            return true;
        }
        sum.add(part(&self.head, l4, payload));
        burst.parts(frame, payload, end - payload, |seg| seg.sum(&mut sum));
        sum.fold() == 0xffff
    }
}

/// Kinds of large frames that the receiver takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Takes {
    pub(super) tcp4: bool,
    pub(super) tcp6: bool,
    pub(super) ecn: bool,
    pub(super) udp: bool,
}
