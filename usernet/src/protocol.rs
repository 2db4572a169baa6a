//! What the daemon asks of `netdevd-user` and what it answers.
//!
//! The daemon starts `netdevd-user` with two descriptors, both ends of `SOCK_SEQPACKET` pairs:
//!
//! * [`FRAMES`]: one frame a message, behind a `virtio_net_hdr_v1` (12 bytes, little endian, virtio 1.3 section 5.1.6). Both ways it may ask for
//!   a checksum and for segmentation (TCP over IPv4 and IPv6, UDP), so that a message is at most [`LONGEST`] bytes. A full socket holds back who
//!   sends: nothing is dropped between the two.
//! * [`CONTROL`]: one JSON value a message, a [`Request`] for each of which one [`Answer`] comes, in order; [`Said`] tells one from the other.
//!   Descriptors go with the message that names them (`SCM_RIGHTS`), in the order of their naming.
//!
//! The first request is [`Request::Start`]. The process ends when the control socket does, and the daemon knows by its pidfd when it has ended.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// The descriptor of the frames' socket.
pub const FRAMES: i32 = 3;
/// The descriptor of the control socket.
pub const CONTROL: i32 = 4;
/// Bytes of the header before each frame.
pub const HEADER: usize = 12;
/// Bytes of the longest message on the frames' socket: header, Ethernet header, largest packet.
pub const LONGEST: usize = HEADER + 14 + 65_535;
/// Bytes of the longest message on the control socket.
pub const LONGEST_MESSAGE: usize = 128 * 1024;

/// What the daemon asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Makes the network; the process gives up all privileges before it answers. Descriptors: a socket where the process asks, by a message, for the
    /// file of the host's name servers, and gets a message with it; then the streams of services.
    Start(Box<Network>),
    /// Adds a forward from the host to the guest; the socket that listens goes with it, and the daemon keeps it, too.
    Add(Forward),
    /// Takes one away, by where it listens.
    Remove(Listen),
    /// Another stream takes the place of this one of those that came with the start, counted from zero; it goes with the request. What was to be written to
    /// the one before is for nobody.
    Stream(usize),
    /// Asks for the connections, as QEMU's `info usernet` tells them, and for what was dropped.
    State,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is done.
    Done,
    /// How it stands.
    State {
        /// The connections of now.
        connections: Vec<Connection>,
        /// Frames of the guest that came to nothing.
        drops: Drops,
    },
    /// It could not be done; nothing has changed. After a failed start the process ends.
    Failed(Failure),
}

/// What comes from the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// The answer to the oldest request that has none.
    Answer(Answer),
    /// A line for the log: what the guest or libslirp did wrong. At most some a second.
    Warning(String),
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// In a line.
    pub text: String,
    /// The system's error number, where there is one.
    pub errno: Option<i32>,
}

/// The network, every default filled in (QEMU, `net/slirp.c`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Nothing but forwards passes.
    pub restricted: bool,
    /// IPv4, unless it is off.
    pub ipv4: Option<Ipv4>,
    /// IPv6, unless it is off.
    pub ipv6: Option<Ipv6>,
    /// The guest's host name for DHCP.
    pub hostname: Option<String>,
    /// The domain for DHCP.
    pub domainname: Option<String>,
    /// Search domains for DHCP.
    pub search: Vec<String>,
    /// What the read-only TFTP server shows; the only part of the file system that the process can read, beside what it is handed.
    pub tftp: Option<PathBuf>,
    /// The TFTP server's name for DHCP.
    pub tftp_server_name: Option<String>,
    /// The boot file for DHCP.
    pub bootfile: Option<String>,
    /// Services in the guest's network.
    pub services: Vec<Service>,
}

/// The IPv4 side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv4 {
    /// Network address.
    pub network: Ipv4Addr,
    /// Netmask.
    pub mask: Ipv4Addr,
    /// The host, which is the gateway.
    pub host: Ipv4Addr,
    /// First leased address.
    pub dhcp_start: Ipv4Addr,
    /// The name server.
    pub dns: Ipv4Addr,
}

/// The IPv6 side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6 {
    /// Prefix.
    pub prefix: Ipv6Addr,
    /// Its length.
    pub length: u8,
    /// The host, which is the router.
    pub host: Ipv6Addr,
    /// The name server.
    pub dns: Ipv6Addr,
}

/// Transport of a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Where a forward listens on the host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Listen {
    /// A port of the host.
    Inet {
        /// TCP or UDP.
        transport: Transport,
        /// Where it listens.
        address: SocketAddr,
    },
    /// A unix socket (TCP in the guest).
    Unix {
        /// Its path.
        path: PathBuf,
    },
}

/// A forward from the host to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Where it listens.
    pub listen: Listen,
    /// The guest's address and port; the unspecified address means who has the first lease.
    pub guest: SocketAddr,
}

/// A service that the guest finds at an address of its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its address; none means the address that libslirp chooses (SMB's is given).
    pub address: Ipv4Addr,
    /// Its TCP port.
    pub port: u16,
    /// What answers.
    pub to: Server,
}

/// What answers a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Server {
    /// A stream socket that goes with the request: all connections of the guest share it, as with QEMU's chardev.
    Stream,
    /// A unix socket of the daemon, connected anew for each connection of the guest; the daemon runs a command behind each.
    Unix {
        /// Its path.
        path: PathBuf,
    },
}

/// Frames of the guest that the process has dropped, since it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Drops {
    /// No frames, or with a header that contradicts them.
    pub malformed: u64,
    /// For a stream whose other end does not take what it was sent before; the guest sends them again.
    pub stream_full: u64,
}

/// A connection, as `info usernet` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Connection {
    /// `TCP`, `UDP`, `ICMP`, with libslirp's state in brackets: `TCP[ESTABLISHED]`, `UDP[236 sec]`, `TCP[HOST_FORWARD]`.
    pub protocol: String,
    /// The socket's number in the process.
    pub fd: i32,
    /// Source address and port.
    pub source: (Option<IpAddr>, u16),
    /// Destination address and port.
    pub destination: (Option<IpAddr>, u16),
    /// Bytes that wait for the host and for the guest.
    pub queued: [u32; 2],
}
