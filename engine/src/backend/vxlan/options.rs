//! What the user may say of a `vxlan` netdev.

/// Options of a VXLAN tunnel to one remote end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanOptions {
    /// Name or address of the other end.
    pub remote: String,
    /// Local address; any without it.
    pub local: Option<String>,
    /// Number of the network, at most [`VNI_MOST`].
    pub vni: u32,
    /// UDP port where both ends receive.
    pub port: u16,
    /// Ports that datagrams leave from, a flow always from the same; one: `port`. At most [`SOURCES_MOST`].
    pub sources: u16,
}

/// The highest number of a network: it has 24 bits.
pub const VNI_MOST: u32 = 0xff_ffff;

/// The port that IANA assigned (RFC 7348 §8).
pub const PORT: u16 = 4789;

/// Ports that datagrams leave from, unless the user says otherwise.
pub const SOURCES: u16 = 8;

/// As many flows as that are told apart at most.
pub const SOURCES_MOST: u16 = 64;
