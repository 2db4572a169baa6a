//! A tap as an end: one system call a frame, as most programs do it.

use super::BURST;
use super::frame::{HEADER, Shape};
use super::payload::Payload;
use crate::failure::{Context, Result};
use crate::load::wire;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};

/// Longest frame that is read.
const MAX_FRAME: usize = 1 << 16;

/// A tap that this process attached to.
pub(super) struct Tap {
    file: File,
    frames: Vec<Vec<u8>>,
    next: usize,
    /// Frames written and not yet counted as gone: the kernel is done with one when the call returns.
    gone: usize,
    buffer: Vec<u8>,
}

impl Tap {
    /// Makes the tap `name`, or attaches to it; plain frames without a header.
    ///
    /// # Errors
    /// The name, or no CAP_NET_ADMIN.
    pub(super) fn attach(name: &str, shape: &Shape) -> Result<Self> {
        let file = wire::tap(name)?;
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context(name)?;
        let frames = (0..shape.variants()).map(|v| shape.build(v, false).split_off(HEADER)).collect();
        Ok(Self { file, frames, next: 0, gone: 0, buffer: vec![0; MAX_FRAME] })
    }

    /// One frame into the buffer: its length, or nothing.
    fn read(&mut self) -> Result<Option<usize>> {
        match self.file.read(&mut self.buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error).context("tap read"),
        }
    }

    pub(super) fn receive<P: Payload>(&mut self, payload: &mut P) -> Result<usize> {
        let mut n = 0;
        while n < BURST {
            let Some(len) = self.read()? else { break };
            if P::TOUCH {
                payload.burst();
                let frame = self.buffer.as_ptr();
                // SAFETY: the kernel wrote `len` bytes to the buffer.
                #[allow(unsafe_code)]
                unsafe {
                    payload.see(frame, len);
                }
            }
            n += 1;
        }
        Ok(n)
    }

    pub(super) fn reclaim(&mut self) -> usize {
        std::mem::take(&mut self.gone)
    }

    pub(super) fn send<P: Payload>(&mut self, n: usize, payload: &mut P) -> Result<usize> {
        let mut sent = 0;
        while sent < n.min(BURST) {
            let variant = self.next % self.frames.len().max(1);
            let Some(frame) = self.frames.get_mut(variant) else { break };
            if P::TOUCH {
                payload.burst();
                // SAFETY: a whole vector.
                #[allow(unsafe_code)]
                unsafe {
                    payload.mark(frame.as_mut_ptr(), frame.len(), variant as u32);
                }
            }
            match self.file.write(frame) {
                Ok(_) => sent += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("tap write"),
            }
            self.next += 1;
        }
        self.gone += sent;
        Ok(sent)
    }

    /// Writes what is read back with the MAC addresses exchanged.
    pub(super) fn reflect(&mut self) -> Result<(usize, usize)> {
        let mut n = 0;
        while n < BURST {
            let Some(len) = self.read()? else { break };
            n += 1;
            if let Some(frame) = self.buffer.get_mut(..len).filter(|frame| frame.len() >= 12) {
                let (to, from) = frame.split_at_mut(6);
                to.swap_with_slice(&mut from[..6]);
                // What the queue has no room for is lost, as on a wire.
                let _ = self.file.write(frame);
            }
        }
        Ok((n, n))
    }
}
