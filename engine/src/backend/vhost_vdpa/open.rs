//! Opening a vDPA device: on a thread of its own, since the kernel may take its time. Texts are QEMU's (net/vhost-vdpa.c).

use super::commands::{Commands, PAIRS, PROMISC};
use super::options::VdpaOptions;
use super::{Control, Handle, Health};
use crate::backend::driver::{self, Halves, Keep, OpenError, RING, Shape, WANTED};
use crate::backend::errno::text;
use crate::backend::nic::NetFeatures as Net;
use crate::vhost::kernel::{Calls, Device, F_ACCESS_PLATFORM, File, KernelError};
use crate::virtq::{F_INDIRECT_DESC, F_VERSION_1, RingFault};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open as open_file};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// A network card among the kinds of virtio devices.
const NETWORK_CARD: u32 = 1;
/// Queue pairs used at most: as many as a nic has.
const PAIRS_MAX: u16 = 128;
/// Where the number of queue pairs stands in the configuration space (virtio 1.3, 5.1.4).
const PAIRS_AT: u32 = 8;
/// Where the longest frame stands there.
const MTU_AT: u32 = 10;
/// Features that QEMU's shadow rings get along with and we know nothing of (`vdpa_svq_device_features` beside [`WANTED`]):
/// `CTRL_GUEST_OFFLOADS`, MTU, MAC, the control queue's, `NOTIFY_ON_EMPTY`, `ANY_LAYOUT`, log, RSC, STANDBY, RSS, hash, speed.
const SHADOW: u64 = WANTED
    | F_ACCESS_PLATFORM
    | F_INDIRECT_DESC
    | Net::CTRL_GUEST_OFFLOADS
    | Net::MTU
    | Net::MAC
    | Net::CTRL_VQ
    | Net::CTRL_RX
    | Net::CTRL_VLAN
    | Net::CTRL_RX_EXTRA
    | Net::CTRL_MAC_ADDR
    | Net::GUEST_ANNOUNCE
    | 1 << 24
    | 1 << 26
    | 1 << 27
    | 1 << 57
    | 1 << 60
    | 1 << 61
    | Net::STANDBY
    | Net::SPEED_DUPLEX;

