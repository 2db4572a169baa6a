//! A TCP segment of 64 KiB, and what may become of it.

use super::ends::Outside;
use serde_json::json;
use tests::lab::Lab;

/// Bytes of a segment's payload on the wire.
const MSS: usize = 1460;
const PAYLOAD: usize = 65_535 - 40;
const HEADERS: usize = 54;
/// It passes zero on the way.
const SEQUENCE: u32 = 0xffff_8000;
/// Flags of TCP.
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

fn payload() -> Vec<u8> {
    (0..PAYLOAD).map(|at| (at * 13 + (at >> 8)).to_le_bytes()[0]).collect()
}

/// The sum of RFC 1071 over these bytes, not complemented.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            total += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// The pseudo-header of a frame over IPv4 (RFC 9293 section 3.1).
fn pseudo(frame: &[u8]) -> [u8; 12] {
    let length = (frame.len() - 34) as u16;
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&frame[26..34]);
    bytes[9] = 6;
    bytes[10..].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// The frame, behind the virtio-net header of ten bytes that says what is left to do.
pub(crate) fn large() -> Vec<u8> {
    let mut frame = vec![0; HEADERS];
    frame[..12].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&65_535_u16.to_be_bytes());
    frame[18..20].copy_from_slice(&7_u16.to_be_bytes());
    frame[20] = 0x40;
    frame[22..24].copy_from_slice(&[64, 6]);
    frame[26..34].copy_from_slice(&[10, 66, 0, 1, 10, 66, 0, 2]);
    let check = !sum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&check.to_be_bytes());
    frame[34..38].copy_from_slice(&[0x12, 0x34, 0x56, 0x78]);
    frame[38..42].copy_from_slice(&SEQUENCE.to_be_bytes());
    frame[46..50].copy_from_slice(&[0x50, ACK | PSH, 0x10, 0]);
    frame.extend(payload());
    let partial = sum(&[&pseudo(&frame)]);
    frame[50..52].copy_from_slice(&partial.to_be_bytes());
    let mut header = vec![1, 1];
    for number in [HEADERS as u16, MSS as u16, 34, 16] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    [header, frame].concat()
}

/// All of it arrives, in segments of the right size with right headers, or large where the receiver takes that.
#[track_caller]
pub(crate) fn check(what: &str, outside: &mut dyn Outside, lab: &mut Lab) {
    let (mut got, mut number) = (Vec::new(), 0);
    while got.len() < PAYLOAD {
        let Some(came) = outside.receive() else {
            panic!(
                "{what}: {} of {PAYLOAD} bytes in {number} frames; {}",
                got.len(),
                lab.qmp.ok("query-net-stats", json!({}))
            );
        };
        let (header, frame) = (came.header, &came.frame);
        assert!(frame.len() > HEADERS && frame[12..15] == [8, 0, 0x45], "{what}: {:02x?}", &frame[..20]);
        let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        assert_eq!(usize::from(word(16)), frame.len() - 14, "{what}: the length in the IP header");
        assert_eq!(sum(&[&frame[14..34]]), 0xffff, "{what}: the checksum of the IP header");
        let sequence = u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]);
        assert_eq!(sequence.wrapping_sub(SEQUENCE) as usize, got.len(), "{what}: the sequence number");
        if header[0] & 1 == 1 {
            assert_eq!(word(50), sum(&[&pseudo(frame)]), "{what}: the sum of the pseudo-header");
        } else {
            assert_eq!(
                sum(&[&pseudo(frame), &frame[34..]]),
                0xffff,
                "{what}: the checksum of segment {number}"
            );
        }
        let bytes = &frame[HEADERS..];
        if came.is_large() {
            assert_eq!(
                u16::from_le_bytes([header[4], header[5]]),
                MSS as u16,
                "{what}: the size of its segments"
            );
        } else {
            let left = PAYLOAD - got.len();
            assert_eq!(bytes.len(), left.min(MSS), "{what}: segment {number}");
        }
        let last = got.len() + bytes.len() == PAYLOAD;
        assert_eq!(frame[47], if last { ACK | PSH } else { ACK }, "{what}: flags of segment {number}");
        got.extend_from_slice(bytes);
        number += 1;
    }
    assert!(got == payload(), "{what}");
}
