//! What stands in a transmit ring: frames that the kernel was given and has not taken. They count as sent when it takes them, so that those that it
//! never takes are dropped by name, and by that only.

use af_xdp::{Desc, Tx};

/// Frames that stand in a transmit ring, or have been taken since the last look.
#[derive(Debug, Default)]
pub(super) struct Standing {
    descs: u32,
    frames: u64,
    bytes: u64,
}

impl Standing {
    /// A frame of `descs` descriptors went into the ring.
    #[inline]
    pub(super) const fn add(&mut self, descs: u32, bytes: usize) {
        self.descs += descs;
        self.frames += 1;
        self.bytes += bytes as u64;
    }

    /// The kernel has left `pending` descriptors: frames and bytes that it took since the last look. Of a frame that it took in part, the bytes.
    #[inline]
    pub(super) fn taken(&mut self, tx: &Tx, pending: u32) -> (u64, u64) {
        if pending == 0 {
            let Self { frames, bytes, .. } = std::mem::take(self);
            return (frames, bytes);
        }
        self.some_taken(tx, pending)
    }

    /// As [`Standing::taken`], where some are left: each descriptor is looked at once.
    #[inline(never)]
    fn some_taken(&mut self, tx: &Tx, pending: u32) -> (u64, u64) {
        let (mut frames, mut bytes) = (0, 0);
        while self.descs > pending {
            let desc: Desc = tx.written(self.descs);
            frames += u64::from(!desc.goes_on());
            bytes += u64::from(desc.len);
            self.descs -= 1;
        }
        self.frames = self.frames.saturating_sub(frames);
        self.bytes = self.bytes.saturating_sub(bytes);
        (frames, bytes)
    }

    /// Whether the kernel has not taken all, as far as was looked.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.descs == 0
    }

    /// The ring ends: frames that nobody will take.
    pub(super) fn give_up(&mut self) -> u64 {
        std::mem::take(self).frames
    }
}
