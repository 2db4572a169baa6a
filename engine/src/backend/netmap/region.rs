//! Memory that the kernel shares: rings and buffers of all ports with one `nr_mem_id`. It is mapped once, by a file that is bound to no port, since a
//! mapping keeps its file open, and a file keeps its port.

#![allow(unsafe_code)] // owns a mapping

use super::abi;
use super::abi::Register;
use super::driver::Driver;
use super::open::register;
use crate::burst::Seg;
use nix::errno::Errno;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// Buffers of a region: all of one size, side by side from `start` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pool {
    pub(super) start: usize,
    pub(super) size: u32,
    /// Buffers that lie in the region as a whole.
    pub(super) count: u32,
}

impl Pool {
    /// Where a buffer begins, in the region. The kernel keeps the first two for itself.
    #[inline]
    pub(super) const fn offset(&self, index: u32) -> Option<usize> {
        if index >= self.count {
            return None;
        }
        // Below the region's length, by `count`.
        Some(self.start + index as usize * self.size as usize)
    }
}

/// Buffers that can change hands: which came in exchange for a lent one.
#[derive(Debug)]
struct Exchange {
    pool: Pool,
    /// By buffer: the one that a transmit ring gave for it, 0 for none.
    given: Box<[AtomicU32]>,
}

/// One mapping.
#[derive(Debug)]
pub(super) struct Region {
    base: NonNull<u8>,
    len: usize,
    /// That of the first ring; a ring with other buffers copies.
    exchange: OnceLock<Exchange>,
}

// SAFETY: a region is an address and a length; the memory belongs to the process, not to a thread.
unsafe impl Send for Region {}
// SAFETY: what is shared of it changes by atomic words only; rings and buffers have one owner each.
unsafe impl Sync for Region {}

impl Region {
    fn map(driver: &dyn Driver, fd: BorrowedFd<'_>, bytes: NonZeroUsize) -> Result<Arc<Self>, Errno> {
        let base = driver.map(fd, bytes)?;
        Ok(Arc::new(Self { base, len: bytes.get(), exchange: OnceLock::new() }))
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The address of `bytes` bytes at an offset, if they lie in the region and are aligned to `align`.
    #[inline]
    pub(super) fn at(&self, offset: usize, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(bytes)?;
        if end > self.len || !offset.is_multiple_of(align) {
            return None;
        }
        // SAFETY: the sum lies inside of the mapping, or one past its end.
        Some(unsafe { self.base.add(offset) })
    }

    /// A ring's buffers may change hands with those of others like them.
    pub(super) fn exchanges(&self, pool: &Pool) -> bool {
        let make = || Exchange { pool: *pool, given: (0..pool.count).map(|_| AtomicU32::new(0)).collect() };
        self.exchange.get_or_init(make).pool == *pool
    }

    /// The buffer that begins with this run of bytes, if it may change hands.
    #[inline]
    pub(super) fn buffer(&self, run: &Seg) -> Option<u32> {
        let exchange = self.exchange.get()?;
        let offset = (run.ptr() as usize).checked_sub(self.base.as_ptr() as usize)?;
        let offset = offset.checked_sub(exchange.pool.start)?;
        let (index, rest) = (offset / exchange.pool.size as usize, offset % exchange.pool.size as usize);
        let index = u32::try_from(index).ok().filter(|index| *index < exchange.pool.count)?;
        (rest == 0 && run.len() <= exchange.pool.size as usize).then_some(index)
    }

    /// Notes that `mine` was given for `lent`. False where that has gone before: to another receiver, in this turn.
    #[inline]
    pub(super) fn give(&self, lent: u32, mine: u32) -> bool {
        let Some(place) = self.exchange.get().and_then(|e| e.given.get(lent as usize)) else { return false };
        // Both halves are one worker's, as only it has lent the buffer.
        if place.load(Ordering::Relaxed) != 0 {
            return false;
        }
        place.store(mine, Ordering::Relaxed);
        true
    }

    /// Takes what was given for a lent buffer.
    #[inline]
    pub(super) fn take(&self, lent: u32) -> Option<u32> {
        let place = self.exchange.get()?.given.get(lent as usize)?;
        let mine = place.load(Ordering::Relaxed);
        if mine == 0 {
            return None;
        }
        place.store(0, Ordering::Relaxed);
        Some(mine)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whoever has a pointer into it holds the region.
        let _ = unsafe { nix::sys::mman::munmap(self.base.cast(), self.len) };
    }
}

/// The regions that are mapped, by device and `nr_mem_id`. Control has one of these.
#[derive(Debug, Default)]
pub struct Regions(Mutex<HashMap<(String, u16), Weak<Region>>>);

impl Regions {
    /// The region of a port that `fd` has registered.
    pub(super) fn of(
        &self,
        driver: &dyn Driver,
        device: &str,
        fd: BorrowedFd<'_>,
        reply: &Register,
    ) -> Result<Arc<Region>, Errno> {
        let bytes = usize::try_from(reply.memsize).ok().and_then(NonZeroUsize::new).ok_or(Errno::EINVAL)?;
        let mut regions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        regions.retain(|_, region| region.strong_count() > 0);
        let key = (device.to_owned(), reply.mem_id);
        let known = regions.get(&key).and_then(Weak::upgrade).filter(|known| known.len == bytes.get());
        if let Some(known) = known {
            return Ok(known);
        }
        if let Some(keeper) = keeper(driver, device, reply)
            && let Ok(region) = Region::map(driver, keeper.as_fd(), bytes)
        {
            regions.insert(key, Arc::downgrade(&region));
            return Ok(region);
        }
        // A module without such files: mapped for this port alone.
        Region::map(driver, fd, bytes)
    }
}

/// A file that has the memory of a port, and no port.
fn keeper(driver: &dyn Driver, device: &str, reply: &Register) -> Option<OwnedFd> {
    let fd = driver.open(device).ok()?;
    let mut null = Register { mode: abi::REG_NULL, mem_id: reply.mem_id, ..Register::default() };
    register(driver, fd.as_fd(), "netdevd", &mut null).ok()?;
    (null.mem_id == reply.mem_id && null.memsize >= reply.memsize).then_some(fd)
}
