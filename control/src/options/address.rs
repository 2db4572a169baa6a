//! Typed socket addresses.

use serde::{Deserialize, Serialize};

/// Where a socket listens or connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum SocketAddress {
    /// IPv4 or IPv6.
    Inet(InetAddress),
    /// A UNIX domain socket.
    Unix(UnixAddress),
    /// Between host and guest.
    Vsock(VsockAddress),
    /// A socket that is already open.
    Fd(FdAddress),
}

/// The form of [`SocketAddress`] that chardevs take: members below `data`.
#[derive(Serialize, Deserialize)]
#[serde(remote = "SocketAddress", tag = "type", content = "data", rename_all = "lowercase")]
pub(super) enum Legacy {
    Inet(InetAddress),
    Unix(UnixAddress),
    Vsock(VsockAddress),
    Fd(FdAddress),
}

/// A host and a port, resolved when the socket is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InetAddress {
    /// Host name or address; empty for any.
    pub host: String,
    /// Port number or service name.
    pub port: String,
    /// True: do not look names up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numeric: Option<bool>,
    /// Last port of a range to try when listening.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u16>,
    /// Whether IPv4 may be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<bool>,
    /// Whether IPv6 may be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<bool>,
    /// TCP keep-alive probes. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<bool>,
    /// Probes without an answer before the connection counts as lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive_count: Option<u32>,
    /// Seconds of silence before the first probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive_idle: Option<u32>,
    /// Seconds between probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive_interval: Option<u32>,
    /// Use Multipath TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mptcp: Option<bool>,
}

/// A path, or a name in the abstract namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnixAddress {
    /// The path or name.
    pub path: String,
    /// The name lies in the abstract namespace, without a file. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#abstract: Option<bool>,
    /// An abstract name is as long as its text, instead of padded with zeros. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tight: Option<bool>,
}

/// A context and port of AF_VSOCK.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockAddress {
    /// Context id of the machine.
    pub cid: String,
    /// Port number.
    pub port: String,
}

/// A socket handed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdAddress {
    /// Its number, or its name as `getfd` gave it.
    pub str: String,
}
