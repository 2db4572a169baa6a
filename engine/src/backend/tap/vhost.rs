//! A tap whose frames the kernel's vhost-net moves (`vhost=on`): rings of ours instead of one read or write a frame.
//!
//! Steps and texts are QEMU's (net/tap.c, hw/net/vhost_net.c): one vhost-net file a queue pair, ring 0 receives, ring 1 sends.

use super::open::TapError;
use super::{Shared, VhostOptions, ioctl};
use crate::backend::driver::{self, Agreed, Keep, Report, Shape};
use crate::backend::nic::NetFeatures as Net;
use crate::backend::pair::QueuePair;
use crate::port::Caps;
use crate::vhost::kernel::{Calls, Device, File, KernelError};
use crate::virtq::{F_EVENT_IDX, F_VERSION_1};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open as open_file};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

#[cfg(test)]
mod tests;

const VHOST_NET: &str = "/dev/vhost-net";
/// What the device itself decides; all else is the tap's.
const OF_RINGS: u64 = F_VERSION_1 | F_EVENT_IDX | Net::MRG_RXBUF;

/// What a tap is told; tests play one.
trait Tap: Send + Sync {
    /// Its file.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Sets the length of the virtio-net header.
    fn set_header_len(&self, len: i32) -> Result<(), Errno>;
    /// Says which frames we take (`TUN_F_*`).
    fn set_offload(&self, flags: u32) -> Result<(), Errno>;
}

impl Tap for Shared {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn set_header_len(&self, len: i32) -> Result<(), Errno> {
        ioctl::set_header_len(self.fd.as_fd(), len)
    }

    fn set_offload(&self, flags: u32) -> Result<(), Errno> {
        ioctl::set_offload(self.fd.as_fd(), flags)
    }
}

/// What the queues of one tap have in common.
pub(super) struct Vhost {
    /// Files that the user gave, the next one last.
    given: Vec<OwnedFd>,
    opens: bool,
    busy: u32,
    vnet_hdr: bool,
    /// Features that the tap offers.
    tap: u64,
    /// Told when a ring stops for cause.
    wake: Arc<OwnedFd>,
    /// Both rings of each queue pair, as they say that they stopped.
    told: Vec<(Arc<Report>, Arc<OwnedFd>)>,
}

/// What control hears of a tap's rings, the receive ring of each pair before its transmit ring.
pub struct Rings {
    wake: Arc<OwnedFd>,
    told: Vec<(Arc<Report>, Arc<OwnedFd>)>,
}

impl Rings {
    /// Files that can be read when a ring may have stopped.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.wake.as_fd()).chain(self.told.iter().map(|(_, error)| error.as_fd()))
    }

    /// Looks which ring stopped for cause since the last look, and why.
    #[must_use]
    pub fn look(&self) -> Option<(usize, String)> {
        // Both ours and non-blocking: an empty one is one that was read before.
        let read = |event: &OwnedFd| nix::unistd::read(event, &mut [0; 8]).is_ok();
        read(&self.wake);
        let faults = self.told.iter().enumerate().filter_map(|(ring, (report, error))| {
            let kernel = read(error).then(|| "the kernel cannot use it".to_owned());
            Some((ring, report.fault().map(|fault| fault.to_string()).or(kernel)?))
        });
        // All are read, so that none says the same again.
        faults.reduce(|first, _| first)
    }
}

impl Vhost {
    pub(super) fn new(options: VhostOptions, vnet_hdr: bool, caps: Caps) -> Result<Self, TapError> {
        let wake = event()?;
        let VhostOptions { fds: mut given, busy } = options;
        given.reverse();
        let tap = if vnet_hdr { offered(caps) } else { 0 };
        Ok(Self {
            opens: given.is_empty(),
            given,
            busy,
            vnet_hdr,
            tap,
            wake: Arc::new(wake),
            told: Vec::new(),
        })
    }

    /// What control hears of all pairs that were made.
    pub(super) fn rings(self) -> Rings {
        Rings { wake: self.wake, told: self.told }
    }

