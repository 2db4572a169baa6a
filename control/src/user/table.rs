//! Connections as `info usernet` shows them (libslirp `slirp_connection_info`).

use std::fmt::Write;
use std::net::IpAddr;
use usernet::protocol::Connection;

/// The table, with its head.
#[must_use]
pub fn connections(all: &[Connection]) -> String {
    let mut out =
        "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n".to_owned();
    for Connection { protocol, fd, source, destination, queued } in all {
        let place = |address: Option<IpAddr>, any: &str| {
            address.map_or_else(|| any.to_owned(), |address| address.to_string())
        };
        let ports = !protocol.starts_with("ICMP");
        let port = |number: u16| if ports { format!("{number:>5}") } else { "  -  ".to_owned() };
        let from = place(source.0.filter(|address| !address.is_unspecified()), "*");
        let to = place(destination.0, "0.0.0.0");
        let _ = writeln!(
            out,
            "  {protocol:<17} {fd:>3} {from:>15} {} {to:>15} {} {:>5} {:>5}",
            port(source.1),
            port(destination.1),
            queued[0],
            queued[1]
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn columns_are_libslirps() {
        let guest = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 2, 15)));
        let any = Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let line = |protocol: &str, source, destination| Connection {
            protocol: protocol.to_owned(),
            fd: 11,
            source,
            destination,
            queued: [0, 7],
        };
        let text = connections(&[
            line("TCP[HOST_FORWARD]", (any, 2222), (guest, 22)),
            line("ICMP[9 sec]", (guest, 0), (guest, 0)),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ"
        );
        assert_eq!(
            lines[1],
            "  TCP[HOST_FORWARD]  11               *  2222       10.0.2.15    22     0     7"
        );
        assert_eq!(
            lines[2],
            "  ICMP[9 sec]        11       10.0.2.15   -         10.0.2.15   -       0     7"
        );
    }
}
