//! One mapping of memory: private hugepages, shared hugepages behind a memfd, or ordinary pages.

#![allow(unsafe_code)] // owns memory: maps, touches and unmaps it

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mlock, mmap, mmap_anonymous, munmap};
use std::alloc::Layout;
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

/// What kind of pages a mapping has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// Hugepages of the system's default size.
    Huge,
    /// Ordinary pages; the kernel was asked to merge them into transparent hugepages.
    Ordinary,
}

/// The system's default hugepage size in bytes, when it has hugepages at all.
///
/// Asked before `hugepage_rs` is used: that crate panics where `/proc/meminfo` has no such line.
#[must_use]
pub fn hugepage_size() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    parse_hugepage_size(&text)
}

fn parse_hugepage_size(meminfo: &str) -> Option<usize> {
    let rest = meminfo.lines().find_map(|l| l.strip_prefix("Hugepagesize:"))?;
    let kib: usize = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024).filter(|size| size.is_power_of_two())
}

/// Mapped memory, unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    backing: Backing,
    fd: Option<OwnedFd>,
    locked: bool,
}

// SAFETY: a mapping is an address and a length; the memory belongs to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: no method changes the mapping through a shared reference.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Private memory of at least `bytes`: hugepages if `huge` and there are enough, else ordinary pages.
    /// Every page is present when it returns; it is locked where the limits allow.
    ///
    /// # Errors
    /// The errno of `mmap`, or of populating ordinary memory.
    pub fn private(bytes: usize, huge: bool) -> Result<Self, Errno> {
        if huge && let Some(map) = Self::private_huge(bytes) {
            return Ok(map);
        }
        let len = round_up(bytes, page_size());
        let size = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            mmap_anonymous(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE)
        }?;
        let mut map = Self { base: base.cast(), len, backing: Backing::Ordinary, fd: None, locked: false };
        map.advise(MmapAdvise::MADV_HUGEPAGE);
        map.populate()?;
        map.lock();
        Ok(map)
    }

    /// Shared memory of at least `bytes` behind a memfd that another process may map: hugepages if `huge` and there
    /// are enough, else ordinary pages.
    ///
    /// # Errors
    /// The errno of `memfd_create`, `ftruncate`, `mmap` or of populating ordinary memory.
    pub fn shared(bytes: usize, huge: bool) -> Result<Self, Errno> {
        if huge
            && let Some(page) = hugepage_size()
            && let Ok(map) = Self::shared_by(MFdFlags::MFD_HUGETLB, round_up(bytes, page), Backing::Huge)
        {
            return Ok(map);
        }
        Self::shared_by(MFdFlags::empty(), round_up(bytes, page_size()), Backing::Ordinary)
    }

    fn private_huge(bytes: usize) -> Option<Self> {
        let page = hugepage_size()?;
        let len = round_up(bytes, page);
        let layout = Layout::from_size_align(len, 64).ok().filter(|l| l.size() > 0)?;
        // SAFETY: the layout is not empty, and `hugepage_size` has just found the line that the crate insists on.
        let base = NonNull::new(unsafe { hugepage_rs::alloc(layout) })?;
        let mut map = Self { base, len, backing: Backing::Huge, fd: None, locked: false };
        // A cgroup may refuse what the reservation allowed: then this mapping goes and ordinary memory is used.
        map.populate().ok()?;
        map.lock();
        Some(map)
    }

    fn shared_by(kind: MFdFlags, len: usize, backing: Backing) -> Result<Self, Errno> {
        let fd = memfd_create("netdevd", MFdFlags::MFD_CLOEXEC | kind)?;
        nix::unistd::ftruncate(&fd, len as i64)?;
        let size = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            mmap(None, size, prot, MapFlags::MAP_SHARED, &fd, 0)
        }?;
        let mut map = Self { base: base.cast(), len, backing, fd: Some(fd), locked: false };
        map.populate()?;
        map.lock();
        Ok(map)
    }

    /// First byte; at least page-aligned.
    #[must_use]
    pub const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no byte (never, once made).
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Kind of pages.
    #[must_use]
    pub const fn backing(&self) -> Backing {
        self.backing
    }

    /// Whether the pages are locked in memory.
    #[must_use]
    pub const fn locked(&self) -> bool {
        self.locked
    }

    /// The file behind shared memory.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    fn address(&self) -> NonNull<c_void> {
        self.base.cast()
    }

    fn advise(&self, advice: MmapAdvise) {
        // SAFETY: the range is this mapping, and the advice given here never discards contents.
        // The advice is a wish: a kernel without it is no worse off.
        let _ = unsafe { madvise(self.address(), self.len, advice) };
    }

    fn populate(&self) -> Result<(), Errno> {
        // SAFETY: the range is this mapping; populating only makes its pages present.
        match unsafe { madvise(self.address(), self.len, MmapAdvise::MADV_POPULATE_WRITE) } {
            // Before Linux 5.14: ordinary pages may come as they are touched, hugepages were reserved by mmap.
            Err(Errno::EINVAL) => Ok(()),
            other => other,
        }
    }

    fn lock(&mut self) {
        // SAFETY: the range is this mapping; locking does not change its contents.
        self.locked = unsafe { mlock(self.address(), self.len) }.is_ok();
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.backing == Backing::Huge && self.fd.is_none() {
            if let Ok(layout) = Layout::from_size_align(self.len, 64) {
                // SAFETY: this mapping came from `hugepage_rs::alloc` with the same layout.
                unsafe { hugepage_rs::dealloc(self.base.as_ptr(), layout) };
            }
            return;
        }
        // SAFETY: this is the mapping's whole range, and its owner is gone. A failure would leave it mapped: harmless.
        let _ = unsafe { munmap(self.address(), self.len) };
    }
}

/// `n` rounded up to a multiple of `to`, a power of two.
pub(crate) const fn round_up(n: usize, to: usize) -> usize {
    (n + to - 1) & !(to - 1)
}

/// Bytes of an ordinary page.
pub(crate) const fn page_size() -> usize {
    4096
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hugepage_size_is_read_from_meminfo_or_absent() {
        assert_eq!(parse_hugepage_size("MemFree: 1 kB\nHugepagesize:       2048 kB\n"), Some(2 << 20));
        assert_eq!(parse_hugepage_size("Hugepagesize: 1048576 kB"), Some(1 << 30));
        assert_eq!(parse_hugepage_size("MemFree: 1 kB\n"), None);
        assert_eq!(parse_hugepage_size("Hugepagesize: kB"), None);
    }

    #[test]
    fn memory_is_zeroed_and_writable_whatever_pages_there_are() {
        for huge in [true, false] {
            let map = Mapping::private(3 << 20, huge).unwrap();
            assert!(map.len() >= 3 << 20);
            // SAFETY: both ends lie inside the mapping, which nobody else knows.
            unsafe {
                assert_eq!(map.base().add(map.len() - 1).read(), 0);
                map.base().write(7);
            }
        }
    }

    #[test]
    fn shared_memory_has_a_file_that_sees_the_writes() {
        let map = Mapping::shared(8192, true).unwrap();
        // SAFETY: the first byte lies inside the mapping.
        unsafe { map.base().write(42) };
        let mut byte = [0];
        nix::sys::uio::pread(map.fd().unwrap(), &mut byte, 0).unwrap();
        assert_eq!(byte, [42]);
    }
}
