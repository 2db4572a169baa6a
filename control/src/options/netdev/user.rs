//! Options of netdevs that are a network of their own.

use crate::options::Text;
use serde::{Deserialize, Serialize};

/// A network of its own for the guest, translated to the host's sockets: no privileges needed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct UserOptions {
    /// Host name that DHCP tells the guest; at most 255 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Cut the guest off from everything but the forwards given here. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restrict: Option<bool>,
    /// Whether IPv4 is offered; on, unless only `ipv6` is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<bool>,
    /// Whether IPv6 is offered; on, unless only `ipv4` is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<bool>,
    /// Old form of `net`: a network address with a 24 bit mask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// IPv4 network of the guest, as `address[/mask]`. Default 10.0.2.0/24.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<String>,
    /// The host's address in that network; its second address without this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Directory that a read-only TFTP server shows to the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tftp: Option<String>,
    /// Name of the boot file that DHCP announces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootfile: Option<String>,
    /// First of 16 addresses that DHCP leases; the network's 15th without this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcpstart: Option<String>,
    /// Address of the name server in the network; its third without this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
    /// Search domains that DHCP tells the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dnssearch: Option<Vec<Text>>,
    /// Domain name that DHCP tells the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// IPv6 network prefix of the guest. Default fec0::.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_prefix: Option<String>,
    /// Length of that prefix, 0 to 126; 0 means 64. Default 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_prefixlen: Option<i64>,
    /// The host's IPv6 address; prefix::2 without this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_host: Option<String>,
    /// Address of the IPv6 name server; prefix::3 without this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_dns: Option<String>,
    /// Directory that an SMB server shares with the guest; needs smbd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smb: Option<String>,
    /// Address of that server; the network's fourth without this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smbserver: Option<String>,
    /// Ports of the host forwarded to the guest: `[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostfwd: Option<Vec<Text>>,
    /// Connections of the guest forwarded: `[tcp]:server:port-dev`, or `-cmd:command`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guestfwd: Option<Vec<Text>>,
    /// Name of the TFTP server that DHCP announces; at most 255 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tftp_server_name: Option<String>,
}

/// User-mode networking by the passt program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PasstOptions {
    /// The program; searched on the path without this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Log errors only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet: Option<bool>,
    /// Talk vhost-user instead of a stream socket. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhost_user: Option<bool>,
    /// MTU told to the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<i64>,
    /// IPv4 or IPv6 address of the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// IPv4 netmask of the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netmask: Option<String>,
    /// Hardware address of the gateway that the guest sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Default gateway told to the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Host interface to copy addresses and routes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Address that outbound connections start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound: Option<String>,
    /// Interface for outbound IPv4 connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound_if4: Option<String>,
    /// Interface for outbound IPv6 connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound_if6: Option<String>,
    /// Name server told to the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
    /// Search domains told to the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<Vec<Text>>,
    /// Full name told to the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fqdn: Option<String>,
    /// Tell the guest the name server by DHCP, DHCPv6 or NDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp_dns: Option<bool>,
    /// Tell it the search domains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp_search: Option<bool>,
    /// Address in the guest's network that means the host's loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map_host_loopback: Option<String>,
    /// Address in the guest's network that means the guest's own address at the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map_guest_addr: Option<String>,
    /// Address in the guest's network where name requests are forwarded from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_forward: Option<String>,
    /// Name server that forwarded requests go to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_host: Option<String>,
    /// Forward TCP. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<bool>,
    /// Forward UDP. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<bool>,
    /// Forward ICMP echo. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp: Option<bool>,
    /// Run a DHCP server. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// Answer neighbour discovery. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ndp: Option<bool>,
    /// Run a DHCPv6 server. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcpv6: Option<bool>,
    /// Send router advertisements. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ra: Option<bool>,
    /// Bind to addresses that the host does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freebind: Option<bool>,
    /// Offer IPv4. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<bool>,
    /// Offer IPv6. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<bool>,
    /// TCP ports forwarded to the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_ports: Option<Vec<Text>>,
    /// UDP ports forwarded to the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_ports: Option<Vec<Text>>,
    /// Further words for the program's command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub param: Option<Vec<Text>>,
}
