//! What a guest's driver and the nic agreed on (virtio 1.3, 5.1.3), as far as frames are concerned.

use crate::port::Caps;
use crate::virtq::F_VERSION_1;

/// virtio-net feature bits.
#[allow(missing_docs)] // the names are the specification's
pub struct NetFeatures;

#[allow(missing_docs)] // the names are the specification's
impl NetFeatures {
    pub const CSUM: u64 = 1 << 0;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    pub const MTU: u64 = 1 << 3;
    pub const MAC: u64 = 1 << 5;
    pub const GUEST_TSO4: u64 = 1 << 7;
    pub const GUEST_TSO6: u64 = 1 << 8;
    pub const GUEST_ECN: u64 = 1 << 9;
    pub const GUEST_UFO: u64 = 1 << 10;
    pub const HOST_TSO4: u64 = 1 << 11;
    pub const HOST_TSO6: u64 = 1 << 12;
    pub const HOST_ECN: u64 = 1 << 13;
    pub const HOST_UFO: u64 = 1 << 14;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const STATUS: u64 = 1 << 16;
    pub const CTRL_VQ: u64 = 1 << 17;
    pub const CTRL_RX: u64 = 1 << 18;
    pub const CTRL_VLAN: u64 = 1 << 19;
    pub const CTRL_RX_EXTRA: u64 = 1 << 20;
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    pub const MQ: u64 = 1 << 22;
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
    pub const GUEST_USO4: u64 = 1 << 54;
    pub const GUEST_USO6: u64 = 1 << 55;
    pub const HOST_USO: u64 = 1 << 56;
    pub const STANDBY: u64 = 1 << 62;
    pub const SPEED_DUPLEX: u64 = 1 << 63;

    /// What a guest takes beyond whole frames: what CTRL_GUEST_OFFLOADS may switch.
    pub const GUEST_OFFLOADS: u64 = Self::GUEST_CSUM
        | Self::GUEST_TSO4
        | Self::GUEST_TSO6
        | Self::GUEST_ECN
        | Self::GUEST_UFO
        | Self::GUEST_USO4
        | Self::GUEST_USO6;
    /// Checksums and segmentation that one side leaves to the other, both ways.
    pub const OFFLOADS: u64 = Self::GUEST_OFFLOADS
        | Self::CSUM
        | Self::HOST_TSO4
        | Self::HOST_TSO6
        | Self::HOST_ECN
        | Self::HOST_UFO
        | Self::HOST_USO;
}

/// The features agreed on, in the words of the data path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Bytes of the virtio-net header in front of each frame: 12, or 10 (legacy without mergeable buffers).
    pub header: usize,
    /// A received frame may span several chains.
    pub mergeable: bool,
    /// What the guest takes.
    pub caps: Caps,
    /// Whether the guest may leave checksums and segmentation to us.
    pub offloads: bool,
}

impl Features {
    /// Reads the feature bits.
    #[must_use]
    pub fn of(bits: u64) -> Self {
        let has = |bit: u64| bits & bit != 0;
        let mergeable = has(NetFeatures::MRG_RXBUF);
        let csum = has(NetFeatures::GUEST_CSUM);
        let tso4 = csum && has(NetFeatures::GUEST_TSO4);
        let uso = csum && has(NetFeatures::GUEST_USO4) && has(NetFeatures::GUEST_USO6);
        let caps = Caps {
            csum,
            tso4,
            tso6: csum && has(NetFeatures::GUEST_TSO6),
            ecn: csum && has(NetFeatures::GUEST_ECN),
            ufo: csum && has(NetFeatures::GUEST_UFO),
            uso,
            coalesce: tso4 || uso,
        };
        Self {
            header: if mergeable || has(F_VERSION_1) { 12 } else { 10 },
            mergeable,
            caps,
            offloads: has(NetFeatures::CSUM),
        }
    }
}
