//! The frames that are sent: built once for each buffer, since the loop is to touch as little of them as it can.

use super::stations::Stations;
use std::net::Ipv4Addr;

/// Bytes of the virtio-net header of version 1.
pub(super) const HEADER: usize = 12;

/// What is behind the Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An experimental EtherType (0x88b5) and nothing that anybody reads.
    Raw,
    /// UDP over IPv4. The checksum is left to the receiver where there is a virtio-net header, else complete.
    Udp,
    /// TCP over IPv4, to be cut into segments of 1448 bytes by whoever needs them (`VIRTIO_NET_HDR_GSO_TCPV4`).
    Tso,
}

/// What a generator sends and what its rings look like.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Entries of each ring.
    pub ring: u16,
    /// Packed rings.
    pub packed: bool,
    /// Mergeable receive buffers.
    pub mergeable: bool,
    /// Buffers are used in order.
    pub in_order: bool,
    /// What the frames are.
    pub kind: Kind,
    /// Bytes of a frame, without frame check sequence; several are sent in turn.
    pub sizes: Vec<usize>,
    /// Flows: source ports of UDP, one frame of each in turn; no more than there are buffers.
    pub flows: usize,
    /// Frames under way at most; 0 leaves it to the ring (and to 32 for frames beyond 4 KiB, which would leave the caches).
    pub buffers: usize,
    /// Where UDP and TCP go.
    pub to: (Ipv4Addr, u16),
    /// Destination MAC address.
    pub to_mac: [u8; 6],
    /// Many stations behind each end, in place of one address.
    pub stations: Option<Stations>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            ring: 256,
            packed: false,
            mergeable: true,
            in_order: false,
            kind: Kind::Raw,
            sizes: vec![64],
            flows: 1,
            buffers: 0,
            to: (Ipv4Addr::new(10, 77, 0, 2), 20_000),
            to_mac: [2, 0, 0, 0, 0, 2],
            stations: None,
        }
    }
}

/// Bytes of a TCP segment behind its headers, as at an MTU of 1500 with time stamps.
const MSS: u16 = 1448;
const ETH: usize = 14;
const IP: usize = 20;

impl Shape {
    /// The longest frame.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.sizes.iter().copied().max().unwrap_or(0)
    }

    /// Frames that differ: sizes times flows, or pairs of stations.
    pub(super) fn variants(&self) -> usize {
        let pairs = self.stations.map_or(1, |stations| stations.pairs());
        self.sizes.len().max(1) * self.flows.max(pairs).max(1)
    }

    /// The same frames as end number `here` sends them.
    #[must_use]
    pub fn at(&self, here: usize) -> Self {
        let stations = self.stations.map(|stations| Stations { here: here as u32, ..stations });
        Self { stations, ..self.clone() }
    }

    /// Whether there are more pairs of stations than buffers, so that addresses have to be written into each frame.
    pub(super) fn readdresses(&self) -> bool {
        let ring = usize::from(self.ring);
        let buffers = if self.buffers == 0 { ring } else { self.buffers.min(ring) };
        self.stations.is_some() && self.variants() > buffers
    }

    /// The flow of a variant.
    pub(super) fn flow(&self, variant: usize) -> usize {
        (variant / self.sizes.len().max(1)) % self.flows.max(1)
    }

    /// Where the payload begins.
    #[must_use]
    pub fn payload_at(&self) -> usize {
        match self.kind {
            Kind::Raw => ETH,
            Kind::Udp => ETH + IP + 8,
            Kind::Tso => ETH + IP + 20,
        }
    }

    /// Frame number `variant` with its virtio-net header in front; `partial` leaves the checksum to the receiver.
    pub(super) fn build(&self, variant: usize, partial: bool) -> Vec<u8> {
        let size = self.sizes.get(variant % self.sizes.len().max(1)).copied().unwrap_or(64);
        let size = size.max(self.payload_at() + 16);
        let flow = self.flow(variant);
        let mut bytes = vec![0; HEADER + size];
        // A pattern that differs from variant to variant, so that a frame in the place of another is noticed.
        let mut state = variant as u64 ^ 0x9e37_79b9_7f4a_7c15;
        for byte in &mut bytes[HEADER + self.payload_at()..] {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
        let (head, frame) = bytes.split_at_mut(HEADER);
        frame[..6].copy_from_slice(&self.to_mac);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        if let Some(stations) = self.stations {
            frame[..12].copy_from_slice(&stations.pair(variant / self.sizes.len().max(1)));
        }
        let ether_type: u16 = if self.kind == Kind::Raw { 0x88b5 } else { 0x0800 };
        frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
        match self.kind {
            Kind::Raw => {}
            Kind::Udp => self.udp(head, frame, flow, partial),
            Kind::Tso => self.tcp(head, frame),
        }
        bytes
    }

    /// Writes an IPv4 header for `protocol`; the sum over the pseudo-header, not inverted.
    fn ip(&self, frame: &mut [u8], protocol: u8) -> u16 {
        let total = (frame.len() - ETH) as u16;
        let (from, to) = (Ipv4Addr::new(10, 77, 0, 1).octets(), self.to.0.octets());
        let ip = &mut frame[ETH..ETH + IP];
        ip.copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        ip[12..16].copy_from_slice(&from);
        ip[16..20].copy_from_slice(&to);
        let check = !fold(sum_of(ip));
        ip[10..12].copy_from_slice(&check.to_be_bytes());
        let length = total - IP as u16;
        fold(sum(&to, sum_of(&from) + u64::from(protocol) + u64::from(length)))
    }

    fn udp(&self, head: &mut [u8], frame: &mut [u8], flow: usize, partial: bool) {
        let pseudo = self.ip(frame, 17);
        let udp = &mut frame[ETH + IP..];
        let length = udp.len() as u16;
        udp[..2].copy_from_slice(&(1024 + flow as u16).to_be_bytes());
        udp[2..4].copy_from_slice(&self.to.1.to_be_bytes());
        udp[4..6].copy_from_slice(&length.to_be_bytes());
        udp[6..8].fill(0);
        let check = if partial { pseudo } else { !fold(sum(udp, u64::from(pseudo))) };
        udp[6..8].copy_from_slice(&if check == 0 { u16::MAX } else { check }.to_be_bytes());
        if partial {
            offload(head, [1, 0], 0, 0, 6);
        }
    }

    fn tcp(&self, head: &mut [u8], frame: &mut [u8]) {
        let pseudo = self.ip(frame, 6);
        let tcp = &mut frame[ETH + IP..];
        tcp[..20].fill(0);
        tcp[..2].copy_from_slice(&1024u16.to_be_bytes());
        tcp[2..4].copy_from_slice(&self.to.1.to_be_bytes());
        tcp[12..14].copy_from_slice(&[0x50, 0x10]); // five words of header, ACK
        tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
        offload(head, [1, 1], (ETH + IP + 20) as u16, MSS, 16);
    }
}

