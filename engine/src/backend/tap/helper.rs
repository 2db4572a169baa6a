//! The bridge helper: a program with more rights than ours, which makes a tap, joins it to a bridge and passes it over (QEMU `net/tap.c`
//! `net_bridge_run_helper`, `qemu-bridge-helper.c`).
//!
//! It is started as `HELPER --use-vnet --fd=N --br=BRIDGE`, where N is its end of a unix stream socket. It sends one byte there, with the
//! tap by `SCM_RIGHTS`, and ends with status 0.

#![allow(unsafe_code)] // owns the descriptor that was received

use super::{GivenFd, TapError};
use crate::backend::child::{inherit_only, pidfd, readable};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair,
};
use nix::unistd::Pid;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long a helper that was killed may take to be gone, before it is left to itself.
const DYING: Duration = Duration::from_secs(1);
/// Descriptors that are taken from one message, to be closed but for the first; the kernel closes what is more.
const FDS: usize = 4;

/// A helper, and what it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    /// Its path, or a command for `/bin/sh` where it has blanks.
    pub program: String,
    /// The bridge.
    pub bridge: String,
}

impl Helper {
    /// The command that starts it (QEMU's rule: with blanks it is a command line, which may name its own bridge).
    fn command(&self, socket: RawFd) -> Command {
        let Self { program, bridge } = self;
        if program.contains([' ', '\t']) {
            let bridge = if program.contains("--br=") { String::new() } else { format!("--br={bridge}") };
            let mut shell = Command::new("/bin/sh");
            shell.arg("-c").arg(format!("{program} --use-vnet --fd={socket} {bridge}"));
            return shell;
        }
        // Never looked up in PATH: it runs with more rights than we have.
        let path = if program.contains('/') { program.clone() } else { format!("./{program}") };
        let mut helper = Command::new(path);
        helper.arg0(program).arg("--use-vnet").arg(format!("--fd={socket}")).arg(format!("--br={bridge}"));
        helper
    }
}

/// Runs a helper and waits for its tap and its end, at most `limit`; then it is killed, with what it started.
///
/// Blocks: control calls it off its own thread.
///
/// # Errors
/// [`TapError::HelperFailed`], [`TapError::HelperSentNothing`], [`TapError::HelperHangs`].
pub fn run_helper(helper: &Helper, limit: Duration) -> Result<GivenFd, TapError> {
    let end = Instant::now() + limit;
    let failed = |_| TapError::HelperFailed;
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).map_err(failed)?;
    let mut command = helper.command(theirs.as_raw_fd());
    inherit_only(&mut command, Some(theirs.as_raw_fd()));
    // A group of its own, so that what a shell started ends with it.
    command.process_group(0);
    let mut child = command.spawn().map_err(|_| TapError::HelperFailed)?;
    drop(theirs);
    let ended = follow(&mut child, ours.as_fd(), end).map_err(|_| TapError::HelperFailed);
    match ended {
        Ok(Some((status, tap))) if status.success() => {
            let fd = tap.ok_or(TapError::HelperSentNothing)?;
            let number = fd.as_raw_fd();
            Ok(GivenFd { fd, number })
        }
        Ok(Some(_)) => Err(TapError::HelperFailed),
        Ok(None) => {
            end_it(&mut child);
            Err(TapError::HelperHangs { seconds: limit.as_secs() })
        }
        Err(error) => {
            end_it(&mut child);
            Err(error)
        }
    }
}

/// How it ended and what it sent; nothing when it has not ended in time.
fn follow(
    child: &mut Child,
    socket: BorrowedFd<'_>,
    end: Instant,
) -> std::io::Result<Option<(ExitStatus, Option<OwnedFd>)>> {
    let ended = pidfd(child)?;
    let (mut tap, mut listens) = (None, true);
    while Instant::now() < end {
        // In this order: what it had sent when it ended lies in the socket.
        let status = child.try_wait()?;
        if listens {
            match receive(socket) {
                Ok(Some(fd)) => (tap, listens) = (Some(fd), false),
                Ok(None) => continue,
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                // Closed, or broken: nothing will come.
                Err(_) => listens = false,
            }
        }
        if let Some(status) = status {
            return Ok(Some((status, tap)));
        }
        if listens {
            readable([socket, ended.as_fd()], end)?;
        } else {
            readable([ended.as_fd()], end)?;
        }
    }
    Ok(None)
}

