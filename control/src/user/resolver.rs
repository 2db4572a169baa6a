//! The file of the host's name servers, for processes that may open nothing: whoever changes it puts another in its place.

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;

/// Where it is (resolv.conf(5)).
const FILE: &str = "/etc/resolv.conf";

/// The socket for a process; a thread answers at the other end until the process has gone.
///
/// # Errors
/// No socket, or no thread.
pub fn serve() -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    thread::Builder::new().name("netdevd-resolve".into()).spawn(move || {
        while let Ok(1) = recv(ours.as_raw_fd(), &mut [0], MsgFlags::empty()) {
            let file = open().inspect_err(|error| tracing::warn!("user: '{FILE}': {error}")).ok();
            let files: Vec<_> = file.iter().map(AsRawFd::as_raw_fd).collect();
            let rights = [ControlMessage::ScmRights(&files)];
            let control: &[ControlMessage<'_>] = if files.is_empty() { &[] } else { &rights };
            let answer =
                sendmsg::<()>(ours.as_raw_fd(), &[IoSlice::new(&[0])], control, MsgFlags::MSG_NOSIGNAL, None);
            if answer.is_err() {
                return;
            }
        }
    })?;
    Ok(theirs)
}

fn open() -> io::Result<File> {
    // Something else than a file makes nobody wait.
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(FILE)
}
