//! Frames on a chardev: length, virtio-net header length where asked for, frame (QEMU `net/net.c`, `net_fill_rstate`).

/// Longest frame on a chardev (QEMU `NET_BUFSIZE`).
pub const FRAME_MAX: usize = 4096 + 65536;

/// A length above [`FRAME_MAX`]: where the next frame begins is not to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes, at most {FRAME_MAX} are taken")]
pub struct Oversized(pub u32);

/// Takes frames out of a byte stream, however it is cut.
#[derive(Debug)]
pub struct Reader {
    vnet: bool,
    /// Bytes of the two lengths so far.
    head: [u8; 8],
    filled: usize,
    /// The frame so far, once its lengths are known.
    frame: Vec<u8>,
}

impl Reader {
    /// At the begin of a stream; `vnet` says whether the length of a virtio-net header follows each frame's length.
    #[must_use]
    pub const fn new(vnet: bool) -> Self {
        Self { vnet, head: [0; 8], filled: 0, frame: Vec::new() }
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
        let heads = if self.vnet { 8 } else { 4 };
        loop {
            if let Some(missing) = self.head.get_mut(self.filled..heads).filter(|missing| !missing.is_empty())
            {
                let count = missing.len().min(bytes.len());
                let (now, later) = bytes.split_at(count);
                missing.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
                self.filled += count;
                bytes = later;
                if self.filled < heads {
                    return Ok(());
                }
            }
            let [a, b, c, d, vnet @ ..] = self.head;
            let len = u32::from_be_bytes([a, b, c, d]);
            let whole = len as usize;
            if whole > FRAME_MAX {
                return Err(Oversized(len));
            }
            let (now, later) = bytes.split_at(bytes.len().min(whole.saturating_sub(self.frame.len())));
            self.frame.extend_from_slice(now);
            bytes = later;
            if self.frame.len() < whole {
                return Ok(());
            }
            each(&self.frame, if self.vnet { u32::from_be_bytes(vnet) } else { 0 });
            self.restart();
        }
    }
}
