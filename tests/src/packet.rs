//! Single frames on an interface, by a packet socket.
#![allow(unsafe_code)]

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, send};

use crate::netns::NetNs;

/// A raw socket that is bound to one interface and sees every frame there.
#[derive(Debug)]
pub struct PacketSocket {
    file: OwnedFd,
}

impl PacketSocket {
    /// Opens a socket on `interface` of `namespace`. Needs root.
    ///
    /// # Panics
    /// When the socket cannot be made.
    #[must_use]
    pub fn open(namespace: &NetNs, interface: &str) -> Self {
        let opened = namespace.inside(|| bound(interface));
        Self { file: opened.unwrap_or_else(|error| panic!("packet socket on {interface}: {error}")) }
    }

    /// As [`open`](Self::open), but every frame is behind a virtio-net header of ten bytes, in both directions (packet(7), `PACKET_VNET_HDR`).
    ///
    /// # Panics
    /// When the socket cannot be made.
    #[must_use]
    pub fn open_with_headers(namespace: &NetNs, interface: &str) -> Self {
        let socket = Self::open(namespace, interface);
        let (one, length): (libc::c_int, _) = (1, size_of::<libc::c_int>());
        // SAFETY: the call reads one integer of the given length, during the call.
        let failed = unsafe {
            libc::setsockopt(
                socket.file.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_VNET_HDR,
                (&raw const one).cast(),
                libc::socklen_t::try_from(length).unwrap_or_default(),
            )
        };
        assert_eq!(failed, 0, "PACKET_VNET_HDR: {}", io::Error::last_os_error());
        socket
    }

    /// Sends one frame.
    ///
    /// # Panics
    /// When the interface refuses it.
    pub fn send(&self, frame: &[u8]) {
        let sent = send(self.file.as_raw_fd(), frame, MsgFlags::empty()).expect("the frame is sent");
        assert_eq!(sent, frame.len());
    }

    /// The next frame that came from the network side (not sent by this host), if one comes within `limit`. The kernel has taken a VLAN's tag out.
    ///
    /// # Panics
    /// When the socket fails.
    pub fn receive(&self, limit: Duration) -> Option<Vec<u8>> {
        Some(self.receive_message(limit)?.0)
    }

    /// As [`receive`](Self::receive), with the tag that the frame had.
    ///
    /// # Panics
    /// When the socket fails.
    pub fn receive_tagged(&self, limit: Duration) -> Option<Vec<u8>> {
        let (frame, tag) = self.receive_message(limit)?;
        Some(tag.map_or_else(|| frame.clone(), |tag| [&frame[..12], &tag, &frame[12..]].concat()))
    }

    /// A frame, and its VLAN's tag as it was on the wire.
    fn receive_message(&self, limit: Duration) -> Option<(Vec<u8>, Option<[u8; 4]>)> {
        let end = Instant::now() + limit;
        let mut frame = vec![0; 70_000];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut ready = [PollFd::new(std::os::fd::AsFd::as_fd(&self.file), PollFlags::POLLIN)];
            if poll(&mut ready, timeout).expect("poll") == 0 {
                return None;
            }
            let mut slices = [IoSliceMut::new(&mut frame)];
            let mut space = nix::cmsg_space!([u32; 8]);
            let flags = MsgFlags::MSG_DONTWAIT;
            match recvmsg::<()>(self.file.as_raw_fd(), &mut slices, Some(&mut space), flags) {
                Ok(message) => {
                    let tag = message.cmsgs().expect("there is room for what the kernel says").find_map(tag);
                    let length = message.bytes;
                    return Some((frame[..length].to_vec(), tag));
                }
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::ENETDOWN) => {}
                Err(error) => panic!("recv on a packet socket: {error}"),
            }
        }
    }

    /// Every frame that comes until none has come for `quiet`.
    #[must_use]
    pub fn drain(&self, quiet: Duration) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.receive(quiet)).collect()
    }
}

/// The tag in `struct tpacket_auxdata`: status, two lengths, two offsets, then TCI and TPID in the host's order.
fn tag(message: ControlMessageOwned) -> Option<[u8; 4]> {
    let ControlMessageOwned::Unknown(message) = message else { return None };
    let (header, bytes) = (message.cmsg_header, message.data_bytes);
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_PACKET, libc::PACKET_AUXDATA) || bytes.len() < 20 {
        return None;
    }
    let status = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]).to_be_bytes();
    let ([tpid, tpid_low], [tci, tci_low]) = (word(18), word(16));
    (status & libc::TP_STATUS_VLAN_VALID != 0).then_some([tpid, tpid_low, tci, tci_low])
}

/// An Ethernet frame of the local experimental type 0x88b5 with a payload.
#[must_use]
pub fn frame(destination: [u8; 6], source: [u8; 6], payload: &[u8]) -> Vec<u8> {
    [&destination[..], &source, &[0x88, 0xb5], payload].concat()
}

fn bound(interface: &str) -> io::Result<OwnedFd> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    let protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
    // SAFETY: socket() takes no pointers; a non-negative result is a new descriptor that nobody else owns.
    let file = unsafe {
        let number = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol));
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(number)
    };
    // SAFETY: all-zero bytes are a valid sockaddr_ll, a plain C structure.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET.unsigned_abs().try_into().unwrap_or_default();
    address.sll_protocol = protocol;
    address.sll_ifindex = i32::try_from(index).unwrap_or_default();
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
    let one: libc::c_int = 1;
    let option_length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or_default();
    // SAFETY: the calls read only the given structures, whose exact lengths they are told, during the call.
    let failed = unsafe {
        libc::bind(file.as_raw_fd(), (&raw const address).cast(), length) != 0
            || libc::setsockopt(
                file.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_IGNORE_OUTGOING,
                (&raw const one).cast(),
                option_length,
            ) != 0
            || libc::setsockopt(
                file.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_AUXDATA,
                (&raw const one).cast(),
                option_length,
            ) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(file) }
}

nix::ioctl_write_int!(
    /// `TUNSETIFF` (linux/if_tun.h): which interface the descriptor is of.
    tun_set_iff,
    b'T',
    202
);

/// A tap of the calling thread's network namespace, named by the kernel, with or without a virtio-net header.
///
/// # Errors
/// When `/dev/net/tun` does not open or refuses.
pub fn tap(vnet_header: bool) -> io::Result<OwnedFd> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all-zero bytes are a valid ifreq, a plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let header = if vnet_header { libc::IFF_VNET_HDR } else { 0 };
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI | header).unwrap_or_default();
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    unsafe { tun_set_iff(file.as_raw_fd(), (&raw mut request) as libc::c_ulong) }?;
    Ok(file.into())
}
