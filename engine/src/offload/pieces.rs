//! The segments of the frame that is being put together, and a walk over those of the frame that it comes from.

use crate::burst::{SEGMENTS, Seg};

/// A head of our own and the lent parts behind it. Allocated once, with room for all segments of a burst.
#[derive(Debug)]
pub(super) struct Pieces(Vec<Seg>);

impl Pieces {
    /// An empty list; the only allocation it makes.
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(SEGMENTS + 1))
    }

    /// Begins a frame with this head.
    pub(super) fn start(&mut self, head: Seg) {
        self.0.clear();
        self.add(head);
    }

    /// Appends a lent part. A frame has at most [`SEGMENTS`] of them, so the list never grows.
    pub(super) fn add(&mut self, part: Seg) {
        debug_assert!(self.0.len() < self.0.capacity());
        if self.0.len() < self.0.capacity() {
            self.0.push(part);
        }
    }

    /// The frame's segments.
    pub(super) fn segs(&self) -> &[Seg] {
        &self.0
    }
}

/// A place in a frame's bytes that only moves forward, so that cutting a frame into pieces looks at each segment once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'b> {
    segs: &'b [Seg],
    /// Bytes of the first segment that lie behind.
    at: usize,
}

impl<'b> Cursor<'b> {
    /// The place `from` bytes into the frame that these segments make up.
    pub(super) fn new(segs: &'b [Seg], from: usize) -> Self {
        let mut cursor = Self { segs, at: 0 };
        cursor.take(from, |_| {});
        cursor
    }

    /// Calls `each` with the parts of the next `len` bytes, and moves behind them.
    pub(super) fn take(&mut self, mut len: usize, mut each: impl FnMut(Seg)) {
        while let (Some((first, rest)), true) = (self.segs.split_first(), len > 0) {
            let part = first.slice(self.at, len);
            len -= part.len();
            self.at += part.len();
            if self.at == first.len() {
                (self.segs, self.at) = (rest, 0);
            }
            if !part.is_empty() {
                each(part);
            }
        }
    }
}
