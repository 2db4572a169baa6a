//! A socket bound to one queue of one interface.

use crate::error::{Error, Step};
use crate::ring::{Completion, Fill, Offsets, Rx, Tx};
use crate::sys::{self, Mapping};
use crate::umem::Umem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

const SO_PREFER_BUSY_POLL: i32 = 69;
const SO_BUSY_POLL_BUDGET: i32 = 70;
/// Frames that one `sendto` moves in copy mode at most (`XDP_MAX_TX_SKB_BUDGET`, Linux 6.17; 32 before).
const MAX_TX_SKB_BUDGET: i32 = 9;
/// A queue whose last socket was closed a moment ago is busy until the driver has let go of it.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(4);

/// Whether the NIC itself writes to the UMEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Copying {
    /// As the driver can.
    #[default]
    Auto,
    /// The kernel copies (`XDP_COPY`).
    Copy,
    /// The NIC does, or binding fails (`XDP_ZEROCOPY`).
    ZeroCopy,
}

/// How a socket is made. Ring sizes are powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketConfig {
    /// Entries of the fill ring.
    pub fill: u32,
    /// Entries of the receive ring.
    pub rx: u32,
    /// Entries of the transmit ring.
    pub tx: u32,
    /// Entries of the completion ring.
    pub completion: u32,
    /// Who copies. A socket that shares a UMEM does as the others.
    pub copying: Copying,
    /// Frames may lie in several chunks (`XDP_USE_SG`, Linux 6.6). A socket that shares a UMEM does as the others.
    pub multi_buffer: bool,
    /// Frames that one look of ours takes through the driver, which then needs no interrupt (`SO_PREFER_BUSY_POLL`, Linux
    /// 5.11, CAP_NET_ADMIN); none, or not allowed: interrupts.
    pub busy_poll: Option<u32>,
}

impl Default for SocketConfig {
    fn default() -> Self {
        Self {
            fill: 2048,
            rx: 2048,
            tx: 2048,
            completion: 2048,
            copying: Copying::Auto,
            multi_buffer: false,
            busy_poll: None,
        }
    }
}

/// What the kernel counted (`struct xdp_statistics`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Frames dropped for other reasons than those below.
    pub rx_dropped: u64,
    /// Descriptors of the fill ring that made no sense.
    pub rx_invalid: u64,
    /// Descriptors of the transmit ring that made no sense.
    pub tx_invalid: u64,
    /// Frames dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Times that the fill ring was empty.
    pub fill_ring_empty: u64,
    /// Times that the transmit ring was empty.
    pub tx_ring_empty: u64,
}

/// A bound socket. Its rings are separate values ([`Rings`]), for whoever drives them.
#[derive(Debug)]
pub struct Socket {
    fd: Arc<OwnedFd>,
    /// The kernel reads and writes it as long as the socket is open.
    umem: Arc<Umem>,
    zero_copy: bool,
    busy_polls: bool,
}

/// The rings of a socket.
#[derive(Debug)]
pub struct Rings {
    /// To receive into.
    pub fill: Fill,
    /// Received.
    pub rx: Rx,
    /// To send.
    pub tx: Tx,
    /// Sent.
    pub completion: Completion,
}

/// Makes a socket that is not bound.
///
/// # Errors
/// No AF_XDP in this kernel, or no CAP_NET_RAW.
pub fn create() -> Result<OwnedFd, Error> {
    sys::socket()
}

