//! Bytes to values and back; no I/O, no knowledge of ports.
//!
//! [`headers::Headers`] is the one checked walk over a frame's first bytes; [`eth`], [`ip`] and [`l4`] hold the
//! formats it walks; [`checksum`] sums them.

pub mod bytes;
pub mod checksum;
pub mod eth;
pub mod flow;
pub mod framing;
pub mod headers;
pub mod ip;
pub mod l4;
pub mod rarp;
pub mod vnet_hdr;
