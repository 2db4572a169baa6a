//! A run of pcap records on its way from a worker to the file.

use super::{CHUNK, pcap};
use crate::burst::{Burst, Frame, Seg};

/// Memory for records, filled from the front.
pub(super) struct Chunk {
    bytes: Box<[u8]>,
    used: usize,
    /// Records in it.
    pub(super) records: u64,
    /// Whose it is: it comes back to the instance of this number.
    pub(super) owner: usize,
}

impl Chunk {
    /// An empty one. Its pages are there: the first touch of one would cost a worker as much as a hundred frames.
    pub(super) fn new(owner: usize) -> Self {
        let mut bytes = vec![0; CHUNK].into_boxed_slice();
        bytes.iter_mut().step_by(4096).for_each(|byte| *byte = std::hint::black_box(1));
        Self { bytes, used: 0, records: 0, owner }
    }

    /// What there is of it.
    pub(super) fn filled(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    /// Makes it empty.
    pub(super) const fn clear(&mut self) {
        (self.used, self.records) = (0, 0);
    }

    /// Appends the record of a frame that came at `when`, cut to `kept` bytes; false when it does not fit.
    #[inline]
    pub(super) fn push(&mut self, when: pcap::Time, kept: usize, burst: &Burst, frame: &Frame) -> bool {
        let Some(room) = self.bytes.get_mut(self.used..) else { return false };
        let Some((header, room)) = room.split_first_chunk_mut::<{ pcap::RECORD_HEADER }>() else {
            return false;
        };
        let Some(room) = room.get_mut(..kept) else { return false };
        *header = pcap::record_header(when, kept as u32, frame.len);
        if let [whole] = burst.segs(frame)
            && (32..=128).contains(&kept)
        {
            copy_small(whole, room);
        } else {
            burst.copy_out(frame, 0, room);
        }
        self.used += pcap::RECORD_HEADER + kept;
        self.records += 1;
        true
    }
}

/// Copies 32 to 128 bytes as two runs of constant length that may overlap: a few wide moves, and no call.
#[inline]
fn copy_small(from: &Seg, to: &mut [u8]) {
    let len = to.len();
    if len <= 64 {
        ends::<32>(from, to, len);
    } else {
        ends::<64>(from, to, len);
    }
}

/// Copies the first and the last `N` bytes of `len`.
#[inline]
fn ends<const N: usize>(from: &Seg, to: &mut [u8], len: usize) {
    if let Some(first) = to.first_chunk_mut::<N>() {
        from.copy_first(first);
    }
    if let Some(last) = to.last_chunk_mut::<N>() {
        from.slice(len - N, N).copy_first(last);
    }
}
