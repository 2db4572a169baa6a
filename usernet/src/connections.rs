//! libslirp's table of connections, read. It knows only IPv4: what it shows of others is put right by what we know.

use crate::flows::Flows;
use nix::sys::socket::{SockaddrLike, SockaddrStorage, getsockname};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::RawFd;
use usernet::protocol::Connection;

fn number<T: std::str::FromStr + Default>(field: Option<&str>) -> T {
    field.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn line(line: &str) -> Option<Connection> {
    // `UDP[236 sec]` has a blank in it.
    let (protocol, rest) = line.trim_start().split_once(']')?;
    let mut fields = rest.split_whitespace();
    let fd = number(fields.next());
    let mut end = || {
        let address = fields.next().and_then(|text| text.parse().ok()).map(IpAddr::V4);
        (address, number(fields.next()))
    };
    let (source, destination) = (end(), end());
    let queued = [number(fields.next()), number(fields.next())];
    Some(Connection { protocol: format!("{protocol}]"), fd, source, destination, queued })
}

/// The address that a socket is bound to.
pub(crate) fn bound(socket: RawFd) -> Option<(IpAddr, u16)> {
    address(&getsockname::<SockaddrStorage>(socket).ok()?)
}

/// An address of the Internet, and its port.
pub(crate) fn address(address: &SockaddrStorage) -> Option<(IpAddr, u16)> {
    let four = address.as_sockaddr_in().map(|at| (IpAddr::V4(at.ip()), at.port()));
    four.or_else(|| {
        address.as_sockaddr_in6().map(|at| (IpAddr::V6(Ipv6Addr::from(at.ip().octets())), at.port()))
    })
}

/// Whether a socket is a unix socket.
pub(crate) fn is_unix(socket: RawFd) -> bool {
    getsockname::<SockaddrStorage>(socket)
        .is_ok_and(|at| at.family() == Some(nix::sys::socket::AddressFamily::Unix))
}

/// Reads the table. `guest` knows the guest's end of what listens at an address.
pub(crate) fn read(
    table: &str,
    flows: &Flows,
    guest: impl Fn(&str, Option<(IpAddr, u16)>) -> Option<(IpAddr, u16)>,
) -> Vec<Connection> {
    let mut list: Vec<Connection> = table.lines().skip(1).filter_map(line).collect();
    for connection in &mut list {
        if connection.fd < 0 {
            continue;
        }
        if connection.protocol.ends_with("[HOST_FORWARD]") {
            let here = bound(connection.fd);
            if here.is_some() || is_unix(connection.fd) {
                connection.source = here.map_or((None, 0), |(address, port)| (shown(address), port));
            }
            if let Some((address, port)) = guest(&connection.protocol, here) {
                connection.destination = (shown(address), port);
            }
        } else if let Some(key) = flows.of_socket(connection.fd)
            && key.guest.0.is_ipv6()
        {
            connection.source = (Some(key.guest.0), key.guest.1);
            connection.destination = (Some(key.peer.0), key.peer.1);
        }
    }
    list
}

fn shown(address: IpAddr) -> Option<IpAddr> {
    (!address.is_unspecified()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        let table = "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n\
                     \x20 TCP[HOST_FORWARD]  -1               *  2222       10.0.2.15    22     0     0\n\
                     \x20 TCP[ESTABLISHED]   -1       10.0.2.15 40000        10.0.2.2    80     7     9\n\
                     \x20 UDP[236 sec]       -1       10.0.2.15 40001        10.0.2.3    53     0     0\n\
                     \x20 ICMP[5 sec]        -1       10.0.2.15  -          192.0.2.1  -        0     0\n";
        let list = read(table, &Flows::default(), |_, _| None);
        assert_eq!(list.len(), 4);
        assert_eq!((list[0].source, list[0].destination.1), ((None, 2222), 22));
        assert_eq!((list[1].protocol.as_str(), list[1].queued), ("TCP[ESTABLISHED]", [7, 9]));
        assert_eq!((list[2].protocol.as_str(), list[2].source.1), ("UDP[236 sec]", 40001));
        assert_eq!(list[3].destination, (Some(IpAddr::from([192, 0, 2, 1])), 0));
    }
}