/// The next bytes: a descriptor that came with them, or nothing. The end of the stream is [`Errno::EPIPE`].
fn receive(socket: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
    let mut bytes = [0; 64];
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let mut space = nix::cmsg_space!([RawFd; FDS]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let mut fds = Vec::new();
    // A message that was cut has fewer descriptors, all of them whole.
    for control in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel has just made these for us, and nobody else has been told the numbers.
            fds.extend(numbers.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if message.bytes == 0 && fds.is_empty() {
        return Err(Errno::EPIPE);
    }
    Ok(fds.into_iter().next())
}

/// Kills it and its children. One that may not be killed, since it has become somebody else, is left to itself.
fn end_it(child: &mut Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(-group), Signal::SIGKILL);
    }
    let _ = child.kill();
    if let Ok(ended) = pidfd(child) {
        let _ = readable([ended.as_fd()], Instant::now() + DYING);
    }
    let _ = child.try_wait();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::child::testing::{program, script};

    const LONG: Duration = Duration::from_secs(20);

    fn run(program: &str, limit: Duration) -> Result<GivenFd, TapError> {
        run_helper(&Helper { program: program.into(), bridge: "br7".into() }, limit)
    }

    fn said(program: &str, limit: Duration) -> String {
        run(program, limit).map_or_else(|error| error.to_string(), |given| format!("{given:?}"))
    }

    /// The text of a helper in Python, which can pass descriptors.
    fn python(body: &str) -> tempfile::TempPath {
        let head = "#!/usr/bin/env python3\nimport os, socket, sys\n\
                    fd = [word for word in sys.argv if word.startswith('--fd=')][0][5:]\n\
                    s = socket.socket(fileno=int(fd))\n";
        program(&format!("{head}{body}\n"))
    }

    #[test]
    fn words_and_descriptors_are_those_that_qemu_gives() {
        let held = std::fs::File::open("/dev/null").unwrap();
        let out = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let path = script(&format!("echo $* > {0}; ls /proc/self/fd | wc -l >> {0}", out.display()));
        let words = |program: &str| {
            assert_eq!(said(program, LONG), "failed to recv file descriptor: the bridge helper sent none");
            let text = std::fs::read_to_string(&out).unwrap();
            let fds: u32 = text.lines().nth(1).unwrap().trim().parse().unwrap();
            assert!(fds <= 5, "0 to 2, the socket, and the directory that ls reads: {text}");
            let words: Vec<_> = text.lines().next().unwrap().split(' ').map(str::to_owned).collect();
            words.into_iter().filter(|word| !word.starts_with("--fd=")).collect::<Vec<_>>().join(" ")
        };
        let path = path.to_str().unwrap();
        assert_eq!(words(path), "--use-vnet --br=br7");
        assert_eq!(words(&format!("{path} -v")), "-v --use-vnet --br=br7");
        assert_eq!(words(&format!("{path}\t--br=own")), "--br=own --use-vnet");
        drop(held);
    }

    #[test]
    fn helpers_that_fail_or_lie_are_told_apart() {
        assert_eq!(said("/nonexistent", LONG), "bridge helper failed");
        assert_eq!(said("", LONG), "bridge helper failed");
        assert_eq!(said("sh", LONG), "bridge helper failed", "never looked up in PATH");
        assert_eq!(said(script("exit 3").to_str().unwrap(), LONG), "bridge helper failed");
        assert_eq!(said(script("kill -9 $$").to_str().unwrap(), LONG), "bridge helper failed");
        let none = "failed to recv file descriptor: the bridge helper sent none";
        assert_eq!(said(python("s.send(b'x' * 1000)").to_str().unwrap(), LONG), none);
        let late = "f = os.open('/dev/null', os.O_RDWR)\nsocket.send_fds(s, [b'\\0'], [f])\nsys.exit(1)";
        assert_eq!(said(python(late).to_str().unwrap(), LONG), "bridge helper failed");
    }

    #[test]
    fn the_first_descriptor_is_taken_and_close_on_exec() {
        let two = "f = [os.open('/dev/null', os.O_RDWR), os.open('/dev/zero', os.O_RDWR)]\nsocket.send_fds(s, [b'\\0'], f)";
        let given = run(python(two).to_str().unwrap(), LONG).unwrap();
        let path = std::fs::read_link(format!("/proc/self/fd/{}", given.number)).unwrap();
        assert_eq!(path.to_str(), Some("/dev/null"));
        let flags = nix::fcntl::fcntl(&given.fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, libc::FD_CLOEXEC);
    }

    #[test]
    fn a_helper_that_hangs_is_killed_with_its_children() {
        let out = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let path = script(&format!("sleep 100 & echo $! > {}; wait", out.display()));
        let start = Instant::now();
        assert_eq!(
            said(path.to_str().unwrap(), Duration::from_secs(1)),
            "bridge helper did not end within 1 s and was killed"
        );
        assert!(start.elapsed() < Duration::from_secs(10));
        let child = std::fs::read_to_string(&out).unwrap();
        let runs = || {
            let state = std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
            state.is_ok_and(|state| !state.contains(") Z "))
        };
        // It was killed; that it has ended is a moment later.
        while runs() {
            assert!(start.elapsed() < Duration::from_secs(10), "its child {child} still runs");
            std::thread::yield_now();
        }
    }
}
