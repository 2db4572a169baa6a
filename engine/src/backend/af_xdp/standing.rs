//! What stands in a transmit ring: frames that the kernel was given and has not taken. They count as sent when it takes them, so that those that it
//! never takes are dropped by name, and by that only. Frames are counted by their weight: of those that a large frame was cut into, the last one counts.

use super::RING;
use af_xdp::{Desc, Tx};

/// Frames that stand in a transmit ring, or have been taken since the last look.
#[derive(Debug)]
pub(super) struct Standing {
    descs: u32,
    frames: u64,
    bytes: u64,
    /// Of each descriptor: the weight of the frame that it ends.
    weights: Box<[u32; RING as usize]>,
    /// Where the next descriptor's weight goes.
    next: u32,
}

impl Standing {
    pub(super) fn new() -> Self {
        Self { descs: 0, frames: 0, bytes: 0, weights: Box::new([0; RING as usize]), next: 0 }
    }

    /// A frame of `descs` descriptors went into the ring.
    #[inline]
    pub(super) fn add(&mut self, descs: u32, bytes: usize, weight: u32) {
        for left in (0..descs).rev() {
            self.weigh(if left == 0 { weight } else { 0 });
        }
        self.add_run(descs, bytes, u64::from(weight));
    }

    /// Notes the weight of the next descriptor; [`Standing::add_run`] is to follow for all of them.
    #[inline]
    pub(super) fn weigh(&mut self, weight: u32) {
        if let Some(place) = self.weights.get_mut((self.next % RING) as usize) {
            *place = weight;
        }
        self.next = self.next.wrapping_add(1);
    }

    /// So many descriptors went into the ring, of frames of that many bytes and that weight together.
    #[inline]
    pub(super) const fn add_run(&mut self, descs: u32, bytes: usize, weight: u64) {
        self.descs += descs;
        self.frames += weight;
        self.bytes += bytes as u64;
    }

    /// The kernel has left `pending` descriptors: frames and bytes that it took since the last look. Of a frame that it took in part, the bytes.
    #[inline]
    pub(super) fn taken(&mut self, tx: &Tx, pending: u32) -> (u64, u64) {
        if pending == 0 {
            self.descs = 0;
            return (std::mem::take(&mut self.frames), std::mem::take(&mut self.bytes));
        }
        self.some_taken(tx, pending)
    }

    /// As [`Standing::taken`], where some are left: each descriptor is looked at once.
    #[inline(never)]
    fn some_taken(&mut self, tx: &Tx, pending: u32) -> (u64, u64) {
        let (mut frames, mut bytes) = (0, 0);
        while self.descs > pending {
            let desc: Desc = tx.written(self.descs);
            let at = self.next.wrapping_sub(self.descs) % RING;
            frames += self.weights.get(at as usize).copied().map_or(0, u64::from);
            bytes += u64::from(desc.len);
            self.descs -= 1;
        }
        self.frames = self.frames.saturating_sub(frames);
        self.bytes = self.bytes.saturating_sub(bytes);
        (frames, bytes)
    }

    /// Whether the kernel has taken all, as far as was looked.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.descs == 0
    }

    /// The ring ends: frames that nobody will take.
    pub(super) fn give_up(&mut self) -> u64 {
        (self.descs, self.bytes) = (0, 0);
        std::mem::take(&mut self.frames)
    }
}
