//! One guest: memory that it shares, rings, and the handshake: over a socket, or with a vDPA device of the kernel's.

mod features;
mod memory;
mod rings;

use super::frame::Shape;
use super::queue::{Receive, Transmit};
use super::ring::Format;
use crate::failure::{Context, Failure, Result};
use engine::mem::guest::Region;
use engine::vhost::kernel::{Device, F_ACCESS_PLATFORM, File};
use features::{negotiate, wanted};
use memory::{BASE, USER, memory};
use rings::{Laid, lay};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vmm_sys_util::eventfd::EventFd;

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
        let spans = shape.mergeable && super::frame::HEADER + shape.longest() > memory::SMALL;
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
