//! What the user may say of an `l2tpv3` netdev.

/// Options of an L2TPv3 tunnel, after the checks of what may stand together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct L2tpv3Options {
    /// Local address or name.
    pub src: String,
    /// Remote address or name.
    pub dst: String,
    /// Local and remote UDP port (numbers or names); without, the tunnel goes straight over IP (protocol 115).
    pub ports: Option<(String, String)>,
    /// The addresses are IPv6.
    pub ipv6: bool,
    /// Session number sent.
    pub tx_session: u32,
    /// Session number expected.
    pub rx_session: u32,
    /// Cookies, if there are any.
    pub cookies: Option<Cookies>,
    /// What stands behind the cookie.
    pub counter: Counter,
    /// Bytes between header and frame.
    pub offset: u32,
}

/// Bytes between header and frame at most (QEMU `net_init_l2tpv3`).
pub const OFFSET_MOST: u32 = 256;

/// A pair of cookies (RFC 3931 §4.1.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cookies {
    /// Of 32 bits.
    Short {
        /// Sent.
        tx: u32,
        /// Expected.
        rx: u32,
    },
    /// Of 64 bits.
    Long {
        /// Sent.
        tx: u64,
        /// Expected.
        rx: u64,
    },
}

/// The four bytes behind the cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counter {
    /// Not there.
    #[default]
    None,
    /// Count the frames sent, from 1 on.
    Counting,
    /// Always 0, for peers that take frames out of order badly.
    Pinned,
}
