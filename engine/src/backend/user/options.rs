//! What the process and its socket need, as plain values. The network itself is told to the process by control.

use crate::port::Caps;
use std::path::PathBuf;

/// Bytes of the header before each frame (virtio 1.3, section 5.1.6: `virtio_net_hdr_v1`).
pub(super) const HEADER: usize = 12;

/// Bytes of the longest frame: an Ethernet header and the largest IP packet.
pub(super) const LONGEST: usize = 14 + 65_535;

/// What the process takes: whatever a tap takes. Large frames save it work.
pub(super) const CAPS: Caps =
    Caps { csum: true, tso4: true, tso6: true, ecn: true, ufo: false, uso: true, coalesce: true };

/// Which program to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserOptions {
    /// `netdevd-user`.
    pub program: PathBuf,
}
