//! `vde` netdevs: the streams on which their ports were asked for. A switch that goes ends them: the netdev stays, with its link down and its frames
//! dropped by name, and is plugged in again when the switch is back.

mod netdevs;

pub use netdevs::{Unplugged, Vdes};
