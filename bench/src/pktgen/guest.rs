//! One guest: memory that it shares, rings, and the handshake over its socket.

use crate::failure::{Context, Failure, Result};
use engine::backend::nic::NetFeatures;
use engine::mem::guest::{GuestMemory, Region};
use engine::virtq::{
    DriverRing, DriverSeg, F_IN_ORDER, F_RING_PACKED, F_VERSION_1, Position, RingConfig, packed, split,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

/// Bytes of the guest's memory: two hugepages a MiB.
const MEMORY: usize = 64 << 20;
/// Bytes of a small buffer, header included; an odd number of lines apart, so that they spread over the cache's sets.
const SMALL: usize = 2048 + 64;
/// Bytes of the virtio-net header.
pub(super) const HEADER: usize = 12;

/// What a guest's rings look like.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Entries of each ring.
    pub ring: u16,
    /// Packed rings.
    pub packed: bool,
    /// Mergeable receive buffers.
    pub mergeable: bool,
    /// Buffers are used in order.
    pub in_order: bool,
    /// Bytes of a frame that it sends.
    pub size: usize,
}

/// A guest with one queue pair.
pub struct Guest<R> {
    /// What it receives.
    pub receive: Ring<R>,
    /// What it transmits.
    pub transmit: Ring<R>,
    _frontend: Frontend,
    _memory: Arc<GuestMemory>,
    _events: Vec<EventFd>,
}

/// One ring with its buffers.
pub struct Ring<R> {
    pub(super) ring: R,
    /// Address of the first buffer.
    first: u64,
    /// Bytes that each buffer has.
    len: u32,
    memory: Arc<GuestMemory>,
}

impl<R: DriverRing> Ring<R> {
    /// Makes buffer `token` available.
    #[inline]
    pub(super) fn add(&mut self, token: u32, readable: bool) -> bool {
        let seg = DriverSeg { addr: self.first + u64::from(token) * SMALL as u64, len: self.len };
        self.ring.add(&[seg], usize::from(readable), token)
    }

    /// The bytes of buffer `token`, as they are now.
    pub fn bytes(&self, token: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let at = self.first + u64::from(token) * SMALL as u64;
        if let Some(from) = self.memory.at(at, len as u32, &mut 0) {
            // SAFETY: the range lies in the guest's memory; raw bytes of our own mapping.
            unsafe { from.as_ptr().copy_to_nonoverlapping(bytes.as_mut_ptr(), len) };
        }
        bytes
    }
}

