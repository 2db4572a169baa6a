//! The `vxlan` netdev: Ethernet frames in UDP (RFC 7348), as the kernel's vxlan device sends and takes them. QEMU has no such netdev.
//!
//! There is one other end and nothing to learn: which frame goes into a tunnel is for a hub or a switch to decide. Datagrams are moved by
//! the datagram engine beside this folder; what is special here is the `header` before each frame.

mod header;
mod inner;
mod open;
mod options;

pub use open::{VxlanError, open};
pub use options::{PORT, SOURCES, SOURCES_MOST, VNI_MOST, VxlanOptions};
