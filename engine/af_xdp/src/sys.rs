//! The system calls of AF_XDP sockets, and mappings.

#![allow(unsafe_code)] // system calls and mapped memory

use crate::error::{Error, Step};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

/// Mapped memory, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: an address and a length; the memory belongs to the process.
unsafe impl Send for Mapping {}
// SAFETY: no method reads or writes the memory.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// The part of a socket's rings that begins at `offset` (`XDP_PGOFF_*`).
    pub(crate) fn of_ring(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<Self, Error> {
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        Self::map(len, flags, fd.as_raw_fd(), offset as libc::off_t)
    }

    /// Memory of our own.
    pub(crate) fn anonymous(len: usize) -> Result<Self, Error> {
        Self::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    fn map(len: usize, flags: i32, fd: i32, offset: libc::off_t) -> Result<Self, Error> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, offset) };
        if at == libc::MAP_FAILED {
            return Err(Error::last(Step::Rings));
        }
        NonNull::new(at.cast())
            .map(|start| Self { start, len })
            .ok_or_else(|| Error::code(Step::Rings, libc::ENOMEM))
    }

    /// The `len` bytes from `offset` on, if they lie inside.
    pub(crate) fn at(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        // SAFETY: checked to lie inside the mapping.
        (end <= self.len).then(|| unsafe { self.start.add(offset) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, whose owner is gone.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// A new AF_XDP socket.
pub(crate) fn socket() -> Result<OwnedFd, Error> {
    // SAFETY: makes a descriptor, touches no memory.
    let fd =
        unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if fd < 0 {
        return Err(Error::last(Step::Create));
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets an option of plain data.
pub(crate) fn set<T: Copy>(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &T,
    step: Step,
) -> Result<(), Error> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`, which is that long.
    let done =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len) };
    if done < 0 { Err(Error::last(step)) } else { Ok(()) }
}

/// Reads an option of plain data for which every bit pattern is a value; the kernel may know less of it than we, the rest is zero.
pub(crate) fn get<T: Copy>(fd: BorrowedFd<'_>, name: i32, step: Step) -> Result<(T, usize), Error> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`, which is that long.
    let done = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, name, value.as_mut_ptr().cast(), &raw mut len)
    };
    if done < 0 {
        return Err(Error::last(step));
    }
    // SAFETY: zeroed, then written by the kernel; callers use integers and structs of integers only.
    Ok((unsafe { value.assume_init() }, len as usize))
}

/// Binds to a queue.
pub(crate) fn bind(fd: BorrowedFd<'_>, address: &libc::sockaddr_xdp) -> Result<(), Error> {
    let len = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of the address.
    let done = unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(address).cast(), len) };
    if done < 0 { Err(Error::last(Step::Bind)) } else { Ok(()) }
}

/// Makes the kernel look at the transmit ring; its errno.
#[inline]
pub(crate) fn send(fd: BorrowedFd<'_>) -> Result<(), i32> {
    // SAFETY: no buffer and no address is passed.
    let done =
        unsafe { libc::sendto(fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    if done < 0 { Err(errno()) } else { Ok(()) }
}

/// Makes the kernel look at the fill ring, and poll the queue where busy polling is on; its errno.
#[inline]
pub(crate) fn receive(fd: BorrowedFd<'_>) -> Result<(), i32> {
    // SAFETY: no buffer and no address is passed.
    let done = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    if done < 0 { Err(errno()) } else { Ok(()) }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
