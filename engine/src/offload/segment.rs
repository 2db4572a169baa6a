//! Software segmentation: a large frame becomes the frames that a network card would have made of it.
//!
//! The results are those of Linux: `tcp_gso_segment`, `__udp_gso_segment`, `udp4_ufo_fragment` and `inet_gso_segment`.
//! Every frame gets a head of our own; the payload stays lent. Nothing of the virtio-net header but `gso_type`,
//! `gso_size` and the checksum's place is used, and the last is compared with the frame's own headers.

use super::BadOffload;
use super::heads::Heads;
use super::pieces::{Cursor, Pieces};
use crate::burst::{Burst, Frame};
use crate::wire::bytes::{get16, get32, part, put16, put32};
use crate::wire::checksum::Sum;
use crate::wire::headers::{Headers, MAX_HEADERS, Net, Transport};
use crate::wire::ip::{MF, OFFSET, V4_CHECK, V4_FRAG, V4_ID, V4_TOTAL_LEN, V6_HEADER, V6_PAYLOAD_LEN};
use crate::wire::l4::{CWR, FIN, PSH, TCP_CHECK, TCP_FLAGS, TCP_SEQ, UDP_CHECK, UDP_HEADER, UDP_LEN};
use crate::wire::vnet_hdr::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4, VnetHdr};

/// Frames that one frame may become: 64 KiB at 48 bytes, the smallest segment that Linux sends (`TCP_MIN_SND_MSS`).
/// More is not traffic but an attack on the worker's time.
pub(super) const MAX_SEGMENTS: usize = 65536usize.div_ceil(48);

/// What the large frame is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// TCP segments.
    Tcp,
    /// UDP datagrams (USO).
    Udp,
    /// IPv4 fragments of one UDP datagram (UFO).
    Fragment,
}

/// A large frame on its way to becoming many.
pub(super) struct Segmenter<'b> {
    /// The headers, rewritten for each frame.
    head: [u8; MAX_HEADERS],
    at: Headers,
    cut: Cut,
    /// Bytes of payload in each frame but the last.
    size: usize,
    /// Bytes to be cut.
    total: usize,
    /// Frames that they make, and those that are made.
    count: usize,
    made: usize,
    payload: Cursor<'b>,
    /// Sums of the parts of the IPv4 header, and of the pseudo and transport header, that stay the same.
    ip_sum: Sum,
    l4_sum: Sum,
    /// Leave the transport's checksum to the receiver.
    partial: bool,
    id: u16,
    frag: u16,
    seq: u32,
    flags: u16,
}

impl<'b> Segmenter<'b> {
    /// Looks at a frame with a `gso_type`. `partial`: the receiver completes checksums.
    ///
    /// # Errors
    /// [`BadOffload`] for a `gso_size` of 0 or one that makes more than [`MAX_SEGMENTS`] frames, headers that are not
    /// what `gso_type` says, that contradict the frame's length or `csum_start`, or do not fit [`MAX_HEADERS`].
    pub(super) fn new(burst: &'b Burst, frame: &Frame, partial: bool) -> Result<Self, BadOffload> {
        let mut head = [0; MAX_HEADERS];
        let copied = burst.copy_out(frame, 0, &mut head);
        let at =
            Headers::parse(head.get(..copied).ok_or(BadOffload)?, frame.len()).map_err(|_| BadOffload)?;
        let cut = kind(&frame.hdr, &at)?;
        let field = at.transport.check_offset().ok_or(BadOffload)?;
        let placed =
            usize::from(frame.hdr.csum_start) == at.l4 && usize::from(frame.hdr.csum_offset) == field;
        // Only TCP may come without a partial checksum (Linux: a frame that hardware joined on receipt).
        if at.end != frame.len() || at.routed || !(placed || cut == Cut::Tcp && !frame.hdr.needs_csum()) {
            return Err(BadOffload);
        }
        let mut size = usize::from(frame.hdr.gso_size);
        let mut total = at.end - at.payload;
        if at.transport == Transport::Udp
            && get16(&head, at.l4 + UDP_LEN) != u16::try_from(at.end - at.l4).ok()
        {
            return Err(BadOffload);
        }
        if cut == Cut::Fragment {
            // The UDP header is part of what is fragmented; fragment offsets count in 8 bytes.
            (size, total) = (size & !7, total + UDP_HEADER);
        }
        if size == 0 {
            return Err(BadOffload);
        }
        // A frame without payload is still a frame.
        let count = total.div_ceil(size).max(1);
        if count > MAX_SEGMENTS {
            return Err(BadOffload);
        }
        let payload = Cursor::new(burst.segs(frame), at.payload);
        let mut s = Self {
            at,
            cut,
            size,
            total,
            count,
            made: 0,
            payload,
            ip_sum: Sum::default(),
            l4_sum: Sum::default(),
            partial: partial && cut != Cut::Fragment,
            id: get16(&head, at.l3 + V4_ID).unwrap_or(0),
            frag: get16(&head, at.l3 + V4_FRAG).unwrap_or(0),
            seq: get32(&head, at.l4 + TCP_SEQ).unwrap_or(0),
            flags: get16(&head, at.l4 + TCP_FLAGS).unwrap_or(0),
            head,
        };
        s.prepare(burst, frame);
        Ok(s)
    }

    /// Frames that are still to come.
    pub(super) const fn left(&self) -> usize {
        self.count - self.made
    }

    /// Bytes of the longest head.
    pub(super) const fn head_len(&self) -> usize {
        self.at.payload
    }

