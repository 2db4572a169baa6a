//! Frames of the guest: each is made whole as the stack wants it, which checks every checksum and knows no offloads.

use crate::flows::{Key, is_tcp, mss_at};
use crate::split;
use crate::stack::Shared;
use crate::wire::{ACK, ETHERNET, Packet, SYN, fold, put, sum, word};
use usernet::protocol::HEADER;

/// The largest packet that the stack takes (`IF_MTU_MAX` is a byte more).
pub(crate) const MTU: usize = 65_520;
/// What the stack is told of the size of segments. It makes some of up to 32 KiB, but then never says that its window has opened again:
/// it does so for two segments more, and knows no windows of more than 64 KiB. A guest whose peer reads slowly would stand still
/// until its own timer asks.
const MSS: u16 = 16_384;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_UDP: u8 = 3;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What a message asks for (virtio 1.3 section 5.1.6).
struct Asked {
    checksum: Option<(usize, usize)>,
    gso: u8,
    size: usize,
}

impl Asked {
    fn of(header: &[u8]) -> Asked {
        let low = |at: usize| usize::from(word(header, at).swap_bytes());
        let byte = |at: usize| header.get(at).copied().unwrap_or_default();
        Asked {
            checksum: (byte(0) & NEEDS_CSUM != 0).then(|| (low(6), low(8))),
            gso: byte(1) & !GSO_ECN,
            size: low(4),
        }
    }
}

/// A connection that a frame asks for; one that agrees to a connection of the stack's asks for none.
pub(crate) type Opening = Option<Key>;

/// Makes a message of the daemon's into frames for the stack. What contradicts itself is no frame.
pub(crate) fn frames(message: &mut [u8], shared: &Shared, mut each: impl FnMut(&[u8], Opening)) {
    let Some((header, frame)) = message.split_at_mut_checked(HEADER) else { return };
    if frame.len() < ETHERNET {
        return;
    }
    let asked = Asked::of(header);
    let large = matches!(asked.gso, GSO_TCPV4 | GSO_TCPV6 | GSO_UDP | GSO_UDP_L4);
    if !large && asked.gso != GSO_NONE {
        return;
    }
    let Some(packet) = Packet::of(frame, large) else {
        if !large && complete(frame, asked.checksum) {
            each(frame, None);
        }
        return;
    };
    let mut opening = None;
    if is_tcp(&packet) {
        let partial = asked.checksum.is_some();
        let passes = shared.flows.borrow_mut().sent(&packet, frame, !partial && !large, |frame, mss| {
            shared.outbox.borrow_mut().segment(frame, mss);
        });
        if !passes {
            return;
        }
        opening = segment(&packet, frame, partial);
    }
    if large {
        // Some guests write no length, and only a part of the pseudo header, since who cuts a segment has to do it anew.
        packet.write_lengths(frame);
        match asked.gso {
            GSO_UDP_L4 if !is_tcp(&packet) && asked.size > 0 => {
                return split::datagrams(frame, &packet, asked.size, |piece| each(piece, None));
            }
            GSO_TCPV4 | GSO_TCPV6 if is_tcp(&packet) && packet.end > ETHERNET + MTU => {
                return split::segments(frame, &packet, packet.bytes() / 2 + 1, |piece| each(piece, opening));
            }
            _ => packet.write_checksum(frame),
        }
    } else if !complete(frame, asked.checksum) {
        return;
    }
    each(frame, opening);
}

/// Completes a checksum where it is asked for; the field holds the pseudo header's sum.
fn complete(frame: &mut [u8], asked: Option<(usize, usize)>) -> bool {
    let Some((start, offset)) = asked else { return true };
    let Some(covered) = frame.get(start..).filter(|covered| offset + 2 <= covered.len()) else {
        return false;
    };
    let value = !fold(sum(covered));
    // UDP's zero says that there is none (RFC 768); TCP does not mind.
    put(frame, start + offset, if value == 0 { 0xffff } else { value });
    true
}

/// A segment of TCP goes by: a SYN offers as large segments as the stack makes, which are cut for the guest.
fn segment(packet: &Packet, frame: &mut [u8], partial: bool) -> Opening {
    if packet.flags(frame) & SYN == 0 {
        return None;
    }
    if let Some(at) = mss_at(packet, frame) {
        let (old, new) = (word(frame, at), MSS);
        put(frame, at, new);
        if !partial {
            // RFC 1624: what the sum was before, less the old word, with the new; at an odd place with its bytes swapped.
            let odd = (at - packet.start) % 2 == 1;
            let turn = |value: u16| if odd { value.swap_bytes() } else { value };
            let before = word(frame, packet.checksum());
            let sum = u64::from(!before) + u64::from(!turn(old)) + u64::from(turn(new));
            put(frame, packet.checksum(), !fold(sum));
        }
    }
    (packet.flags(frame) & ACK == 0).then(|| Key::sent(packet, frame))
}
