//! A device with our rings: the steps in their order, and their undoing when nobody uses it any more.

use super::F_NET_HDR;
use super::ioctl::{Calls, Iotlb};
use crate::mem::guest::{GuestMemory, Region};
use crate::virtq::{F_RING_PACKED, RingConfig};
use nix::errno::Errno;
use std::any::Any;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Bits of a device's status (virtio 1.3, 2.1).
pub mod status {
    /// The device was seen.
    pub const ACKNOWLEDGE: u8 = 1;
    /// We know how to drive it.
    pub const DRIVER: u8 = 2;
    /// It runs.
    pub const DRIVER_OK: u8 = 4;
    /// The features are settled.
    pub const FEATURES_OK: u8 = 8;
    /// It has broken down.
    pub const NEEDS_RESET: u8 = 64;
}

/// Features of the kernel's side of a vDPA device: IOTLB messages of the second form, and batches of them (linux/vhost_types.h).
const BACKEND_IOTLB_V2: u64 = 1 << 1;
const BACKEND_IOTLB_BATCH: u64 = 1 << 2;
/// The device can be suspended.
const BACKEND_SUSPEND: u64 = 1 << 4;

/// What the kernel refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{step} failed: {}{}", .errno.desc(), hint(*.errno))]
pub struct KernelError {
    /// The step.
    pub step: &'static str,
    /// The kernel's answer.
    pub errno: Errno,
}

/// What to do about it.
const fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOMEM => " (memory that a device uses counts as locked: raise RLIMIT_MEMLOCK)",
        Errno::EBUSY => " (somebody uses the device)",
        _ => "",
    }
}

fn at<T>(step: &'static str, result: Result<T, Errno>) -> Result<T, KernelError> {
    result.map_err(|errno| KernelError { step, errno })
}

/// How the device is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// vhost-net: its rings lose their tap.
    Net,
    /// A vDPA device: it is reset, and its memory unmapped.
    Vdpa,
}

/// A device and what it uses. Dropped, it lets go of all that, and only then may the memory go.
pub struct Device {
    calls: Box<dyn Calls>,
    family: Family,
    region: OnceLock<Region>,
    runs: AtomicBool,
    /// What must live as long as the device: the memory, and the tap.
    memory: OnceLock<Arc<GuestMemory>>,
    _with: Option<Arc<dyn Any + Send + Sync>>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("family", &self.family).finish_non_exhaustive()
    }
}

impl Device {
    /// vhost-net, whose rings will be `tap`'s.
    ///
    /// # Errors
    /// Not a vhost device, or somebody else's.
    pub fn net(calls: Box<dyn Calls>, tap: Arc<dyn Any + Send + Sync>) -> Result<Self, KernelError> {
        at("taking the vhost device over", calls.own())?;
        Ok(Self::new(calls, Family::Net, Some(tap)))
    }

    /// A vDPA device; it is reset.
    ///
    /// # Errors
    /// Not such a device, or somebody else's.
    pub fn vdpa(calls: Box<dyn Calls>) -> Result<Self, KernelError> {
        at("taking the vDPA device over", calls.own())?;
        at("resetting the vDPA device", calls.set_status(0))?;
        Ok(Self::new(calls, Family::Vdpa, None))
    }

    fn new(calls: Box<dyn Calls>, family: Family, with: Option<Arc<dyn Any + Send + Sync>>) -> Self {
        Self {
            calls,
            family,
            region: OnceLock::new(),
            runs: AtomicBool::new(false),
            memory: OnceLock::new(),
            _with: with,
        }
    }

    /// What can be asked of it.
    #[must_use]
    pub fn calls(&self) -> &dyn Calls {
        &*self.calls
    }

    /// Settles the features. `header`: vhost-net makes the virtio-net header, since the tap has none.
    ///
    /// # Errors
    /// The device refuses them.
    pub fn accept(&self, features: u64, header: bool) -> Result<(), KernelError> {
        const STEP: &str = "settling features";
        if self.family == Family::Net {
            return at(STEP, self.calls.accept(features | if header { F_NET_HDR } else { 0 }));
        }
        let mut now = status::ACKNOWLEDGE | status::DRIVER;
        at(STEP, self.calls.set_status(now))?;
        at(STEP, self.calls.accept(features))?;
        let offered = at("asking for IOTLB features", self.calls.backend_features())?;
        at(
            "settling IOTLB features",
            self.calls.accept_backend(offered & (BACKEND_IOTLB_V2 | BACKEND_IOTLB_BATCH | BACKEND_SUSPEND)),
        )?;
        now |= status::FEATURES_OK;
        at(STEP, self.calls.set_status(now))?;
        let took = at(STEP, self.calls.status())? & status::FEATURES_OK != 0;
        at(STEP, if took { Ok(()) } else { Err(Errno::ENOTSUP) })
    }

