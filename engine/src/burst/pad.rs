//! Frames that are shorter than a wire carries.

use super::{Burst, SEGMENTS, Seg};
use std::ptr::NonNull;

/// Bytes of the shortest frame of Ethernet without its check sequence (IEEE 802.3, 3.2.8).
pub const SHORTEST: usize = 60;

static ZEROS: [u8; SHORTEST] = [0; SHORTEST];

impl Burst {
    /// Frames shorter than [`SHORTEST`] get zeros behind them, but for those that are still to be cut: of these the payload is all that is behind
    /// the headers.
    #[inline]
    pub fn pad(&mut self) {
        for frame in self.frames.iter_mut().take(self.len) {
            let missing = SHORTEST.saturating_sub(frame.len()) as u32;
            let (first, count, to) = (frame.first as usize, frame.count as usize, self.used);
            if missing == 0 || frame.hdr.is_gso() || to + count >= SEGMENTS {
                continue;
            }
            self.segs.copy_within(first..first + count, to);
            // Nobody writes what is lent, and these live as long as the program.
            let zeros = Seg { ptr: NonNull::from(&ZEROS).cast(), len: SHORTEST as u32, front: 0 };
            self.segs[to + count] = zeros.slice(0, missing as usize);
            (frame.first, frame.count, frame.len) = (to as u32, frame.count + 1, SHORTEST as u32);
            self.used = to + count + 1;
            self.bytes += u64::from(missing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::Mask;
    use crate::wire::vnet_hdr::{GSO_UDP_L4, VnetHdr};

    #[test]
    fn short_frames_have_zeros_behind_them() {
        let bytes = [7u8; 100];
        // SAFETY: the bytes outlive the test's burst.
        let seg = |n: u32| unsafe { Seg::new(NonNull::from(&bytes).cast(), n) };
        let mut burst = Burst::new();
        assert!(burst.push(VnetHdr::NONE, &[seg(10), seg(4)]) && burst.push_one(VnetHdr::NONE, seg(100)));
        assert!(burst.push_one(VnetHdr::NONE, seg(59)) && burst.push_one(VnetHdr::NONE, seg(60)));
        let gso = VnetHdr { gso_type: GSO_UDP_L4, gso_size: 8, ..VnetHdr::NONE };
        assert!(burst.push_one(gso, seg(58)));
        burst.pad();
        assert_eq!(burst.frames().iter().map(|f| f.len).collect::<Vec<_>>(), [60, 100, 60, 60, 58]);
        for (frame, sevens) in burst.frames().iter().zip([14, 100, 59, 60, 58]) {
            let mut out = [1; 101];
            let n = burst.copy_out(frame, 0, &mut out);
            assert!(out[..sevens].iter().all(|b| *b == 7) && out[sevens..n].iter().all(|b| *b == 0));
        }
        assert_eq!((burst.bytes(5), burst.all()), (338, Mask::first(5)));
    }
}
