//! The one place of the control side where a descriptor number becomes an owned descriptor.
//!
//! Numbers reach us in two ways that the type system cannot see: in a control message, and inherited from whoever
//! started the daemon.
#![allow(unsafe_code)]

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Takes the descriptors of a received `SCM_RIGHTS` message.
#[must_use]
pub(super) fn from_message(numbers: &[RawFd]) -> Vec<OwnedFd> {
    // SAFETY: the kernel has just made these for us, and nobody else has been told the numbers.
    numbers.iter().map(|&number| unsafe { OwnedFd::from_raw_fd(number) }).collect()
}

/// Takes a descriptor that the daemon was started with (`fd=7`) and marks it close-on-exec. A second take of one
/// number is refused, so that each has one owner.
///
/// # Errors
/// A sentence for the user.
pub fn inherited(number: RawFd) -> Result<OwnedFd, String> {
    use std::sync::Mutex;
    static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());
    if number < 3 {
        return Err(format!("Invalid file descriptor number '{number}'"));
    }
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if taken.contains(&number) {
        return Err(format!("File descriptor {number} is used twice"));
    }
    // SAFETY: only looked at; the number may be closed, which the call then says.
    let looked_at = unsafe { BorrowedFd::borrow_raw(number) };
    let flags =
        fcntl(looked_at, FcntlArg::F_GETFD).map_err(|_| format!("File descriptor {number} is not open"))?;
    let flags = FdFlag::from_bits_retain(flags);
    // The daemon opens all of its own descriptors close-on-exec: one without the flag came from outside.
    if flags.contains(FdFlag::FD_CLOEXEC) {
        return Err(format!("File descriptor {number} was not passed to this process"));
    }
    let _ = fcntl(looked_at, FcntlArg::F_SETFD(flags | FdFlag::FD_CLOEXEC));
    taken.push(number);
    // SAFETY: open, from outside, and by the list above taken only once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
