//! What an interface is at the moment: number, MTU, state, queues.

#![allow(unsafe_code)] // ioctls

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::AsRawFd;

/// A network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its number; another one after it went and came back.
    pub index: u32,
    /// Bytes behind the Ethernet header that it takes.
    pub mtu: u32,
    /// It is up (`IFF_UP`).
    pub up: bool,
    /// It has a carrier (`IFF_RUNNING`).
    pub running: bool,
    /// It is a loopback.
    pub loopback: bool,
    /// Queues, where its driver says how many (ethtool).
    pub queues: Option<u32>,
}

impl Link {
    /// Bytes of the longest frame: the MTU, the Ethernet header and a VLAN tag (`is_skb_forwardable` of Linux).
    #[must_use]
    pub const fn longest(&self) -> u32 {
        self.mtu.saturating_add(14 + 4)
    }
}

const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// Looks an interface up by name in the network namespace of the caller.
///
/// # Errors
/// ENODEV when there is none.
pub fn link(ifname: &str) -> Result<Link, Errno> {
    let index = nix::net::if_::if_nametoindex(ifname)?;
    let control = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(ifname.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    let ask = |what: libc::Ioctl, request: &mut libc::ifreq| {
        // SAFETY: the kernel reads the name and writes the union of the request, which may hold an address of a live value.
        Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), what, std::ptr::from_mut(request)) })
    };
    ask(libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: what this request answers with.
    let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
    ask(libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: what this request answers with.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    let known = ask(libc::SIOCETHTOOL, &mut request).is_ok();
    let queues = channels.combined + channels.rx.max(channels.tx);
    Ok(Link {
        index,
        mtu: mtu.max(0) as u32,
        up: flags & libc::IFF_UP != 0,
        running: flags & libc::IFF_RUNNING != 0,
        loopback: flags & libc::IFF_LOOPBACK != 0,
        queues: (known && queues > 0).then_some(queues),
    })
}

/// The interface of a number, whatever its name is now.
///
/// # Errors
/// ENXIO when there is none.
pub fn link_of_index(index: u32) -> Result<Link, Errno> {
    let name = nix::net::if_::if_indextoname(index)?;
    link(name.to_str().map_err(|_| Errno::EINVAL)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_and_others_are_not() {
        let lo = link("lo").unwrap();
        assert_eq!((lo.index, lo.queues), (1, None));
        assert!(lo.mtu >= 1500 && lo.longest() == lo.mtu + 18);
        assert_eq!(link("no-such-link"), Err(Errno::ENODEV));
        assert_eq!(link_of_index(1), Ok(lo));
        assert!(link_of_index(0x7fff_fff0).is_err());
    }
}
