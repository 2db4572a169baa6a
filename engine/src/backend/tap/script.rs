//! The network scripts of a tap: `script` after opening, `downscript` before closing.

#![allow(unsafe_code)] // marks descriptors in the child, waits by a pidfd

use super::TapError;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Raw wait status of a program that exits with 1: what QEMU reports when a script cannot be run at all.
const CANNOT_RUN: i32 = 256;

/// Runs `path` with the interface's name as its only argument and waits for it, at most `limit`; then it is killed. It
/// inherits descriptors 0 to 2 and nothing else.
///
/// Blocks: control calls it off its own thread.
///
/// # Errors
/// [`TapError::Script`] when it does not exit with 0, with the raw wait status.
pub fn run_script(path: &str, ifname: &str, limit: Duration) -> Result<(), TapError> {
    let failed = |status| TapError::Script { path: path.into(), status };
    let mut command = Command::new(path);
    command.arg(ifname);
    // SAFETY: one system call between fork and exec; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| {
            // At exec, not now: the report of a failed exec needs a descriptor of its own.
            libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            Ok(())
        });
    }
    let child = command.spawn().map_err(|_| failed(CANNOT_RUN))?;
    let status = wait(child, limit).map_err(|_| failed(CANNOT_RUN))?;
    if status.success() { Ok(()) } else { Err(failed(status.into_raw())) }
}

fn wait(mut child: Child, limit: Duration) -> std::io::Result<ExitStatus> {
    let end = Instant::now() + limit;
    let ended = pidfd(&child)?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            child.kill()?;
            return child.wait();
        }
        let mut fds = [PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A descriptor that becomes readable when the child ends.
fn pidfd(child: &Child) -> std::io::Result<OwnedFd> {
    // SAFETY: a system call on values; the child is not reaped yet, so its id is still its own.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let fd = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0).ok_or_else(std::io::Error::last_os_error)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const LONG: Duration = Duration::from_secs(20);

    fn script(body: &str) -> tempfile::TempPath {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        file.into_temp_path()
    }

    fn status(result: Result<(), TapError>) -> i32 {
        match result {
            Ok(()) => 0,
            Err(TapError::Script { status, .. }) => status,
            Err(other) => unreachable!("{other}"),
        }
    }

    #[test]
    fn the_script_gets_the_name_and_no_descriptor_beyond_the_standard_ones() {
        let held = std::fs::File::open("/dev/null").unwrap();
        let out = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let path = script(&format!("echo $1 $# > {0}; ls /proc/self/fd | wc -l >> {0}", out.display()));
        run_script(path.to_str().unwrap(), "tap7", LONG).unwrap();
        let text = std::fs::read_to_string(&out).unwrap();
        let fds: u32 = text.lines().nth(1).unwrap().trim().parse().unwrap();
        assert!(text.starts_with("tap7 1\n"), "{text}");
        assert!(fds <= 4, "0 to 2 and the directory that ls reads: {text}");
        drop(held);
    }

    #[test]
    fn failures_show_the_raw_wait_status_as_qemu_does() {
        let path = script("exit 3");
        let error = run_script(path.to_str().unwrap(), "t", LONG).unwrap_err();
        assert_eq!(error.to_string(), format!("network script {} failed with status 768", path.display()));
        assert_eq!(status(run_script("/nonexistent", "t", LONG)), 256);
        assert_eq!(status(run_script(script("kill -9 $$").to_str().unwrap(), "t", LONG)), 9);
    }

    #[test]
    fn a_script_that_hangs_is_killed() {
        let path = script("sleep 100 & wait");
        let start = Instant::now();
        assert_eq!(status(run_script(path.to_str().unwrap(), "t", Duration::from_millis(50))), 9);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
