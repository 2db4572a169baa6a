//! A packet socket as an end that only sends: a burst a system call, past the queueing discipline.

use super::BURST;
use super::frame::{HEADER, Shape};
use super::payload::Payload;
use crate::failure::{Context, Result};
use crate::load::wire;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

/// A packet socket that is bound to an interface.
pub(super) struct Packet {
    socket: OwnedFd,
    /// At least a burst, so that no frame stands twice in one.
    frames: Vec<Vec<u8>>,
    variants: usize,
    next: usize,
    /// The kernel is done with a frame when the call returns.
    gone: usize,
    headers: MultiHeaders<SockaddrIn>,
}

impl Packet {
    /// Opens a socket on the interface `name`.
    ///
    /// # Errors
    /// No such interface, or no CAP_NET_RAW.
    pub(super) fn open(name: &str, shape: &Shape) -> Result<Self> {
        let variants = shape.variants();
        let count = variants * BURST.div_ceil(variants);
        let frames = (0..count).map(|n| shape.build(n % variants, false).split_off(HEADER)).collect();
        let headers = MultiHeaders::preallocate(BURST, None);
        Ok(Self { socket: wire::packet(name)?, frames, variants, next: 0, gone: 0, headers })
    }

    pub(super) fn reclaim(&mut self) -> usize {
        std::mem::take(&mut self.gone)
    }

    /// Sends up to `n` frames: how many the kernel took. What the other side has no room for counts as taken, as on a wire.
    pub(super) fn send<P: Payload>(&mut self, n: usize, payload: &mut P) -> Result<usize> {
        let n = n.min(BURST).min(self.frames.len() - self.next);
        let Some(frames) = self.frames.get_mut(self.next..self.next + n) else { return Ok(0) };
        if P::TOUCH {
            payload.burst();
            for (at, frame) in frames.iter_mut().enumerate() {
                let variant = ((self.next + at) % self.variants) as u32;
                // SAFETY: a whole vector.
                #[allow(unsafe_code)]
                unsafe {
                    payload.mark(frame.as_mut_ptr(), frame.len(), variant);
                }
            }
        }
        let slices: Vec<[IoSlice<'_>; 1]> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
        let to = [const { None }; BURST];
        let sent = sendmmsg(
            self.socket.as_raw_fd(),
            &mut self.headers,
            &slices,
            to.get(..n).unwrap_or_default(),
            [],
            MsgFlags::empty(),
        );
        let sent = match sent {
            Ok(results) => results.count(),
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => 0,
            Err(errno) => return Err(errno).context("packet socket"),
        };
        self.next = (self.next + sent) % self.frames.len();
        self.gone += sent;
        Ok(sent)
    }
}