/// Fills a virtio-net header: flags and GSO type, header length, GSO size, and the place of the checksum in the L4 header.
fn offload(head: &mut [u8], kind: [u8; 2], hdr_len: u16, gso_size: u16, csum_offset: u16) {
    head[..2].copy_from_slice(&kind);
    for (at, value) in [(2, hdr_len), (4, gso_size), (6, (ETH + IP) as u16), (8, csum_offset)] {
        head[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
}

fn sum_of(bytes: &[u8]) -> u64 {
    sum(bytes, 0)
}

/// Adds 16-bit words in network order.
fn sum(bytes: &[u8], start: u64) -> u64 {
    let mut words = bytes.chunks_exact(2);
    let mut total = start;
    for word in &mut words {
        total += u64::from(u16::from_be_bytes([word[0], word[1]]));
    }
    total + words.remainder().first().map_or(0, |&last| u64::from(last) << 8)
}

/// Folds carries into 16 bits.
fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(kind: Kind, size: usize) -> Shape {
        Shape { kind, sizes: vec![size], ..Shape::default() }
    }

    #[test]
    fn headers_sum_to_all_ones() {
        for partial in [false, true] {
            let bytes = shape(Kind::Udp, 1442).build(0, partial);
            let ip = &bytes[HEADER + ETH..HEADER + ETH + IP];
            assert_eq!(fold(sum_of(ip)), 0xffff, "IPv4 header");
            let udp = &bytes[HEADER + ETH + IP..];
            let pseudo = sum_of(&ip[12..20]) + 17 + udp.len() as u64;
            let with_field = fold(sum(udp, pseudo));
            assert_eq!(with_field == 0xffff, !partial, "UDP checksum, partial {partial}");
            assert_eq!(bytes[0] == 1, partial);
        }
    }

    #[test]
    fn a_64_kib_frame_says_how_it_is_cut() {
        let bytes = shape(Kind::Tso, 65_536).build(0, true);
        assert_eq!(bytes.len(), HEADER + 65_536);
        assert_eq!(&bytes[..10], &[1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0]);
    }

    #[test]
    fn variants_go_round_sizes_and_flows() {
        let shape = Shape { sizes: vec![64, 256], flows: 3, kind: Kind::Udp, ..Shape::default() };
        let of = |variant| shape.build(variant, true);
        assert_eq!([0, 1, 2].map(|v| of(v).len() - HEADER), [64, 256, 64]);
        let port = |v: usize| of(v)[HEADER + ETH + IP + 1];
        assert_eq!([0, 1, 2, 4, 6].map(port), [0, 0, 1, 2, 0]);
    }
}
