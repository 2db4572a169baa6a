//! Memory that a guest shares with its device, and the buffers in it.

use super::super::frame::{HEADER, Shape};
use super::rings::ring_bytes;
use crate::failure::{Context, Result};
use engine::mem::guest::{GuestMemory, Region};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Where the guest's memory begins. Not at zero, which some take for nothing.
pub(super) const BASE: u64 = 0x20_0000;
/// What the front-end calls it.
pub(super) const USER: u64 = 0x7000_0000_0000;

/// Bytes of a small buffer, header included, as drivers post them for mergeable frames.
pub(super) const SMALL: usize = 2048;
/// Frames longer than this are few at a time.
const LONG: usize = 4096;
/// How many of them.
const FEW: usize = 32;

/// Buffers of a ring: how many, how long, how far apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buffers {
    pub(super) count: usize,
    pub(super) len: usize,
    pub(super) stride: usize,
}

impl Buffers {
    fn of(count: usize, len: usize) -> Self {
        // An odd number of lines apart, so that they spread over the cache's sets.
        Self { count, len, stride: (len.div_ceil(64) | 1) * 64 }
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> usize {
        self.count * self.stride
    }

    /// Those of the receive ring and of the transmit ring.
    pub(super) fn both(shape: &Shape) -> [Self; 2] {
        let (ring, frame) = (usize::from(shape.ring), HEADER + shape.longest().max(64));
        let few = |len: usize| if len > LONG { FEW.min(ring) } else { ring };
        let capped = |count: usize| if shape.buffers == 0 { count } else { count.min(shape.buffers) };
        let receive = if shape.mergeable { SMALL } else { frame.max(SMALL) };
        [Self::of(few(receive), receive), Self::of(capped(few(frame)), frame)]
    }
}

/// Shared memory for the rings and buffers of a shape, on hugepages where there are some; its size.
pub(super) fn memory(shape: &Shape) -> Result<(Arc<GuestMemory>, OwnedFd, u64)> {
    let buffers: usize = Buffers::both(shape).iter().map(|buffers| buffers.bytes() + 4096).sum();
    let size = (2 * ring_bytes(shape) as usize + buffers).next_multiple_of(2 << 20) as u64;
    let map = |flags| -> Result<(Arc<GuestMemory>, OwnedFd)> {
        let fd = memfd_create("pktgen", flags).context("memfd_create")?;
        nix::unistd::ftruncate(&fd, size as i64).context("ftruncate")?;
        let region = Region { guest: BASE, user: USER, size, offset: 0 };
        let copy = fd.try_clone().context("dup")?;
        Ok((Arc::new(GuestMemory::new(&[(region, copy)]).context("mapping guest memory")?), fd))
    };
    if let Ok((memory, fd)) = map(MFdFlags::MFD_HUGETLB | MFdFlags::MFD_CLOEXEC)
        && nix::fcntl::fallocate(&fd, nix::fcntl::FallocateFlags::empty(), 0, size as i64).is_ok()
    {
        return Ok((memory, fd, size));
    }
    eprintln!("pktgen: no hugepages free; the guest's memory is ordinary");
    let (memory, fd) = map(MFdFlags::MFD_CLOEXEC)?;
    Ok((memory, fd, size))
}