    /// The next queue pair, of that file of the tap's.
    pub(super) fn pair(&mut self, tap: &Arc<Shared>) -> Result<QueuePair, TapError> {
        let file = match self.given.pop() {
            Some(file) => file,
            None if self.opens => open_file(VHOST_NET, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(TapError::OpenVhost)?,
            None => return Err(TapError::Vhost(None)),
        };
        self.pair_on(Box::new(File::new(file)), tap)
    }

    /// The same on any device and any tap.
    fn pair_on<T: Tap + 'static>(
        &mut self,
        calls: Box<dyn Calls>,
        tap: &Arc<T>,
    ) -> Result<QueuePair, TapError> {
        let device = Device::net(calls, tap.clone()).map_err(|error| TapError::Vhost(Some(error)))?;
        let device = Arc::new(device);
        let offered = device.calls().features().map_err(|errno| failed("asking for features", errno))?;
        let features = driver::choose(offered & OF_RINGS | self.tap, 1);
        let keep: Keep = device.clone();
        let mut opened = driver::open(&Shape::new(features, 1), true, &self.wake, Some(&keep))
            .map_err(|_| failed("making rings", Errno::ENOMEM))?;
        for ring in &mut opened.rings {
            ring.err = Some(Arc::new(event()?));
        }
        self.set_up(&device, &opened, features, &**tap).map_err(|error| TapError::Vhost(Some(error)))?;
        let halves = opened.pairs.pop().ok_or(TapError::Vhost(None))?;
        let errors = opened.rings.into_iter().filter_map(|ring| ring.err);
        self.told.extend(halves.reports.into_iter().zip(errors));
        Ok(QueuePair { rx: halves.rx, tx: halves.tx, fd: tap.fd().as_raw_fd() })
    }

    fn set_up(
        &self,
        device: &Device,
        opened: &driver::Opened,
        features: u64,
        tap: &dyn Tap,
    ) -> Result<(), KernelError> {
        let at = |step| move |errno| KernelError { step, errno };
        if self.vnet_hdr {
            let header = Agreed::of(features).header;
            tap.set_header_len(header as i32).map_err(at("setting the header's length"))?;
            if features & Net::MRG_RXBUF == 0 {
                // A large frame would need several buffers.
                let flags = if features & Net::GUEST_CSUM == 0 { 0 } else { ioctl::TUN_F_CSUM };
                tap.set_offload(flags).map_err(at("setting offloads"))?;
            }
        }
        device.accept(features & OF_RINGS, !self.vnet_hdr)?;
        device.share(&opened.region, &opened.memory, opened.host)?;
        for (index, ring) in (0..).zip(&opened.rings) {
            device.describe(index, ring)?;
            if self.busy > 0 {
                device.calls().busy(index, self.busy).map_err(at("setting busy polling"))?;
            }
        }
        for (index, ring) in (0..).zip(&opened.rings) {
            let taken = device.calls().backend(index, Some(tap.fd()));
            taken.map_err(at("giving the tap to vhost-net"))?;
            driver::kick(ring);
        }
        Ok(())
    }
}

fn event() -> Result<OwnedFd, TapError> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
    event.map(OwnedFd::from).map_err(|errno| failed("making an eventfd", errno))
}

fn failed(step: &'static str, errno: Errno) -> TapError {
    TapError::Vhost(Some(KernelError { step, errno }))
}

/// What a tap with virtio-net headers takes and gives, as virtio-net feature bits. It was told to give all kinds that it takes but UFO.
fn offered(caps: Caps) -> u64 {
    let Caps { csum, tso4, tso6, ecn, ufo, uso, .. } = caps;
    [
        (csum, Net::CSUM | Net::GUEST_CSUM),
        (tso4, Net::HOST_TSO4 | Net::GUEST_TSO4),
        (tso6, Net::HOST_TSO6 | Net::GUEST_TSO6),
        (ecn, Net::HOST_ECN | Net::GUEST_ECN),
        (ufo, Net::HOST_UFO),
        (uso, Net::HOST_USO | Net::GUEST_USO4 | Net::GUEST_USO6),
    ]
    .iter()
    .filter(|(has, _)| *has)
    .fold(0, |bits, (_, bit)| bits | bit)
}
