//! Bytes to values and back; no I/O, no knowledge of ports.

pub mod vnet_hdr;
