//! The host's name servers. libslirp reads their file when it has changed, by its path; but who changes it puts another in its place, and this
//! process opens no file that was not there when it gave up its rights. So the daemon opens it.

use crate::fds;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, send};
use std::ffi::CStr;
use std::io::IoSliceMut;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// Where they stand (resolv.conf(5)).
const FILE: &CStr = c"/etc/resolv.conf";
/// Longest wait for the daemon, in milliseconds.
const PATIENCE: u16 = 1000;

/// The socket where the daemon is asked.
static DAEMON: AtomicI32 = AtomicI32::new(-1);

/// From now on the daemon is asked at this socket. False: libslirp would not ask.
pub(crate) fn ask_at(socket: OwnedFd) -> bool {
    DAEMON.store(socket.into_raw_fd(), Ordering::Relaxed);
    // SAFETY: looks a name up, which ends with a zero.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"fopen64".as_ptr()) };
    found.addr() == (fopen64 as *const ()).addr()
}

/// Takes an answer, if one is there: the file, unless it could not be opened.
fn take(socket: RawFd) -> Result<Option<OwnedFd>, Errno> {
    let mut byte = [0];
    let mut space = cmsg_space!([RawFd; 1]);
    let mut slices = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket, &mut slices, Some(&mut space), flags)?;
    let mut files = Vec::new();
    for control in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            files.extend(fds::received(numbers));
        }
    }
    if message.bytes == 0 { Err(Errno::EPIPE) } else { Ok(files.pop()) }
}

/// The file as it is now.
fn asked() -> Option<OwnedFd> {
    let socket = DAEMON.load(Ordering::Relaxed);
    // An answer that came late is to an older question.
    while take(socket).is_ok() {}
    send(socket, &[0], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).ok()?;
    poll(&mut [PollFd::new(fds::borrowed(socket), PollFlags::POLLIN)], PollTimeout::from(PATIENCE)).ok()?;
    take(socket).ok()?
}

/// Stands before the C library's function of that name, for libslirp.
///
/// # Safety
/// As fopen(3).
// SAFETY: the name is the C library's, and so is what it does.
#[unsafe(no_mangle)]
unsafe extern "C" fn fopen64(path: *const libc::c_char, mode: *const libc::c_char) -> *mut libc::FILE {
    // SAFETY: the caller gives strings that end with a zero.
    unsafe {
        if CStr::from_ptr(path) == FILE
            && DAEMON.load(Ordering::Relaxed) >= 0
            && let Some(file) = asked()
        {
            return libc::fdopen(file.into_raw_fd(), mode);
        }
        libc::fopen(path, mode)
    }
}
