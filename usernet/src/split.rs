//! Large packets in pieces, where the receiver is not asked to cut them: segments of TCP, datagrams of a UDP train, fragments.

use crate::wire::{ETHERNET, FIN, PSH, Packet, fold, long, put, put_long, sum, word};

/// TCP segments of `size` bytes, complete.
pub(crate) fn segments(frame: &[u8], packet: &Packet, size: usize, mut each: impl FnMut(&[u8])) {
    let (Some(header), Some(payload)) = (frame.get(..packet.payload), frame.get(packet.payload..packet.end))
    else {
        return;
    };
    let sequence = long(frame, packet.start + 4);
    let flags = packet.flags(frame);
    let mut piece = Vec::with_capacity(header.len() + size);
    let mut at = 0usize;
    for part in payload.chunks(size.max(1)) {
        piece.clear();
        piece.extend_from_slice(header);
        piece.extend_from_slice(part);
        put_long(&mut piece, packet.start + 4, sequence.wrapping_add(u32::try_from(at).unwrap_or_default()));
        at += part.len();
        if at < payload.len()
            && let Some(place) = piece.get_mut(packet.start + 13)
        {
            *place = flags & !(FIN | PSH);
        }
        complete(&mut piece, packet);
        each(&piece);
    }
}

/// UDP datagrams of `size` bytes, complete.
pub(crate) fn datagrams(frame: &[u8], packet: &Packet, size: usize, mut each: impl FnMut(&[u8])) {
    let (Some(header), Some(payload)) = (frame.get(..packet.payload), frame.get(packet.payload..packet.end))
    else {
        return;
    };
    for part in payload.chunks(size.max(1)) {
        let mut piece = [header, part].concat();
        complete(&mut piece, packet);
        each(&piece);
    }
}

fn complete(piece: &mut [u8], packet: &Packet) {
    let packet = Packet { end: piece.len(), ..*packet };
    packet.write_lengths(piece);
    packet.write_checksum(piece);
}

/// Fragments of an IPv4 or IPv6 packet (RFC 791, RFC 8200 section 4.5) for a receiver that takes `mtu` bytes.
pub(crate) fn fragments(frame: &[u8], mtu: usize, mut each: impl FnMut(&[u8])) {
    let ip = frame.get(ETHERNET..).unwrap_or_default();
    let (six, header) = match word(frame, 12) {
        0x0800 => (false, usize::from(ip.first().copied().unwrap_or_default() & 15) * 4),
        0x86dd => (true, 40),
        _ => return,
    };
    let length = if six { 40 + usize::from(word(ip, 4)) } else { usize::from(word(ip, 2)) };
    let (Some(head), Some(payload)) = (ip.get(..header), ip.get(header..length)) else { return };
    let before = if six { header + 8 } else { header };
    let size = mtu.saturating_sub(before) & !7;
    if size == 0 {
        return;
    }
    // Of the stack's own packets none is a fragment; a number that differs from packet to packet is all that IPv6 asks for.
    let number = word(payload, 0) ^ word(payload, 6) ^ fold(sum(payload));
    for (index, part) in payload.chunks(size).enumerate() {
        let offset = u16::try_from(index * size / 8).unwrap_or(u16::MAX);
        let more = (index + 1) * size < payload.len();
        let mut piece = frame.get(..ETHERNET).unwrap_or_default().to_vec();
        piece.extend_from_slice(head);
        if six {
            let next = head.get(6).copied().unwrap_or_default();
            put(&mut piece, ETHERNET + 4, u16::try_from(part.len() + 8).unwrap_or(u16::MAX));
            if let Some(place) = piece.get_mut(ETHERNET + 6) {
                *place = 44;
            }
            piece.extend_from_slice(&[next, 0]);
            piece.extend_from_slice(&(offset << 3 | u16::from(more)).to_be_bytes());
            piece.extend_from_slice(&u32::from(number).to_be_bytes());
        } else {
            put(&mut piece, ETHERNET + 2, u16::try_from(header + part.len()).unwrap_or(u16::MAX));
            put(&mut piece, ETHERNET + 6, offset | u16::from(more) << 13);
            put(&mut piece, ETHERNET + 10, 0);
            let header = sum(piece.get(ETHERNET..).unwrap_or_default());
            put(&mut piece, ETHERNET + 10, !fold(header));
        }
        piece.extend_from_slice(part);
        each(&piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ACK;

    /// A packet of IPv6 with `payload` behind a header of TCP or UDP.
    fn packet(next: u8, transport: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
        frame
            .extend_from_slice(&u16::try_from(transport.len() + payload.len()).expect("short").to_be_bytes());
        frame.extend_from_slice(&[next, 64]);
        frame.extend_from_slice(&[0xfe; 32]);
        [&frame, transport, payload].concat()
    }

    fn valid(frame: &[u8]) -> Packet {
        let packet = Packet::of(frame, false).expect("a packet");
        let covered = sum(&frame[packet.start..packet.end]);
        assert_eq!(fold(packet.pseudo(frame) + covered), 0xffff, "the checksum");
        packet
    }

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|at| u8::try_from(at % 251).expect("small")).collect()
    }

    #[test]
    fn segments_carry_the_bytes_in_order_and_end_as_the_whole_did() {
        let mut header =
            vec![0, 1, 0, 2, 0xff, 0xff, 0xff, 0, 0, 0, 0, 9, 0x50, ACK | PSH | FIN, 1, 1, 0, 0, 0, 0];
        header[12] = 0x50;
        let frame = packet(6, &header, &bytes(3000));
        let whole = Packet::of(&frame, false).expect("a packet");
        let (mut got, mut flags) = (Vec::new(), Vec::new());
        segments(&frame, &whole, 1220, |piece| {
            let packet = valid(piece);
            assert_eq!(
                long(piece, packet.start + 4),
                0xffff_ff00u32.wrapping_add(u32::try_from(got.len()).expect("short"))
            );
            flags.push(packet.flags(piece));
            got.extend_from_slice(&piece[packet.payload..packet.end]);
        });
        assert_eq!((got, flags), (bytes(3000), vec![ACK, ACK, ACK | PSH | FIN]));
    }

    #[test]
    fn datagrams_are_each_whole() {
        let frame = packet(17, &[0, 1, 0, 2, 0, 0, 0, 0], &bytes(2500));
        let whole = Packet::of(&frame, true).expect("a packet");
        let mut sizes = Vec::new();
        datagrams(&frame, &whole, 1000, |piece| {
            let packet = valid(piece);
            assert_eq!(usize::from(word(piece, packet.start + 4)), packet.bytes() + 8);
            sizes.push(packet.bytes());
        });
        assert_eq!(sizes, [1000, 1000, 500]);
    }

    #[test]
    fn fragments_of_ipv6_have_their_header() {
        let frame = packet(17, &[0, 1, 0, 2, 0, 0, 0, 0], &bytes(3000));
        let mut got = Vec::new();
        let mut more = Vec::new();
        fragments(&frame, 1500, |piece| {
            assert!(piece.len() <= 1514 && piece[20] == 44 && piece[54] == 17);
            assert_eq!(usize::from(word(piece, 18)), piece.len() - 54);
            assert_eq!(usize::from(word(piece, 56) & !7), got.len());
            more.push(word(piece, 56) & 1);
            got.extend_from_slice(&piece[62..]);
        });
        assert_eq!((&got[..], more), (&frame[54..], vec![1, 1, 0]));
    }
}
