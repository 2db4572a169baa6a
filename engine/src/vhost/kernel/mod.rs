//! Devices of the kernel's that take virtio rings: vhost-net (`/dev/vhost-net`, linux/vhost.h) and vDPA devices
//! (`/dev/vhost-vdpa-N`, linux/vhost_types.h).
//!
//! ```text
//!  Calls (what can be asked of a device; a file, or a test's fake) <- Device (order of steps, undone when it is dropped)
//! ```
//!
//! The ioctls are our own and not those of the `vhost` crate: its handles want all memory as a `vm-memory` address space and translate
//! ring addresses by it, where we have one mapping; it lacks the busy-poll ioctl and batches of IOTLB messages; its `set_group_asid`
//! asks for the group instead.

mod device;
mod ioctl;
#[cfg(test)]
pub(crate) mod testing;

pub use device::{Device, KernelError, status};
pub use ioctl::{Calls, File, Iotlb};

/// Feature bit of vhost-net: it makes and takes the virtio-net header itself, since its backend has none (`VHOST_NET_F_VIRTIO_NET_HDR`).
pub const F_NET_HDR: u64 = 1 << 27;
/// Feature bit: the device reaches memory by what it was told to map (`VIRTIO_F_ACCESS_PLATFORM`).
pub const F_ACCESS_PLATFORM: u64 = 1 << 33;
