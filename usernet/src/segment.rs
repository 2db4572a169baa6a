//! TCP segments in the guest's name that the stack gets from us.

use crate::flows::Key;
use crate::wire::{self, ACK, ETHERNET, Packet, RST, Transport};
use std::net::IpAddr;

/// Resets a connection.
pub(crate) fn reset(key: &Key, sequence: u32) -> Vec<u8> {
    segment(key, sequence, 0, RST, 0)
}

/// Asks for the window of a connection, of which the stack awaits the byte `next`: a segment from before the window is answered with an
/// acknowledgement, and changes nothing (RFC 9293 section 3.10.7.4). Its window is one that no guest says, so that it is taken for no duplicate.
pub(crate) fn probe(key: &Key, next: u32, acknowledged: u32) -> Vec<u8> {
    segment(key, next.wrapping_sub(1), acknowledged, ACK, 1)
}

/// Acknowledges what the stack has sent.
pub(crate) fn acknowledgement(key: &Key, sequence: u32, acknowledged: u32, window: u16) -> Vec<u8> {
    segment(key, sequence, acknowledged, ACK, window)
}

fn segment(key: &Key, sequence: u32, acknowledged: u32, flags: u8, window: u16) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET];
    match (key.guest.0, key.peer.0) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            wire::put(&mut frame, 12, 0x0800);
            frame.extend_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0]);
            frame.extend_from_slice(&source.octets());
            frame.extend_from_slice(&destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            wire::put(&mut frame, 12, 0x86dd);
            frame.extend_from_slice(&[0x60, 0, 0, 0, 0, 0, 6, 64]);
            frame.extend_from_slice(&source.octets());
            frame.extend_from_slice(&destination.octets());
        }
        _ => return Vec::new(),
    }
    let start = frame.len();
    frame.extend_from_slice(&key.guest.1.to_be_bytes());
    frame.extend_from_slice(&key.peer.1.to_be_bytes());
    frame.extend_from_slice(&sequence.to_be_bytes());
    frame.extend_from_slice(&acknowledged.to_be_bytes());
    frame.extend_from_slice(&[0x50, flags]);
    frame.extend_from_slice(&window.to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    let end = frame.len();
    let packet = Packet { six: key.guest.0.is_ipv6(), transport: Transport::Tcp, start, payload: end, end };
    packet.write_lengths(&mut frame);
    packet.write_checksum(&mut frame);
    frame
}