    /// Shows the device the memory that its rings and buffers lie in. It is kept for as long as the device.
    ///
    /// # Errors
    /// The kernel's: most often a limit of locked memory.
    pub fn share(
        &self,
        region: &Region,
        memory: &Arc<GuestMemory>,
        host: NonNull<u8>,
    ) -> Result<(), KernelError> {
        const STEP: &str = "sharing memory";
        let Region { guest, size, .. } = *region;
        let host = host.as_ptr() as u64;
        // First: from the next call on the device may use it.
        let _ = self.memory.set(memory.clone());
        if self.family == Family::Net {
            return at(STEP, self.calls.memory(guest, size, host));
        }
        let batch = at(STEP, self.calls.backend_features())? & BACKEND_IOTLB_BATCH != 0;
        if batch {
            at(STEP, self.calls.iotlb(Iotlb::Begin, 0, 0, 0))?;
        }
        at(STEP, self.calls.iotlb(Iotlb::Map, guest, size, host))?;
        let _ = self.region.set(*region);
        if batch {
            at(STEP, self.calls.iotlb(Iotlb::End, 0, 0, 0))?;
        }
        Ok(())
    }

    /// Tells the device of a ring.
    ///
    /// # Errors
    /// The device refuses it.
    pub fn describe(&self, index: u32, ring: &RingConfig) -> Result<(), KernelError> {
        const STEP: &str = "setting a ring up";
        let packed = ring.features & F_RING_PACKED != 0;
        // vhost-net knows rings by where they lie in this process, a vDPA device by addresses of its own.
        let place = |part: NonNull<u8>| match self.family {
            Family::Net => Some(part.as_ptr() as u64),
            Family::Vdpa => ring.memory.guest_of(part.as_ptr()),
        };
        let parts = [ring.desc, ring.avail, ring.used].map(place);
        let [Some(desc), Some(avail), Some(used)] = parts else {
            return at(STEP, Err(Errno::EFAULT));
        };
        at(STEP, self.calls.ring_size(index, ring.size.into()))?;
        // A packed ring begins with both wrap counters set.
        let base = match (packed, self.family) {
            (false, _) => 0,
            (true, Family::Net) => 0x8000,
            (true, Family::Vdpa) => 0x8000_8000,
        };
        at(STEP, self.calls.ring_base(index, base))?;
        at(STEP, self.calls.ring_at(index, [desc, avail, used]))?;
        if let Some(call) = &ring.call {
            at(STEP, self.calls.call(index, call.as_fd()))?;
        }
        if let Some(err) = &ring.err {
            at(STEP, self.calls.error(index, err.as_fd()))?;
        }
        if let Some(kick) = &ring.kick {
            at(STEP, self.calls.kick(index, kick.as_fd()))?;
        }
        if self.family == Family::Vdpa {
            at(STEP, self.calls.enable(index))?;
        }
        Ok(())
    }

    /// Lets it run: a vDPA device as a whole.
    ///
    /// # Errors
    /// The device refuses.
    pub fn run(&self) -> Result<(), KernelError> {
        const STEP: &str = "starting the device";
        let now = at(STEP, self.calls.status())?;
        at(STEP, self.calls.set_status(now | status::DRIVER_OK))?;
        self.runs.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Nothing can be done about a failure: the file is closed next, which has the same end.
        match self.family {
            Family::Net => {
                for ring in 0..2 {
                    let _ = self.calls.backend(ring, None);
                }
            }
            Family::Vdpa => {
                // What was sent goes out before the reset, which would lose it.
                if self.runs.load(Ordering::Relaxed)
                    && self.calls.backend_features().is_ok_and(|offered| offered & BACKEND_SUSPEND != 0)
                {
                    let _ = self.calls.suspend();
                }
                let _ = self.calls.set_status(0);
                if let Some(region) = self.region.get() {
                    let _ = self.calls.iotlb(Iotlb::Unmap, region.guest, region.size, 0);
                }
            }
        }
    }
}
