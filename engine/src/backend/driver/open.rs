//! Making queue pairs for a device whose features are known: memory, rings, buffers. On the control thread.

#![allow(unsafe_code)] // lays out a region of shared memory

use super::buffers::Buffers;
use super::options::{Agreed, RING};
use super::rx::DriverRx;
use super::tx::DriverTx;
#[cfg(doc)]
use crate::backend::nic::NetFeatures as Net;
use crate::backend::report::Report;
use crate::burst::MAX_FRAME;
use crate::mem::guest::{GuestMemory, Region};
use crate::mem::map::{Backing, Mapping};
use crate::port::{RxQueue, TxQueue};
use crate::virtq::packed::{self, PackedDriver};
use crate::virtq::split::{self, SplitDriver};
use crate::virtq::{DriverRing, F_RING_PACKED, Position, RingConfig, RingFault};
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::any::Any;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;

/// What lives at least as long as any half of a pair: the device, which must let go of the memory before it is unmapped.
pub type Keep = Arc<dyn Any + Send + Sync>;

/// What is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The virtio features agreed on.
    pub features: u64,
    /// Queue pairs.
    pub pairs: u16,
    /// Entries of each ring: a power of two, at most [`RING`].
    pub size: u16,
    /// A control queue behind the pairs.
    pub control: bool,
    /// The longest frame without its Ethernet header, where the device has said so ([`Net::MTU`]).
    pub mtu: Option<u16>,
    /// Where the region lies, as the device is told: guest and VMM addresses are the same, and say nothing of ours.
    pub base: u64,
}

impl Shape {
    /// So many pairs without a control queue, at an address that every device can name.
    #[must_use]
    pub const fn new(features: u64, pairs: u16) -> Self {
        Self { features, pairs, size: RING, control: false, mtu: None, base: 0x10_0000_0000 }
    }
}

/// Bytes of a cache line: buffers lie an odd number of them apart, so that they spread over the cache's sets.
const LINE: u32 = 64;
/// Bytes of a receive buffer that may be one of several for a frame.
const PIECE: u32 = 4096;
/// Bytes of a receive buffer that must hold a frame alone, of a device that does not say how long they are: a jumbo frame with its header.
const WHOLE: u32 = 9728;
/// Bytes in front of an MTU's: the virtio-net header, Ethernet's, two VLAN tags.
const BEFORE: u32 = 12 + 14 + 2 * 4;
/// Bytes of receive buffers of one queue at most, where there are many queues.
const RECEIVE: u32 = (PIECE + LINE) * RING as u32;
/// Queue pairs that are many.
const MANY: u16 = 8;
/// Bytes of a small transmit buffer.
const SMALL: u32 = 2048;
/// Bytes of a large transmit buffer: any frame with its header.
const LARGE: u32 = (MAX_FRAME as u32 + 12).next_multiple_of(2 * LINE);

/// Large transmit buffers of each of so many pairs.
const fn large(pairs: u16) -> u32 {
    if pairs > MANY { 16 } else { 32 }
}

/// Bytes of a receive buffer, and how many of them a ring has: all that it has room for, since a device drops what finds none.
fn posted(shape: &Shape) -> (u32, u32) {
    let len = match shape.mtu {
        _ if Agreed::of(shape.features).mergeable => PIECE,
        Some(mtu) => (BEFORE + u32::from(mtu.max(1500))).next_multiple_of(2 * LINE),
        None => WHOLE,
    };
    let most = if shape.pairs > MANY { RECEIVE / (len + LINE) } else { u32::MAX };
    (len, most.min(u32::from(shape.size)))
}

