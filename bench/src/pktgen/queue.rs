//! What a guest does with its two rings.

#![allow(unsafe_code)] // reads and writes buffers of guest memory

use super::BURST;
use super::frame::HEADER;
use super::payload::Payload;
use super::ring::{Format, Ring};
use crate::failure::Result;

/// A receive ring.
pub(super) struct Receive<F> {
    ring: Ring<F>,
    /// Where a frame may lie in several buffers: what has come of it.
    parts: Option<Parts>,
}

impl<F: Format> Receive<F> {
    /// Offers all buffers; `spans` where a frame may lie in several.
    pub(super) fn new(mut ring: Ring<F>, spans: bool) -> Self {
        ring.offer(ring.free());
        Self { ring, parts: spans.then(Parts::default) }
    }

    /// Takes up to a burst of buffers and gives them back: how many frames ended in them.
    #[inline]
    pub(super) fn take<P: Payload>(&mut self, payload: &mut P) -> Result<usize> {
        let mut begun = false;
        let mut frames = 0;
        let n = match &mut self.parts {
            None if !P::TOUCH => {
                frames = self.ring.take(BURST, |_, _, _| {})?;
                frames
            }
            None => {
                frames = self.ring.take(BURST, |memory, token, len| {
                    if !std::mem::replace(&mut begun, true) {
                        payload.burst();
                    }
                    let len = (len as usize).saturating_sub(HEADER);
                    // SAFETY: the device wrote to this buffer, which has a header's bytes and these.
                    unsafe { payload.see(memory.host(token).add(HEADER), len) };
                })?;
                frames
            }
            Some(parts) => self.ring.take(BURST, |memory, token, len| {
                if P::TOUCH && !std::mem::replace(&mut begun, true) {
                    payload.burst();
                }
                frames += usize::from(parts.add(memory.host(token), len as usize, payload));
            })?,
        };
        if n > 0 {
            self.ring.offer(n);
        } else {
            self.ring.nudge();
        }
        Ok(frames)
    }

    /// Copies what arrived to `transmit` and sends it, as long as there is room: how many buffers came and how many went. A frame of
    /// several buffers goes in pieces, and what is longer than a transmit buffer does not go.
    pub(super) fn reflect(&mut self, transmit: &mut Transmit<F>) -> Result<(usize, usize)> {
        transmit.reclaim()?;
        let to = &mut transmit.ring;
        let mut went = 0;
        let came = self.ring.take(to.free().min(BURST), |memory, token, len| {
            if len <= transmit.longest {
                // SAFETY: the device wrote `len` bytes; the transmit buffer is free and has room for them.
                unsafe {
                    let bytes = to.memory.host(to.upcoming(went));
                    bytes.copy_from_nonoverlapping(memory.host(token), len as usize);
                }
                to.resize(went, len);
                went += 1;
            }
        })?;
        transmit.reflected |= went > 0;
        to.offer(went);
        if came > 0 {
            self.ring.offer(came);
        } else {
            self.ring.nudge();
        }
        Ok((came, went))
    }

    /// Wakes the device if it sleeps.
    pub(super) fn nudge(&mut self) {
        self.ring.nudge();
    }
}

/// A frame that lies in several buffers.
#[derive(Default)]
struct Parts {
    /// Buffers that are still to come.
    left: u16,
    /// Its bytes, where somebody wants them all.
    gathered: Vec<u8>,
}

impl Parts {
    /// A buffer that may be a part of a frame: whether it is the last.
    fn add<P: Payload>(&mut self, host: *const u8, len: usize, payload: &mut P) -> bool {
        let first = self.left == 0;
        if first {
            // SAFETY: every receive buffer has room for the header.
            self.left = unsafe { host.add(10).cast::<u16>().read_unaligned() }.max(1);
            self.gathered.clear();
        }
        self.left -= 1;
        if P::WHOLE {
            // SAFETY: the device wrote `len` bytes to this buffer, which has them.
            self.gathered.extend_from_slice(unsafe { std::slice::from_raw_parts(host, len) });
            if self.left == 0 && self.gathered.len() >= HEADER {
                let body = &self.gathered[HEADER..];
                // SAFETY: a slice.
                unsafe { payload.see(body.as_ptr(), body.len()) };
            }
        } else if P::TOUCH && first && len >= HEADER {
            // SAFETY: as above.
            unsafe { payload.see(host.add(HEADER), len - HEADER) };
        }
        self.left == 0
    }
}

/// A transmit ring.
pub(super) struct Transmit<F> {
    ring: Ring<F>,
    /// The frames that are sent, and which of them each buffer holds.
    frames: Vec<Vec<u8>>,
    variants: Vec<u32>,
    /// Bytes of a buffer.
    longest: u32,
    /// Buffers hold what was reflected.
    reflected: bool,
}

impl<F: Format> Transmit<F> {
    /// Fills the buffers with `frames`, in turn.
    pub(super) fn new(ring: Ring<F>, frames: Vec<Vec<u8>>) -> Self {
        let longest = ring.memory.segs.iter().map(|seg| seg.len).max().unwrap_or(0);
        let variants =
            (0..ring.memory.segs.len()).map(|token| (token % frames.len().max(1)) as u32).collect();
        let mut this = Self { ring, frames, variants, longest, reflected: false };
        this.fill();
        this
    }

    /// Writes the frames into the buffers that are free.
    fn fill(&mut self) {
        for n in 0..self.ring.free() {
            let token = self.ring.upcoming(n);
            let variant = self.variants.get(usize::from(token)).copied().unwrap_or(0);
            let Some(bytes) = self.frames.get(variant as usize) else { continue };
            let to = self.ring.memory.host(token);
            // SAFETY: a buffer has room for the longest frame, and the device does not have it.
            unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            self.ring.resize(n, bytes.len() as u32);
        }
    }

    /// Takes back what went out: how many.
    #[inline]
    pub(super) fn reclaim(&mut self) -> Result<usize> {
        let n = self.ring.take(BURST, |_, _, _| {})?;
        if n == 0 {
            self.ring.nudge();
        }
        Ok(n)
    }

    /// Sends up to `n` frames: how many the ring took.
    #[inline]
    pub(super) fn send<P: Payload>(&mut self, n: usize, payload: &mut P) -> usize {
        if self.reflected {
            self.fill();
            self.reflected = false;
        }
        let n = n.min(BURST).min(self.ring.free());
        if n == 0 {
            return 0;
        }
        if P::TOUCH {
            payload.burst();
            for at in 0..n {
                let token = self.ring.upcoming(at);
                let variant = self.variants.get(usize::from(token)).copied().unwrap_or(0);
                let len = self.ring.memory.len(token) as usize - HEADER;
                // SAFETY: the buffer holds a header and a frame, and is ours until it is offered.
                unsafe { payload.mark(self.ring.memory.host(token).add(HEADER), len, variant) };
            }
        }
        self.ring.offer(n);
        n
    }

    /// Wakes the device if it sleeps.
    pub(super) fn nudge(&mut self) {
        self.ring.nudge();
    }
}
