//! Programs that a netdev needs, scripts, helpers and passt: what they inherit, and how they end.

#![allow(unsafe_code)] // marks descriptors in the child, waits and signals by a pidfd

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The program will inherit descriptors 0 to 2, the one to be `kept`, and nothing else.
pub fn inherit_only(command: &mut Command, kept: Option<RawFd>) {
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

/// The program will inherit descriptors 0 to 2, `given` under the number `number`, and nothing else. The number must be in use when the
/// program is started: at a free one, the report of a failed exec could lie there, and would be lost.
pub fn inherit_as(command: &mut Command, given: OwnedFd, number: RawFd) {
    inherit_only(command, None);
    // SAFETY: a system call or two between fork and exec; they allocate nothing and take no lock.
    unsafe {
        command.pre_exec(move || {
            let given = given.as_raw_fd();
            let done = match given == number {
                true => libc::fcntl(given, libc::F_SETFD, 0),
                false => libc::dup2(given, number),
            };
            if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        });
    }
}

/// A descriptor that becomes readable when the child ends.
///
/// # Errors
/// The kernel's.
pub fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // The child is not reaped yet, so its id is still its own.
    pidfd_of(child.id())
}

/// A descriptor that becomes readable when that process ends.
///
/// # Errors
/// The kernel's: `ESRCH` where there is no such process.
pub fn pidfd_of(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: a system call on values.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to the process of a pidfd, which cannot have become another.
///
/// # Errors
/// The kernel's: `ESRCH` where it has ended.
pub fn signal(process: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a system call on values; without a description of the signal, the kernel makes the usual one.
    let done = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal as libc::c_int, none, 0)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits until one of the descriptors can be read, at most until `end`; which of them can. Nothing in vain only when that time is over.
///
/// # Errors
/// The kernel's.
pub fn readable<const N: usize>(fds: [BorrowedFd<'_>; N], end: Instant) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let left = end.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    match poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(Errno::EINTR) => Ok(polled.map(|fd| fd.any().unwrap_or(false))),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// A program of the shell's, gone with its path.
    pub(crate) fn script(body: &str) -> tempfile::TempPath {
        program(&format!("#!/bin/sh\n{body}\n"))
    }

    /// A program, gone with its path. Another process writes it, since a child of another test would hold a descriptor of ours until it executes, and
    /// what somebody may write to does not execute (`ETXTBSY`).
    pub(crate) fn program(text: &str) -> tempfile::TempPath {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let mut install = Command::new("install");
        install.args(["-m", "755", "/dev/stdin"]).arg(&path).stdin(Stdio::piped());
        let mut install = install.spawn().unwrap();
        install.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(install.wait().unwrap().success(), "{} was not written", path.display());
        path
    }
}
