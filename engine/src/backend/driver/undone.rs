//! Checksums that a device has not computed, although it was not agreed that it may leave them (`VIRTIO_NET_F_GUEST_CSUM`).
//!
//! passt does so on rings, as of 2025: of each frame it says that its checksum was verified, leaves TCP's zero and UDP's over IPv6 all ones
//! (zero, which means none, is not for IPv6). A guest that reads the word takes the frame; the kernel behind a tap does not.

#![allow(unsafe_code)] // writes into a receive buffer

use super::buffers::Buffers;
use crate::burst::Seg;
use crate::wire::bytes::get16;
use crate::wire::headers::{Headers, MAX_HEADERS, Net, Transport};
use crate::wire::vnet_hdr::VnetHdr;

/// The offload state of a frame of `len` bytes that its device vouches for; `body` is what of it lies in buffer `token`, behind `header` bytes. A
/// checksum that is undone is made the pseudo header's sum, from which a receiver goes on.
///
/// One that is whole, and by chance as if it were undone, is harmless: completed, it is what it was.
#[inline(never)]
pub(super) fn checksum(buffers: &Buffers, token: u32, header: usize, body: &Seg, len: usize) -> VnetHdr {
    let mut bytes = [0; MAX_HEADERS];
    let there = body.copy_to(0, &mut bytes);
    let Some(front) = bytes.get(..there) else { return VnetHdr::NONE };
    let Ok(at) = Headers::parse(front, len) else { return VnetHdr::NONE };
    let Some(offset) = at.transport.check_offset().filter(|_| !at.routed && at.end == len) else {
        return VnetHdr::NONE;
    };
    let place = at.l4 + offset;
    let pseudo = at.pseudo(front, at.end - at.l4).fold();
    let undone = match get16(front, place) {
        // As an earlier look has left it.
        Some(check) if check == pseudo => true,
        Some(0) => at.transport == Transport::Tcp || at.net == Net::V6,
        Some(0xffff) => at.transport == Transport::Udp && at.net == Net::V6,
        _ => false,
    };
    if !undone {
        return VnetHdr::NONE;
    }
    let to = buffers.at(token).as_ptr();
    // SAFETY: `get16` found two bytes at `place` of what lies in the buffer behind the header, and the buffer is ours until it is given back.
    unsafe { to.add(header + place).cast::<[u8; 2]>().write(pseudo.to_be_bytes()) };
    at.partial()
}