    /// Zeroes the fields that differ from frame to frame and sums the rest once.
    fn prepare(&mut self, burst: &Burst, frame: &Frame) {
        let Headers { l3, l4, payload, .. } = self.at;
        if self.at.net == Net::V4 {
            for field in [V4_TOTAL_LEN, V4_ID, V4_FRAG, V4_CHECK] {
                put16(&mut self.head, l3 + field, 0);
            }
            self.ip_sum = Sum::of(part(&self.head, l3, l4));
        }
        match self.cut {
            Cut::Tcp => {
                put32(&mut self.head, l4 + TCP_SEQ, 0);
                put16(&mut self.head, l4 + TCP_FLAGS, 0);
                put16(&mut self.head, l4 + TCP_CHECK, 0);
            }
            Cut::Udp => {
                put16(&mut self.head, l4 + UDP_LEN, 0);
                put16(&mut self.head, l4 + UDP_CHECK, 0);
            }
            Cut::Fragment => {
                // The checksum is that of the whole datagram, in the first fragment.
                put16(&mut self.head, l4 + UDP_CHECK, 0);
                let mut sum = self.at.pseudo(&self.head, self.total);
                sum.add(part(&self.head, l4, payload));
                burst.parts(frame, payload, self.total - UDP_HEADER, |seg| seg.sum(&mut sum));
                put16(&mut self.head, l4 + UDP_CHECK, sum.udp_checksum());
                return;
            }
        }
        self.l4_sum = self.at.pseudo(&self.head, 0);
        self.l4_sum.add(part(&self.head, l4, payload));
    }

    /// Puts the next frame together in `out`; `None` when all are done. `heads` must have room for it.
    pub(super) fn next(&mut self, heads: &mut Heads, out: &mut Pieces) -> Option<VnetHdr> {
        if self.left() == 0 {
            return None;
        }
        let done = self.made * self.size;
        let len = self.size.min(self.total - done);
        let (first, last) = (self.made == 0, self.left() == 1);
        let Headers { l3, l4, payload, net, .. } = self.at;
        // Bytes behind the IP header, and of them those that are in the head.
        let (packet, own) = match self.cut {
            Cut::Fragment => (len, if first { UDP_HEADER } else { 0 }),
            _ => (payload - l4 + len, payload - l4),
        };
        if net == Net::V4 {
            self.ipv4(l4 - l3 + packet, done, last);
        } else {
            put16(&mut self.head, l3 + V6_PAYLOAD_LEN, (l4 - l3 - V6_HEADER + packet) as u16);
        }
        let hdr = self.transport(packet, done, first, last);
        out.start(heads.push(part(&self.head, 0, l4 + own))?);
        self.payload.take(packet - own, |seg| out.add(seg));
        self.made += 1;
        Some(hdr)
    }

    /// Length, identification, fragment offset and checksum of the IPv4 header (`inet_gso_segment`).
    fn ipv4(&mut self, total_len: usize, done: usize, last: bool) {
        let mut frag = self.frag;
        if self.cut == Cut::Fragment {
            frag = (done / 8) as u16 & OFFSET | if last { 0 } else { MF };
        }
        let l3 = self.at.l3;
        let mut sum = self.ip_sum;
        for (field, value) in [(V4_TOTAL_LEN, total_len as u16), (V4_ID, self.id), (V4_FRAG, frag)] {
            put16(&mut self.head, l3 + field, value);
            sum.add16(value);
        }
        put16(&mut self.head, l3 + V4_CHECK, sum.checksum());
        if self.cut != Cut::Fragment {
            self.id = self.id.wrapping_add(1);
        }
    }

    /// Sequence number, flags, length and checksum of the transport header; returns the frame's virtio-net header.
    fn transport(&mut self, packet: usize, done: usize, first: bool, last: bool) -> VnetHdr {
        let (l4, mut sum) = (self.at.l4, self.l4_sum);
        let check = match self.cut {
            Cut::Fragment => return VnetHdr::NONE,
            Cut::Tcp => {
                let seq = self.seq.wrapping_add(done as u32);
                let not_last = if last { 0 } else { FIN | PSH };
                let flags = self.flags & !not_last & !if first { 0 } else { CWR };
                put32(&mut self.head, l4 + TCP_SEQ, seq);
                put16(&mut self.head, l4 + TCP_FLAGS, flags);
                sum.add32(seq);
                sum.add16(flags);
                TCP_CHECK
            }
            Cut::Udp => {
                put16(&mut self.head, l4 + UDP_LEN, packet as u16);
                sum.add16(packet as u16);
                UDP_CHECK
            }
        };
        if self.partial {
            let pseudo = self.at.pseudo(&self.head, packet);
            put16(&mut self.head, l4 + check, pseudo.fold());
            return self.at.partial();
        }
        sum.add16(packet as u16);
        let mut ahead = self.payload;
        ahead.take(packet - (self.at.payload - l4), |seg| seg.sum(&mut sum));
        let value = if self.cut == Cut::Udp { sum.udp_checksum() } else { sum.checksum() };
        put16(&mut self.head, l4 + check, value);
        VnetHdr::NONE
    }
}

/// What `hdr` asks for, if the frame's headers are of that kind.
fn kind(hdr: &VnetHdr, at: &Headers) -> Result<Cut, BadOffload> {
    let gso = if at.transport == Transport::Tcp { hdr.gso_type & !GSO_ECN } else { hdr.gso_type };
    match (gso, at.net, at.transport) {
        (GSO_TCPV4, Net::V4, Transport::Tcp) | (GSO_TCPV6, Net::V6, Transport::Tcp) => Ok(Cut::Tcp),
        (GSO_UDP_L4, Net::V4 | Net::V6, Transport::Udp) if hdr.needs_csum() => Ok(Cut::Udp),
        (GSO_UDP, Net::V4, Transport::Udp) if hdr.needs_csum() => Ok(Cut::Fragment),
        _ => Err(BadOffload),
    }
}

#[cfg(test)]
mod tests;
