//! One ring of a guest with its buffers.

#![allow(unsafe_code)] // reads and writes buffers of guest memory

use super::BURST;
use super::frame::HEADER;
use super::payload::Payload;
use crate::failure::{Failure, Result};
use engine::mem::guest::GuestMemory;
use engine::virtq::{DriverRing, DriverSeg, RingFault};
use std::ptr::NonNull;
use std::sync::Arc;
use vmm_sys_util::eventfd::EventFd;

/// One ring with its buffers; buffer `token` is always at the same place.
pub(super) struct Ring<R> {
    pub(super) ring: R,
    /// The buffers as the back-end knows them.
    pub(super) segs: Vec<DriverSeg>,
    /// Buffer 0 in our memory.
    pub(super) base: NonNull<u8>,
    /// Bytes from buffer to buffer.
    pub(super) stride: usize,
    pub(super) kick: EventFd,
    /// The descriptors, and the available entries behind their head (a packed ring has none).
    pub(super) descs: NonNull<u8>,
    pub(super) avail: Option<NonNull<u8>>,
    /// The descriptor that is written next: devices that keep the order give them back in ring order.
    pub(super) next: usize,
    /// The used ring (a packed ring has none).
    pub(super) used_ring: Option<NonNull<u8>>,
    /// Buffers that came back, all of them, those since the last look, and those that are there to be taken.
    pub(super) came: usize,
    pub(super) taken: usize,
    pub(super) ready: usize,
    pub(super) size: usize,
    /// Keeps the buffers mapped.
    pub(super) _memory: Arc<GuestMemory>,
}

impl<R: DriverRing> Ring<R> {
    /// Buffer `token` in our memory.
    #[inline]
    pub(super) fn host(&self, token: u32) -> *mut u8 {
        // SAFETY: tokens are ours and name buffers within the mapping.
        unsafe { self.base.as_ptr().add(token as usize * self.stride) }
    }

    /// Asks for the lines that the next `n` descriptors will be written to. The device had them last, and stores that wait for
    /// their lines one after the other are most of what a driver costs.
    #[inline]
    pub(super) fn expect(&self, n: usize) {
        let end = self.next + n;
        for at in (self.next & !3..end).step_by(4) {
            let slot = if at >= self.size { at - self.size } else { at };
            own(self.descs, slot * 16);
            if let Some(avail) = self.avail
                && slot % 32 < 4
            {
                own(avail, 4 + slot * 2);
            }
        }
        if let Some(avail) = self.avail {
            own(avail, 0); // the index, which the device polls
            own(avail, 4 + self.next * 2);
        }
    }

    /// Looks how many buffers came back (packed: guesses).
    #[inline]
    pub(super) fn look(&mut self) {
        self.ready = match self.used_ring {
            Some(used) => {
                // SAFETY: the index behind the flags at the start of a used ring, which is mapped.
                let index = unsafe { used.as_ptr().add(2).cast::<u16>().read_volatile() };
                usize::from(index.wrapping_sub(self.came as u16)).min(BURST)
            }
            None if self.taken == BURST => BURST,
            None => 0,
        };
        self.taken = 0;
    }

    /// Asks for the lines that name them, and for no others: the device would have to take those back to write them.
    #[inline]
    pub(super) fn peek(&self) {
        let (first, end) = (self.came % self.size, self.came % self.size + self.ready);
        match self.used_ring {
            Some(used) => {
                for at in (first & !7..end).step_by(8) {
                    fetch(used, 4 + (at & (self.size - 1)) * 8);
                }
            }
            None => {
                for at in (first & !3..end).step_by(4) {
                    fetch(self.descs, if at >= self.size { at - self.size } else { at } * 16);
                }
            }
        }
    }

    /// Notes that a descriptor was written.
    #[inline]
    fn wrote(&mut self) {
        self.next += 1;
        if self.next == self.size {
            self.next = 0;
        }
    }

    /// Makes a buffer of one segment available.
    #[inline]
    pub(super) fn put(&mut self, seg: DriverSeg, readable: bool, token: u32) -> bool {
        let added = self.ring.add(&[seg], usize::from(readable), token);
        if added {
            self.wrote();
        }
        added
    }

    /// The next buffer that came back.
    #[inline]
    pub(super) fn used(&mut self) -> Result<Option<(u32, u32)>> {
        match self.ring.used() {
            Ok(None) => Ok(None),
            Ok(used) => {
                self.came = self.came.wrapping_add(1);
                self.taken += 1;
                Ok(used)
            }
            Err(fault) => Err(broken(&fault)),
        }
    }

    /// Makes buffer `token` available.
    #[inline]
    pub(super) fn add(&mut self, token: u32, readable: bool) -> bool {
        let Some(&seg) = self.segs.get(token as usize) else { return false };
        self.put(seg, readable, token)
    }

