//! Hosts and ports as QEMU's older network options have them: IPv4 only (QEMU `net/net.c`, `convert_host_port`).

use crate::qmp::error::QmpError;
pub(super) use crate::user::address::ipv4 as inet_aton;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, ToSocketAddrs};

/// A host and a port in one string.
///
/// # Errors
/// QEMU's words.
pub(super) fn split(text: &str) -> Result<(&str, &str), QmpError> {
    text.split_once(':').ok_or_else(|| {
        let desc = format!("host address '{text}' doesn't contain ':' separating host from port");
        QmpError::generic(desc)
    })
}

/// The address that is meant. May block on the network where the host is a name.
///
/// # Errors
/// QEMU's words.
pub(super) fn resolve((host, port): (&str, &str)) -> Result<SocketAddrV4, QmpError> {
    let ip = match host.bytes().next() {
        None => Ipv4Addr::UNSPECIFIED,
        Some(b'0'..=b'9') => inet_aton(host)
            .ok_or_else(|| QmpError::generic(format!("host address '{host}' is not a valid IPv4 address")))?,
        Some(_) => {
            look_up(host).ok_or_else(|| QmpError::generic(format!("can't resolve host address '{host}'")))?
        }
    };
    let (port, _) =
        number(port).ok_or_else(|| QmpError::generic(format!("port number '{port}' is invalid")))?;
    // What follows the number counts for nothing, and a port has its last 16 bits, as in QEMU.
    Ok(SocketAddrV4::new(ip, port as u16))
}

/// Whether a host is a name, which is looked up.
pub(super) fn is_name(host: &str) -> bool {
    !(host.is_empty() || host.starts_with(|c: char| c.is_ascii_digit()))
}

/// The first IPv4 address of a name.
fn look_up(host: &str) -> Option<Ipv4Addr> {
    (host, 0).to_socket_addrs().ok()?.find_map(|address| match address.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    })
}

/// The number that a text begins with, in the forms of strtol(3) with base 0 (decimal, octal or hexadecimal), and what follows it. `None` where there is
/// none, or one beyond 64 bits.
fn number(text: &str) -> Option<(i64, &str)> {
    let text = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (digits, radix) = match hexadecimal {
        Some(digits) if digits.starts_with(|c: char| c.is_ascii_hexdigit()) => (digits, 16),
        _ if digits.starts_with('0') => (digits, 8),
        _ => (digits, 10),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    Some((sign * i64::from_str_radix(digits, radix).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_forms_of_inet_aton() {
        let ip = |text| inet_aton(text).map(|ip| ip.to_string());
        for (text, expected) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.1", "127.0.0.1"),
            ("10.1.258", "10.1.1.2"),
            ("0x7f000001", "127.0.0.1"),
            ("0177.0.0.1 rest", "127.0.0.1"),
            ("4294967295", "255.255.255.255"),
        ] {
            assert_eq!(ip(text).as_deref(), Some(expected), "{text}");
        }
        for text in
            ["300.1.1.1", "1.2.3.4.5", "1.2.3.256", "1..2", "", "4294967296", "1.2.3.4x", "09", "-1", "1."]
        {
            assert_eq!(ip(text), None, "{text}");
        }
    }

    #[test]
    fn ports_have_the_forms_of_strtol() {
        let port = |port| resolve(("", port)).map(|address| address.port()).map_err(|error| error.desc);
        for (text, expected) in [
            ("7100", 7100),
            ("0x10", 16),
            ("010", 8),
            (" 5", 5),
            ("+5", 5),
            ("65537", 1),
            ("-1", 65535),
            ("0", 0),
            ("5 x", 5),
            ("0x", 0),
            ("08", 0),
        ] {
            assert_eq!(port(text), Ok(expected), "{text}");
        }
        for text in ["", " ", "x", "+", "- 5", "--1", "99999999999999999999"] {
            assert_eq!(port(text), Err(format!("port number '{text}' is invalid")));
        }
    }

    #[test]
    fn hosts_are_any_address_an_address_or_a_name() {
        let host =
            |host| resolve((host, "1")).map(|address| address.ip().to_string()).map_err(|error| error.desc);
        assert_eq!(host("").as_deref(), Ok("0.0.0.0"));
        assert_eq!(host("localhost").as_deref(), Ok("127.0.0.1"));
        assert_eq!(host("300.1.1.1"), Err("host address '300.1.1.1' is not a valid IPv4 address".to_owned()));
        assert_eq!(host("::1"), Err("can't resolve host address '::1'".to_owned()));
        let split = |text| split(text).map_err(|error| error.desc);
        assert_eq!(split(":1"), Ok(("", "1")));
        assert_eq!(split("a:1:2"), Ok(("a", "1:2")));
        assert_eq!(
            split("1234"),
            Err("host address '1234' doesn't contain ':' separating host from port".to_owned())
        );
    }
}
