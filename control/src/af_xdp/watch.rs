//! The kernel's word that an interface changed (rtnetlink, RFC 3549). What changed is looked up afterwards, so nothing is parsed and nothing can be missed.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// `RTMGRP_LINK`.
const LINK: u32 = 1;

/// A socket that is readable after interfaces came, went or changed.
#[derive(Debug)]
pub(super) struct Links(OwnedFd);

impl Links {
    /// For the network namespace of the caller.
    pub(super) fn new() -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, LINK))?;
        Ok(Self(fd))
    }

    /// Takes all that was told.
    pub(super) fn drain(&self) {
        let mut message = [0; 4096];
        loop {
            match recv(self.0.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
                // Too many to be kept: what is looked up afterwards is the same.
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
