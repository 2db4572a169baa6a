//! Buffers of one size, side by side in the shared region.

#![allow(unsafe_code)] // addresses inside of a region that its owner keeps mapped

use crate::burst::Seg;
use crate::virtq::DriverSeg;
use std::ptr::NonNull;

/// A run of buffers. A copy of an address: who uses it keeps the region mapped.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend) struct Buffers {
    base: NonNull<u8>,
    /// Address of the first as the device knows it.
    guest: u64,
    stride: u32,
    len: u32,
    count: u32,
}

// SAFETY: it only names memory; the queue that holds it keeps the region.
unsafe impl Send for Buffers {}

impl Buffers {
    /// Buffers of `len` bytes, `stride` bytes apart.
    ///
    /// # Safety
    /// `count * stride` bytes at `base` must be mapped as long as this is used, and used for nothing else.
    pub(in crate::backend) const unsafe fn new(
        base: NonNull<u8>,
        guest: u64,
        stride: u32,
        len: u32,
        count: u32,
    ) -> Self {
        Self { base, guest, stride, len, count }
    }

    /// How many there are.
    pub(in crate::backend) const fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of each.
    #[inline]
    pub(in crate::backend) const fn len(&self) -> u32 {
        self.len
    }

    /// Where buffer `i` lies; the last one stands for those behind it.
    #[inline]
    pub(in crate::backend) fn at(&self, i: u32) -> NonNull<u8> {
        let i = i.min(self.count - 1) as usize;
        // SAFETY: below the count, so inside of the run.
        unsafe { self.base.add(i * self.stride as usize) }
    }

    /// The first `len` bytes of buffer `i`, no more than it has, as they are lent.
    #[inline]
    pub(in crate::backend) fn lend(&self, i: u32, len: u32) -> Seg {
        // SAFETY: inside of the buffer, which its owner gives back to the device only after the burst. The device may write it
        // meanwhile, as any lender may.
        unsafe { Seg::new(self.at(i), len.min(self.len)) }
    }

    /// Buffer `i`, or its first `len` bytes, for the ring.
    #[inline]
    pub(in crate::backend) fn seg(&self, i: u32, len: u32) -> DriverSeg {
        let i = i.min(self.count - 1);
        DriverSeg { addr: self.guest + u64::from(i) * u64::from(self.stride), len: len.min(self.len) }
    }
}
