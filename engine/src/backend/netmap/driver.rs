//! The kernel module as it is used: its device, its requests, its memory. Tests have one in this process.

#![allow(unsafe_code)] // ioctls and mappings take raw pointers

use super::abi::{Header, OldRequest, PortHeader, Register};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::stat::Mode;
use nix::{request_code_none, request_code_readwrite};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

/// What a request carries.
#[derive(Debug)]
pub(super) enum Body<'b> {
    Register(&'b mut Register),
    PortHeader(&'b mut PortHeader),
}

/// Half of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Tx,
    Rx,
}

/// The kernel module.
pub(super) trait Driver: Send + Sync {
    /// Opens its device.
    fn open(&self, path: &str) -> Result<OwnedFd, Errno>;

    /// Makes a request (`NIOCCTRL`). The header's body is set here.
    fn control(&self, fd: BorrowedFd<'_>, header: &mut Header, body: &mut Body<'_>) -> Result<(), Errno>;

    /// Makes a request of the old kind (`NIOCREGIF`).
    fn old(&self, fd: BorrowedFd<'_>, request: &mut OldRequest) -> Result<(), Errno>;

    /// Maps the memory of the port that is registered, shared and writable. `munmap` ends it.
    fn map(&self, fd: BorrowedFd<'_>, bytes: NonZeroUsize) -> Result<NonNull<u8>, Errno>;

    /// Shows the kernel all rings of a half, and takes in what it shows (`NIOCTXSYNC`, `NIOCRXSYNC`).
    fn sync(&self, fd: BorrowedFd<'_>, way: Way) -> Result<(), Errno>;
}

/// The one of this system.
#[derive(Debug, Clone, Copy)]
pub(super) struct System;

mod sys {
    use super::{Header, OldRequest, request_code_none, request_code_readwrite};
    nix::ioctl_readwrite_bad!(niocctrl, request_code_readwrite!(b'i', 151, size_of::<Header>()), Header);
    nix::ioctl_readwrite_bad!(
        niocregif,
        request_code_readwrite!(b'i', 146, size_of::<OldRequest>()),
        OldRequest
    );
    nix::ioctl_none_bad!(nioctxsync, request_code_none!(b'i', 148));
    nix::ioctl_none_bad!(niocrxsync, request_code_none!(b'i', 149));
}

impl Driver for System {
    fn open(&self, path: &str) -> Result<OwnedFd, Errno> {
        open(path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
    }

    fn control(&self, fd: BorrowedFd<'_>, header: &mut Header, body: &mut Body<'_>) -> Result<(), Errno> {
        header.body = match body {
            Body::Register(body) => std::ptr::from_mut(*body).expose_provenance() as u64,
            Body::PortHeader(body) => std::ptr::from_mut(*body).expose_provenance() as u64,
        };
        // SAFETY: the kernel reads and writes the header and the body of the request's type, both of which live across the call.
        let done = unsafe { sys::niocctrl(fd.as_raw_fd(), header) };
        header.body = 0;
        done.map(drop)
    }

    fn old(&self, fd: BorrowedFd<'_>, request: &mut OldRequest) -> Result<(), Errno> {
        // SAFETY: the kernel reads and writes one request, which lives across the call.
        unsafe { sys::niocregif(fd.as_raw_fd(), request) }.map(drop)
    }

    fn map(&self, fd: BorrowedFd<'_>, bytes: NonZeroUsize) -> Result<NonNull<u8>, Errno> {
        let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        unsafe { mmap(None, bytes, both, MapFlags::MAP_SHARED, fd, 0) }.map(NonNull::cast)
    }

    #[inline]
    fn sync(&self, fd: BorrowedFd<'_>, way: Way) -> Result<(), Errno> {
        // SAFETY: no argument is passed; the kernel touches the rings of the port only.
        unsafe {
            match way {
                Way::Tx => sys::nioctxsync(fd.as_raw_fd()),
                Way::Rx => sys::niocrxsync(fd.as_raw_fd()),
            }
        }
        .map(drop)
    }
}
