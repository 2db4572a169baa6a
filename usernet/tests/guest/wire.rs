//! Networks and frames.

use super::{HOST, MAC, ME};
use std::net::Ipv4Addr;
use usernet::protocol::{Ipv4, Ipv6, Network};

/// What QEMU's defaults are.
pub fn network() -> Network {
    Network {
        restricted: false,
        ipv4: Some(Ipv4 {
            network: Ipv4Addr::new(10, 0, 2, 0),
            mask: Ipv4Addr::new(255, 255, 255, 0),
            host: HOST,
            dhcp_start: ME,
            dns: Ipv4Addr::new(10, 0, 2, 3),
        }),
        ipv6: Some(Ipv6 {
            prefix: "fec0::".parse().unwrap(),
            length: 64,
            host: "fec0::2".parse().unwrap(),
            dns: "fec0::3".parse().unwrap(),
        }),
        hostname: Some("guest".into()),
        domainname: None,
        search: Vec::new(),
        tftp: None,
        tftp_server_name: None,
        bootfile: None,
        services: Vec::new(),
    }
}

pub fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
}

pub fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub fn ethernet(to: [u8; 6], kind: u16) -> Vec<u8> {
    [&to[..], &MAC, &kind.to_be_bytes()].concat()
}

pub fn arp(operation: u8, from: Ipv4Addr, to: Ipv4Addr, mac: [u8; 6]) -> Vec<u8> {
    let mut frame = ethernet(mac, 0x0806);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend_from_slice(&MAC);
    frame.extend_from_slice(&from.octets());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&to.octets());
    frame
}

pub fn ip(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, mut transport: Vec<u8>, checksum: usize) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend_from_slice(&((transport.len() + 20) as u16).to_be_bytes());
    header.extend_from_slice(&[0, 1, 0, 0, 64, protocol, 0, 0]);
    header.extend_from_slice(&from.octets());
    header.extend_from_slice(&to.octets());
    let value = !fold(sum(&header));
    header[10..12].copy_from_slice(&value.to_be_bytes());
    let pseudo = sum(&header[12..20]) + u32::from(protocol) + transport.len() as u32;
    let value = !fold(pseudo + sum(&transport));
    transport[checksum..checksum + 2].copy_from_slice(&value.to_be_bytes());
    let mut frame = ethernet([0x52, 0x55, 10, 0, 2, 2], 0x0800);
    frame.extend_from_slice(&header);
    frame.extend_from_slice(&transport);
    frame
}

pub fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), bytes: &[u8]) -> Vec<u8> {
    let mut datagram =
        [from.1.to_be_bytes(), to.1.to_be_bytes(), ((bytes.len() + 8) as u16).to_be_bytes(), [0; 2]].concat();
    datagram.extend_from_slice(bytes);
    ip(17, from.0, to.0, datagram, 6)
}

pub fn tcp(
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    bytes: &[u8],
    mss: Option<u16>,
) -> Vec<u8> {
    let mut segment = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    segment.extend_from_slice(&sequence.to_be_bytes());
    segment.extend_from_slice(&acknowledged.to_be_bytes());
    segment.extend_from_slice(&[if mss.is_some() { 0x60 } else { 0x50 }, flags, 0xff, 0xff, 0, 0, 0, 0]);
    if let Some(mss) = mss {
        segment.extend_from_slice(&[2, 4]);
        segment.extend_from_slice(&mss.to_be_bytes());
    }
    segment.extend_from_slice(bytes);
    ip(6, from.0, to.0, segment, 16)
}
