//! What the user may say of a netdev whose frames are datagrams, as plain values (qapi/net.json `NetdevDgramOptions`, `NetdevSocketOptions`).

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

/// Where datagrams come from and go to. Control has checked what may stand together, and resolved names.
#[derive(Debug)]
pub enum DatagramOptions {
    /// UDP: bound to an address, sent to another, accepted from any.
    Inet {
        /// Where they arrive.
        local: SocketAddrV4,
        /// Where they go.
        remote: SocketAddrV4,
    },
    /// A multicast group, which also gets what it sends itself.
    Multicast {
        /// Address and port of the group.
        group: SocketAddrV4,
        /// Address of the interface; the kernel chooses one without it.
        interface: Option<Ipv4Addr>,
    },
    /// Two paths: each side has its own.
    Unix {
        /// Where they arrive. A socket that is there already is removed.
        local: String,
        /// Where they go.
        remote: String,
    },
    /// An open datagram socket, connected to its other end.
    Given(OwnedFd),
}
