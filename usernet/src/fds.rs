//! Where the number of a descriptor becomes something that the type system knows.

use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A descriptor that somebody else holds open: the daemon's two sockets, which nobody closes, or one that the stack names. It is handed
/// to system calls and no further; a number that is not open makes them fail.
pub(crate) fn borrowed(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: not closed while it is borrowed, as said above.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Takes the descriptors of a received message.
pub(crate) fn received(numbers: Vec<RawFd>) -> impl Iterator<Item = OwnedFd> {
    // SAFETY: the kernel has just made these for us, and nobody else has been told the numbers.
    numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) })
}

/// Puts a file in the place of another that is open, under its number.
pub(crate) fn put(file: &OwnedFd, place: RawFd) -> Result<(), Errno> {
    // SAFETY: both are open, and the number stays that of an open file, whoever holds it.
    Errno::result(unsafe { libc::dup3(file.as_raw_fd(), place, libc::O_CLOEXEC) }).map(drop)
}
