//! A frame as it is compared: whose connection it belongs to, and which of its bytes count (QEMU `net/colo.c`).

use crate::wire::bytes::get16;
use crate::wire::eth::{self, Eth};
use crate::wire::ip::{self, Ipv4};
use crate::wire::l4::{SYN, Tcp};

const ICMP: u8 = 1;
const DCCP: u8 = 33;
const ESP: u8 = 50;
const AH: u8 = 51;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// What frames of one connection have in common. Protocols without ports have one for all addresses, as in QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Key {
    protocol: u8,
    addresses: [u8; 8],
    ports: [u16; 2],
}

/// A part of a TCP stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) syn: bool,
    /// Where the payload begins in the frame, and how long it is.
    payload: usize,
    len: usize,
    /// Bytes of it that were compared.
    pub(super) done: usize,
}

/// Whether sequence number `a` lies behind `b`.
pub(super) const fn after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

impl Segment {
    /// The number behind its last byte.
    pub(super) const fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len as u32)
    }

    /// The number of its first byte that was not compared.
    pub(super) const fn position(&self) -> u32 {
        self.seq.wrapping_add(self.done as u32)
    }

    /// Whether it was compared to its end. Of the secondary, such a segment stays until the primary sends more: what the primary repeats goes out at once
    /// meanwhile, as in QEMU.
    pub(super) const fn is_done(&self) -> bool {
        self.len != 0 && self.done == self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Leaves out what lies before `seq`.
    pub(super) const fn skip_to(&mut self, seq: u32) {
        if after(seq, self.position()) && !after(seq, self.end()) {
            self.done = seq.wrapping_sub(self.seq) as usize;
        }
    }
}

/// A frame that waits for its twin.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    pub(super) vnet_len: u32,
    /// When it came, in milliseconds.
    pub(super) at: u64,
    /// Where the bytes begin that are compared, if it is no TCP.
    compared: usize,
    pub(super) tcp: Option<Segment>,
}

/// Why a frame is not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// No IPv4, or with VLAN tags.
    Kind,
    /// Its headers make no sense.
    Malformed,
}

impl Packet {
    /// Reads a frame whose first `vnet_len` bytes are a virtio-net header.
    pub(super) fn parse(frame: &[u8], vnet_len: u32, at: u64) -> Result<(Key, Self), Unfit> {
        let l2 = vnet_len as usize;
        let b = frame.get(l2..).ok_or(Unfit::Malformed)?;
        let eth = Eth::parse(b).map_err(|_| Unfit::Kind)?;
        if eth.ethertype != eth::IPV4 || eth.len != eth::HEADER {
            return Err(Unfit::Kind);
        }
        let packet = b.get(eth.len..).ok_or(Unfit::Malformed)?;
        let ip = Ipv4::parse(packet, packet.len()).map_err(|_| Unfit::Malformed)?;
        let inner = packet.get(ip.header_len..).ok_or(Unfit::Malformed)?;
        let key = Key::of(&ip, packet, inner);
        let l4 = l2 + eth.len + ip.header_len;
        let mut this = Self { bytes: Vec::new(), vnet_len, at, compared: l4, tcp: None };
        match ip.protocol {
            // A part of a datagram is compared as it is: only the first has a header.
            ip::TCP if !ip.is_fragment() => {
                let tcp = Tcp::parse(inner, inner.len()).map_err(|_| Unfit::Malformed)?;
                // Behind the packet there may be padding; a length that makes no sense, as of a large one, says nothing.
                let end = (ip.header_len + tcp.header_len..=packet.len()).contains(&ip.total_len);
                let end = if end { ip.total_len - ip.header_len } else { inner.len() };
                let len = end.saturating_sub(tcp.header_len);
                let payload = l4 + tcp.header_len;
                let syn = tcp.flags & SYN != 0;
                this.tcp = Some(Segment { seq: tcp.seq, ack: tcp.ack, syn, payload, len, done: 0 });
            }
            ip::TCP | ip::UDP | ICMP => {}
            // The whole frame, its addresses and IP header too.
            _ => this.compared = l2,
        }
        this.bytes = frame.to_vec();
        Ok((key, this))
    }

    /// Whether the bytes that count are the same, of frames that are no TCP.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.bytes.len() == other.bytes.len()
            && self.bytes.get(self.compared..) == other.bytes.get(other.compared..)
    }

    /// The payload that was not compared yet.
    pub(super) fn rest(&self) -> &[u8] {
        self.tcp
            .and_then(|tcp| self.bytes.get(tcp.payload + tcp.done..tcp.payload + tcp.len))
            .unwrap_or_default()
    }

    /// The whole payload.
    pub(super) fn payload(&self) -> &[u8] {
        self.tcp.and_then(|tcp| self.bytes.get(tcp.payload..tcp.payload + tcp.len)).unwrap_or_default()
    }
}

impl Key {
    fn of(ip: &Ipv4, packet: &[u8], inner: &[u8]) -> Self {
        let ports_at = match ip.protocol {
            ip::TCP | ip::UDP | DCCP | ESP | SCTP | UDP_LITE => 0,
            AH => 4,
            protocol => return Self { protocol, ..Self::default() },
        };
        let addresses = packet.get(ip::V4_ADDRS..).and_then(|b| b.first_chunk()).copied().unwrap_or_default();
        let port = |at| if ip.is_fragment() { 0 } else { get16(inner, at).unwrap_or_default() };
        Self { protocol: ip.protocol, addresses, ports: [port(ports_at), port(ports_at + 2)] }
    }
}
