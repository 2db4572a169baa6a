//! The system calls of taps (linux/if_tun.h).

#![allow(unsafe_code)] // ioctls take raw pointers

use nix::errno::Errno;
use nix::request_code_read;
use nix::request_code_write;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The kernel passes and takes virtio-net headers.
pub(super) const IFF_VNET_HDR: u32 = libc::IFF_VNET_HDR as u32;
/// Several descriptors, one a queue, on one interface.
pub(super) const IFF_MULTI_QUEUE: u32 = libc::IFF_MULTI_QUEUE as u32;

/// We take frames with partial checksums.
pub(super) const TUN_F_CSUM: u32 = 0x01;
/// We take TCP/IPv4 frames to be segmented.
pub(super) const TUN_F_TSO4: u32 = 0x02;
/// We take TCP/IPv6 frames to be segmented.
pub(super) const TUN_F_TSO6: u32 = 0x04;
/// We take TCP frames with ECN to be segmented.
pub(super) const TUN_F_TSO_ECN: u32 = 0x08;
/// We take UDP frames to be segmented (Linux 6.2); the kernel wants both or none.
pub(super) const TUN_F_USO: u32 = 0x20 | 0x40;

mod sys {
    use super::{request_code_read, request_code_write};
    nix::ioctl_write_ptr_bad!(tunsetiff, request_code_write!(b'T', 202, 4), libc::ifreq);
    nix::ioctl_read_bad!(tungetfeatures, request_code_read!(b'T', 207, 4), libc::c_uint);
    nix::ioctl_write_int_bad!(tunsetoffload, request_code_write!(b'T', 208, 4));
    nix::ioctl_read_bad!(tungetiff, request_code_read!(b'T', 210, 4), libc::ifreq);
    nix::ioctl_write_ptr_bad!(tunsetsndbuf, request_code_write!(b'T', 212, 4), libc::c_int);
    nix::ioctl_write_ptr_bad!(tunsetcarrier, request_code_write!(b'T', 226, 4), libc::c_int);
    nix::ioctl_write_ptr_bad!(tunsetvnethdrsz, request_code_write!(b'T', 216, 4), libc::c_int);
}

/// Flags that this kernel's taps know; none where it cannot say.
pub(super) fn features(fd: BorrowedFd<'_>) -> u32 {
    let mut features = 0;
    // SAFETY: the kernel writes one unsigned int.
    match unsafe { sys::tungetfeatures(fd.as_raw_fd(), &raw mut features) } {
        Ok(_) => features,
        Err(_) => 0,
    }
}

/// Attaches the file to the interface `name` (created if need be, `tap%d` if empty) as an Ethernet tap without packet
/// information, with further `flags`. Returns the interface's name.
pub(super) fn attach(fd: BorrowedFd<'_>, name: &[u8], flags: u32) -> Result<String, Errno> {
    let mut request = empty_request();
    let wanted: &[u8] = if name.is_empty() { b"tap%d" } else { name };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(wanted) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP as u32 | libc::IFF_NO_PI as u32 | flags) as i16;
    // SAFETY: the kernel reads and writes one ifreq, which lives across the call.
    unsafe { sys::tunsetiff(fd.as_raw_fd(), &raw const request) }?;
    Ok(name_of(&request))
}

/// Flags and name of the interface that the file is attached to.
pub(super) fn query(fd: BorrowedFd<'_>) -> Result<(u32, String), Errno> {
    let mut request = empty_request();
    // SAFETY: the kernel writes one ifreq.
    unsafe { sys::tungetiff(fd.as_raw_fd(), &raw mut request) }?;
    // SAFETY: TUNGETIFF fills the flags of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok((u32::from(flags as u16), name_of(&request)))
}

/// Sets the length of the virtio-net header.
pub(super) fn set_header_len(fd: BorrowedFd<'_>, len: i32) -> Result<(), Errno> {
    // SAFETY: the kernel reads one int.
    unsafe { sys::tunsetvnethdrsz(fd.as_raw_fd(), &raw const len) }.map(drop)
}

/// Says which frames we take (`TUN_F_*`).
pub(super) fn set_offload(fd: BorrowedFd<'_>, flags: u32) -> Result<(), Errno> {
    // SAFETY: the argument is a value.
    unsafe { sys::tunsetoffload(fd.as_raw_fd(), flags as i32) }.map(drop)
}

/// Sets how many bytes may wait in the receiver.
pub(super) fn set_send_limit(fd: BorrowedFd<'_>, bytes: i32) -> Result<(), Errno> {
    // SAFETY: the kernel reads one int.
    unsafe { sys::tunsetsndbuf(fd.as_raw_fd(), &raw const bytes) }.map(drop)
}

/// Shows the host a carrier, or none (Linux 5.0; macvtaps have that of the interface below them).
pub(super) fn set_carrier(fd: BorrowedFd<'_>, up: bool) -> Result<(), Errno> {
    let up = libc::c_int::from(up);
    // SAFETY: the kernel reads one int.
    unsafe { sys::tunsetcarrier(fd.as_raw_fd(), &raw const up) }.map(drop)
}

fn empty_request() -> libc::ifreq {
    // SAFETY: an ifreq is plain data, for which all zeros is a value.
    unsafe { std::mem::zeroed() }
}

fn name_of(request: &libc::ifreq) -> String {
    let bytes: Vec<u8> = request.ifr_name.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