/// Why a device could not be opened. What it displays is what QMP shows.
#[derive(Debug, thiserror::Error)]
pub enum VdpaError {
    /// The node.
    #[error("Could not open '{path}': {}", text(*.errno))]
    Open {
        /// As the user gave it.
        path: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Not a vhost device.
    #[error("Fail to query features from vhost-vDPA device: {}", text(*.0))]
    Features(Errno),
    /// The configuration space cannot be read.
    #[error("Fail to get config from vhost-vDPA device: {}", text(*.0))]
    Config(Errno),
    /// The addresses are not known, or none of them is ours to use.
    #[error("vhost-vdpa: get iova range failed: {}", text(*.0))]
    Range(Errno),
    /// Features that shadow rings do not get along with.
    #[error("vdpa svq does not work with features {0:#x}")]
    Shadow(u64),
    /// Another kind of device.
    #[error("Device 'vhost-vdpa' could not be initialized")]
    Kind,
    /// A device from before virtio 1.0, or rings that hold nothing.
    #[error("vhost-vdpa: the device has {0}")]
    Unfit(&'static str),
    /// The kernel refused a step.
    #[error("vhost-vdpa: {0}")]
    Kernel(#[from] KernelError),
    /// No memory.
    #[error(transparent)]
    Rings(#[from] OpenError),
    /// A ring that cannot be.
    #[error(transparent)]
    Ring(#[from] RingFault),
    /// It does not take as many queue pairs as it has.
    #[error("vhost-vdpa: the device refuses to use {0} queue pairs")]
    Pairs(u16),
    /// It is gone or broken before it was used.
    #[error("vhost-vdpa: the device is gone or asks for a reset")]
    Dead,
}

/// An open device.
pub struct Opened {
    /// Queue pairs.
    pub pairs: Vec<Halves>,
    /// Control's hold on it.
    pub handle: Handle,
    /// Whether its link is up.
    pub up: bool,
    /// Whether the rings lie in hugepages.
    pub hugepages: bool,
}

/// Opens a device and lets it run. `wake` is an eventfd that is written to when a ring stops for cause.
///
/// # Errors
/// [`VdpaError`]; everything opened so far is closed again, and the device reset.
pub fn open(options: VdpaOptions, wake: &Arc<OwnedFd>) -> Result<Opened, VdpaError> {
    let file = match options.device {
        Ok(path) => open_file(path.as_str(), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| VdpaError::Open { path, errno })?,
        Err(file) => file,
    };
    open_on(Box::new(File::new(file)), options.shadow, wake)
}

/// The same on any device.
///
/// # Errors
/// As [`open()`].
pub fn open_on(calls: Box<dyn Calls>, shadow: bool, wake: &Arc<OwnedFd>) -> Result<Opened, VdpaError> {
    let offered = calls.features().map_err(VdpaError::Features)?;
    let most = pairs(&*calls, offered)?;
    let range = calls.addresses().map_err(VdpaError::Range)?;
    if shadow && offered & !SHADOW != 0 {
        return Err(VdpaError::Shadow(offered & !SHADOW));
    }
    if calls.kind() != Ok(NETWORK_CARD) {
        return Err(VdpaError::Kind);
    }
    let used = most.min(PAIRS_MAX);
    let features = accepted(offered, used);
    if features & F_VERSION_1 == 0 {
        return Err(VdpaError::Unfit("no virtio 1.0"));
    }
    let largest =
        calls.largest_ring().map_err(|errno| KernelError { step: "asking for the rings' size", errno })?;
    let size = largest.min(RING);
    if size < 2 {
        return Err(VdpaError::Unfit("rings of less than two entries"));
    }
    let control = features & Net::CTRL_VQ != 0;
    // Below: the largest power of two, as split rings have it.
    let size = 1 << size.ilog2();
    let mut mtu = [0; 2];
    let told = features & Net::MTU != 0 && calls.config(MTU_AT, &mut mtu).is_ok();
    let mtu = told.then(|| u16::from_le_bytes(mtu));
    let mut shape = Shape { size, control, mtu, ..Shape::new(features, used) };
    shape.base = base(shape.base, range)?;

    let device = Arc::new(Device::vdpa(calls)?);
    device.accept(features, false)?;
    let keep: Keep = device.clone();
    let mut rings = driver::open(&shape, true, wake, Some(&keep))?;
    let last = shape.base + (rings.region.size - 1);
    if last > range.1 {
        return Err(VdpaError::Range(Errno::ERANGE));
    }
    device.share(&rings.region, &rings.memory, rings.host)?;
    for (index, ring) in (0..).zip(&rings.rings) {
        device.describe(index, ring)?;
    }
    // Behind the pairs that the device has, not behind those that we use.
    let index = if features & Net::MQ == 0 { 2 } else { 2 * u32::from(most) };
    if let Some((config, _)) = &rings.control {
        device.describe(index, config)?;
    }
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
    let changed: OwnedFd = event.map_err(|errno| KernelError { step: "making an eventfd", errno })?.into();
    // A device without such a call is looked at when its rings say something.
    let _ = device.calls().config_call(changed.as_fd());
    device.run()?;
    rings.rings.iter().for_each(driver::kick);

    let mut commands =
        rings.control.take().map(|(config, buffer)| Commands::new(&config, buffer)).transpose()?;
    let reports = rings.pairs.iter().flat_map(|pair| pair.reports.clone()).collect();
    if let Some(commands) = &mut commands {
        if used > 1 && !commands.ask(PAIRS, &used.to_le_bytes()) {
            return Err(VdpaError::Pairs(used));
        }
        // Whose frames come here is decided behind it, by the nic or the switch. A device that cannot is told the nic's address.
        if features & Net::CTRL_RX != 0 {
            commands.ask(PROMISC, &[1]);
        }
    }
    let control = commands.map(|commands| Box::new(Control::new(commands, features)));
    let mut handle = Handle { device, features: (offered, features), changed, reports, size, control };
    let Health::Runs(up) = handle.health() else { return Err(VdpaError::Dead) };
    Ok(Opened { pairs: rings.pairs, handle, up, hugepages: rings.hugepages })
}

/// Queue pairs that a device has: its word, but no more than its rings.
fn pairs(calls: &dyn Calls, offered: u64) -> Result<u16, VdpaError> {
    if offered & Net::MQ == 0 || offered & Net::CTRL_VQ == 0 {
        return Ok(1);
    }
    let mut bytes = [0; 2];
    calls.config(PAIRS_AT, &mut bytes).map_err(VdpaError::Config)?;
    let said = u16::from_le_bytes(bytes);
    // Before Linux 5.18 it cannot say how many rings it has.
    let rings = calls.rings().map_or(u16::MAX, |rings| u16::try_from(rings / 2).unwrap_or(u16::MAX));
    Ok(said.min(rings).max(1))
}

fn accepted(offered: u64, pairs: u16) -> u64 {
    let mut bits = driver::choose(offered, pairs) | offered & (F_ACCESS_PLATFORM | Net::MTU);
    if offered & Net::CTRL_VQ != 0 {
        // Not CTRL_VLAN: without it all VLANs come in, with it none until each was asked for.
        bits |= offered & (Net::CTRL_VQ | Net::CTRL_RX | Net::CTRL_RX_EXTRA | Net::CTRL_MAC_ADDR);
        bits |= offered & (Net::CTRL_GUEST_OFFLOADS | Net::GUEST_ANNOUNCE);
    }
    bits
}

/// Where the region may begin, `wanted` if the device can name that.
fn base(wanted: u64, (first, last): (u64, u64)) -> Result<u64, VdpaError> {
    /// A hugepage's size: addresses within it stay together.
    const STEP: u64 = 2 << 20;
    if (first..=last).contains(&wanted) {
        return Ok(wanted);
    }
    // Not at zero, which some take for nothing.
    let base = first.max(STEP).checked_next_multiple_of(STEP).filter(|base| (first..=last).contains(base));
    base.ok_or(VdpaError::Range(Errno::ERANGE))
}
