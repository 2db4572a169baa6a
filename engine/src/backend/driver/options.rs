//! What we ask of a device, and what follows from what it agreed to (virtio 1.3, 5.1.3).

use crate::backend::nic::NetFeatures as Net;
use crate::port::Caps;
use crate::virtq::{F_EVENT_IDX, F_RING_PACKED, F_VERSION_1};

/// Entries of each ring, as QEMU's.
pub const RING: u16 = 256;

/// The features that are accepted when they are offered.
pub const WANTED: u64 = F_VERSION_1
    | F_RING_PACKED
    | F_EVENT_IDX
    | Net::MRG_RXBUF
    | Net::CSUM
    | Net::HOST_TSO4
    | Net::HOST_TSO6
    | Net::HOST_ECN
    | Net::HOST_UFO
    | Net::HOST_USO
    | Net::GUEST_CSUM
    | Net::GUEST_TSO4
    | Net::GUEST_TSO6
    | Net::GUEST_ECN
    | Net::GUEST_UFO
    | Net::GUEST_USO4
    | Net::GUEST_USO6
    | Net::STATUS
    | Net::MQ;

/// What is only good with something else: the feature, and what it needs one of.
const NEEDS: &[(u64, u64)] = &[
    (Net::HOST_TSO4 | Net::HOST_TSO6 | Net::HOST_UFO | Net::HOST_USO, Net::CSUM),
    (Net::HOST_ECN, Net::HOST_TSO4 | Net::HOST_TSO6),
    (Net::GUEST_TSO4 | Net::GUEST_TSO6 | Net::GUEST_UFO | Net::GUEST_USO4 | Net::GUEST_USO6, Net::GUEST_CSUM),
    // A large frame comes in pieces: without them each of our buffers would have to hold 64 KiB.
    (Net::GUEST_TSO4 | Net::GUEST_TSO6 | Net::GUEST_UFO | Net::GUEST_USO4 | Net::GUEST_USO6, Net::MRG_RXBUF),
    (Net::GUEST_ECN, Net::GUEST_TSO4 | Net::GUEST_TSO6),
];

/// What to accept of `offered` for so many queue pairs.
#[must_use]
pub fn choose(offered: u64, pairs: u16) -> u64 {
    let mut bits = offered & WANTED;
    if pairs < 2 {
        bits &= !Net::MQ;
    }
    for (what, needed) in NEEDS {
        if bits & needed == 0 {
            bits &= !what;
        }
    }
    bits
}

/// What was agreed on, in the words of the data path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// Bytes of the virtio-net header in front of each frame: 12, or 10 (legacy without mergeable buffers).
    pub header: usize,
    /// A received frame may span several buffers.
    pub mergeable: bool,
    /// What the device takes.
    pub caps: Caps,
    /// Whether the device may leave checksums and segmentation to us.
    pub offloads: bool,
}

impl Agreed {
    /// Reads the feature bits.
    #[must_use]
    pub const fn of(bits: u64) -> Self {
        let mergeable = bits & Net::MRG_RXBUF != 0;
        let csum = bits & Net::CSUM != 0;
        let tso4 = csum && bits & Net::HOST_TSO4 != 0;
        let uso = csum && bits & Net::HOST_USO != 0;
        let caps = Caps {
            csum,
            tso4,
            tso6: csum && bits & Net::HOST_TSO6 != 0,
            ecn: csum && bits & Net::HOST_ECN != 0,
            ufo: csum && bits & Net::HOST_UFO != 0,
            uso,
            coalesce: tso4 || uso,
        };
        let header = if mergeable || bits & F_VERSION_1 != 0 { 12 } else { 10 };
        Self { header, mergeable, caps, offloads: bits & Net::GUEST_CSUM != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_is_accepted_only_with_what_it_needs() {
        let all = choose(u64::MAX, 4);
        assert_eq!(all, WANTED);
        assert_eq!(choose(u64::MAX, 1), WANTED & !Net::MQ);
        assert_eq!(choose(0, 4), 0);
        let plain =
            choose(F_VERSION_1 | Net::HOST_TSO4 | Net::HOST_ECN | Net::GUEST_TSO4 | Net::GUEST_CSUM, 1);
        assert_eq!(plain, F_VERSION_1 | Net::GUEST_CSUM);
    }

    #[test]
    fn the_header_is_short_only_for_a_legacy_device_without_mergeable_buffers() {
        assert_eq!(Agreed::of(0).header, 10);
        assert_eq!(Agreed::of(Net::MRG_RXBUF).header, 12);
        let modern = Agreed::of(F_VERSION_1 | Net::CSUM | Net::HOST_TSO4);
        assert_eq!((modern.header, modern.mergeable, modern.offloads), (12, false, false));
        assert!(modern.caps.csum && modern.caps.tso4 && modern.caps.coalesce && !modern.caps.tso6);
    }
}
