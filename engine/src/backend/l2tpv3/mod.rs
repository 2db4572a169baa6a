//! The `l2tpv3` netdev: Ethernet frames in a static L2TPv3 tunnel (RFC 3931, RFC 4719), over UDP or straight over IP.
//!
//! Datagrams are moved by the datagram engine beside this folder; what is special here is the `header` before each frame.

mod header;
mod open;
mod options;

pub use open::{L2tpv3Error, open};
pub use options::{Cookies, Counter, L2tpv3Options, OFFSET_MOST};
