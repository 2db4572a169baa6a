//! Options of netdevs that lead through sockets.

use crate::options::address::SocketAddress;
use crate::options::wrap;
use serde::{Deserialize, Serialize};

/// Frames through a TCP connection, a multicast group or UDP datagrams. Exactly one of fd, listen, connect, mcast, udp.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOptions {
    /// An open socket, by number or by its name from `getfd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fd: Option<String>,
    /// Wait for one TCP client at `[host]:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Connect by TCP to host:port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<String>,
    /// Join a multicast group at address:port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcast: Option<String>,
    /// Local address: of the interface for `mcast`, host:port for `udp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub localaddr: Option<String>,
    /// Send datagrams to host:port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<String>,
}

/// Frames with a length before each, through a stream socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StreamOptions {
    /// Where to listen or connect.
    pub addr: SocketAddress,
    /// Listen instead of connecting. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<bool>,
    /// Seconds between attempts after a lost connection; 0 for none. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconnect: Option<i64>,
    /// Milliseconds between attempts after a lost connection; 0 for none. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconnect_ms: Option<i64>,
}

/// A frame a datagram.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DgramOptions {
    /// Where datagrams arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddress>,
    /// Where they are sent; a multicast group is joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<SocketAddress>,
}

/// A static L2TPv3 tunnel over UDP or straight over IP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct L2tpv3Options {
    /// Local address.
    pub src: String,
    /// Remote address.
    pub dst: String,
    /// Local UDP port; mandatory with `udp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub srcport: Option<String>,
    /// Remote UDP port; mandatory with `udp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dstport: Option<String>,
    /// The addresses are IPv6. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<bool>,
    /// UDP instead of IP protocol 115. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<bool>,
    /// Cookies have 64 bits instead of 32; as in QEMU, `false` says so too. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie64: Option<bool>,
    /// A sequence counter follows the cookie. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counter: Option<bool>,
    /// That counter stays 0, for peers that reorder badly. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pincounter: Option<bool>,
    /// Cookie sent.
    #[serde(default, deserialize_with = "wrap::optional", skip_serializing_if = "Option::is_none")]
    pub txcookie: Option<u64>,
    /// Cookie expected.
    #[serde(default, deserialize_with = "wrap::optional", skip_serializing_if = "Option::is_none")]
    pub rxcookie: Option<u64>,
    /// Session number sent.
    pub txsession: u32,
    /// Session number expected; `txsession` without this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rxsession: Option<u32>,
    /// Bytes between header and frame. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u32>,
}

/// A VXLAN tunnel to one other end, which may be the kernel's vxlan device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VxlanOptions {
    /// The other end, by name or by its address.
    pub remote: String,
    /// Local address; any without this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// Number of the network, at most 16777215.
    pub vni: u32,
    /// UDP port, where both ends receive. Default 4789.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Ports that datagrams leave from, at most 64. Default 8.
    #[serde(rename = "source-ports", skip_serializing_if = "Option::is_none")]
    pub source_ports: Option<u16>,
}

/// A port of a VDE switch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VdeOptions {
    /// The switch's socket directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sock: Option<String>,
    /// Port of the switch; 0 for any. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Group that owns the socket made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Permissions of the socket made. Default 0700.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u16>,
}
