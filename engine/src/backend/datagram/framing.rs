//! What stands before each frame in its datagram.

use crate::port::Caps;
use crate::port::counters::DropReason;
use crate::wire::vnet_hdr::VnetHdr;

/// Bytes of a datagram that [`Framing::strip`] is shown at most.
pub(in crate::backend) const SEEN: usize = 128;

/// What stands before each frame in its datagram. Each half of a queue pair has one of its own.
pub(in crate::backend) trait Framing: Send + 'static {
    /// Nothing stands there: nobody asks [`Framing::strip`].
    const BARE: bool = false;

    /// Frames may come with something left to do: [`Framing::offload`] is asked of each.
    const OFFLOADS: bool = false;

    /// A message without a byte is the end of the connection.
    const ENDS: bool = false;

    /// Bytes of the longest frame that the other end takes.
    const LONGEST: usize = usize::MAX;

    /// What may be left undone for the other end.
    const CAPS: Caps = Caps::NONE;

    /// Bytes that [`Framing::head`] writes, the same for every frame.
    fn len(&self) -> usize;

    /// Writes what stands before the next frame; `to` has [`Framing::len`] bytes. Counters advance here.
    fn head(&mut self, to: &mut [u8]);

    /// As [`Framing::head`], for a frame of which this is left to do.
    fn head_of(&mut self, hdr: &VnetHdr, to: &mut [u8]) {
        let _ = hdr;
        self.head(to);
    }

    /// The last `frames` frames of [`Framing::head`] did not go; they, or others in their place, are asked for again. Counters go back.
    fn undo(&mut self, frames: usize) {
        let _ = frames;
    }

    /// How many bytes of this datagram stand before its frame, or why it is none of ours. `front` has its first bytes, copied: [`SEEN`] of them
    /// or all; `total` is its length.
    ///
    /// # Errors
    /// The reason by which it is dropped.
    fn strip(&mut self, front: &[u8], total: usize) -> Result<usize, DropReason>;

    /// Whether a message of `total` bytes, of which the kernel says that it holds datagrams of `each`, is one by what stands in it: `each` is then that of
    /// the segments of a large frame inside. `front` as for [`Framing::strip`].
    fn is_one(&self, front: &[u8], each: usize, total: usize) -> bool {
        let _ = (front, each, total);
        false
    }

    /// What is left to do to a frame of `len` bytes; `front` has its first bytes, copied: what [`Framing::strip`] was shown, behind the header.
    /// `segment` is the payload of its segments, where the kernel tells that, else 0.
    fn offload(&self, front: &[u8], len: usize, segment: usize) -> VnetHdr {
        let _ = (front, len, segment);
        VnetHdr::NONE
    }
}

/// A datagram is a frame.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend) struct Plain;

impl Framing for Plain {
    const BARE: bool = true;

    fn len(&self) -> usize {
        0
    }

    fn head(&mut self, _to: &mut [u8]) {}

    fn strip(&mut self, _front: &[u8], _total: usize) -> Result<usize, DropReason> {
        Ok(0)
    }
}
