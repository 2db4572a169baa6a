//! The network of a `user` netdev: libslirp, which parses hostile frames in C, in a process of its own without privileges.
//!
//! [`protocol`] is what the daemon and that process say to each other.

#![deny(unsafe_code)]

pub mod protocol;
