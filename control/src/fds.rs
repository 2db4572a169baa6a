//! The raw calls that nix does not wrap: where the number of a file becomes an owned file (`fd=7` names one that the
//! daemon was started with), and the size of a terminal.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Takes the descriptors of a received `SCM_RIGHTS` message.
#[must_use]
pub(crate) fn from_message(numbers: &[RawFd]) -> Vec<OwnedFd> {
    // SAFETY: the kernel has just made these for us, and nobody else has been told the numbers.
    numbers.iter().map(|&number| unsafe { OwnedFd::from_raw_fd(number) }).collect()
}

/// Takes the descriptor that `accept` returned.
#[must_use]
pub(crate) fn accepted(number: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made it for us, and nobody else has been told the number.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Takes the file of that number if whoever started the daemon left it open for us.
///
/// Standard input, output and error are duplicated. All files that the daemon opens are close-on-exec, and a file is
/// made so when it is taken: a number that is close-on-exec belongs to somebody already.
///
/// # Errors
/// `EBADF`: not open. `EBUSY`: open, and not for the taking.
pub fn inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    if number < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: borrowed for this function only, and only to ask the kernel about it; a number that is not open makes
    // the first call fail.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = FdFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFD)?);
    let taken = if number <= 2 {
        fcntl(file, FcntlArg::F_DUPFD_CLOEXEC(3))?
    } else if flags.contains(FdFlag::FD_CLOEXEC) {
        return Err(Errno::EBUSY);
    } else {
        fcntl(file, FcntlArg::F_SETFD(flags | FdFlag::FD_CLOEXEC))?;
        number
    };
    // SAFETY: either a duplicate that the kernel has just made for us, or an inherited file that the flag set above
    // marks as ours from now on.
    Ok(unsafe { OwnedFd::from_raw_fd(taken) })
}

/// Columns and rows of a terminal; `None` where the file is none or does not know.
pub fn window(terminal: &impl AsFd) -> Option<(usize, usize)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize` to the address it gets, which is that of a local, and fails on other
    // files; the borrowed file stays open during the call.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col.into(), size.ws_row.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn a_file_is_taken_once_and_never_from_its_owner() {
        let own = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(inherited(own.as_raw_fd()).unwrap_err(), Errno::EBUSY);
        fcntl(&own, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let number = own.into_raw_fd();
        let taken = inherited(number).unwrap();
        assert_eq!(inherited(number).unwrap_err(), Errno::EBUSY);
        drop(taken);
        assert_eq!(inherited(-1).unwrap_err(), Errno::EBADF);
    }

    #[test]
    fn standard_input_stays_open() {
        let copy = inherited(0).unwrap();
        assert!(copy.as_raw_fd() > 2);
    }
}
