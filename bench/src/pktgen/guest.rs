//! One guest: memory that it shares, rings, and the handshake: over a socket, or with a vDPA device of the kernel's.

use super::frame::{HEADER, Kind, Shape};
use super::queue::{Receive, Transmit};
use super::ring::{Format, Memory, Ring};
use crate::failure::{Context, Failure, Result};
use engine::backend::nic::NetFeatures;
use engine::mem::guest::{GuestMemory, Region};
use engine::vhost::kernel::{Device, F_ACCESS_PLATFORM, File};
use engine::virtq::{DriverSeg, F_IN_ORDER, F_RING_PACKED, F_VERSION_1, Position, RingConfig, packed, split};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

/// Bytes of a small buffer, header included, as drivers post them for mergeable frames.
const SMALL: usize = 2048;
/// Frames longer than this are few at a time.
const LONG: usize = 4096;
/// How many of them.
const FEW: usize = 32;

/// A guest with one queue pair.
pub(super) struct Guest<F> {
    /// What it receives.
    pub(super) receive: Receive<F>,
    /// What it transmits.
    pub(super) transmit: Transmit<F>,
    _device: Other,
    _calls: Vec<EventFd>,
}

/// Who runs the rings. It goes before the memory does.
enum Other {
    /// A vhost-user back-end.
    User(#[expect(dead_code, reason = "held until the guest goes")] Frontend),
    /// The kernel.
    Kernel(#[expect(dead_code, reason = "held until the guest goes")] Device),
}

/// A ring, and what its device is told of it.
struct Laid<F> {
    ring: Ring<F>,
    config: RingConfig,
    data: VringConfigData,
    kick: EventFd,
    call: EventFd,
}

/// Buffers of a ring: how many, how long, how far apart.
#[derive(Debug, Clone, Copy)]
struct Buffers {
    count: usize,
    len: usize,
    stride: usize,
}

impl Buffers {
    fn of(count: usize, len: usize) -> Self {
        // An odd number of lines apart, so that they spread over the cache's sets.
        Self { count, len, stride: (len.div_ceil(64) | 1) * 64 }
    }

    fn bytes(&self) -> usize {
        self.count * self.stride
    }

    /// Those of the receive ring and of the transmit ring.
    fn both(shape: &Shape) -> [Self; 2] {
        let (ring, frame) = (usize::from(shape.ring), HEADER + shape.longest().max(64));
        let few = |len: usize| if len > LONG { FEW.min(ring) } else { ring };
        let capped = |count: usize| if shape.buffers == 0 { count } else { count.min(shape.buffers) };
        let receive = if shape.mergeable { SMALL } else { frame.max(SMALL) };
        [Self::of(few(receive), receive), Self::of(capped(few(frame)), frame)]
    }
}

impl<F: Format> Guest<F> {
    /// Connects to the vhost-user back-end that listens at `path`, and fills the receive ring.
    ///
    /// # Errors
    /// No memory, no back-end, features refused.
    pub(super) fn connect(path: &Path, shape: &Shape) -> Result<Self> {
        let (memory, fd, size) = memory(shape)?;
        let mut frontend = dial(path)?;
        let features = negotiate(&mut frontend, shape)?;
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: BASE,
            memory_size: size,
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: fd.as_raw_fd(),
        };
        frontend.set_mem_table(&[region]).context("SET_MEM_TABLE")?;
        let laid = lay::<F>(shape, features, &memory)?;
        for (index, one) in laid.iter().enumerate() {
            // A packed ring starts with its wrap counters at 1.
            let base = if shape.packed { 0x8000 } else { 0 };
            frontend.set_vring_num(index, shape.ring).context("SET_VRING_NUM")?;
            frontend.set_vring_addr(index, &one.data).context("SET_VRING_ADDR")?;
            frontend.set_vring_base(index, base).context("SET_VRING_BASE")?;
            frontend.set_vring_call(index, &one.call).context("SET_VRING_CALL")?;
            frontend.set_vring_kick(index, &one.kick).context("SET_VRING_KICK")?;
        }
        for index in 0..2 {
            frontend.set_vring_enable(index, true).context("SET_VRING_ENABLE")?;
        }
        // Messages are worked off in turn: with the answer the rings run, and the back-end may be stopped and measured.
        frontend.get_features().context("GET_FEATURES")?;
        Ok(Self::new(laid, shape, Other::User(frontend)))
    }

    /// Drives the vDPA device at `path` with the ioctls alone, and fills the receive ring.
    ///
    /// # Errors
    /// No memory, not such a device or a busy one, features refused.
    pub(super) fn drive(path: &Path, shape: &Shape) -> Result<Self> {
        let at = path.display();
        let file = std::fs::File::options().read(true).write(true).open(path).context(&at)?;
        let device = Device::vdpa(Box::new(File::new(file.into()))).context(&at)?;
        let offered = device.calls().features().context(&at)?;
        let features = wanted(shape) | offered & F_ACCESS_PLATFORM;
        if features & !offered != 0 {
            return Err(Failure::new(format!("{at} does not offer features {:#x}", features & !offered)));
        }
        let (memory, _fd, size) = memory(shape)?;
        device.accept(features, false).context(&at)?;
        let host = memory.at(BASE, 1, &mut 0).ok_or_else(|| Failure::new("no memory"))?;
        device.share(&Region { guest: BASE, user: BASE, size, offset: 0 }, &memory, host).context(&at)?;
        let laid = lay::<F>(shape, features, &memory)?;
        for (index, one) in (0..).zip(&laid) {
            device.describe(index, &one.config).context(&at)?;
        }
        device.run().context(&at)?;
        for one in &laid {
            one.kick.write(1).context("a kick")?; // it may look at a ring only when it runs
        }
        Ok(Self::new(laid, shape, Other::Kernel(device)))
    }

    fn new([receive, transmit]: [Laid<F>; 2], shape: &Shape, device: Other) -> Self {
        let frames = (0..shape.variants()).map(|variant| shape.build(variant, true)).collect();
        let spans = shape.mergeable && HEADER + shape.longest() > SMALL;
        let mut this = Self {
            receive: Receive::new(receive.ring, spans),
            transmit: Transmit::new(transmit.ring, frames),
            _device: device,
            _calls: vec![receive.call, transmit.call],
        };
        this.nudge();
        this
    }

    /// Wakes the back-end if it sleeps on what was offered last.
    pub(super) fn nudge(&mut self) {
        self.receive.nudge();
        self.transmit.nudge();
    }
}

/// Connects, waiting up to ten seconds for the socket.
fn dial(path: &Path) -> Result<Frontend> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match Frontend::connect(path, 2) {
            Ok(frontend) => return Ok(frontend),
            Err(error) if Instant::now() > until => {
                return Err(Failure::new(format!("{}: {error}", path.display())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The features that `shape` asks for.
fn wanted(shape: &Shape) -> u64 {
    let csum = NetFeatures::CSUM | NetFeatures::GUEST_CSUM;
    let tso = csum | NetFeatures::HOST_TSO4 | NetFeatures::GUEST_TSO4;
    let bits = [
        (true, F_VERSION_1),
        (shape.packed, F_RING_PACKED),
        (shape.mergeable, NetFeatures::MRG_RXBUF),
        (shape.in_order, F_IN_ORDER),
        (shape.kind == Kind::Udp, csum),
        (shape.kind == Kind::Tso, tso),
    ];
    bits.iter().filter(|(on, _)| *on).fold(0, |all, (_, bits)| all | bits)
}

/// Agrees on features: those that `shape` asks for, all of which the back-end must have.
fn negotiate(frontend: &mut Frontend, shape: &Shape) -> Result<u64> {
    let offered = frontend.get_features().context("GET_FEATURES")?;
    let wanted = wanted(shape) | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    if wanted & !offered != 0 {
        return Err(Failure::new(format!("the back-end does not offer features {:#x}", wanted & !offered)));
    }
    let protocol = frontend.get_protocol_features().context("GET_PROTOCOL_FEATURES")?;
    let protocol = protocol & VhostUserProtocolFeatures::MQ;
    frontend.set_protocol_features(protocol).context("SET_PROTOCOL_FEATURES")?;
    frontend.set_owner().context("SET_OWNER")?;
    frontend.set_features(wanted).context("SET_FEATURES")?;
    Ok(wanted)
}

/// Lays both rings out in the guest's memory.
fn lay<F: Format>(shape: &Shape, features: u64, memory: &Arc<GuestMemory>) -> Result<[Laid<F>; 2]> {
    let mut at = BASE;
    let mut one = |writable: bool, buffers: &Buffers| -> Result<Laid<F>> {
        let (mut config, data, end) = layout(at, shape, features, memory)?;
        at = end + buffers.bytes() as u64;
        let (kick, call) = (event()?, event()?);
        config.kick = Some(owned(&kick)?);
        config.call = Some(owned(&call)?);
        let seg =
            |token: usize| DriverSeg { addr: end + (token * buffers.stride) as u64, len: buffers.len as u32 };
        let base = memory
            .at(end, buffers.bytes() as u32, &mut 0)
            .ok_or_else(|| Failure::new("the buffers do not fit into the guest's memory"))?;
        let segs = (0..buffers.count).map(seg).collect();
        let buffers = Memory { segs, base, stride: buffers.stride, _mapping: memory.clone() };
        let ring = Ring::<F>::new(&config, buffers, writable, kick.try_clone().context("dup")?)?;
        Ok(Laid { ring, config, data, kick, call })
    };
    let [receive, transmit] = Buffers::both(shape);
    Ok([one(true, &receive)?, one(false, &transmit)?])
}

/// Another descriptor of an eventfd.
fn owned(event: &EventFd) -> Result<Arc<OwnedFd>> {
    let copy = event.try_clone().context("dup")?;
    // SAFETY: the copy gives its descriptor up.
    #[allow(unsafe_code)]
    Ok(Arc::new(unsafe { OwnedFd::from_raw_fd(copy.into_raw_fd()) }))
}

/// Where the guest's memory begins. Not at zero, which some take for nothing.
const BASE: u64 = 0x20_0000;
/// What the front-end calls it.
const USER: u64 = 0x7000_0000_0000;

fn event() -> Result<EventFd> {
    EventFd::new(libc::EFD_NONBLOCK).context("eventfd")
}

/// Shared memory for the rings and buffers of a shape, on hugepages where there are some; its size.
fn memory(shape: &Shape) -> Result<(Arc<GuestMemory>, OwnedFd, u64)> {
    let buffers: usize = Buffers::both(shape).iter().map(|buffers| buffers.bytes() + 4096).sum();
    let size = (2 * ring_bytes(shape) as usize + buffers).next_multiple_of(2 << 20) as u64;
    let map = |flags| -> Result<(Arc<GuestMemory>, OwnedFd)> {
        let fd = memfd_create("pktgen", flags).context("memfd_create")?;
        nix::unistd::ftruncate(&fd, size as i64).context("ftruncate")?;
        let region = Region { guest: BASE, user: USER, size, offset: 0 };
        let copy = fd.try_clone().context("dup")?;
        Ok((Arc::new(GuestMemory::new(&[(region, copy)]).context("mapping guest memory")?), fd))
    };
    if let Ok((memory, fd)) = map(MFdFlags::MFD_HUGETLB | MFdFlags::MFD_CLOEXEC)
        && nix::fcntl::fallocate(&fd, nix::fcntl::FallocateFlags::empty(), 0, size as i64).is_ok()
    {
        return Ok((memory, fd, size));
    }
    eprintln!("pktgen: no hugepages free; the guest's memory is ordinary");
    let (memory, fd) = map(MFdFlags::MFD_CLOEXEC)?;
    Ok((memory, fd, size))
}

/// Bytes of a ring's parts, each from a page on.
fn ring_bytes(shape: &Shape) -> u64 {
    let page = |n: u64| n.next_multiple_of(4096);
    parts(shape).into_iter().map(page).sum()
}

/// Bytes of the parts of a ring.
fn parts(shape: &Shape) -> [u64; 3] {
    if shape.packed {
        [packed::desc_bytes(shape.ring), packed::EVENT_BYTES, packed::EVENT_BYTES]
    } else {
        [split::desc_bytes(shape.ring), split::avail_bytes(shape.ring), split::used_bytes(shape.ring)]
    }
}

/// Lays a ring out from `at` on: its configuration, its addresses for the back-end, and where its buffers start.
fn layout(
    at: u64,
    shape: &Shape,
    features: u64,
    memory: &Arc<GuestMemory>,
) -> Result<(RingConfig, VringConfigData, u64)> {
    let [desc, avail, used] = parts(shape);
    let page = |n: u64| n.next_multiple_of(4096);
    let at = page(at);
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
        inflight: None,
        position: Position::START,
        kick: None,
        call: None,
        err: None,
    };
    let data = VringConfigData {
        queue_max_size: shape.ring,
        queue_size: shape.ring,
        flags: 0,
        desc_table_addr: USER - BASE + starts[0],
        used_ring_addr: USER - BASE + starts[2],
        avail_ring_addr: USER - BASE + starts[1],
        log_addr: None,
    };
    Ok((config, data, end))
}
