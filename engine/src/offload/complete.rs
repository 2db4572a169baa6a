//! Checksum completion: for a frame whose checksum was left to the hardware, toward a receiver that wants it done.
//!
//! As Linux's `skb_checksum_help`: the sum from `csum_start` to the frame's end, which includes the partial sum that
//! the sender stored in the field, becomes the checksum. No header is parsed, so it works for every protocol.

use super::BadOffload;
use super::heads::Heads;
use super::pieces::Pieces;
use crate::burst::{Burst, Frame};
use crate::wire::bytes::put16;
use crate::wire::checksum::Sum;
use crate::wire::headers::MAX_HEADERS;
use crate::wire::l4::UDP_CHECK;
use crate::wire::vnet_hdr::VnetHdr;

/// Completes the checksum of `frame`: `out` gets a head of our own, up to behind the checksum, and the lent rest.
/// `heads` must have room for one head of [`MAX_HEADERS`].
///
/// # Errors
/// [`BadOffload`] when the field does not lie inside the frame's first [`MAX_HEADERS`] bytes.
pub(super) fn complete(
    burst: &Burst,
    frame: &Frame,
    heads: &mut Heads,
    out: &mut Pieces,
) -> Result<VnetHdr, BadOffload> {
    let (start, offset) = (usize::from(frame.hdr.csum_start), usize::from(frame.hdr.csum_offset));
    let field = start + offset;
    let mut copy = [0; MAX_HEADERS];
    let head = copy.get_mut(..field + 2).ok_or(BadOffload)?;
    if burst.copy_out(frame, 0, head) < field + 2 {
        return Err(BadOffload);
    }
    let mut sum = Sum::of(head.get(start..).ok_or(BadOffload)?);
    let rest = frame.len() - head.len();
    burst.parts(frame, field + 2, rest, |seg| seg.sum(&mut sum));
    // Offset 6 is UDP's, where 0 would mean "no checksum" (RFC 768).
    put16(head, field, if offset == UDP_CHECK { sum.udp_checksum() } else { sum.checksum() });
    out.start(heads.push(head).ok_or(BadOffload)?);
    burst.parts(frame, field + 2, rest, |seg| out.add(seg));
    Ok(VnetHdr::NONE)
}

#[cfg(test)]
mod tests;
