//! A wire from tap to tap of two system calls a frame: what any design that sleeps must take at least.

#![allow(unsafe_code)] // attaching to a tap is an ioctl of its own

use crate::failure::{Context, Failure, Result};
use nix::errno::Errno;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

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
