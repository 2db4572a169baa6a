//! What the options of a `user` netdev mean: defaults, rules and words of QEMU (`net/slirp.c`).

use super::address::{ipv4, number};
use super::rule::{GuestForward, guest_forward, host_forward};
use crate::options::Text;
use crate::options::netdev::UserOptions;
use crate::qmp::error::QmpError;
use std::net::{Ipv4Addr, Ipv6Addr};
use usernet::protocol::{Forward, Ipv4, Ipv6, Network};

/// The names that DHCP tells are no longer.
const NAME: usize = 255;
/// Bytes of a boot file's name at most, less the final zero (RFC 951).
const FILE: usize = 127;

/// Everything that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The network, without services.
    pub network: Network,
    /// Forwards from the host.
    pub forwards: Vec<Forward>,
    /// Their rules, in the same order.
    pub rules: Vec<String>,
    /// Forwards from the guest.
    pub guest_forwards: Vec<GuestForward>,
    /// The directory that an SMB server shows, and its address.
    pub smb: Option<(String, Ipv4Addr)>,
}

fn wrong<T>(text: &str) -> Result<T, QmpError> {
    Err(QmpError::generic(text))
}

/// Checks options in QEMU's order and fills in what is not said.
///
/// # Errors
/// QEMU's words.
pub fn wanted(options: &UserOptions) -> Result<Wanted, QmpError> {
    let (v4, v6) = protocols(options);
    let net = options.net.clone().or_else(|| Some(format!("{}/24", options.ip.as_ref()?)));
    if !v4 && (net.is_some() || options.host.is_some() || options.dns.is_some()) {
        return wrong("IPv4 disabled but netmask/host/dns provided");
    }
    if !v6 && (options.ipv6_prefix.is_some() || options.ipv6_host.is_some() || options.ipv6_dns.is_some()) {
        return wrong("IPv6 disabled but prefix/host6/dns6 provided");
    }
    if !v4 && !v6 {
        return wrong("IPv4 and IPv6 disabled");
    }
    let restricted = options.restrict.unwrap_or(false);
    let ipv4 = four(options, net.as_deref(), restricted)?;
    let smb_address = match &options.smbserver {
        Some(text) => parsed(text, "Failed to parse SMB address")?,
        None => Ipv4Addr::UNSPECIFIED,
    };
    let ipv6 = six(options, restricted)?;
    names(options)?;
    // QEMU goes from the last rule to the first, those of the guest before those of the host.
    let backwards = |rules: &Option<Vec<Text>>| -> Vec<String> {
        rules.iter().flatten().rev().map(|rule| rule.str.clone()).collect()
    };
    let guest =
        backwards(&options.guestfwd).iter().map(|rule| guest_forward(rule)).collect::<Result<Vec<_>, _>>()?;
    let guest_forwards = placed(guest, &ipv4)?;
    let rules = backwards(&options.hostfwd);
    let forwards = rules.iter().map(|rule| host_forward(rule)).collect::<Result<Vec<_>, _>>()?;
    let smb = match &options.smb {
        Some(directory) => {
            let address = server(Some(smb_address).filter(|address| !address.is_unspecified()), &ipv4);
            let taken =
                |port| guest_forwards.iter().any(|forward| forward.server == address && forward.port == port);
            match address.filter(|_| !taken(139) && !taken(445)) {
                Some(address) => Some((directory.clone(), address)),
                // Told once smbd and the directory are there.
                None => Some((directory.clone(), Ipv4Addr::UNSPECIFIED)),
            }
        }
        None => None,
    };
    let network = Network {
        restricted,
        ipv4: v4.then_some(ipv4),
        ipv6: v6.then_some(ipv6),
        hostname: options.hostname.clone(),
        domainname: options.domainname.clone(),
        search: options.dnssearch.iter().flatten().map(|name| name.str.clone()).collect(),
        tftp: options.tftp.clone().map(Into::into),
        tftp_server_name: options.tftp_server_name.clone(),
        bootfile: options.bootfile.clone(),
        services: Vec::new(),
    };
    Ok(Wanted { network, forwards, rules, guest_forwards, smb })
}

/// One that is asked for alone turns the other off.
const fn protocols(options: &UserOptions) -> (bool, bool) {
    let (v4, v6) = (options.ipv4, options.ipv6);
    let four = !matches!((v4, v6), (Some(false), _) | (None, Some(true)));
    let six = !matches!((v4, v6), (_, Some(false)) | (Some(true), None));
    (four, six)
}

fn parsed(text: &str, otherwise: &str) -> Result<Ipv4Addr, QmpError> {
    ipv4(text).ok_or_else(|| QmpError::generic(otherwise))
}

fn four(options: &UserOptions, net: Option<&str>, restricted: bool) -> Result<Ipv4, QmpError> {
    let (network, mask) = match net {
        Some(text) => network(text)?,
        None => (Ipv4Addr::new(10, 0, 2, 0), Ipv4Addr::new(255, 255, 255, 0)),
    };
    let inside = |address: Ipv4Addr| address & mask == network;
    let usual = |low: u32| network | (Ipv4Addr::from_bits(low) & !mask);
    let host =
        options.host.as_deref().map_or(Ok(usual(0x0202)), |text| parsed(text, "Failed to parse host"))?;
    if !inside(host) {
        return wrong("Host doesn't belong to network");
    }
    let dns = options.dns.as_deref().map_or(Ok(usual(0x0203)), |text| parsed(text, "Failed to parse DNS"))?;
    if restricted && !inside(dns) {
        return wrong("DNS doesn't belong to network");
    }
    if dns == host {
        return wrong("DNS must be different from host");
    }
    let start = options.dhcpstart.as_deref();
    let dhcp_start =
        start.map_or(Ok(usual(0x020f)), |text| parsed(text, "Failed to parse DHCP start address"))?;
    if !inside(dhcp_start) {
        return wrong("DHCP doesn't belong to network");
    }
    if dhcp_start == host || dhcp_start == dns {
        return wrong("DHCP must be different from host and DNS");
    }
    Ok(Ipv4 { network, mask, host, dhcp_start, dns })
}

