//! The process: what it inherits, how its end is learned of, how it is ended.

#![allow(unsafe_code)] // places descriptors in the child, opens a pidfd

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Where the process finds the frames' socket and its control socket.
const FRAMES: RawFd = 3;
const CONTROL: RawFd = 4;
/// Above those, and above all that is placed.
const ABOVE: RawFd = 16;

/// A running process. It is killed when this is dropped, which waits for its end: not on the control thread.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ended: OwnedFd,
}

impl Process {
    /// Starts `program` with descriptors 0 to 2 and both sockets, and nothing else.
    pub(super) fn start(program: &Path, frames: &OwnedFd, control: &OwnedFd) -> Result<Self, Errno> {
        let above = |fd: &OwnedFd| {
            let fd = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(ABOVE))?;
            // SAFETY: the kernel has just made it for us.
            Ok::<OwnedFd, Errno>(unsafe { OwnedFd::from_raw_fd(fd) })
        };
        let (frames_above, control_above) = (above(frames)?, above(control)?);
        // With these both places are taken, by them or by others: the pipe that tells of a failed exec lies elsewhere.
        let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
        let _taken = [frames.try_clone().map_err(errno)?, frames.try_clone().map_err(errno)?];
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::null()).env_clear().current_dir("/");
        // Signals for the daemon's terminal are not for it.
        command.process_group(0);
        place(&mut command, frames_above.as_raw_fd(), control_above.as_raw_fd());
        let mut child = command.spawn().map_err(errno)?;
        match pidfd(&child) {
            Ok(ended) => Ok(Self { child, ended }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(errno(error))
            }
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, in words; nothing while it runs.
    pub fn how_it_ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(match (status.signal(), status.code()) {
            (Some(signal), _) => format!("killed by signal {signal}"),
            (None, Some(code)) => format!("ended with status {code}"),
            (None, None) => "ended".to_owned(),
        })
    }
}

impl AsFd for Process {
    /// Readable when it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sockets get their places in the child; all other descriptors close at exec.
fn place(command: &mut Command, frames: RawFd, control: RawFd) {
    // SAFETY: system calls between fork and exec; they allocate nothing and take no lock.
    unsafe {
        command.pre_exec(move || {
            libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            if libc::dup2(frames, FRAMES) < 0 || libc::dup2(control, CONTROL) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// A descriptor that becomes readable when the child ends.
fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: a system call on values; the child is not reaped yet, so its id is still its own.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let fd = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
