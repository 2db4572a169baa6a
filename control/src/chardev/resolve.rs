//! From a host and a port as people write them to addresses, with the resolver's words where that fails.

use super::address::Inet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// All addresses that `inet` means, in the resolver's order. May block on the network when `host` is a name.
///
/// # Errors
/// QEMU's sentence around the resolver's (`gai_strerror`).
pub(super) fn resolve(inet: &Inet) -> Result<Vec<SocketAddr>, String> {
    let failed = |why: &str| format!("address resolution failed for {}:{}: {why}", inet.host, inet.port);
    if inet.ipv4 == Some(false) && inet.ipv6 == Some(false) {
        return Err("Cannot disable IPv4 and IPv6 at same time".to_owned());
    }
    let port = port_number(&inet.port).ok_or_else(|| failed("Servname not supported for ai_socktype"))?;
    if inet.host.is_empty() {
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        return Ok(any
            .into_iter()
            .filter(|ip| wanted(inet, *ip))
            .map(|ip| SocketAddr::new(ip, port))
            .collect());
    }
    if let Ok(ip) = inet.host.parse::<IpAddr>() {
        // An IPv4 address may be asked for as IPv6: the resolver then gives it as it is.
        if ip.is_ipv6() && !wanted(inet, ip) {
            return Err(failed("Address family for hostname not supported"));
        }
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    if inet.numeric {
        return Err(failed("Name or service not known"));
    }
    let found = (inet.host.as_str(), port).to_socket_addrs().map_err(|error| {
        let text = error.to_string();
        failed(text.strip_prefix("failed to lookup address information: ").unwrap_or(&text))
    })?;
    let found: Vec<_> = found.filter(|address| wanted(inet, address.ip())).collect();
    if found.is_empty() { Err(failed("Name or service not known")) } else { Ok(found) }
}

/// True when the answer needs no look-up.
pub(crate) fn is_numeric(inet: &Inet) -> bool {
    inet.host.is_empty() || inet.numeric || inet.host.parse::<IpAddr>().is_ok()
}

/// Which families: naming one alone turns the other off.
fn wanted(inet: &Inet, ip: IpAddr) -> bool {
    match (ip, inet.ipv4, inet.ipv6) {
        (IpAddr::V4(_), Some(four), _) => four,
        (IpAddr::V4(_), None, six) => six != Some(true),
        (IpAddr::V6(_), _, Some(six)) => six,
        (IpAddr::V6(_), four, None) => four != Some(true),
    }
}

/// A port number (empty means 0; larger ones wrap, as the resolver does it), or a service of `/etc/services`.
fn port_number(text: &str) -> Option<u16> {
    if text.is_empty() {
        return Some(0);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<u64>().ok().map(|port| port as u16);
    }
    let services = std::fs::read_to_string("/etc/services").ok()?;
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (name, port) = (words.next()?, words.next()?.strip_suffix("/tcp")?);
        (name == text || words.any(|alias| alias == text)).then(|| port.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inet(host: &str, port: &str) -> Inet {
        Inet { host: host.to_owned(), port: port.to_owned(), ..Inet::default() }
    }

    #[test]
    fn an_empty_host_is_any_address_of_the_wanted_families() {
        let both = resolve(&inet("", "7")).unwrap();
        assert_eq!(both, ["0.0.0.0:7".parse().unwrap(), "[::]:7".parse().unwrap()]);
        let four = resolve(&Inet { ipv4: Some(true), ..inet("", "7") }).unwrap();
        assert_eq!(four, ["0.0.0.0:7".parse().unwrap()]);
        let six = resolve(&Inet { ipv4: Some(false), ..inet("", "7") }).unwrap();
        assert_eq!(six, ["[::]:7".parse().unwrap()]);
    }

    #[test]
    fn failures_have_the_resolvers_words() {
        let text = |inet: &Inet| resolve(inet).unwrap_err();
        assert_eq!(
            text(&inet("127.0.0.1", "zz")),
            "address resolution failed for 127.0.0.1:zz: Servname not supported for ai_socktype"
        );
        assert_eq!(
            text(&Inet { ipv6: Some(false), ..inet("::1", "1") }),
            "address resolution failed for ::1:1: Address family for hostname not supported"
        );
        assert_eq!(
            text(&Inet { numeric: true, ..inet("localhost", "1") }),
            "address resolution failed for localhost:1: Name or service not known"
        );
        assert_eq!(
            text(&Inet { ipv4: Some(false), ipv6: Some(false), ..inet("localhost", "1") }),
            "Cannot disable IPv4 and IPv6 at same time"
        );
    }

    #[test]
    fn ports_wrap_and_an_empty_one_is_zero() {
        assert_eq!(port_number("99999"), Some(34463));
        assert_eq!(port_number(""), Some(0));
        assert_eq!(port_number("99999999999999999999999999"), None);
    }
}
