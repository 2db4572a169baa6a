//! Frames of a chardev, taken out of a stream that is cut anywhere.

use crate::wire::framing::{Lengths, Oversized};

/// Takes frames out of a byte stream, however it is cut.
#[derive(Debug)]
pub struct Reader {
    vnet: bool,
    /// Bytes of the lengths so far.
    head: [u8; Lengths::MOST],
    filled: usize,
    /// The frame so far, once its lengths are known.
    frame: Vec<u8>,
}

impl Reader {
    /// At the begin of a stream; `vnet` says whether the length of a virtio-net header follows each frame's length.
    #[must_use]
    pub const fn new(vnet: bool) -> Self {
        Self { vnet, head: [0; Lengths::MOST], filled: 0, frame: Vec::new() }
    }

    /// Whether a frame has begun that is not complete.
    #[must_use]
    pub const fn inside(&self) -> bool {
        self.filled != 0
    }

    /// Begins a new stream.
    pub fn restart(&mut self) {
        self.filled = 0;
        self.frame.clear();
    }

    /// Takes what arrived. `each` gets every complete frame, and the length of the virtio-net header in it.
    ///
    /// # Errors
    /// A length that no frame may have; the stream is of no more use.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8], u32)) -> Result<(), Oversized> {
        let heads = Lengths::size(self.vnet);
        loop {
            if let Some(missing) = self.head.get_mut(self.filled..heads).filter(|missing| !missing.is_empty())
            {
                let count = missing.len().min(bytes.len());
                let (now, later) = bytes.split_at(count);
                missing.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
                self.filled += count;
                bytes = later;
            }
            let head = self.head.get(..self.filled).unwrap_or_default();
            let Some(Lengths { record, header }) = Lengths::read(head, self.vnet)? else { return Ok(()) };
            let (now, later) = bytes.split_at(bytes.len().min(record.saturating_sub(self.frame.len())));
            self.frame.extend_from_slice(now);
            bytes = later;
            if self.frame.len() < record {
                return Ok(());
            }
            each(&self.frame, header);
            self.restart();
        }
    }
}