/// Why there are no rings.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The kernel gave no memory or no file.
    #[error("no memory for {pairs} queue pairs to share ({errno}); free memory, or ask for fewer queues")]
    Memory {
        /// Queue pairs asked for.
        pairs: u16,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A ring that cannot be.
    #[error(transparent)]
    Ring(#[from] RingFault),
}

/// The two halves of a queue pair, and what control keeps of each.
pub struct Halves {
    /// What the device sends.
    pub rx: Box<dyn RxQueue>,
    /// What the device takes.
    pub tx: Box<dyn TxQueue>,
    /// By ring: receive, transmit.
    pub reports: [Arc<Report>; 2],
}

/// Queue pairs, ready to run, and what the device has to be told of them.
pub struct Opened {
    /// The pairs.
    pub pairs: Vec<Halves>,
    /// Rings: two a pair, the receive ring first.
    pub rings: Vec<RingConfig>,
    /// Where the shared memory lies, as the device knows it.
    pub region: Region,
    /// The same as we know it.
    pub memory: Arc<GuestMemory>,
    /// The control queue, with one buffer for commands.
    pub(in crate::backend) control: Option<(RingConfig, Buffers)>,
    /// The shared memory's file.
    pub file: OwnedFd,
    /// Whether it is made of hugepages.
    pub hugepages: bool,
    /// Where the shared memory lies for us.
    pub host: NonNull<u8>,
}

/// Kicks a device that has just begun to run: it may look at a ring only then, and buffers are there already.
pub(in crate::backend) fn kick(ring: &RingConfig) {
    if let Some(kick) = &ring.kick {
        // Ours, empty and non-blocking.
        let _ = nix::unistd::write(kick, &1u64.to_ne_bytes());
    }
}

/// Cuts the region into pieces, front to back.
struct Cut {
    map: Arc<Mapping>,
    used: usize,
    base: u64,
}

impl Cut {
    /// The next `bytes` bytes, aligned to a cache line pair: where they lie for us and for the device.
    fn take(&mut self, bytes: u64, errno: Errno, pairs: u16) -> Result<(NonNull<u8>, u64), OpenError> {
        let at = self.used.next_multiple_of(2 * LINE as usize);
        self.used = at + bytes as usize;
        if self.used > self.map.len() {
            return Err(OpenError::Memory { pairs, errno });
        }
        // SAFETY: at + bytes lies inside of the mapping.
        Ok((unsafe { self.map.base().add(at) }, self.base + at as u64))
    }
}

/// Bytes of the parts of a ring.
fn parts(packed: bool, size: u16) -> [u64; 3] {
    if packed {
        [packed::desc_bytes(size), packed::EVENT_BYTES, packed::EVENT_BYTES]
    } else {
        [split::desc_bytes(size), split::avail_bytes(size), split::used_bytes(size)]
    }
}

/// Bytes of the region for the pairs and a control queue.
fn bytes(shape: &Shape) -> usize {
    let pairs = shape.pairs;
    let ring = parts(false, RING).iter().sum::<u64>() as usize + 3 * 2 * LINE as usize;
    let (len, count) = posted(shape);
    let buffers = (len + LINE) * count + (SMALL + LINE) * u32::from(RING) + (LARGE + LINE) * large(pairs);
    let control = ring + (SMALL + 4 * LINE) as usize;
    usize::from(pairs) * (2 * ring + buffers as usize + 4 * 2 * LINE as usize) + control
}

/// Makes queue pairs. `wake` is an eventfd that is written to when a ring stops for cause.
///
/// # Errors
/// No memory, no file.
pub fn open(
    shape: &Shape,
    hugepages: bool,
    wake: &Arc<OwnedFd>,
    keep: Option<&Keep>,
) -> Result<Opened, OpenError> {
    let Shape { features, pairs, control, base, .. } = *shape;
    let failed = |errno| OpenError::Memory { pairs, errno };
    let map = Arc::new(Mapping::shared(bytes(shape), hugepages).map_err(failed)?);
    let file = map.fd().ok_or(Errno::EBADF).map_err(failed)?;
    let file = nix::unistd::dup(file).map_err(failed)?;
    let memory = Arc::new(GuestMemory::of_mapping(map.clone(), base));
    let region = Region { guest: base, user: base, size: map.len() as u64, offset: 0 };
    let hugepages = map.backing() == Backing::Huge;
    let mut made = Opened {
        pairs: Vec::new(),
        rings: Vec::new(),
        region,
        memory: memory.clone(),
        control: None,
        file,
        hugepages,
        host: map.base(),
    };
    let mut cut = Cut { map, used: 0, base };
    for _ in 0..pairs {
        let halves = if features & F_RING_PACKED == 0 {
            pair::<SplitDriver>(shape, &mut cut, &memory, wake, keep, &mut made.rings)?
        } else {
            pair::<PackedDriver>(shape, &mut cut, &memory, wake, keep, &mut made.rings)?
        };
        made.pairs.push(halves);
    }
    if control {
        let config = ring(shape, &mut cut, &memory)?;
        made.control = Some((config, run(&mut cut, pairs, SMALL, 1)?));
    }
    Ok(made)
}

fn pair<R: DriverRing>(
    shape: &Shape,
    cut: &mut Cut,
    memory: &Arc<GuestMemory>,
    wake: &Arc<OwnedFd>,
    keep: Option<&Keep>,
    rings: &mut Vec<RingConfig>,
) -> Result<Halves, OpenError> {
    let Shape { features, pairs, size, .. } = *shape;
    let agreed = Agreed::of(features);
    let receive = ring(shape, cut, memory)?;
    let transmit = ring(shape, cut, memory)?;
    let (len, count) = posted(shape);
    let posted = run(cut, pairs, len, count)?;
    let small = run(cut, pairs, SMALL, u32::from(size))?;
    let large = run(cut, pairs, LARGE, large(pairs))?;
    let reports = [Report::new(wake), Report::new(wake)].map(Arc::new);
    let rx = DriverRx::new(R::new(&receive)?, agreed, posted, &receive, reports[0].clone(), keep);
    let tx = DriverTx::new(R::new(&transmit)?, agreed, [small, large], &transmit, reports[1].clone(), keep);
    rings.extend([receive, transmit]);
    Ok(Halves { rx: Box::new(rx), tx: Box::new(tx), reports })
}

/// A run of buffers.
fn run(cut: &mut Cut, pairs: u16, len: u32, count: u32) -> Result<Buffers, OpenError> {
    let stride = len + LINE;
    let (base, guest) = cut.take(u64::from(stride) * u64::from(count), Errno::ENOMEM, pairs)?;
    // SAFETY: the run was cut from the region for this alone, and each half of a pair keeps the region by its ring's memory.
    Ok(unsafe { Buffers::new(base, guest, stride, len, count) })
}

fn ring(shape: &Shape, cut: &mut Cut, memory: &Arc<GuestMemory>) -> Result<RingConfig, OpenError> {
    let Shape { features, pairs, size, .. } = *shape;
    let [desc, avail, used] = parts(features & F_RING_PACKED != 0, size);
    let mut take = |bytes| cut.take(bytes, Errno::ENOMEM, pairs).map(|(at, _)| at);
    let (desc, avail, used) = (take(desc)?, take(avail)?, take(used)?);
    let event = || {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        event.map(|event| Arc::new(OwnedFd::from(event))).map_err(|errno| OpenError::Memory { pairs, errno })
    };
    Ok(RingConfig {
        size,
        features,
        memory: memory.clone(),
        desc,
        avail,
        used,
        used_log: None,
        inflight: None,
        position: Position::START,
        kick: Some(event()?),
        call: Some(event()?),
        err: None,
    })
}
