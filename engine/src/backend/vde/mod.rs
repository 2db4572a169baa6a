//! The `vde` netdev: a port of a VDE switch (`vde_switch`), whose frames are datagrams of unix sockets.
//!
//! The switch's own protocol is spoken here (`plug`), not libvdeplug's: the library has one call a frame, which may block, and loads whatever
//! module a name asks for into the process; what it does to join a switch is one request and one answer. So names of other things than
//! switches (`vxvde://`, `tap://` and so on) are refused: netdevd has netdevs for these.
//!
//! A switch that goes is seen by the end of the stream that the port was asked for on, which control keeps.

mod open;
mod options;
mod plug;

pub use open::{Opened, VdeError, open};
pub use options::VdeOptions;

#[cfg(test)]
mod tests;
