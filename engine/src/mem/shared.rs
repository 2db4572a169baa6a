//! Memory of another process: a file that it passed to us, mapped.

#![allow(unsafe_code)] // owns a mapping

use super::map::{page_size, round_up};
use super::sigbus::Watch;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use nix::sys::stat::{FileStat, fstat};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

/// Why a file could not be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SharedError {
    /// The file ends before the range does.
    #[error("has a file of {file} bytes, {wanted} are needed")]
    Short {
        /// Bytes of the file.
        file: u64,
        /// Bytes needed, from the start of the file.
        wanted: u64,
    },
    /// No such range: empty, or beyond what can be addressed.
    #[error("cannot have {size} bytes at offset {offset}")]
    Range {
        /// First byte in the file.
        offset: u64,
        /// Bytes.
        size: u64,
    },
    /// The kernel refused.
    #[error("cannot be mapped: {0}")]
    Map(Errno),
    /// A file that is not memory: a disk, or a process behind FUSE, would bring its pages when it likes, and a worker
    /// that touched one would wait for it.
    #[error("is no memory (memfd, tmpfs, hugetlbfs)")]
    NotMemory,
    /// More mappings than are watched at a time.
    #[error("is one mapping too many")]
    Full,
}

pub use super::sigbus::tell_losses;

/// A mapped range of a file that somebody else owns and may shorten; then [`SharedMap::lost`] says so, and zero memory
/// stands in. Unmapped when dropped.
#[derive(Debug)]
pub struct SharedMap {
    base: NonNull<u8>,
    len: usize,
    start: NonNull<u8>,
    size: usize,
    watch: Option<Watch>,
}

// SAFETY: a mapping belongs to the process, not to a thread; all access to its bytes is raw.
unsafe impl Send for SharedMap {}
// SAFETY: no method changes the mapping through a shared reference.
unsafe impl Sync for SharedMap {}

impl SharedMap {
    /// Maps `size` bytes from `offset` of the file on, for reading and writing. The file need not stay open.
    ///
    /// # Errors
    /// The file is too short, is no memory, or may not be written.
    pub fn new(fd: &OwnedFd, offset: u64, size: u64) -> Result<Self, SharedError> {
        let range = SharedError::Range { offset, size };
        let end = offset.checked_add(size).filter(|end| *end <= isize::MAX as u64).ok_or(range)?;
        let stat = stat_of(fd, end)?;
        // Hugepages are mapped whole; their size is what the file system calls its block.
        let block = stat.st_blksize as usize;
        let page = if block.is_power_of_two() && block > page_size() { block } else { page_size() };
        let skip = offset as usize % page;
        let len =
            NonZeroUsize::new(round_up(skip + size as usize, page)).filter(|_| size > 0).ok_or(range)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe { mmap(None, len, protection, flags, fd, (offset as usize - skip) as libc::off_t) };
        let base = base.map_err(SharedError::Map)?.cast::<u8>();
        // SAFETY: skip is less than a page, and the mapping has skip + size bytes, size not being zero.
        let start = unsafe { base.add(skip) };
        let mut map = Self { base, len: len.get(), start, size: size as usize, watch: None };
        // SAFETY: the range is this mapping. It only keeps a guest's secrets out of our core dumps: a wish.
        let _ = unsafe { madvise(map.address(), map.len, MmapAdvise::MADV_DONTDUMP) };
        map.watch = Some(Watch::new(base.as_ptr() as usize, map.len).ok_or(SharedError::Full)?);
        Ok(map)
    }

    /// The first byte asked for.
    #[must_use]
    pub const fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes asked for.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Whether its file was shortened and zero memory stands in.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.watch.as_ref().is_some_and(Watch::lost)
    }

    const fn address(&self) -> NonNull<c_void> {
        self.base.cast()
    }
}

fn stat_of(fd: &OwnedFd, end: u64) -> Result<FileStat, SharedError> {
    // Only memory can be sealed. Asked first: a question about any other file might have to wait for an answer.
    fcntl(fd, FcntlArg::F_GET_SEALS).map_err(|_| SharedError::NotMemory)?;
    let stat = fstat(fd).map_err(SharedError::Map)?;
    let file = stat.st_size as u64;
    if file < end { Err(SharedError::Short { file, wanted: end }) } else { Ok(stat) }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // The watch goes first: what the kernel maps here next is not ours.
        self.watch = None;
        // SAFETY: this is the mapping's whole range, and its owner is gone. A failure would leave it mapped: harmless.
        let _ = unsafe { munmap(self.address(), self.len) };
    }
}