/// `address[/mask]`: a mask in dots or bits, else the one that the address suggests.
fn network(text: &str) -> Result<(Ipv4Addr, Ipv4Addr), QmpError> {
    let Some((address, mask)) = text.split_once('/') else {
        let address = parsed(text, "Failed to parse netmask")?;
        let mask = match address.octets() {
            [..128, ..] => 8,
            [172, 16..32, ..] => 12,
            [192, 168, ..] | [128..192, ..] => 16,
            [198, 18, ..] => 15,
            [224..=255, ..] => 24,
            _ => 28,
        };
        let mask = bits(mask);
        return Ok((address & mask, mask));
    };
    let address = parsed(address, "Failed to parse netmask")?;
    let mask = match number(mask, 10) {
        None => parsed(mask, "Failed to parse netmask (trailing chars)")?,
        Some(length @ 4..=32) => bits(length as u32),
        Some(_) => return wrong("Invalid netmask provided (must be in range 4-32)"),
    };
    Ok((address & mask, mask))
}

const fn bits(length: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::MAX << (32 - length))
}

fn six(options: &UserOptions, restricted: bool) -> Result<Ipv6, QmpError> {
    let address = |text: &str, otherwise: &str| -> Result<Ipv6Addr, QmpError> {
        text.parse().map_err(|_| QmpError::generic(otherwise))
    };
    let prefix = address(options.ipv6_prefix.as_deref().unwrap_or("fec0::"), "Failed to parse IPv6 prefix")?;
    // QEMU's int.
    let length = match options.ipv6_prefixlen.unwrap_or(0) as i32 {
        0 => 64,
        length @ 1..=126 => length as u8,
        _ => {
            return wrong("Invalid IPv6 prefix provided (IPv6 prefix length must be between 0 and 126)");
        }
    };
    let mask = u128::MAX << (128 - u32::from(length));
    let inside = |address: Ipv6Addr| (address.to_bits() ^ prefix.to_bits()) & mask == 0;
    let usual = |low: u128| Ipv6Addr::from_bits(prefix.to_bits() | low);
    let host = options.ipv6_host.as_deref();
    let host = host.map_or(Ok(usual(2)), |text| address(text, "Failed to parse IPv6 host"))?;
    if options.ipv6_host.is_some() && !inside(host) {
        return wrong("IPv6 Host doesn't belong to network");
    }
    let dns = options.ipv6_dns.as_deref();
    let dns = dns.map_or(Ok(usual(3)), |text| address(text, "Failed to parse IPv6 DNS"))?;
    if options.ipv6_dns.is_some() && restricted && !inside(dns) {
        return wrong("IPv6 DNS doesn't belong to network");
    }
    Ok(Ipv6 { prefix, length, host, dns })
}

fn names(options: &UserOptions) -> Result<(), QmpError> {
    let longer = |name: &Option<String>, most: usize| name.as_ref().is_some_and(|name| name.len() > most);
    if options.domainname.as_ref().is_some_and(String::is_empty) {
        return wrong("'domainname' parameter cannot be empty");
    }
    if longer(&options.domainname, NAME) {
        return wrong("'domainname' parameter cannot exceed 255 bytes");
    }
    if longer(&options.hostname, NAME) {
        return wrong("'vhostname' parameter cannot exceed 255 bytes");
    }
    if longer(&options.tftp_server_name, NAME) {
        return wrong("'tftp-server-name' parameter cannot exceed 255 bytes");
    }
    // There QEMU aborts.
    if longer(&options.bootfile, FILE) {
        return wrong("'bootfile' parameter cannot exceed 127 bytes");
    }
    Ok(())
}

/// The address of a service, if it can be one: of the network, and nobody's yet (libslirp `check_guestfwd`).
fn server(address: Option<Ipv4Addr>, net: &Ipv4) -> Option<Ipv4Addr> {
    let address = address.unwrap_or_else(|| net.network | (Ipv4Addr::from_bits(0x0204) & !net.mask));
    let inside = address & net.mask == net.network;
    (inside && address != net.host && address != net.dns).then_some(address)
}

/// Gives each its address, none to two.
fn placed(forwards: Vec<GuestForward>, net: &Ipv4) -> Result<Vec<GuestForward>, QmpError> {
    let mut all: Vec<GuestForward> = Vec::new();
    for mut forward in forwards {
        let address = server(forward.server.filter(|address| !address.is_unspecified()), net);
        let taken = all.iter().any(|other| other.server == address && other.port == forward.port);
        if address.is_none() || taken {
            let desc = format!("Conflicting/invalid host:port in guest forwarding rule '{}'", forward.rule);
            return Err(QmpError::generic(desc));
        }
        forward.server = address;
        all.push(forward);
    }
    Ok(all)
}

/// As `info network` tells of it.
#[must_use]
pub fn info(wanted: &Wanted, options: &UserOptions) -> String {
    // QEMU shows the network that there would be, too.
    let shown =
        four(options, options.net.as_deref(), false).map_or(Ipv4Addr::new(10, 0, 2, 0), |net| net.network);
    let network = wanted.network.ipv4.map_or(shown, |net| net.network);
    format!("net={network},restrict={}", if wanted.network.restricted { "on" } else { "off" })
}