impl<R: DriverRing> Guest<R> {
    /// Connects to the vhost-user back-end that listens at `path`, and fills the receive ring.
    ///
    /// # Errors
    /// No memory, no back-end, features refused.
    pub fn connect(path: &Path, shape: &Shape) -> Result<Self> {
        let (memory, fd, hugepages) = memory()?;
        if !hugepages {
            eprintln!("pktgen: no hugepages free; the guest's memory is ordinary");
        }
        let until = Instant::now() + Duration::from_secs(10);
        let mut frontend = loop {
            match Frontend::connect(path, 2) {
                Ok(frontend) => break frontend,
                Err(error) if Instant::now() > until => {
                    return Err(Failure::new(format!("{}: {error}", path.display())));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let offered = frontend.get_features().context("GET_FEATURES")?;
        let mut wanted = F_VERSION_1 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        for (on, bit) in [
            (shape.packed, F_RING_PACKED),
            (shape.mergeable, NetFeatures::MRG_RXBUF),
            (shape.in_order, F_IN_ORDER),
        ] {
            if on {
                wanted |= bit;
            }
        }
        if wanted & !offered != 0 {
            return Err(Failure::new(format!(
                "the back-end does not offer features {:#x}",
                wanted & !offered
            )));
        }
        let protocol = frontend.get_protocol_features().context("GET_PROTOCOL_FEATURES")?;
        frontend
            .set_protocol_features(protocol & VhostUserProtocolFeatures::MQ)
            .context("SET_PROTOCOL_FEATURES")?;
        frontend.set_owner().context("SET_OWNER")?;
        frontend.set_features(wanted).context("SET_FEATURES")?;
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY as u64,
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: fd.as_raw_fd(),
        };
        frontend.set_mem_table(&[region]).context("SET_MEM_TABLE")?;
        let mut events = Vec::new();
        let mut rings = Vec::new();
        let mut at = 0u64;
        for index in 0..2 {
            let (config, data, end) = layout(at, shape, wanted, &memory)?;
            at = end + SMALL as u64 * u64::from(shape.ring);
            let ring = R::new(&config).context("the ring")?;
            let (kick, call) = (event()?, event()?);
            let base = if shape.packed { 0x8000 } else { 0 };
            frontend.set_vring_num(index, shape.ring).context("SET_VRING_NUM")?;
            frontend.set_vring_addr(index, &data).context("SET_VRING_ADDR")?;
            frontend.set_vring_base(index, base).context("SET_VRING_BASE")?;
            frontend.set_vring_call(index, &call).context("SET_VRING_CALL")?;
            frontend.set_vring_kick(index, &kick).context("SET_VRING_KICK")?;
            events.extend([kick, call]);
            let len = if index == 0 { SMALL - 64 } else { HEADER + shape.size };
            rings.push(Ring { ring, first: end, len: len as u32, memory: memory.clone() });
        }
        for index in 0..2 {
            frontend.set_vring_enable(index, true).context("SET_VRING_ENABLE")?;
        }
        let (Some(mut transmit), Some(mut receive)) = (rings.pop(), rings.pop()) else {
            return Err(Failure::new("two rings"));
        };
        transmit.ring.want_calls(false);
        receive.ring.want_calls(false);
        for token in 0..u32::from(shape.ring) {
            fill(&transmit, token, shape.size);
            receive.add(token, false);
        }
        receive.ring.publish();
        Ok(Self { receive, transmit, _frontend: frontend, _memory: memory, _events: events })
    }
}

/// What the front-end calls its memory.
const USER: u64 = 0x7000_0000_0000;

fn event() -> Result<EventFd> {
    EventFd::new(libc::EFD_NONBLOCK).context("eventfd")
}

/// Shared memory, on hugepages where there are some.
fn memory() -> Result<(Arc<GuestMemory>, OwnedFd, bool)> {
    let map = |flags| -> Result<(Arc<GuestMemory>, OwnedFd)> {
        let fd = memfd_create("pktgen", flags).context("memfd_create")?;
        nix::unistd::ftruncate(&fd, MEMORY as i64).context("ftruncate")?;
        let region = Region { guest: 0, user: USER, size: MEMORY as u64, offset: 0 };
        let copy = fd.try_clone().context("dup")?;
        Ok((Arc::new(GuestMemory::new(&[(region, copy)]).context("mapping guest memory")?), fd))
    };
    if let Ok((memory, fd)) = map(MFdFlags::MFD_HUGETLB | MFdFlags::MFD_CLOEXEC)
        && nix::fcntl::fallocate(&fd, nix::fcntl::FallocateFlags::empty(), 0, MEMORY as i64).is_ok()
    {
        return Ok((memory, fd, true));
    }
    let (memory, fd) = map(MFdFlags::MFD_CLOEXEC)?;
    Ok((memory, fd, false))
}

/// Lays a ring out from `at` on: its configuration, its addresses for the back-end, and where its buffers start.
fn layout(
    at: u64,
    shape: &Shape,
    features: u64,
    memory: &Arc<GuestMemory>,
) -> Result<(RingConfig, VringConfigData, u64)> {
    let (desc, avail, used) = if shape.packed {
        (packed::desc_bytes(shape.ring), packed::EVENT_BYTES, packed::EVENT_BYTES)
    } else {
        (split::desc_bytes(shape.ring), split::avail_bytes(shape.ring), split::used_bytes(shape.ring))
    };
    let page = |n: u64| n.next_multiple_of(4096);
    let starts = [at, page(at + desc), page(page(at + desc) + avail)];
    let end = page(starts[2] + used);
    let pointer = |guest: u64| -> Result<NonNull<u8>> {
        memory
            .at(guest, 16, &mut 0)
            .ok_or_else(|| Failure::new("the rings do not fit into the guest's memory"))
    };
    let config = RingConfig {
        size: shape.ring,
        features,
        memory: memory.clone(),
        desc: pointer(starts[0])?,
        avail: pointer(starts[1])?,
        used: pointer(starts[2])?,
        used_log: None,
        position: Position::START,
        kick: None,
        call: None,
        err: None,
    };
    let data = VringConfigData {
        queue_max_size: shape.ring,
        queue_size: shape.ring,
        flags: 0,
        desc_table_addr: USER + starts[0],
        used_ring_addr: USER + starts[2],
        avail_ring_addr: USER + starts[1],
        log_addr: None,
    };
    Ok((config, data, end))
}

/// Writes a frame with an empty header into a buffer: broadcast-free Ethernet, and zeros.
fn fill<R>(ring: &Ring<R>, token: u32, size: usize) {
    let at = ring.first + u64::from(token) * SMALL as u64;
    let mut bytes = vec![0; HEADER + size];
    bytes[HEADER..HEADER + 6].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    bytes[HEADER + 6..HEADER + 12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    bytes[HEADER + 12..HEADER + 14].copy_from_slice(&[0x88, 0xb5]);
    if let Some(to) = ring.memory.at(at, bytes.len() as u32, &mut 0) {
        // SAFETY: the range lies in the guest's memory, which nobody else uses yet.
        unsafe { to.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
}
