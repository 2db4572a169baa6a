//! `vhost-vdpa` netdevs: what is heard of their devices. The link follows the device's; a device that goes, or breaks down, takes its queues along,
//! and the netdev stays with its link down, its frames dropped by name.

mod netdevs;

pub use netdevs::{News, Vdpas};
