//! The protocol by which a program joins a port of a VDE switch (`vde_switch/datasock.c`, version 3).
//!
//! On a stream to the switch's `ctl` socket goes one request: a magic number, the version, the port, the address of a datagram socket of ours,
//! and a description. The answer is the address of the switch's datagram socket. Frames are datagrams between the two. The stream stays
//! open: its end is the end of the connection, on either side.

use super::{VdeError, VdeOptions};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::stat::{Mode, SFlag, fstat, stat};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{Gid, Group, fchownat, geteuid, unlink};
use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

const MAGIC: u32 = 0xfeed_face;
const VERSION: u32 = 3;
/// Bytes of a `struct sockaddr_un`: the family and the path.
const ADDRESS: usize = 110;
/// Bytes of the path in it.
const PATH: usize = 108;
/// Seconds that the switch has to take the connection, and to answer: it says nothing at all to a port that it has not.
const ANSWER: i64 = 3;
/// Names that are tried for a socket of ours at one place.
const NAMES: u32 = 1000;
/// Where our socket lies when the switch's directory may not be written to.
const ELSEWHERE: [&str; 3] = ["/var/run", "/var/tmp", "/tmp"];

/// A port of a switch.
#[derive(Debug)]
pub(super) struct Plug {
    /// Frames, connected to the switch.
    pub(super) data: OwnedFd,
    /// The stream whose end is the end of the port.
    pub(super) control: OwnedFd,
}

/// Joins a switch whose directory is known.
pub(super) fn join(directory: &str, options: &VdeOptions) -> Result<Plug, VdeError> {
    // The switch has a working directory of its own.
    let directory = std::fs::canonicalize(directory).map_err(|error| VdeError::Open(errno(&error)))?;
    let ctl = directory.join("ctl");
    let control = reach(&ctl)?;
    let data = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let ours = Named::bind(&data, &directory)?;
    let owner = stat(&ctl)?;
    let (mut mode, mut group) = (options.mode, gid(options.group.as_deref())?);
    // A switch of somebody else could not send to us: libvdeplug's rule, unless permissions were asked for.
    let stranger = owner.st_uid != 0 && owner.st_uid != geteuid().as_raw();
    if group.is_none() && mode & 0o077 == 0 && stranger {
        let shared = settle(&ours.0, Some(Gid::from_raw(owner.st_gid)), mode | 0o070, owner.st_uid).is_ok();
        (mode, group) = (if shared { mode | 0o070 } else { mode | 0o077 }, None);
    }
    settle(&ours.0, group, mode, owner.st_uid)?;
    let theirs = ask(&control, options.port, &ours.0)?;
    connect(data.as_raw_fd(), &UnixAddr::new(theirs.as_path())?)?;
    // Ours or not: those who share the switch may see to it otherwise.
    let _ = settle(&theirs, None, mode, owner.st_uid);
    control.set_nonblocking(true).map_err(|error| VdeError::Open(errno(&error)))?;
    Ok(Plug { data, control: control.into() })
}

/// Connects to the switch's control socket.
fn reach(ctl: &Path) -> Result<UnixStream, VdeError> {
    let stream = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let limit = TimeVal::seconds(ANSWER);
    setsockopt(&stream, sockopt::SendTimeout, &limit)?;
    setsockopt(&stream, sockopt::ReceiveTimeout, &limit)?;
    match connect(stream.as_raw_fd(), &UnixAddr::new(ctl)?) {
        Err(Errno::EAGAIN) => Err(VdeError::Silent),
        Err(errno) => Err(VdeError::Open(errno)),
        Ok(()) => Ok(stream.into()),
    }
}

/// Asks for a port; the address of the switch's end.
fn ask(control: &UnixStream, port: u16, ours: &Path) -> Result<PathBuf, VdeError> {
    let told = |error: std::io::Error| match errno(&error) {
        Errno::EAGAIN => VdeError::Silent,
        errno => VdeError::Open(errno),
    };
    let mut stream = control;
    stream.write_all(&request(port, ours)).map_err(told)?;
    let mut answer = [0; ADDRESS];
    match stream.read_exact(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(VdeError::Refused),
        Err(error) => Err(told(error)),
        Ok(()) => {
            let (_, path) = answer.split_at(ADDRESS - PATH);
            let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
            // Sockets without a file are nothing that a switch has.
            if path.is_empty() {
                Err(VdeError::Refused)
            } else {
                Ok(std::ffi::OsStr::from_bytes(path).into())
            }
        }
    }
}

/// The request for a port, in the host's order.
fn request(port: u16, ours: &Path) -> Vec<u8> {
    // In the lowest byte 0, a new connection; the port above it.
    let kind = u32::from(port) << 8;
    let mut request = Vec::new();
    for word in [MAGIC, VERSION, kind] {
        request.extend_from_slice(&word.to_ne_bytes());
    }
    request.extend_from_slice(&libc::AF_UNIX.to_ne_bytes()[..2]);
    let path = ours.as_os_str().as_bytes();
    request.extend_from_slice(path);
    request.resize(request.len() + PATH.saturating_sub(path.len()), 0);
    request.extend_from_slice(format!("netdevd PID={}", std::process::id()).as_bytes());
    request
}

/// The file of our socket. It goes when the switch has answered, or cannot be reached: from then on both ends are connected.
struct Named(PathBuf);

impl Named {
    /// Binds in the switch's directory, or where everybody may write.
    fn bind(data: &OwnedFd, directory: &Path) -> Result<Self, VdeError> {
        let (pid, mut last) = (std::process::id(), Errno::EADDRINUSE);
        let there =
            std::iter::once((directory, ".")).chain(ELSEWHERE.map(|place| (Path::new(place), "vde.")));
        for (place, prefix) in there {
            for number in 0..NAMES {
                let path = place.join(format!("{prefix}{pid:05}-{number:05}"));
                let bound =
                    UnixAddr::new(path.as_path()).and_then(|address| bind(data.as_raw_fd(), &address));
                match bound {
                    Ok(()) => return Ok(Self(path)),
                    Err(Errno::EADDRINUSE) => {}
                    Err(errno) => {
                        last = errno;
                        break;
                    }
                }
            }
        }
        Err(VdeError::Open(last))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = unlink(&self.0);
    }
}

/// Gives a socket's file its group and permissions, if it is a socket of ours or of `owner`. What lies there is looked at and then changed by the
/// same descriptor: the directory may be somebody's who would like a file of ours to be changed.
fn settle(path: &Path, group: Option<Gid>, mode: u32, owner: u32) -> Result<(), Errno> {
    let file = open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let what = fstat(&file)?;
    let is_socket = SFlag::from_bits_truncate(what.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK;
    if !is_socket || (what.st_uid != geteuid().as_raw() && what.st_uid != owner) {
        return Err(Errno::EPERM);
    }
    if group.is_some() {
        fchownat(&file, "", None, group, AtFlags::AT_EMPTY_PATH)?;
    }
    let same = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::set_permissions(same, Permissions::from_mode(mode & 0o7777)).map_err(|error| errno(&error))
}

/// A group by its name or number.
fn gid(group: Option<&str>) -> Result<Option<Gid>, VdeError> {
    let Some(name) = group else { return Ok(None) };
    let found = Group::from_name(name).ok().flatten().map(|group| group.gid);
    let found = found.or_else(|| name.parse().ok().map(Gid::from_raw));
    found.map(Some).ok_or_else(|| VdeError::Group(name.to_owned()))
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
