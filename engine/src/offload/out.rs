//! The burst of adapted frames on its way to the receiver, and what became of the frames that they were made from.

use crate::burst::{BURST, Burst, Mask, Seg};
use crate::wire::vnet_hdr::VnetHdr;

/// Whether a frame went into the out burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It did.
    Done,
    /// The receiver is full: nothing more is given to it.
    Full,
    /// The frame has more segments than a burst holds.
    TooLong,
}

/// Adapted frames, each with a note of what it was made from.
#[derive(Debug)]
pub(super) struct Out {
    burst: Burst,
    /// For each frame: the source frames that are in it, and whether it is the last of their pieces.
    notes: [(u64, bool); BURST],
    /// Source frames that the receiver took whole.
    pub(super) taken: u64,
    /// Source frames of which it took a piece.
    pub(super) begun: u64,
}

impl Out {
    /// Empty; allocates the burst here.
    pub(super) fn new() -> Self {
        Self { burst: Burst::new(), notes: [(0, false); BURST], taken: 0, begun: 0 }
    }

    /// Forgets what became of earlier frames.
    pub(super) const fn start(&mut self) {
        self.burst.clear();
        (self.taken, self.begun) = (0, 0);
    }

    /// Appends a frame made from the source frames `from`, whose last piece it may be; gives the burst to `sink` first
    /// when it is full. `weight` counts once the source frames are whole, so only a last piece has any.
    pub(super) fn put(
        &mut self,
        hdr: VnetHdr,
        segs: &[Seg],
        from: u64,
        last: bool,
        weight: u32,
        sink: &mut impl FnMut(&Burst, Mask) -> usize,
    ) -> Put {
        if !self.burst.has_room(segs.len()) && !self.flush(sink) {
            return Put::Full;
        }
        let at = self.burst.len();
        if !self.burst.push(hdr, segs) {
            return Put::TooLong;
        }
        self.burst.weigh(weight);
        if let Some(note) = self.notes.get_mut(at) {
            *note = (from, last);
        }
        Put::Done
    }

    /// Gives what is in the burst to `sink`; false when it did not take all.
    pub(super) fn flush(&mut self, sink: &mut impl FnMut(&Burst, Mask) -> usize) -> bool {
        let n = self.burst.len();
        if n == 0 {
            return true;
        }
        let took = sink(&self.burst, self.burst.all()).min(n);
        for (from, last) in self.notes.iter().take(took) {
            self.begun |= from;
            self.taken |= if *last { *from } else { 0 };
        }
        self.burst.clear();
        took == n
    }
}
