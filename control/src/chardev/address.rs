//! Where a socket chardev listens or connects, and how `query-chardev` writes that.

use serde_json::{Value, json};
use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixSocketAddr;

/// Bytes of `sun_path` that an abstract name can fill (one is the leading NUL).
pub(super) const ABSTRACT_ROOM: usize = 107;
/// Bytes of `sun_path` (`sys/un.h`).
pub(super) const PATH_ROOM: usize = 108;

/// A socket address as QMP writes it (`SocketAddressLegacy`, QEMU `qapi/sockets.json`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Inet(Inet),
    /// A unix socket.
    Unix(Unix),
    /// A descriptor: its name in the monitor's table, or its number on the command line.
    Fd(String),
    /// A type that QMP has and netdevd does not use for chardevs.
    Other(String),
}

/// A TCP address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inet {
    /// Host name or address; empty means any.
    pub host: String,
    /// Port number or service.
    pub port: String,
    /// No name look-up.
    pub numeric: bool,
    /// Last port to try when listening.
    pub to: Option<u16>,
    /// IPv4 wanted.
    pub ipv4: Option<bool>,
    /// IPv6 wanted.
    pub ipv6: Option<bool>,
    /// `SO_KEEPALIVE` for connections made.
    pub keep_alive: bool,
    /// When the kernel probes, and how often.
    pub probes: Probes,
    /// Multipath TCP was asked for.
    pub mptcp: bool,
}

/// Keep-alive probes, as far as they are not left to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Probes {
    /// Probes without an answer before the connection counts as lost.
    pub count: Option<u32>,
    /// Seconds of silence before the first one.
    pub idle: Option<u32>,
    /// Seconds between them.
    pub interval: Option<u32>,
}

/// A unix socket's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unix {
    /// File, or abstract name.
    pub path: String,
    /// The name is in Linux's abstract space.
    pub abstract_: bool,
    /// An abstract name ends with its last byte; else NULs fill it up.
    pub tight: bool,
}

impl Address {
    /// From the `addr` member of a socket chardev; the schema has checked it.
    #[must_use]
    pub fn from_value(value: &Value) -> Self {
        let kind = value["type"].as_str().unwrap_or_default();
        // The legacy form wraps the members in `data`; the flat form has them beside `type`.
        let data = value.get("data").unwrap_or(value);
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        let flag = |name: &str| data[name].as_bool();
        let number = |name: &str| data[name].as_u64().and_then(|n| u32::try_from(n).ok());
        match kind {
            "inet" => Self::Inet(Inet {
                host: text("host"),
                port: text("port"),
                numeric: flag("numeric").unwrap_or(false),
                to: data["to"].as_u64().and_then(|to| u16::try_from(to).ok()),
                ipv4: flag("ipv4"),
                ipv6: flag("ipv6"),
                keep_alive: flag("keep-alive").unwrap_or(false),
                probes: Probes {
                    count: number("keep-alive-count"),
                    idle: number("keep-alive-idle"),
                    interval: number("keep-alive-interval"),
                },
                mptcp: flag("mptcp").unwrap_or(false),
            }),
            "unix" => Self::Unix(Unix {
                path: text("path"),
                abstract_: flag("abstract").unwrap_or(false),
                tight: flag("tight").unwrap_or(true),
            }),
            "fd" => Self::Fd(text("str")),
            other => Self::Other(other.to_owned()),
        }
    }

    /// As a flat `SocketAddress`, without members that were not given.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            Self::Inet(inet) => {
                let mut value = json!({"type": "inet", "host": inet.host, "port": inet.port});
                for (name, flag) in [("ipv4", inet.ipv4), ("ipv6", inet.ipv6)] {
                    if let Some(flag) = flag {
                        value[name] = Value::Bool(flag);
                    }
                }
                value
            }
            Self::Unix(unix) if unix.abstract_ => {
                json!({"type": "unix", "path": unix.path, "abstract": true, "tight": unix.tight})
            }
            Self::Unix(unix) => json!({"type": "unix", "path": unix.path}),
            Self::Fd(name) => json!({"type": "fd", "str": name}),
            Self::Other(kind) => json!({"type": kind}),
        }
    }

    /// As `query-chardev` writes an address that has nobody at its other end.
    #[must_use]
    pub fn to_filename(&self, server: bool) -> String {
        let server = if server { ",server=on" } else { "" };
        match self {
            Self::Inet(inet) => format!("tcp:{}:{}{server}", inet.host, inet.port),
            Self::Unix(unix) => format!("{}{server}", unix.to_filename()),
            Self::Fd(name) => format!("fd:{name}{server}"),
            Self::Other(kind) => format!("{kind}:{server}"),
        }
    }
}

impl Unix {
    /// `unix:PATH` with the marks of an abstract name.
    #[must_use]
    pub fn to_filename(&self) -> String {
        let kind = match (self.abstract_, self.tight) {
            (false, _) => "",
            (true, false) => ",abstract=on",
            (true, true) => ",abstract=on,tight=on",
        };
        format!("unix:{}{kind}", self.path)
    }

    /// From the kernel's answer. A name that fills the address counts as not tight, and loses its NULs.
    #[must_use]
    pub fn from_kernel(address: &UnixSocketAddr) -> Self {
        use std::os::linux::net::SocketAddrExt;
        if let Some(name) = address.as_abstract_name() {
            let tight = name.len() < ABSTRACT_ROOM;
            let name = if tight { name } else { name.split(|&byte| byte == 0).next().unwrap_or_default() };
            return Self { path: String::from_utf8_lossy(name).into_owned(), abstract_: true, tight };
        }
        let path = address.as_pathname().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        Self { path, abstract_: false, tight: true }
    }
}

impl From<SocketAddr> for Inet {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port().to_string(), ..Self::default() }
    }
}

/// `HOST:PORT` with brackets around an IPv6 address, as the connected form has it.
#[must_use]
pub(super) fn host_and_port(address: SocketAddr) -> String {
    // `Display` of a socket address has these brackets, and no scope for addresses without one.
    address.to_string()
}
