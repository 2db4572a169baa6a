//! Frames as they leave a switch: with a tag, or without. The first bytes are those that were decided on, the rest stays lent.

use super::forward::Outlet;
use super::sort::{Looks, Sorted};
use crate::burst::{Burst, HEAD, Head, Mask};
use crate::port::counters::DropReason;
use crate::wire::eth::{TAG, VLAN};
use crate::wire::vnet_hdr::VnetHdr;

/// Bytes of both addresses, behind which a tag stands.
const ADDRESSES: usize = 12;

/// The form that frames get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Tagged,
}

impl Form {
    /// Frames that get a tag or lose theirs.
    #[inline]
    pub(super) const fn changes(self, sorted: &Sorted) -> u64 {
        match self {
            Self::Plain => sorted.tagged,
            Self::Tagged => !sorted.tagged,
        }
    }
}

/// Puts the frames of `need` into `to`, at their places in `from`, in one form. Returns those that could not be made, each with the reason.
#[inline(never)]
pub(super) fn make(
    to: &mut Burst,
    from: &Burst,
    need: u64,
    form: Form,
    (looks, sorted): (&Looks, &Sorted),
    out: &mut impl Outlet,
) -> [(DropReason, u64); 2] {
    let changes = need & form.changes(sorted);
    let heads = looks.heads.get(..from.len()).unwrap_or_default().as_flattened();
    let Some(heads) = out.heads(heads) else {
        return [(DropReason::BadOffload, 0), (DropReason::NoBuffer, need)];
    };
    // Nearly all are to be as they came, in one piece.
    let left = to.rehead::<HEAD>(from, heads);
    let (mut bad, mut short) = (0, 0);
    for i in Mask(need & (left.0 | changes)).iter() {
        let Some(frame) = from.frames().get(i) else { break };
        let bit = 1 << i;
        let head = heads.slice(i * HEAD, HEAD.min(frame.len()));
        if changes & bit == 0 {
            short |= if to.place(i, frame.hdr, head, from, frame, HEAD) { 0 } else { bit };
            continue;
        }
        let (by, head) = match form {
            Form::Plain => (-(TAG as i16), Some(head.slice(0, ADDRESSES))),
            Form::Tagged => {
                let Some(first) = looks.heads.get(i) else { break };
                let tagged = insert(first, looks.vlan(i));
                (TAG as i16, out.heads(tagged.get(..TAG + head.len()).unwrap_or_default()))
            }
        };
        match (shifted(frame.hdr, by), head) {
            (None, _) => bad |= bit,
            (Some(hdr), Some(head)) if to.place(i, hdr, head, from, frame, HEAD) => {}
            _ => short |= bit,
        }
    }
    [(DropReason::BadOffload, bad), (DropReason::NoBuffer, short)]
}

/// The first bytes with a tag behind the addresses (IEEE 802.1Q, 9.6), of priority 0.
fn insert(head: &Head, vlan: u16) -> [u8; HEAD + TAG] {
    let mut all = [0; HEAD + TAG];
    let (addresses, rest) = head.split_at(ADDRESSES);
    let [ty0, ty1] = VLAN.to_be_bytes();
    let [high, low] = vlan.to_be_bytes();
    let bytes = addresses.iter().copied().chain([ty0, ty1, high, low]).chain(rest.iter().copied());
    for (to, from) in all.iter_mut().zip(bytes) {
        *to = from;
    }
    all
}

/// The header of a frame whose headers begin `by` bytes further on; none where the checksum would begin outside of it.
fn shifted(hdr: VnetHdr, by: i16) -> Option<VnetHdr> {
    let mut new = hdr;
    if hdr.needs_csum() {
        new.csum_start = hdr.csum_start.checked_add_signed(by)?;
    }
    if hdr.hdr_len != 0 {
        // A hint, which nobody trusts.
        new.hdr_len = hdr.hdr_len.saturating_add_signed(by);
    }
    Some(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::vnet_hdr::{F_NEEDS_CSUM, GSO_TCPV4};

    #[test]
    fn a_tag_stands_behind_the_addresses() {
        let head = std::array::from_fn(|i| i as u8);
        let tagged = insert(&head, 0x123);
        assert_eq!(tagged[..12], head[..12]);
        assert_eq!(tagged[12..16], [0x81, 0, 1, 0x23]);
        assert_eq!(tagged[16..], head[12..]);
    }

    #[test]
    fn offsets_move_with_the_headers_or_the_frame_is_refused() {
        let hdr = VnetHdr {
            flags: F_NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 54,
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
        };
        let tagged = shifted(hdr, 4).unwrap();
        assert_eq!((tagged.csum_start, tagged.hdr_len, tagged.gso_size), (38, 58, 1448));
        assert_eq!(shifted(tagged, -4), Some(hdr));
        assert_eq!(shifted(VnetHdr { csum_start: 2, ..hdr }, -4), None);
        assert_eq!(shifted(VnetHdr { csum_start: u16::MAX, ..hdr }, 4), None);
        assert_eq!(shifted(VnetHdr::NONE, 4), Some(VnetHdr::NONE));
    }
}
