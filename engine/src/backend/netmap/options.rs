//! What the user may say of a netmap port, as plain values (qapi/net.json `NetdevNetmapOptions`).

/// The device where nothing is said of it.
pub const DEVICE: &str = "/dev/netmap";

/// Options of one netdev.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetmapOptions {
    /// The port as netmap names it: `netmap:eth0`, `vale0:1`, `netmap:x{1`; without a prefix an interface's name.
    pub ifname: String,
    /// The device. QEMU takes the option and opens [`DEVICE`] nevertheless.
    pub device: String,
}
