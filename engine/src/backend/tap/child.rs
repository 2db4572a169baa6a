//! Programs that a tap needs, scripts and helpers: what they inherit, and how they end.

#![allow(unsafe_code)] // marks descriptors in the child, waits by a pidfd

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The program will inherit descriptors 0 to 2, the one to be `kept`, and nothing else.
pub(super) fn inherit_only(command: &mut Command, kept: Option<RawFd>) {
    // SAFETY: two system calls between fork and exec; they allocate nothing and take no lock.
    unsafe {
        command.pre_exec(move || {
            // At exec, not now: the report of a failed exec needs a descriptor of its own.
            libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            match kept {
                Some(kept) if libc::fcntl(kept, libc::F_SETFD, 0) < 0 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        });
    }
}

/// A descriptor that becomes readable when the child ends.
pub(super) fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: a system call on values; the child is not reaped yet, so its id is still its own.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let fd = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits until one of the descriptors can be read, at most until `end`; which of them can. Nothing in vain only when that time is over.
pub(super) fn readable<const N: usize>(fds: [BorrowedFd<'_>; N], end: Instant) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let left = end.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    match poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(Errno::EINTR) => Ok(polled.map(|fd| fd.any().unwrap_or(false))),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::os::unix::fs::PermissionsExt;

    /// A program of the shell's, gone with its path.
    pub(in super::super) fn script(body: &str) -> tempfile::TempPath {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        file.into_temp_path()
    }
}
