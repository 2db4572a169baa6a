//! Names to addresses and addresses to sockets, with the C library's own rules and words: what a user of QEMU may write must mean the same here (`127.1`, a
//! service's name, a port that wraps).

#![allow(unsafe_code)] // getaddrinfo takes and gives raw pointers

use nix::errno::Errno;
use nix::sys::socket::{SockaddrLike, SockaddrStorage, connect};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Which addresses are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// `AF_INET`, `AF_INET6`, or `AF_UNSPEC` for either.
    pub(super) family: libc::c_int,
    /// `SOCK_DGRAM` or `SOCK_RAW`.
    pub(super) kind: libc::c_int,
    /// The protocol, for raw sockets.
    pub(super) protocol: libc::c_int,
    /// Without a host: an address to bind to.
    pub(super) passive: bool,
}

/// The first address of `host` (any without one) and `service`. May block on the network.
///
/// # Errors
/// The resolver's words.
pub(super) fn resolve(
    host: Option<&str>,
    service: Option<&str>,
    wanted: Wanted,
) -> Result<SockaddrStorage, String> {
    let text = |text: Option<&str>| text.map(CString::new).transpose().map_err(|_| words(libc::EAI_NONAME));
    let (host, service) = (text(host)?, text(service)?);
    let pointer = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    // SAFETY: an addrinfo is plain data, for which all zeros (no flag, null pointers) is a value.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_family = wanted.family;
    hints.ai_socktype = wanted.kind;
    hints.ai_protocol = wanted.protocol;
    hints.ai_flags = if wanted.passive { libc::AI_PASSIVE } else { 0 };
    let mut list = std::ptr::null_mut();
    // SAFETY: both texts end with a NUL and live across the call, as do the hints; the list is written on success only.
    let status =
        unsafe { libc::getaddrinfo(pointer(&host), pointer(&service), &raw const hints, &raw mut list) };
    if status != 0 {
        return Err(words(status));
    }
    // SAFETY: on success the list has at least one entry (null is looked at all the same), whose address has the length that stands
    // beside it; the list is freed once, after the last use.
    let found = unsafe {
        let first = list
            .as_ref()
            .and_then(|first| SockaddrStorage::from_raw(first.ai_addr.cast_const(), Some(first.ai_addrlen)));
        libc::freeaddrinfo(list);
        first
    };
    found.ok_or_else(|| words(libc::EAI_NONAME))
}

/// A socket that blocks nobody, for addresses like `like`.
///
/// # Errors
/// The kernel's.
pub(super) fn socket(like: &SockaddrStorage, wanted: Wanted) -> Result<OwnedFd, Errno> {
    let family = like.family().map_or(libc::AF_UNSPEC, |family| family as libc::c_int);
    let kind = wanted.kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes no pointer; what is not negative is a new descriptor that nobody else owns.
    unsafe {
        let fd = libc::socket(family, kind, wanted.protocol);
        if fd < 0 { Err(Errno::last()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// The MTU of the path to a UDP address, as the kernel knows it now.
pub(super) fn path_mtu(to: &SockaddrStorage) -> Option<usize> {
    let wanted = Wanted { family: libc::AF_UNSPEC, kind: libc::SOCK_DGRAM, protocol: 0, passive: false };
    let fd = socket(to, wanted).ok()?;
    connect(fd.as_raw_fd(), to).ok()?;
    let (level, name) = match to.as_sockaddr_in6() {
        Some(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
        None => (libc::IPPROTO_IP, libc::IP_MTU),
    };
    let (mut mtu, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: the kernel writes one int, whose length it is told, during the call.
    let got = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut mtu).cast(), &raw mut len) };
    if got == 0 { usize::try_from(mtu).ok() } else { None }
}

fn words(status: libc::c_int) -> String {
    // SAFETY: the C library gives a text of its own that ends with a NUL and is never freed.
    let text = unsafe { CStr::from_ptr(libc::gai_strerror(status)) };
    text.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: Wanted = Wanted { family: libc::AF_INET, kind: libc::SOCK_DGRAM, protocol: 0, passive: false };

    fn found(host: &str, service: &str, wanted: Wanted) -> String {
        resolve(Some(host), Some(service), wanted).map_or_else(|why| why, |address| address.to_string())
    }

    #[test]
    fn addresses_are_read_as_the_c_library_reads_them() {
        assert_eq!(found("127.1", "7110", UDP), "127.0.0.1:7110");
        assert_eq!(found("127.0.0.1", "70000", UDP), "127.0.0.1:4464", "ports wrap");
        assert_eq!(found("127.0.0.1", "", UDP), "127.0.0.1:0");
        assert_eq!(found("::1", "1", Wanted { family: libc::AF_INET6, ..UDP }), "[::1]:1");
        let any = resolve(None, Some("4789"), Wanted { passive: true, ..UDP }).unwrap();
        assert_eq!(any.to_string(), "0.0.0.0:4789");
        let raw = Wanted { kind: libc::SOCK_RAW, protocol: 115, ..UDP };
        assert_eq!(resolve(Some("127.0.0.1"), None, raw).unwrap().to_string(), "127.0.0.1:0");
    }

    #[test]
    fn the_path_to_an_address_has_an_mtu() {
        let here = resolve(Some("127.0.0.1"), Some("9"), UDP).unwrap();
        assert!(path_mtu(&here).is_some_and(|mtu| mtu >= 1280), "{:?}", path_mtu(&here));
    }

    #[test]
    fn failures_have_the_resolvers_words() {
        assert_eq!(found("::1", "1", UDP), "Address family for hostname not supported");
        assert_eq!(found("127.0.0.1", "zz", UDP), "Servname not supported for ai_socktype");
        assert_eq!(found("", "1", UDP), "Name or service not known");
        assert_eq!(found("a\0b", "1", UDP), "Name or service not known");
    }
}