impl Socket {
    /// Binds `fd`, a socket from [`create`] or from somebody who may make them, to queue `queue` of interface number `ifindex`. Frames lie
    /// in `umem`. May take 0.2 seconds where the queue is busy.
    ///
    /// # Errors
    /// The step that the kernel refused. The socket is closed then.
    #[allow(clippy::needless_pass_by_value)] // the socket goes with a failure
    pub fn bind(
        fd: OwnedFd,
        umem: &Arc<Umem>,
        ifindex: u32,
        queue: u32,
        config: &SocketConfig,
    ) -> Result<(Self, Rings), Error> {
        let fd = Arc::new(fd);
        // Without CAP_NET_ADMIN, or on an older kernel, interrupts do.
        let busy_polls = config.busy_poll.is_some_and(|budget| busy_poll(fd.as_fd(), budget).is_ok());
        // Older kernels do with 32.
        let _ = sys::set(fd.as_fd(), libc::SOL_XDP, MAX_TX_SKB_BUDGET, &config.tx, Step::Option);
        let mut rings = None;
        umem.join(&fd, (ifindex, queue), |other| {
            rings = Some(map(fd.as_fd(), config)?);
            bind_queue(fd.as_fd(), other, ifindex, queue, config)
        })?;
        let rings = rings.ok_or_else(|| Error::code(Step::Rings, libc::EINVAL))?;
        let (options, _) = sys::get::<libc::xdp_options>(fd.as_fd(), libc::XDP_OPTIONS, Step::Option)?;
        let zero_copy = options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0;
        Ok((Self { fd, umem: umem.clone(), zero_copy, busy_polls }, rings))
    }

    /// Whether the NIC itself writes to the UMEM.
    #[must_use]
    pub const fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Whether frames come when [`Socket::receive`] looks for them, as was asked for and allowed.
    #[must_use]
    pub const fn busy_polls(&self) -> bool {
        self.busy_polls
    }

