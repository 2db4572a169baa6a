//! The virtio-net header: checksum and segmentation state of one frame (virtio 1.3, section 5.1.6).

/// `flags`: the checksum from `csum_start` on is still to be computed.
pub const F_NEEDS_CSUM: u8 = 1;
/// `flags`: the checksum has been verified.
pub const F_DATA_VALID: u8 = 2;

/// `gso_type`: a frame as it goes on the wire.
pub const GSO_NONE: u8 = 0;
/// `gso_type`: TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// `gso_type`: UDP fragmentation over IPv4 (UFO).
pub const GSO_UDP: u8 = 3;
/// `gso_type`: TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// `gso_type`: UDP segmentation, IPv4 or IPv6 (USO).
pub const GSO_UDP_L4: u8 = 5;
/// `gso_type` flag: TCP with ECN (CWR set in the first segment).
pub const GSO_ECN: u8 = 0x80;

/// A virtio-net header as a value, in host byte order; in memory it lies as the short form does, so that it is copied in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct VnetHdr {
    /// [`F_NEEDS_CSUM`], [`F_DATA_VALID`].
    pub flags: u8,
    /// [`GSO_NONE`] .. [`GSO_UDP_L4`], with [`GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of Ethernet, IP and L4 header (a hint, never trusted).
    pub hdr_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Where the checksum starts, from the start of the frame.
    pub csum_start: u16,
    /// Where the checksum is stored, from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHdr {
    /// A frame without offload state.
    pub const NONE: Self =
        Self { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };

    /// Bytes of the short form, which taps use.
    pub const LEN: usize = 10;

    /// Decodes the little-endian short form (a tap's header is in host order, which here is the same).
    #[must_use]
    pub const fn decode(b: &[u8; Self::LEN]) -> Self {
        Self {
            flags: b[0],
            gso_type: b[1],
            hdr_len: u16::from_le_bytes([b[2], b[3]]),
            gso_size: u16::from_le_bytes([b[4], b[5]]),
            csum_start: u16::from_le_bytes([b[6], b[7]]),
            csum_offset: u16::from_le_bytes([b[8], b[9]]),
        }
    }

    /// Encodes the little-endian short form.
    #[must_use]
    pub const fn encode(&self) -> [u8; Self::LEN] {
        let (h, g) = (self.hdr_len.to_le_bytes(), self.gso_size.to_le_bytes());
        let (s, o) = (self.csum_start.to_le_bytes(), self.csum_offset.to_le_bytes());
        [self.flags, self.gso_type, h[0], h[1], g[0], g[1], s[0], s[1], o[0], o[1]]
    }

    /// The segmentation kind without the ECN flag.
    #[must_use]
    pub const fn gso(&self) -> u8 {
        self.gso_type & !GSO_ECN
    }

    /// Whether the frame is larger than what goes on the wire.
    #[must_use]
    pub const fn is_gso(&self) -> bool {
        self.gso() != GSO_NONE
    }

    /// Whether something is left to do to the frame: a checksum, or its segmentation.
    #[inline]
    #[must_use]
    pub const fn has_work(&self) -> bool {
        (self.flags & F_NEEDS_CSUM) | self.gso_type != 0
    }

    /// Whether the L4 checksum is still to be computed.
    #[must_use]
    pub const fn needs_csum(&self) -> bool {
        self.flags & F_NEEDS_CSUM != 0
    }
}
