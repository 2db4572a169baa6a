//! Options of netdevs that lead to the host's kernel or to another program's rings, and of hub ports.

use crate::options::wrap;
use serde::{Deserialize, Serialize};

/// A tap interface of the host's kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapOptions {
    /// Interface to use or make; the kernel picks a name without it. Cut to 15 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    /// One open tap, by number or by its name from `getfd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fd: Option<String>,
    /// Several open queues of one tap, colon between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fds: Option<String>,
    /// Program that configures the interface; `no` for none. Default /etc/qemu-ifup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Program that undoes it; `no` for none. Default /etc/qemu-ifdown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downscript: Option<String>,
    /// Bridge that the helper joins. Default br0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub br: Option<String>,
    /// Program that opens the tap and passes it over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helper: Option<String>,
    /// Bound of the kernel's send buffer, in bytes. Default INT_MAX.
    #[serde(default, deserialize_with = "wrap::optional", skip_serializing_if = "Option::is_none")]
    pub sndbuf: Option<u64>,
    /// Frames carry a virtio-net header, so offloads travel; on where the kernel can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vnet_hdr: Option<bool>,
    /// Let the kernel's vhost-net drive the rings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhost: Option<bool>,
    /// An open /dev/vhost-net.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhostfd: Option<String>,
    /// Several of them, colon between, one a queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhostfds: Option<String>,
    /// As `vhost`, where that is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhostforce: Option<bool>,
    /// Number of queues. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<u32>,
    /// Microseconds that vhost-net polls busily. Default 0.
    #[serde(rename = "poll-us", skip_serializing_if = "Option::is_none")]
    pub poll_us: Option<u32>,
}

/// A tap on a bridge of the host, made by a setuid helper.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeOptions {
    /// The bridge. Default br0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub br: Option<String>,
    /// The helper program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helper: Option<String>,
}

/// A port of a hub, which sends every frame to all its other ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HubportOptions {
    /// Number of the hub; the first port of a number makes it.
    pub hubid: i32,
    /// A netdev to join to this port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netdev: Option<String>,
    /// Frames kept for this port while it is busy, with 16 KiB of memory for each. Default 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub_backlog: Option<u32>,
}

/// A port of a learning switch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SwitchportOptions {
    /// Number of the switch; the first port of a number makes it.
    pub switchid: i32,
    /// A netdev to join to this port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netdev: Option<String>,
    /// VLAN of an access port. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// VLANs whose frames carry a tag here; makes the port a trunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunk: Option<String>,
    /// VLAN of a trunk's frames without a tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native_vlan: Option<u16>,
    /// Exchange no frame with another private port. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private: Option<bool>,
    /// Stations learned here at most. Default: half of the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_limit: Option<u32>,
    /// Stations that are here whatever is heard elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub static_macs: Option<Vec<SwitchStation>>,
    /// The port of which this one gets copies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// Which of its frames: `both`, `rx` or `tx`. Default `both`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror_frames: Option<String>,
    /// Seconds after which a station is forgotten; 0: never. Default 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ageing_time: Option<u32>,
    /// Stations that the switch learns at most. Default 8192.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_size: Option<u32>,
}

/// A station that is static at a port of a switch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchStation {
    /// Its hardware address.
    pub mac: String,
    /// Its VLAN; that of the port's frames without a tag without this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
}

/// A netmap port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetmapOptions {
    /// Interface, VALE switch port or pipe, as netmap names it.
    pub ifname: String,
    /// Device node; `/dev/netmap` without this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devname: Option<String>,
}

/// Queues of a host interface through AF_XDP sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AfXdpOptions {
    /// The interface.
    pub ifname: String,
    /// Where the program runs; native, then skb, without this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<AfXdpMode>,
    /// Copy frames even where the driver could share memory. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force_copy: Option<bool>,
    /// Number of queues. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<i64>,
    /// First queue of the interface. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_queue: Option<i64>,
    /// Load no XDP program: sockets or map come from outside. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inhibit: Option<bool>,
    /// Open XDP sockets that are in the program's map already, colon between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sock_fds: Option<String>,
    /// Pinned XSKMAP to enter our sockets in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map_path: Option<String>,
    /// Index of the first of them in that map. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map_start_index: Option<i32>,
    /// Take only frames to this hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_mac: Option<String>,
    /// Take only frames of this EtherType.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_ethertype: Option<u16>,
    /// Take only frames of this VLAN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_vlan: Option<u16>,
}

/// The driver side of vhost-user: frames go to another program through shared rings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VhostUserOptions {
    /// A UNIX socket chardev that leads there.
    pub chardev: String,
    /// Taken and not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhostforce: Option<bool>,
    /// Number of queue pairs, at most 1024. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<i64>,
}

/// A vhost-vdpa device of the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VhostVdpaOptions {
    /// Its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhostdev: Option<String>,
    /// The same, opened before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhostfd: Option<String>,
    /// Taken and not used: the device says. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<i64>,
    /// Put shadow rings between guest and device. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x_svq: Option<bool>,
}

/// How the kernel runs the XDP program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AfXdpMode {
    /// In the driver.
    Native,
    /// In the stack.
    Skb,
}

/// A network card, joined to a netdev.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicOptions {
    /// The netdev to join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netdev: Option<String>,
    /// Hardware address; one is chosen without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub macaddr: Option<String>,
    /// Model of the card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Place on the bus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Number of MSI-X vectors; 0 turns MSI-X off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vectors: Option<u32>,
    /// Queue pairs at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<u32>,
    /// What tells the guest that its link is down: `signal` or `disconnect`.
    #[serde(rename = "link-down", skip_serializing_if = "Option::is_none")]
    pub link_down: Option<String>,
}