    /// The file, for whoever waits for frames: it is readable when the receive ring has some.
    #[must_use]
    pub const fn file(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// The memory of its frames.
    #[must_use]
    pub const fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    /// Makes the kernel send what is in the transmit ring: all of it in zero-copy mode, a batch in copy mode.
    ///
    /// # Errors
    /// The errno. EAGAIN, EBUSY and ENOBUFS: later; ENETDOWN and ENXIO: the interface is down, or gone.
    #[inline]
    pub fn send(&self) -> Result<(), i32> {
        sys::send(self.fd.as_fd())
    }

    /// Makes the kernel look at the fill ring, and at the queue where busy polling is on.
    ///
    /// # Errors
    /// The errno, as [`Socket::send`].
    #[inline]
    pub fn receive(&self) -> Result<(), i32> {
        sys::receive(self.fd.as_fd())
    }

    /// What the kernel counted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn statistics(&self) -> Result<Statistics, Error> {
        let (s, _) = sys::get::<libc::xdp_statistics>(self.fd.as_fd(), libc::XDP_STATISTICS, Step::Option)?;
        Ok(Statistics {
            rx_dropped: s.rx_dropped,
            rx_invalid: s.rx_invalid_descs,
            tx_invalid: s.tx_invalid_descs,
            rx_ring_full: s.rx_ring_full,
            fill_ring_empty: s.rx_fill_ring_empty_descs,
            tx_ring_empty: s.tx_ring_empty_descs,
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn busy_poll(fd: BorrowedFd<'_>, budget: u32) -> Result<(), Error> {
    let budget = i32::try_from(budget).unwrap_or(i32::MAX);
    let on = 1i32;
    // How long a blocking call would poll, in microseconds: none of ours blocks, but 0 turns busy polling off.
    let microseconds = 20i32;
    let set = |name, value: &i32| sys::set(fd, libc::SOL_SOCKET, name, value, Step::Option);
    set(SO_PREFER_BUSY_POLL, &on)?;
    set(libc::SO_BUSY_POLL, &microseconds)?;
    set(SO_BUSY_POLL_BUDGET, &budget)
}

/// Binds; whether frames may lie in several chunks then.
fn bind_queue(
    fd: BorrowedFd<'_>,
    other: Option<BorrowedFd<'_>>,
    ifindex: u32,
    queue: u32,
    config: &SocketConfig,
) -> Result<bool, Error> {
    let copying = match config.copying {
        Copying::Auto => 0,
        Copying::Copy => libc::XDP_COPY,
        Copying::ZeroCopy => libc::XDP_ZEROCOPY,
    };
    let address = |flags: u16| libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: other.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    if other.is_some() {
        // Who shares a UMEM takes over the flags of the other.
        return bind_patiently(fd, &address(libc::XDP_SHARED_UMEM)).map(|()| false);
    }
    let flags = libc::XDP_USE_NEED_WAKEUP | copying;
    if config.multi_buffer {
        match bind_patiently(fd, &address(flags | libc::XDP_USE_SG)) {
            // An older kernel, or a driver that cannot: EINVAL may also mean that there is no such queue, which comes again.
            Err(error) if matches!(error.errno(), libc::EINVAL | libc::EOPNOTSUPP) => {}
            done => return done.map(|()| true),
        }
    }
    bind_patiently(fd, &address(flags)).map(|()| false)
}

fn bind_patiently(fd: BorrowedFd<'_>, address: &libc::sockaddr_xdp) -> Result<(), Error> {
    for _ in 1..TRIES {
        match sys::bind(fd, address) {
            Err(error) if error.errno() == libc::EBUSY => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
    sys::bind(fd, address)
}

/// Whether the NIC itself can write to a UMEM of ours, by trying. Also the way to learn that a queue is free again: closing a socket only begins to take
/// its memory from the NIC.
///
/// # Errors
/// The step that the kernel refused, other than zero-copy.
pub fn try_zero_copy(umem: &Arc<Umem>, ifindex: u32, queue: u32) -> Result<bool, Error> {
    let small = SocketConfig { fill: 64, rx: 64, tx: 64, completion: 64, ..SocketConfig::default() };
    let config = SocketConfig { copying: Copying::ZeroCopy, ..small };
    match Socket::bind(create()?, umem, ifindex, queue, &config) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.errno(), libc::EOPNOTSUPP | libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes and maps the rings.
#[allow(unsafe_code)]
fn map(fd: BorrowedFd<'_>, config: &SocketConfig) -> Result<Rings, Error> {
    for (name, size) in [
        (libc::XDP_UMEM_FILL_RING, config.fill),
        (libc::XDP_UMEM_COMPLETION_RING, config.completion),
        (libc::XDP_RX_RING, config.rx),
        (libc::XDP_TX_RING, config.tx),
    ] {
        sys::set(fd, libc::SOL_XDP, name, &size, Step::Rings)?;
    }
    let (at, len) = sys::get::<libc::xdp_mmap_offsets>(fd, libc::XDP_MMAP_OFFSETS, Step::Rings)?;
    if len != size_of::<libc::xdp_mmap_offsets>() {
        // Before Linux 5.4 there are no flags, and none of what else is needed here.
        return Err(Error::code(Step::Rings, libc::EOPNOTSUPP));
    }
    let mapping = |page: u64, at: &libc::xdp_ring_offset, entries: u32, bytes: usize| {
        let len = at.desc as usize + entries as usize * bytes;
        let offsets = Offsets {
            producer: at.producer as usize,
            consumer: at.consumer as usize,
            flags: at.flags as usize,
            entries: at.desc as usize,
        };
        Mapping::of_ring(fd, page, len).map(|map| (Arc::new(map), offsets))
    };
    let bad = || Error::code(Step::Rings, libc::EINVAL);
    let (fill, fill_at) = mapping(libc::XDP_UMEM_PGOFF_FILL_RING, &at.fr, config.fill, 8)?;
    let (done, done_at) = mapping(libc::XDP_UMEM_PGOFF_COMPLETION_RING, &at.cr, config.completion, 8)?;
    let (rx, rx_at) = mapping(libc::XDP_PGOFF_RX_RING as u64, &at.rx, config.rx, 16)?;
    let (tx, tx_at) = mapping(libc::XDP_PGOFF_TX_RING as u64, &at.tx, config.tx, 16)?;
    // SAFETY: the kernel mapped these rings with these offsets, and keeps to the protocol.
    unsafe {
        Ok(Rings {
            fill: Fill::new(&fill, fill_at, config.fill).ok_or_else(bad)?,
            rx: Rx::new(&rx, rx_at, config.rx).ok_or_else(bad)?,
            tx: Tx::new(&tx, tx_at, config.tx).ok_or_else(bad)?,
            completion: Completion::new(&done, done_at, config.completion).ok_or_else(bad)?,
        })
    }
}
