//! A wire from tap to tap of two system calls a frame: what any design that sleeps must take at least. And the raw ends of wires.

#![allow(unsafe_code)] // attaching to a tap is an ioctl of its own; nix has no address of a packet socket

use crate::failure::{Context, Failure, Result};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

/// Longest frame: no offload is asked for, so none exceeds the MTU.
const MAX_FRAME: usize = 2048;

/// Makes the tap `name` and attaches to it, with plain frames and blocking reads.
///
/// # Errors
/// When the name is too long or taken, or without CAP_NET_ADMIN.
pub fn tap(name: &str) -> Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun").context("/dev/net/tun")?;
    let mut ifr_name: [libc::c_char; libc::IFNAMSIZ] = [0; libc::IFNAMSIZ];
    if name.len() >= ifr_name.len() {
        return Err(Failure::new(format!("{name}: too long for an interface")));
    }
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    let request = libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags } };
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    let status = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    Errno::result(status).context(name)?;
    Ok(file)
}

/// A packet socket (packet(7)) that sends on the interface `name`, past its queueing discipline, and receives nothing.
///
/// # Errors
/// No such interface, or no CAP_NET_RAW.
pub fn packet(name: &str) -> Result<OwnedFd> {
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
        .context("packet socket")?;
    let index = nix::net::if_::if_nametoindex(name).context(name)?;
    let one: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option reads one int, which outlives the call.
    let status = unsafe {
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS);
        libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const one).cast(), length)
    };
    Errno::result(status).context("PACKET_QDISC_BYPASS")?;
    // The plain limit applies without CAP_NET_ADMIN.
    let _ = setsockopt(&fd, sockopt::SndBufForce, &(8 << 20));
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        // No protocol: it receives nothing, and the kernel reads that of a frame from its header.
        sll_protocol: 0,
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the call reads the address, which outlives it.
    let status = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
    Errno::result(status).context(name)?;
    Ok(fd)
}

/// Carries frames until `from` fails. What `to` refuses is lost, as on a wire.
///
/// # Errors
/// Those of reading.
pub fn carry(mut from: File, mut to: File) -> Result<()> {
    let mut frame = [0; MAX_FRAME];
    loop {
        match from.read(&mut frame) {
            Ok(length) => drop(to.write(&frame[..length])),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("read"),
        }
    }
}
