//! The VXLAN header (RFC 7348 §5): `08 00 00 00 | VNI, 3 | 00`. Reserved bits are sent as 0 and not looked at.

use super::inner;
use crate::backend::datagram::framing::Framing;
use crate::port::counters::DropReason;
use crate::wire::vnet_hdr::VnetHdr;

/// Bytes of a header.
const LEN: usize = 8;

/// The flag that says that there is a VNI.
const HAS_VNI: u8 = 0x08;

/// One network's header.
#[derive(Debug, Clone)]
pub(super) struct Header {
    vni: [u8; 3],
    /// The longest IP packet inside of the tunnel that is no large one.
    mtu: usize,
}

impl Header {
    pub(super) const fn new(vni: u32, mtu: usize) -> Self {
        let [_, high, middle, low] = vni.to_be_bytes();
        Self { vni: [high, middle, low], mtu }
    }
}

impl Framing for Header {
    const OFFLOADS: bool = true;

    fn len(&self) -> usize {
        LEN
    }

    fn head(&mut self, to: &mut [u8]) {
        let [high, middle, low] = self.vni;
        if let Some(to) = to.first_chunk_mut::<LEN>() {
            *to = [HAS_VNI, 0, 0, 0, high, middle, low, 0];
        }
    }

    fn strip(&mut self, front: &[u8], total: usize) -> Result<usize, DropReason> {
        match front.first_chunk::<LEN>() {
            Some([flags, _, _, _, vni @ .., _]) if total > LEN => {
                if flags & HAS_VNI != 0 && *vni == self.vni { Ok(LEN) } else { Err(DropReason::WrongVni) }
            }
            _ => Err(DropReason::ShortHeader),
        }
    }

    fn is_one(&self, front: &[u8], each: usize, total: usize) -> bool {
        front.get(LEN..).is_some_and(|front| inner::is_longer(front, each.saturating_sub(LEN), total - LEN))
    }

    fn offload(&self, front: &[u8], len: usize, segment: usize) -> VnetHdr {
        inner::offload(front, len, self.mtu, segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_that_of_the_rfc() {
        let mut header = Header::new(0x0a_0b0c, 1450);
        let mut bytes = [0xee; LEN];
        assert_eq!(header.len(), LEN);
        header.head(&mut bytes);
        assert_eq!(bytes, [8, 0, 0, 0, 0x0a, 0x0b, 0x0c, 0]);
    }

    #[test]
    fn flag_and_number_decide_and_reserved_bits_do_not() {
        let mut header = Header::new(0x0a_0b0c, 1450);
        let mut strip = |front: [u8; LEN]| header.strip(&front, LEN + 1);
        assert_eq!(strip([8, 0, 0, 0, 0x0a, 0x0b, 0x0c, 0]), Ok(LEN));
        assert_eq!(strip([0xff, 0xff, 0xff, 0xff, 0x0a, 0x0b, 0x0c, 0xff]), Ok(LEN));
        for wrong in [[0xf7, 0, 0, 0, 0x0a, 0x0b, 0x0c, 0], [8, 0, 0, 0, 0x0a, 0x0b, 0x0d, 0]] {
            assert_eq!(strip(wrong), Err(DropReason::WrongVni));
        }
    }

    #[test]
    fn a_datagram_without_a_frame_is_short() {
        let mut header = Header::new(1, 1450);
        let front = [8, 0, 0, 0, 0, 0, 1, 0];
        for len in 0..=LEN {
            assert_eq!(header.strip(&front[..len], len), Err(DropReason::ShortHeader), "{len} bytes");
        }
    }
}
