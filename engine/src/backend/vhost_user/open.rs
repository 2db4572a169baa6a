//! Making queue pairs for a device whose features are known: memory, rings, buffers. On the control thread.

#![allow(unsafe_code)] // lays out a region of shared memory

use super::buffers::Buffers;
use super::options::{Agreed, RING};
use super::rx::VhostUserRx;
use super::tx::VhostUserTx;
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
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;

/// Where the region lies, as the device is told: guest and VMM addresses are the same, and say nothing of ours.
const BASE: u64 = 0x10_0000_0000;
/// Bytes of a cache line: buffers lie an odd number of them apart, so that they spread over the cache's sets.
const LINE: u32 = 64;
/// Bytes of a receive buffer that may be one of several for a frame.
const PIECE: u32 = 4096;
/// Bytes of a receive buffer that must hold a frame alone: a jumbo frame with its header.
const WHOLE: u32 = 9728;
/// Bytes of receive buffers of one queue.
const RECEIVE: u32 = (PIECE + LINE) * RING as u32;
/// Bytes of a small transmit buffer.
const SMALL: u32 = 2048;
/// Bytes of a large transmit buffer: any frame with its header.
const LARGE: u32 = (MAX_FRAME as u32 + 12).next_multiple_of(2 * LINE);

/// Large transmit buffers of each of so many pairs.
const fn large(pairs: u16) -> u32 {
    if pairs > 8 { 16 } else { 32 }
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
    /// The shared memory's file.
    pub file: OwnedFd,
    /// Whether it is made of hugepages.
    pub hugepages: bool,
}

/// Cuts the region into pieces, front to back.
struct Cut {
    map: Arc<Mapping>,
    used: usize,
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
        Ok((unsafe { self.map.base().add(at) }, BASE + at as u64))
    }
}

/// Bytes of the parts of a ring.
fn parts(packed: bool) -> [u64; 3] {
    if packed {
        [packed::desc_bytes(RING), packed::EVENT_BYTES, packed::EVENT_BYTES]
    } else {
        [split::desc_bytes(RING), split::avail_bytes(RING), split::used_bytes(RING)]
    }
}

/// Bytes of the region for so many pairs.
fn bytes(pairs: u16) -> usize {
    let ring = parts(false).iter().sum::<u64>() as usize + 3 * 2 * LINE as usize;
    let buffers = RECEIVE + (SMALL + LINE) * u32::from(RING) + (LARGE + LINE) * large(pairs);
    usize::from(pairs) * (2 * ring + buffers as usize + 4 * 2 * LINE as usize)
}

/// Makes `pairs` queue pairs as the virtio `features` agreed on want them. `wake` is an eventfd that is written to when a ring stops for cause.
///
/// # Errors
/// No memory, no file.
pub fn open(features: u64, pairs: u16, hugepages: bool, wake: &Arc<OwnedFd>) -> Result<Opened, OpenError> {
    let failed = |errno| OpenError::Memory { pairs, errno };
    let map = Arc::new(Mapping::shared(bytes(pairs), hugepages).map_err(failed)?);
    let file = map.fd().ok_or(Errno::EBADF).map_err(failed)?;
    let file = nix::unistd::dup(file).map_err(failed)?;
    let memory = Arc::new(GuestMemory::of_mapping(map.clone(), BASE));
    let region = Region { guest: BASE, user: BASE, size: map.len() as u64, offset: 0 };
    let hugepages = map.backing() == Backing::Huge;
    let mut made = Opened { pairs: Vec::new(), rings: Vec::new(), region, file, hugepages };
    let mut cut = Cut { map, used: 0 };
    for _ in 0..pairs {
        let halves = if features & F_RING_PACKED == 0 {
            pair::<SplitDriver>(features, pairs, &mut cut, &memory, wake, &mut made.rings)?
        } else {
            pair::<PackedDriver>(features, pairs, &mut cut, &memory, wake, &mut made.rings)?
        };
        made.pairs.push(halves);
    }
    Ok(made)
}

fn pair<R: DriverRing>(
    features: u64,
    pairs: u16,
    cut: &mut Cut,
    memory: &Arc<GuestMemory>,
    wake: &Arc<OwnedFd>,
    rings: &mut Vec<RingConfig>,
) -> Result<Halves, OpenError> {
    let agreed = Agreed::of(features);
    let receive = ring(features, pairs, cut, memory)?;
    let transmit = ring(features, pairs, cut, memory)?;
    let len = if agreed.mergeable { PIECE } else { WHOLE };
    let count = (RECEIVE / (len + LINE)).min(u32::from(RING));
    let posted = run(cut, pairs, len, count)?;
    let small = run(cut, pairs, SMALL, u32::from(RING))?;
    let large = run(cut, pairs, LARGE, large(pairs))?;
    let reports = [Report::new(wake), Report::new(wake)].map(Arc::new);
    let rx = VhostUserRx::new(R::new(&receive)?, agreed, posted, &receive, reports[0].clone());
    let tx = VhostUserTx::new(R::new(&transmit)?, agreed, [small, large], &transmit, reports[1].clone());
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

fn ring(
    features: u64,
    pairs: u16,
    cut: &mut Cut,
    memory: &Arc<GuestMemory>,
) -> Result<RingConfig, OpenError> {
    let [desc, avail, used] = parts(features & F_RING_PACKED != 0);
    let mut take = |bytes| cut.take(bytes, Errno::ENOMEM, pairs).map(|(at, _)| at);
    let (desc, avail, used) = (take(desc)?, take(avail)?, take(used)?);
    let event = || {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        event.map(|event| Arc::new(OwnedFd::from(event))).map_err(|errno| OpenError::Memory { pairs, errno })
    };
    Ok(RingConfig {
        size: RING,
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
