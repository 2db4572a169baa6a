//! Which XDP program an interface has, by rtnetlink (RFC 3549; `IFLA_XDP` of `linux/if_link.h`).

#![allow(unsafe_code)] // system calls

use crate::error::{Error, Step};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const IFLA_XDP: u16 = 43;
const IFLA_XDP_PROG_ID: u16 = 4;
/// Length, type, flags, sequence, port.
const HEADER: usize = 16;
/// `struct ifinfomsg`.
const IFINFO: usize = 16;

/// The number of the program, if there is one. (With one in the driver and one behind it, that in the driver.)
pub(crate) fn program(ifindex: u32) -> Result<Option<u32>, Error> {
    let answer = ask(&request(ifindex))?;
    parse(&answer)
}

/// `RTM_GETLINK` for one interface.
fn request(ifindex: u32) -> [u8; HEADER + IFINFO] {
    let mut message = [0; HEADER + IFINFO];
    message[0..4].copy_from_slice(&((HEADER + IFINFO) as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    message[HEADER + 4..HEADER + 8].copy_from_slice(&ifindex.to_ne_bytes());
    message
}

fn ask(request: &[u8]) -> Result<Vec<u8>, Error> {
    // SAFETY: makes a descriptor, touches no memory.
    let fd =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    if fd < 0 {
        return Err(Error::last(Step::Query));
    }
    // SAFETY: the descriptor is new and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut answer = vec![0u8; 32 << 10];
    // SAFETY: the kernel reads the request, then writes at most the answer's length to it. An answer always comes: the link or an error.
    let len = unsafe {
        let sent = libc::send(fd.as_raw_fd(), request.as_ptr().cast(), request.len(), 0);
        if sent < 0 { sent } else { libc::recv(fd.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) }
    };
    if len < 0 {
        return Err(Error::last(Step::Query));
    }
    answer.truncate(len as usize);
    Ok(answer)
}

fn parse(answer: &[u8]) -> Result<Option<u32>, Error> {
    let malformed = || Error::code(Step::Query, libc::EBADMSG);
    let kind =
        answer.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes).ok_or_else(malformed)?;
    let body = answer.get(HEADER..).ok_or_else(malformed)?;
    if kind == libc::NLMSG_ERROR as u16 {
        let errno =
            body.get(..4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes).ok_or_else(malformed)?;
        return Err(Error::code(Step::Query, -errno));
    }
    let xdp = attribute(body.get(IFINFO..).unwrap_or_default(), IFLA_XDP);
    let id = xdp.and_then(|nested| attribute(nested, IFLA_XDP_PROG_ID));
    Ok(id.and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes).filter(|id| *id != 0))
}

/// The payload of the first attribute of type `kind`.
fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let [a, b, c, d, ..] = *bytes else { return None };
        let len = usize::from(u16::from_ne_bytes([a, b]));
        // The two highest bits are flags: nested, byte order.
        let this = u16::from_ne_bytes([c, d]) & 0x3fff;
        let payload = bytes.get(4..len)?;
        if this == kind {
            return Some(payload);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_no_program_and_an_unknown_interface_is_an_error() {
        assert_eq!(program(1).unwrap(), None);
        assert_eq!(program(0x7fff_fff0).unwrap_err().errno(), libc::ENODEV);
    }

    #[test]
    fn attributes_are_found_among_others_and_cut_ones_are_none() {
        let bytes = [8, 0, 1, 0, 9, 9, 9, 9, 5, 0, 2, 0, 7, 0, 0, 0, 8, 0, 43, 0x80, 1, 2, 3, 4];
        assert_eq!(attribute(&bytes, 2), Some(&[7][..]));
        assert_eq!(attribute(&bytes, IFLA_XDP), Some(&[1, 2, 3, 4][..]));
        assert_eq!(attribute(&bytes[..22], IFLA_XDP), None);
        assert_eq!(attribute(&bytes, 5), None);
    }
}
