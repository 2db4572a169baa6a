//! Starts passt (QEMU 10.1 `net/passt.c`, `net_passt_start_daemon`): it writes its number into a file, goes into the background, and what was
//! started ends with status 0. One that was told to stay in the foreground has started when its number is in the file.

use super::pidfile::PidFile;
use super::process::Process;
use super::said::Said;
use super::words::SOCKET;
use crate::apply::backends::strerror;
use crate::options::netdev::PasstOptions;
use crate::reactor::Wake;
use engine::backend::child::{inherit_as, pidfd, readable, signal};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest start. It takes some hundredths of a second; what takes longer than this does not come.
pub const START_LIMIT: Duration = Duration::from_secs(10);
/// How long one that was killed may take to be gone, before it is left to itself.
const DYING: Duration = Duration::from_secs(1);

/// A passt that has started.
#[derive(Debug)]
pub struct Started {
    /// Our end of its socket.
    pub socket: OwnedFd,
    /// Itself.
    pub process: Process,
    /// What it says, where it still can: in the foreground.
    pub said: Option<OwnedFd>,
}

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// There is no file for its number.
    #[error("Failed to create temporary file: {}", strerror(.0))]
    PidFile(io::Error),
    /// There is no socket for it.
    #[error("socketpair() failed: {}", .0.desc())]
    Socket(Errno),
    /// There is no such program.
    #[error("Error creating daemon: Failed to execute child process “{program}” ({})", strerror(.why))]
    Spawn {
        /// The program.
        program: String,
        /// Why not.
        why: io::Error,
    },
    /// The kernel does not tell of its end.
    #[error("Error waiting for daemon: {}", strerror(.0))]
    Wait(io::Error),
    /// It ended; this is what it said.
    #[error("Passt {}{said}", ended(*.status))]
    Ended {
        /// How.
        status: ExitStatus,
        /// Its words, behind a colon.
        said: String,
    },
    /// It says that all is well, and does not say who it is.
    #[error("File '{path}' did not contain a valid PID.{said}")]
    NoPid {
        /// The file.
        path: String,
        /// What it said, behind a blank.
        said: String,
    },
    /// It does nothing.
    #[error("Passt has not started within {} seconds; it was killed", .0.as_secs())]
    Hangs(Duration),
    /// The daemon ends.
    #[error("Passt was killed while it started, since netdevd ends")]
    Stopped,
}

fn ended(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("killed with signal {signal}"),
        None => format!("exited with code {}", status.code().unwrap_or(-1)),
    }
}

/// Starts passt, and waits until it has started, at most `limit`, or until `stop` wakes; then it is killed.
///
/// Blocks: it runs off the control thread.
///
/// # Errors
/// Nothing runs then, and no file is left.
pub fn launch(options: &PasstOptions, limit: Duration, stop: &Wake) -> Result<Started, LaunchError> {
    let end = Instant::now() + limit;
    let file = PidFile::new().map_err(LaunchError::PidFile)?;
    let path = file.path().to_string_lossy().into_owned();
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .map_err(LaunchError::Socket)?;
    let (mut said, mouth) = Said::new().map_err(LaunchError::Wait)?;
    let mut command = Command::new(options.program());
    command.args(options.words(&path)).stdin(Stdio::null());
    command.stdout(mouth.try_clone().map_err(LaunchError::Wait)?).stderr(mouth);
    // Descriptors 0 to 2 are in use, and the pair took the next that was free: number 3 is in use in any case.
    inherit_as(&mut command, theirs, SOCKET);
    // A group of its own, so that what a script started ends with it.
    command.process_group(0);
    let spawned = command.spawn();
    // With it go its copies of what the child has.
    drop(command);
    let mut child =
        spawned.map_err(|why| LaunchError::Spawn { program: options.program().to_owned(), why })?;
    let process = match follow(&mut child, &file, &mut said, stop.as_fd(), end) {
        Ok(Some(Found::Ended(status))) if !status.success() => {
            return Err(LaunchError::Ended { status, said: said.text(": ") });
        }
        Ok(Some(Found::Ended(_))) => {
            let no_pid = || LaunchError::NoPid { path: path.clone(), said: said.text(" ") };
            let (pid, _) = file.number().ok_or_else(no_pid)?;
            Process::of(pid).map_err(|_| no_pid())?
        }
        Ok(Some(Found::Stays)) => Process::child(child).map_err(LaunchError::Wait)?,
        Ok(Some(Found::Unwanted)) => {
            kill(&mut child);
            return Err(LaunchError::Stopped);
        }
        Ok(None) => {
            kill(&mut child);
            return Err(LaunchError::Hangs(limit));
        }
        Err(why) => {
            kill(&mut child);
            return Err(LaunchError::Wait(why));
        }
    };
    Ok(Started { socket: ours, process, said: said.rest() })
}

/// What became of the program that was started.
enum Found {
    /// It ended.
    Ended(ExitStatus),
    /// It is passt itself.
    Stays,
    /// Nobody wants it any more.
    Unwanted,
}

/// Waits until it has started or ended; nothing when that has not come in time.
fn follow(
    child: &mut Child,
    file: &PidFile,
    said: &mut Said,
    stop: BorrowedFd<'_>,
    end: Instant,
) -> io::Result<Option<Found>> {
    let ended = pidfd(child)?;
    while Instant::now() < end {
        // In this order: what it had said and written when it ended is there.
        let status = child.try_wait()?;
        said.listen();
        file.acknowledge();
        if let Some(status) = status {
            return Ok(Some(Found::Ended(status)));
        }
        if file.number().is_some_and(|(number, whole)| whole && number == child.id()) {
            return Ok(Some(Found::Stays));
        }
        let words = said.fd().unwrap_or(stop);
        let [_, _, stopped, _] = readable([ended.as_fd(), file.changes(), stop, words], end)?;
        if stopped {
            return Ok(Some(Found::Unwanted));
        }
    }
    Ok(None)
}

/// Kills it and its children. One that may not be killed, since it has become somebody else, is left to itself.
fn kill(child: &mut Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ = child.kill();
    if let Ok(ended) = pidfd(child) {
        let _ = signal(ended.as_fd(), Signal::SIGKILL);
        let _ = readable([ended.as_fd()], Instant::now() + DYING);
    }
    let _ = child.try_wait();
}

#[cfg(test)]
mod tests;
