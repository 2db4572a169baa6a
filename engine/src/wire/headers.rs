//! One checked walk over a frame's first bytes: where each layer starts, and what it is.

use super::checksum::{Sum, pseudo_v4, pseudo_v6};
use super::eth::{self, Eth};
use super::ip::{self, Ipv4, Ipv6};
use super::l4::{TCP_CHECK, Tcp, UDP_CHECK, UDP_HEADER, Udp};
use super::vnet_hdr::{F_NEEDS_CSUM, VnetHdr};

/// Bytes of a frame that are looked at; headers that reach further are [`HeaderError::Short`].
pub const MAX_HEADERS: usize = 256;

/// Why a frame's headers cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The bytes end inside a header.
    #[error("the frame ends inside its {0} header, or its headers are longer than {MAX_HEADERS} bytes")]
    Short(&'static str),
    /// A length field contradicts another one, or the frame's length.
    #[error("a length in the {0} header contradicts the frame")]
    Length(&'static str),
    /// Ethertype and IP version differ.
    #[error("the IP version is not the one that the ethertype announces")]
    Version,
    /// More IPv6 extension headers than are walked.
    #[error("more than {max} IPv6 extension headers", max = ip::MAX_EXTENSIONS)]
    Extensions,
}

/// The network layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// Not IP.
    Other,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The transport layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Neither TCP nor UDP, or a fragment.
    Other,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Offset of the checksum in the transport header; `None` for what is neither TCP nor UDP.
    #[must_use]
    pub const fn check_offset(self) -> Option<usize> {
        match self {
            Self::Tcp => Some(TCP_CHECK),
            Self::Udp => Some(UDP_CHECK),
            Self::Other => None,
        }
    }
}

/// Where the layers of a frame start. All offsets count from the frame's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// The network layer.
    pub net: Net,
    /// The transport layer.
    pub transport: Transport,
    /// Start of the IP header (of the payload when it is not IP).
    pub l3: usize,
    /// Start of the transport header, behind IPv4 options and IPv6 extension headers.
    pub l4: usize,
    /// Start of the transport's payload; equal to `l4` when it is neither TCP nor UDP.
    pub payload: usize,
    /// End of the IP packet; what follows up to the frame's end is padding. At most the frame's length.
    pub end: usize,
    /// No IPv4 options and no IPv6 extension headers.
    pub plain: bool,
    /// A fragment of an IP packet.
    pub fragment: bool,
    /// IPv6 with a routing header that has segments left.
    pub routed: bool,
}

impl Headers {
    /// No headers at all.
    pub const NONE: Self = Self::ip(Net::Other, 0, 0, 0);

    /// Walks the headers in `head`, the first bytes of a frame of `frame_len` bytes.
    ///
    /// # Errors
    /// Whatever contradicts itself, the frame's length, or does not fit `head`.
    pub fn parse(head: &[u8], frame_len: usize) -> Result<Self, HeaderError> {
        let eth = Eth::parse(head)?;
        let l3 = eth.len;
        let room = frame_len.checked_sub(l3).ok_or(HeaderError::Short("Ethernet"))?;
        let b = head.get(l3..).unwrap_or(&[]);
        match eth.ethertype {
            eth::IPV4 => {
                let ip = Ipv4::parse(b, room)?;
                let h = Self::ip(Net::V4, l3, ip.header_len, ip.total_len);
                Self { plain: ip.header_len == ip::V4_HEADER, fragment: ip.is_fragment(), ..h }
                    .transport(head, ip.protocol)
            }
            eth::IPV6 => {
                let ip = Ipv6::parse(b, room)?;
                let h = Self::ip(Net::V6, l3, ip.header_len, ip.total_len);
                let plain = ip.header_len == ip::V6_HEADER;
                Self { plain, fragment: ip.fragment, routed: ip.routed, ..h }.transport(head, ip.protocol)
            }
            _ => Ok(Self { end: frame_len, ..Self::ip(Net::Other, l3, 0, 0) }),
        }
    }

    /// Sum of the pseudo header for a transport of `len` bytes, header and payload. `head` is what was parsed.
    #[must_use]
    pub fn pseudo(&self, head: &[u8], len: usize) -> Sum {
        let protocol = if self.transport == Transport::Tcp { ip::TCP } else { ip::UDP };
        let b = head.get(self.l3..).unwrap_or(&[]);
        let sum = match self.net {
            Net::V4 => b
                .get(ip::V4_ADDRS..)
                .and_then(|b| b.first_chunk())
                .map(|a| pseudo_v4(a, protocol, len as u16)),
            Net::V6 => b
                .get(ip::V6_ADDRS..)
                .and_then(|b| b.first_chunk())
                .map(|a| pseudo_v6(a, protocol, len as u32)),
            Net::Other => None,
        };
        sum.unwrap_or_default()
    }

    /// The virtio-net header of a frame with these headers whose checksum field holds the pseudo header's sum only.
    #[must_use]
    pub fn partial(&self) -> VnetHdr {
        let Some(offset) = self.transport.check_offset() else { return VnetHdr::NONE };
        VnetHdr {
            flags: F_NEEDS_CSUM,
            csum_start: self.l4 as u16,
            csum_offset: offset as u16,
            ..VnetHdr::NONE
        }
    }

    const fn ip(net: Net, l3: usize, header_len: usize, total_len: usize) -> Self {
        let (l4, end) = (l3 + header_len, l3 + total_len);
        let transport = Transport::Other;
        Self { net, transport, l3, l4, payload: l4, end, plain: true, fragment: false, routed: false }
    }

    fn transport(mut self, head: &[u8], protocol: u8) -> Result<Self, HeaderError> {
        if self.fragment {
            return Ok(self);
        }
        let b = head.get(self.l4..).unwrap_or(&[]);
        let room = self.end - self.l4;
        match protocol {
            ip::TCP => {
                self.payload += Tcp::parse(b, room)?.header_len;
                self.transport = Transport::Tcp;
            }
            ip::UDP => {
                Udp::parse(b, room)?;
                self.payload += UDP_HEADER;
                self.transport = Transport::Udp;
            }
            _ => {}
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