    /// Shows the back-end what was added, and wakes it if it sleeps.
    #[inline]
    pub(super) fn publish(&mut self) {
        if self.ring.publish() {
            let _ = self.kick.write(1);
        }
    }
}

/// Fetches the line `offset` bytes behind `base`, to be read.
#[inline]
fn fetch(base: NonNull<u8>, offset: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it reads nothing and cannot fault.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(base.as_ptr().wrapping_add(offset).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (base, offset);
}

/// Fetches the line `offset` bytes behind `base`, to be written.
#[inline]
fn own(base: NonNull<u8>, offset: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it reads nothing and cannot fault.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_ET0>(base.as_ptr().wrapping_add(offset).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (base, offset);
}

#[cold]
fn broken(fault: &RingFault) -> Failure {
    Failure::new(format!("a ring: {fault}"))
}

/// A receive ring.
pub(super) struct Receive<R> {
    pub(super) ring: Ring<R>,
    /// A frame may lie in several buffers: `num_buffers` is to be read.
    pub(super) spans: bool,
    /// Buffers of the frame that is under way.
    pub(super) left: u16,
    /// Its bytes, where somebody wants them all.
    pub(super) gathered: Vec<u8>,
    /// Taken out of the ring and not yet given back.
    pub(super) held: Vec<(u32, u32)>,
}

impl<R: DriverRing> Receive<R> {
    /// Takes up to a burst of buffers: how many frames ended in them.
    #[inline]
    pub(super) fn take<P: Payload>(&mut self, payload: &mut P) -> Result<usize> {
        self.held.clear();
        let mut frames = 0;
        while self.held.len() < BURST {
            let Some((token, len)) = self.ring.used()? else { break };
            if self.held.is_empty() && P::TOUCH {
                payload.burst();
            }
            self.held.push((token, len));
            if self.spans {
                frames += usize::from(self.part(token, len, payload));
                continue;
            }
            frames += 1;
            if P::TOUCH {
                let len = (len as usize).saturating_sub(HEADER);
                // SAFETY: the device wrote `len` bytes to this buffer, as the ring checked.
                unsafe { payload.see(self.ring.host(token).add(HEADER), len) };
            }
        }
        Ok(frames)
    }

    /// A buffer that may be a part of a frame: whether it is the last.
    fn part<P: Payload>(&mut self, token: u32, len: u32, payload: &mut P) -> bool {
        let (host, len) = (self.ring.host(token), len as usize);
        let first = self.left == 0;
        if first {
            // SAFETY: every receive buffer has room for the header.
            self.left = unsafe { host.add(10).cast::<u16>().read_unaligned() }.max(1);
            self.gathered.clear();
        }
        self.left -= 1;
        if P::WHOLE {
            // SAFETY: the device wrote `len` bytes to this buffer, as the ring checked.
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

    /// Gives the buffers that were taken back to the ring.
    #[inline]
    pub(super) fn give_back(&mut self) {
        if self.held.is_empty() {
            return;
        }
        self.ring.expect(self.held.len());
        for at in 0..self.held.len() {
            let (token, _) = self.held[at];
            self.ring.add(token, false);
        }
        self.held.clear();
        self.ring.publish();
    }
}

/// A transmit ring.
pub(super) struct Transmit<R> {
    pub(super) ring: Ring<R>,
    pub(super) free: Vec<u32>,
    /// Which frame each buffer holds.
    pub(super) variants: Vec<u32>,
}

impl<R: DriverRing> Transmit<R> {
    /// Takes back what went out: how many.
    #[inline]
    pub(super) fn reclaim(&mut self) -> Result<usize> {
        let mut n = 0;
        while n < BURST {
            let Some((token, _)) = self.ring.used()? else { break };
            self.free.push(token);
            n += 1;
        }
        Ok(n)
    }

    /// Sends up to `n` frames: how many the ring took.
    #[inline]
    pub(super) fn send<P: Payload>(&mut self, n: usize, payload: &mut P) -> usize {
        let n = n.min(BURST).min(self.free.len());
        if n == 0 {
            return 0;
        }
        self.ring.expect(n);
        if P::TOUCH {
            payload.burst();
        }
        let mut added = 0;
        while added < n {
            let Some(&token) = self.free.last() else { break };
            let Some(&seg) = self.ring.segs.get(token as usize) else { break };
            if P::TOUCH {
                let variant = self.variants.get(token as usize).copied().unwrap_or(0);
                // SAFETY: the buffer holds a header and a frame, and is ours until it is published.
                unsafe {
                    payload.mark(self.ring.host(token).add(HEADER), seg.len as usize - HEADER, variant);
                }
            }
            if !self.ring.put(seg, true, token) {
                break;
            }
            self.free.pop();
            added += 1;
        }
        if added > 0 {
            self.ring.publish();
        }
        added
    }
}
