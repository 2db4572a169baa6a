//! Opening taps: the slow path, off the workers. Order of steps and texts are QEMU's (net/tap.c, net/tap-linux.c).

use super::options::TapOptions;
use super::rx::TapRx;
use super::tx::TapTx;
use super::vhost::{Rings, Vhost};
use super::{Carrier, Shared, ioctl};
use crate::backend::errno::text;
use crate::backend::pair::QueuePair;
use crate::mem::arena::{Arena, ArenaError};
use crate::mem::pool::LARGE;
use crate::port::Caps;
use crate::uring::Buffers;
use crate::vhost::kernel::KernelError;
use crate::wire::vnet_hdr::VnetHdr;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open as open_file};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

const NET_TUN: &str = "/dev/net/tun";

/// Why a tap could not be opened. What it displays is what QMP shows.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The device node is missing or may not be opened.
    #[error("could not open {NET_TUN}: {}", text(*.0))]
    Open(Errno),
    /// The kernel refused to attach to the interface: busy, not a tap, a name that cannot be, no permission.
    #[error("could not configure {NET_TUN}{}: {}", in_brackets(.ifname), text(*.errno))]
    Configure {
        /// The name asked for; empty when the kernel was to pick one.
        ifname: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// `vnet_hdr=on` on a kernel without it.
    #[error("vnet_hdr=1 requested, but no kernel support for IFF_VNET_HDR available")]
    NoVnetHdr,
    /// `queues` above 1 on a kernel without it.
    #[error("multiqueue required, but no kernel support for IFF_MULTI_QUEUE available")]
    NoMultiQueue,
    /// A given descriptor is no tap.
    #[error("Unable to query TUNGETIFF on FD {number}: {}", text(*.errno))]
    NotATap {
        /// The descriptor as the user knows it.
        number: RawFd,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Some of the given descriptors have the virtio-net header and some have not.
    #[error("vnet_hdr not consistent across given tap fds")]
    MixedVnetHdr,
    /// A given descriptor cannot be made non-blocking.
    #[error("Can't use file descriptor {number}: {}", text(*.errno))]
    Unusable {
        /// The descriptor as the user knows it.
        number: RawFd,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The limit that the user gave was refused.
    #[error("TUNSETSNDBUF ioctl failed: {}", text(*.0))]
    SendLimit(Errno),
    /// The script ended with another status than 0 (raw wait status, as QEMU shows it).
    #[error("network script {path} failed with status {status}")]
    Script {
        /// Path of the script.
        path: String,
        /// As `wait` gave it: exit code times 256, or the signal.
        status: i32,
    },
    /// The bridge helper cannot be run, or ended with another status than 0.
    #[error("bridge helper failed")]
    HelperFailed,
    /// The bridge helper ended well and passed no descriptor.
    #[error("failed to recv file descriptor: the bridge helper sent none")]
    HelperSentNothing,
    /// The bridge helper did not end.
    #[error("bridge helper did not end within {seconds} s and was killed")]
    HelperHangs {
        /// How long it had.
        seconds: u64,
    },
    /// There is no vhost-net, or it may not be opened.
    #[error("tap: open vhost char device failed: {}", text(*.0))]
    OpenVhost(Errno),
    /// vhost-net does not take the tap, or the file is not one of its.
    #[error("vhost-net requested but could not be initialized")]
    Vhost(Option<KernelError>),
    /// No memory for receive buffers.
    #[error(transparent)]
    Memory(#[from] ArenaError),
}

fn in_brackets(ifname: &str) -> String {
    if ifname.is_empty() { String::new() } else { format!(" ({ifname})") }
}

/// An open tap.
pub struct Opened {
    /// Its queues, in order.
    pub queues: Vec<QueuePair>,
    /// Name of the interface at this moment; it may be renamed later.
    pub ifname: String,
    /// Whether frames carry the virtio-net header.
    pub vnet_hdr: bool,
    /// What the kernel takes from us.
    pub caps: Caps,
    /// The interface's carrier.
    pub carrier: Carrier,
    /// Its rings, where vhost-net runs them.
    pub rings: Option<Rings>,
}

/// Opens a tap, or takes the given descriptors over, and sets it up. Scripts are the caller's: [`super::run_script`].
///
/// # Errors
/// [`TapError`]; everything opened so far is closed again.
pub fn open(options: TapOptions, arena: &Arc<Arena>) -> Result<Opened, TapError> {
    open_with(options, arena, |_| Ok(()))
}

/// As [`open()`], and runs `script` with the interface's name where QEMU runs it: when the interface is there, and before the rest.
///
/// # Errors
/// As [`open()`], and the script's.
pub fn open_with(
    mut options: TapOptions,
    arena: &Arc<Arena>,
    script: impl FnOnce(&str) -> Result<(), TapError>,
) -> Result<Opened, TapError> {
    let (limit, asked) = (options.send_limit(), options.sndbuf.is_some());
    let vhost = options.vhost.take();
    let files = if options.fds.is_empty() { by_name(&options)? } else { given(options)? };
    script(&files.ifname)?;
    let mut caps = offloads(&files);
    let mut vhost = vhost.map(|options| Vhost::new(options, files.vnet_hdr, caps)).transpose()?;
    let mut queues = Vec::with_capacity(files.fds.len());
    let mut carrier = Carrier::default();
    for fd in files.fds {
        match ioctl::set_send_limit(fd.as_fd(), limit) {
            Err(errno) if asked => return Err(TapError::SendLimit(errno)),
            _ => {
                let shared = Arc::new(Shared::new(fd, files.vnet_hdr));
                carrier = Carrier::new(&shared);
                queues.push(match &mut vhost {
                    Some(vhost) => vhost.pair(&shared)?,
                    None => pair(shared, caps, limit < i32::MAX, arena)?,
                });
            }
        }
    }
    if let Some(pair) = queues.first().filter(|_| vhost.is_some()) {
        caps = pair.tx.caps();
    }
    // Whoever had the tap before may have taken it away; where it cannot be shown, it is as it is.
    let _ = carrier.set(true);
    let rings = vhost.map(Vhost::rings);
    Ok(Opened { queues, ifname: files.ifname, vnet_hdr: files.vnet_hdr, caps, carrier, rings })
}

/// Makes a tap that the kernel names, for somebody else: no queue of ours. Its descriptor, and its name.
///
/// # Errors
/// [`TapError::Open`], [`TapError::Configure`].
pub fn create(vnet_hdr: bool) -> Result<(OwnedFd, String), TapError> {
    let fd = device(b"")?;
    let flags = if vnet_hdr { ioctl::features(fd.as_fd()) & ioctl::IFF_VNET_HDR } else { 0 };
    let configure = |errno| TapError::Configure { ifname: String::new(), errno };
    let ifname = attach(fd.as_fd(), b"", flags).map_err(configure)?;
    Ok((fd, ifname))
}

struct Files {
    fds: Vec<OwnedFd>,
    ifname: String,
    vnet_hdr: bool,
}

fn by_name(options: &TapOptions) -> Result<Files, TapError> {
    let queues = options.queues.max(1);
    let mut files = Files { fds: Vec::new(), ifname: String::new(), vnet_hdr: false };
    let mut name = options.wanted_name().to_vec();
    for _ in 0..queues {
        let fd = device(&name)?;
        let features = ioctl::features(fd.as_fd());
        files.vnet_hdr = options.vnet_hdr != Some(false) && features & ioctl::IFF_VNET_HDR != 0;
        if options.vnet_hdr == Some(true) && !files.vnet_hdr {
            return Err(TapError::NoVnetHdr);
        }
        let mut flags = if files.vnet_hdr { ioctl::IFF_VNET_HDR } else { 0 };
        if queues > 1 {
            if features & ioctl::IFF_MULTI_QUEUE == 0 {
                return Err(TapError::NoMultiQueue);
            }
            flags |= ioctl::IFF_MULTI_QUEUE;
        }
        files.ifname = attach(fd.as_fd(), &name, flags).map_err(|errno| TapError::Configure {
            ifname: String::from_utf8_lossy(&name).into_owned(),
            errno,
        })?;
        // The first queue settles the name; the others join it.
        name = files.ifname.clone().into_bytes();
        files.fds.push(fd);
    }
    Ok(files)
}

/// Attaches to the interface. A tap that was closed a moment ago stays busy while a child of ours, started meanwhile for a
/// script, has not reached its `exec`: so busy is asked again for a few milliseconds.
fn attach(fd: BorrowedFd<'_>, name: &[u8], flags: u32) -> Result<String, Errno> {
    for _ in 0..5 {
        match ioctl::attach(fd, name, flags) {
            Err(Errno::EBUSY) => std::thread::sleep(Duration::from_millis(1)),
            other => return other,
        }
    }
    ioctl::attach(fd, name, flags)
}

/// A macvtap's own node where the name is an interface that has one, else the tap device.
fn device(name: &[u8]) -> Result<OwnedFd, TapError> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let name = std::str::from_utf8(name).unwrap_or_default();
    if let Ok(index) = nix::net::if_::if_nametoindex(name)
        && let Ok(fd) = open_file(format!("/dev/tap{index}").as_str(), flags, Mode::empty())
        // The node may be that of another network namespace, where the index belongs to someone else.
        && ioctl::query(fd.as_fd()).is_ok_and(|(_, its_name)| its_name == name)
    {
        return Ok(fd);
    }
    open_file(NET_TUN, flags, Mode::empty()).map_err(TapError::Open)
}

fn given(options: TapOptions) -> Result<Files, TapError> {
    let mut files = Files { fds: Vec::new(), ifname: String::new(), vnet_hdr: false };
    for (i, given) in options.fds.into_iter().enumerate() {
        let number = given.number;
        set_nonblocking(given.fd.as_fd()).map_err(|errno| TapError::Unusable { number, errno })?;
        let (flags, name) =
            ioctl::query(given.fd.as_fd()).map_err(|errno| TapError::NotATap { number, errno })?;
        let vnet_hdr = flags & ioctl::IFF_VNET_HDR != 0;
        if i > 0 && vnet_hdr != files.vnet_hdr {
            return Err(TapError::MixedVnetHdr);
        }
        (files.vnet_hdr, files.ifname) = (vnet_hdr, name);
        files.fds.push(given.fd);
    }
    Ok(files)
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

/// Tells the kernel which frames we take (all it can make: the engine finishes them in software for receivers that
/// cannot), and learns which it takes from us.
fn offloads(files: &Files) -> Caps {
    let Some(fd) = files.fds.first().map(AsFd::as_fd) else { return Caps::NONE };
    if !files.vnet_hdr {
        // A persistent tap may still have what its last user set.
        let _ = ioctl::set_offload(fd, 0);
        return Caps::NONE;
    }
    // A persistent tap may have been left with a longer header. Old kernels know only this length.
    let _ = ioctl::set_header_len(fd, VnetHdr::LEN as i32);
    let tcp = ioctl::TUN_F_CSUM | ioctl::TUN_F_TSO4 | ioctl::TUN_F_TSO6 | ioctl::TUN_F_TSO_ECN;
    let uso = ioctl::set_offload(fd, tcp | ioctl::TUN_F_USO).is_ok();
    if !uso {
        // Without: whatever it refuses now, it will not send.
        let _ = ioctl::set_offload(fd, tcp).or_else(|_| ioctl::set_offload(fd, ioctl::TUN_F_CSUM));
    }
    // On the way in, the kernel takes every kind that its virtio_net_hdr_to_skb knows: USO since it offers it.
    Caps { csum: true, tso4: true, tso6: true, ecn: true, ufo: true, uso, coalesce: uso }
}

fn pair(shared: Arc<Shared>, caps: Caps, limited: bool, arena: &Arc<Arena>) -> Result<QueuePair, TapError> {
    let raw = shared.fd.as_raw_fd();
    let buffers = Buffers::new(arena, quota(arena), LARGE)?;
    let rx = Box::new(TapRx::new(shared.clone(), buffers));
    let tx = Box::new(TapTx::new(shared, caps, limited));
    Ok(QueuePair { rx, tx, fd: raw })
}

/// Receive buffers of the next queue: many while few queues are open, so that a burst of GSO frames fits; few when
/// hundreds are, so that a thousand taps stay below half a gigabyte.
fn quota(arena: &Arena) -> u16 {
    const MANY: usize = 64 << 20;
    match arena.receiving() {
        n if n < MANY => 32,
        n if n < 2 * MANY => 8,
        _ => 4,
    }
}
