//! The system calls of the bridge helper that nix does not wrap: those on interfaces (netdevice(7)), and giving up rights.
#![allow(unsafe_code)] // ioctls and capset take raw pointers

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{geteuid, getgid, getuid, setresgid, setresuid};
use std::os::fd::{AsRawFd, OwnedFd};

/// The one right that is kept (linux/capability.h `CAP_NET_ADMIN`).
const NET_ADMIN: u32 = 12;
/// `_LINUX_CAPABILITY_VERSION_3`: sets of 64 capabilities, in two words each.
const VERSION: u32 = 0x2008_0522;
/// Capabilities that there could be.
const CAPABILITIES: libc::c_ulong = 64;
/// Bridges take an interface in by it (linux/sockios.h `SIOCBRADDIF`).
const BRIDGE_ADD: libc::Ioctl = 0x89a2;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Where the file runs as root for somebody else: becomes the caller, with the one capability. Groups stay the caller's.
pub(super) fn drop_privileges() -> Result<(), Errno> {
    let (uid, gid) = (getuid(), getgid());
    if !geteuid().is_root() || uid.is_root() {
        return Ok(());
    }
    for capability in 0..CAPABILITIES {
        // SAFETY: a system call on values. Those that this kernel does not know are refused, and need not be given up.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    // SAFETY: a system call on values.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) })?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    let kept = Data { effective: 1 << NET_ADMIN, permitted: 1 << NET_ADMIN, inheritable: 0 };
    let none = Data { effective: 0, permitted: 0, inheritable: 0 };
    let (header, data) = (Header { version: VERSION, pid: 0 }, [kept, none]);
    // SAFETY: the kernel reads one header and, in this version, two elements, all of which live across the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// A socket by which interfaces are looked at and changed.
pub(super) struct Links(OwnedFd);

impl Links {
    pub(super) fn new() -> Result<Self, Errno> {
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map(Self)
    }

    pub(super) fn mtu(&self, name: &str) -> Result<i32, Errno> {
        let request = self.call(libc::SIOCGIFMTU, request(name)?)?;
        // SAFETY: SIOCGIFMTU fills this member.
        Ok(unsafe { request.ifr_ifru.ifru_mtu })
    }

    pub(super) fn set_mtu(&self, name: &str, mtu: i32) -> Result<(), Errno> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_mtu = mtu;
        self.call(libc::SIOCSIFMTU, request).map(drop)
    }

    /// Sets the first byte of its address to 0xfe.
    pub(super) fn raise_address(&self, name: &str) -> Result<(), Errno> {
        let mut request = self.call(libc::SIOCGIFHWADDR, request(name)?)?;
        // SAFETY: SIOCGIFHWADDR fills this member, of which any bytes are a value.
        unsafe { request.ifr_ifru.ifru_hwaddr.sa_data[0] = 0xfe_u8 as libc::c_char };
        self.call(libc::SIOCSIFHWADDR, request).map(drop)
    }

    pub(super) fn join(&self, bridge: &str, name: &str) -> Result<(), Errno> {
        let index = nix::net::if_::if_nametoindex(name)?;
        let mut request = request(bridge)?;
        request.ifr_ifru.ifru_ifindex = i32::try_from(index).map_err(|_| Errno::EINVAL)?;
        self.call(BRIDGE_ADD, request).map(drop)
    }

    pub(super) fn up(&self, name: &str) -> Result<(), Errno> {
        let mut request = self.call(libc::SIOCGIFFLAGS, request(name)?)?;
        // SAFETY: SIOCGIFFLAGS fills this member.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
        self.call(libc::SIOCSIFFLAGS, request).map(drop)
    }

    fn call(&self, what: libc::Ioctl, mut request: libc::ifreq) -> Result<libc::ifreq, Errno> {
        // SAFETY: each of the calls above reads and writes one ifreq, which lives across the call.
        Errno::result(unsafe { libc::ioctl(self.0.as_raw_fd(), what, &raw mut request) })?;
        Ok(request)
    }
}

/// A request on that interface; a name that is none is nobody's.
fn request(name: &str) -> Result<libc::ifreq, Errno> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(Errno::ENODEV);
    }
    // SAFETY: an ifreq is plain data, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}
