//! The process, started as the daemon starts it.

use super::Guest;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use usernet::protocol::{CONTROL, FRAMES};

fn pair() -> (OwnedFd, OwnedFd) {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("a pair");
    let _ = setsockopt(&ours, sockopt::SndBuf, &(2 << 20));
    (ours, theirs)
}

impl Guest {
    pub fn spawn() -> Guest {
        Guest::spawn_with(None)
    }

    /// With another file in the place of `/etc/resolv.conf`.
    pub fn spawn_with(resolver: Option<&std::path::Path>) -> Guest {
        use std::os::unix::ffi::OsStrExt;
        let resolver = resolver.map(|path| std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap());
        let ((frames, their_frames), (control, their_control)) = (pair(), pair());
        let mut command = Command::new(env!("CARGO_BIN_EXE_netdevd-user"));
        let (from, to) = (their_frames.as_raw_fd(), their_control.as_raw_fd());
        // SAFETY: system calls only, between fork and exec.
        unsafe {
            command.pre_exec(move || {
                let spare = [libc::fcntl(from, libc::F_DUPFD, 100), libc::fcntl(to, libc::F_DUPFD, 100)];
                libc::dup2(spare[0], FRAMES);
                libc::dup2(spare[1], CONTROL);
                libc::close(spare[0]);
                libc::close(spare[1]);
                if let Some(path) = &resolver {
                    let (none, private) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
                    libc::unshare(libc::CLONE_NEWNS);
                    libc::mount(none, c"/".as_ptr(), none, private, none.cast());
                    libc::mount(
                        path.as_ptr(),
                        c"/etc/resolv.conf".as_ptr(),
                        none,
                        libc::MS_BIND,
                        none.cast(),
                    );
                }
                Ok(())
            });
        }
        let child = command.spawn().expect("netdevd-user");
        Guest {
            frames,
            control: Some(control),
            child,
            waiting: VecDeque::new(),
            warnings: Vec::new(),
            port: 40_000,
        }
    }
}
