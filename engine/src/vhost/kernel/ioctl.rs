//! The system calls (linux/vhost.h, linux/vhost_types.h).

#![allow(unsafe_code)] // ioctls take raw pointers

use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Bytes of a configuration space that are read at once, at most: a virtio-net device has less than a quarter of it.
const CONFIG: usize = 256;

/// What can be asked of a device of the kernel's. Each is one system call; errors are the kernel's.
#[allow(clippy::missing_errors_doc)]
pub trait Calls: Send + Sync {
    /// This process is the one whose memory the device uses.
    fn own(&self) -> Result<(), Errno>;
    /// Features on offer.
    fn features(&self) -> Result<u64, Errno>;
    /// Takes features.
    fn accept(&self, features: u64) -> Result<(), Errno>;
    /// Features of the kernel's side of the device on offer.
    fn backend_features(&self) -> Result<u64, Errno>;
    /// Takes such features.
    fn accept_backend(&self, features: u64) -> Result<(), Errno>;
    /// All memory (vhost-net): `size` bytes, `guest` for descriptors and `host` for the kernel.
    fn memory(&self, guest: u64, size: u64, host: u64) -> Result<(), Errno>;
    /// An IOTLB message, with the addresses that it needs.
    fn iotlb(&self, kind: Iotlb, iova: u64, size: u64, host: u64) -> Result<(), Errno>;
    /// Entries of a ring.
    fn ring_size(&self, ring: u32, size: u32) -> Result<(), Errno>;
    /// Where a ring stands.
    fn ring_base(&self, ring: u32, base: u32) -> Result<(), Errno>;
    /// Where the descriptors, the driver's and the device's part of a ring lie.
    fn ring_at(&self, ring: u32, parts: [u64; 3]) -> Result<(), Errno>;
    /// The eventfd by which the device is kicked.
    fn kick(&self, ring: u32, event: BorrowedFd<'_>) -> Result<(), Errno>;
    /// The eventfd by which the device calls.
    fn call(&self, ring: u32, event: BorrowedFd<'_>) -> Result<(), Errno>;
    /// The eventfd by which the kernel says that it cannot use the ring as it is.
    fn error(&self, ring: u32, event: BorrowedFd<'_>) -> Result<(), Errno>;
    /// Microseconds that the kernel looks at a ring busily.
    fn busy(&self, ring: u32, microseconds: u32) -> Result<(), Errno>;
    /// The tap that a ring of vhost-net belongs to; none stops it.
    fn backend(&self, ring: u32, tap: Option<BorrowedFd<'_>>) -> Result<(), Errno>;
    /// Kind of the device (vDPA, as all below): 1 is a network card.
    fn kind(&self) -> Result<u32, Errno>;
    /// The device's status.
    fn status(&self) -> Result<u8, Errno>;
    /// Writes the status; 0 resets.
    fn set_status(&self, status: u8) -> Result<(), Errno>;
    /// A part of the configuration space.
    fn config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), Errno>;
    /// Entries that a ring has at most.
    fn largest_ring(&self) -> Result<u16, Errno>;
    /// Rings that there are.
    fn rings(&self) -> Result<u32, Errno>;
    /// First and last address that the device can name.
    fn addresses(&self) -> Result<(u64, u64), Errno>;
    /// Lets the device finish what it has begun, and begin no more (where it offers that).
    fn suspend(&self) -> Result<(), Errno>;
    /// Lets a ring run.
    fn enable(&self, ring: u32) -> Result<(), Errno>;
    /// The eventfd that is written to when the configuration space changes.
    fn config_call(&self, event: BorrowedFd<'_>) -> Result<(), Errno>;
    /// Whether its node was taken away, since the device goes.
    fn has_gone(&self) -> bool;
    /// The file, if there is one.
    fn fd(&self) -> Option<BorrowedFd<'_>>;
}

/// What an IOTLB message says (`VHOST_IOTLB_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Iotlb {
    /// The device may read and write these addresses.
    Map = 2,
    /// No more.
    Unmap = 3,
    /// Messages follow that take effect together.
    Begin = 5,
    /// That was all of them.
    End = 6,
}

#[repr(C)]
pub(super) struct State {
    index: u32,
    num: u32,
}

#[repr(C)]
pub(super) struct FileOf {
    index: u32,
    fd: i32,
}

#[repr(C)]
pub(super) struct Addresses {
    index: u32,
    flags: u32,
    desc: u64,
    used: u64,
    avail: u64,
    log: u64,
}

#[repr(C)]
pub(super) struct MemoryHead {
    regions: u32,
    padding: u32,
}

#[repr(C)]
struct Memory {
    head: MemoryHead,
    guest: u64,
    size: u64,
    host: u64,
    flags: u64,
}

#[repr(C)]
pub(super) struct ConfigHead {
    offset: u32,
    len: u32,
}

#[repr(C)]
struct Config {
    head: ConfigHead,
    bytes: [u8; CONFIG],
}

#[repr(C)]
#[derive(Default)]
pub(super) struct Span {
    first: u64,
    last: u64,
}

/// `struct vhost_msg_v2` with its IOTLB message.
#[repr(C)]
struct Message {
    version: u32,
    space: u32,
    iova: u64,
    size: u64,
    host: u64,
    access: u8,
    kind: u8,
    rest: [u8; 38],
}

mod sys {
    use super::{Addresses, ConfigHead, FileOf, MemoryHead, Span, State};
    use nix::{ioctl_none, ioctl_read, ioctl_write_ptr};
    const VHOST: u8 = 0xAF;
    ioctl_read!(get_features, VHOST, 0x00, u64);
    ioctl_write_ptr!(set_features, VHOST, 0x00, u64);
    ioctl_none!(set_owner, VHOST, 0x01);
    ioctl_write_ptr!(set_mem_table, VHOST, 0x03, MemoryHead);
    ioctl_write_ptr!(set_vring_num, VHOST, 0x10, State);
    ioctl_write_ptr!(set_vring_addr, VHOST, 0x11, Addresses);
    ioctl_write_ptr!(set_vring_base, VHOST, 0x12, State);
    ioctl_write_ptr!(set_vring_kick, VHOST, 0x20, FileOf);
    ioctl_write_ptr!(set_vring_call, VHOST, 0x21, FileOf);
    ioctl_write_ptr!(set_vring_err, VHOST, 0x22, FileOf);
    ioctl_write_ptr!(set_vring_busyloop_timeout, VHOST, 0x23, State);
    ioctl_write_ptr!(set_backend_features, VHOST, 0x25, u64);
    ioctl_read!(get_backend_features, VHOST, 0x26, u64);
    ioctl_write_ptr!(net_set_backend, VHOST, 0x30, FileOf);
    ioctl_read!(vdpa_get_device_id, VHOST, 0x70, u32);
    ioctl_read!(vdpa_get_status, VHOST, 0x71, u8);
    ioctl_write_ptr!(vdpa_set_status, VHOST, 0x72, u8);
    ioctl_read!(vdpa_get_config, VHOST, 0x73, ConfigHead);
    ioctl_write_ptr!(vdpa_set_vring_enable, VHOST, 0x75, State);
    ioctl_read!(vdpa_get_vring_num, VHOST, 0x76, u16);
    ioctl_write_ptr!(vdpa_set_config_call, VHOST, 0x77, i32);
    ioctl_read!(vdpa_get_iova_range, VHOST, 0x78, Span);
    ioctl_none!(vdpa_suspend, VHOST, 0x7d);
    ioctl_read!(vdpa_get_vqs_count, VHOST, 0x80, u32);
}

/// The file of a device.
#[derive(Debug)]
pub struct File(OwnedFd);

impl File {
    /// Takes a file over. That it is a device of this kind shows with the first call.
    #[must_use]
    pub const fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Reads one value.
    // SAFETY: `call` is one of the ioctls above that make the kernel write one T.
    fn read<T: Default>(
        &self,
        call: unsafe fn(libc::c_int, *mut T) -> nix::Result<libc::c_int>,
    ) -> Result<T, Errno> {
        let mut value = T::default();
        // SAFETY: each call that is given here makes the kernel write one T, which lives across it.
        unsafe { call(self.raw(), &raw mut value) }.map(|_| value)
    }

    /// Writes one value.
    // SAFETY: `call` is one of the ioctls above that make the kernel read one T.
    fn write<T>(
        &self,
        call: unsafe fn(libc::c_int, *const T) -> nix::Result<libc::c_int>,
        value: &T,
    ) -> Result<(), Errno> {
        // SAFETY: each call that is given here makes the kernel read one T, which lives across it.
        unsafe { call(self.raw(), std::ptr::from_ref(value)) }.map(drop)
    }
}

impl Calls for File {
    fn own(&self) -> Result<(), Errno> {
        // SAFETY: no argument.
        unsafe { sys::set_owner(self.raw()) }.map(drop)
    }

    fn features(&self) -> Result<u64, Errno> {
        self.read(sys::get_features)
    }

    fn accept(&self, features: u64) -> Result<(), Errno> {
        self.write(sys::set_features, &features)
    }

    fn backend_features(&self) -> Result<u64, Errno> {
        self.read(sys::get_backend_features)
    }

    fn accept_backend(&self, features: u64) -> Result<(), Errno> {
        self.write(sys::set_backend_features, &features)
    }

    fn memory(&self, guest: u64, size: u64, host: u64) -> Result<(), Errno> {
        let table = Memory { head: MemoryHead { regions: 1, padding: 0 }, guest, size, host, flags: 0 };
        // SAFETY: the kernel reads the head and as many regions as it says, one, all within `table`.
        unsafe { sys::set_mem_table(self.raw(), (&raw const table).cast()) }.map(drop)
    }

    fn iotlb(&self, kind: Iotlb, iova: u64, size: u64, host: u64) -> Result<(), Errno> {
        // VHOST_IOTLB_MSG_V2, VHOST_ACCESS_RW.
        let message =
            Message { version: 2, space: 0, iova, size, host, access: 3, kind: kind as u8, rest: [0; 38] };
        // SAFETY: plain data without padding: eight bytes, three words, two bytes and the rest of the message.
        let bytes = unsafe {
            std::slice::from_raw_parts((&raw const message).cast::<u8>(), std::mem::size_of::<Message>())
        };
        let n = nix::unistd::write(&self.0, bytes)?;
        if n == bytes.len() { Ok(()) } else { Err(Errno::EIO) }
    }

    fn ring_size(&self, ring: u32, size: u32) -> Result<(), Errno> {
        self.write(sys::set_vring_num, &State { index: ring, num: size })
    }

    fn ring_base(&self, ring: u32, base: u32) -> Result<(), Errno> {
        self.write(sys::set_vring_base, &State { index: ring, num: base })
    }

    fn ring_at(&self, ring: u32, [desc, avail, used]: [u64; 3]) -> Result<(), Errno> {
        let all = Addresses { index: ring, flags: 0, desc, used, avail, log: 0 };
        self.write(sys::set_vring_addr, &all)
    }

    fn kick(&self, ring: u32, event: BorrowedFd<'_>) -> Result<(), Errno> {
        self.write(sys::set_vring_kick, &FileOf { index: ring, fd: event.as_raw_fd() })
    }

    fn call(&self, ring: u32, event: BorrowedFd<'_>) -> Result<(), Errno> {
        self.write(sys::set_vring_call, &FileOf { index: ring, fd: event.as_raw_fd() })
    }

    fn error(&self, ring: u32, event: BorrowedFd<'_>) -> Result<(), Errno> {
        self.write(sys::set_vring_err, &FileOf { index: ring, fd: event.as_raw_fd() })
    }

    fn busy(&self, ring: u32, microseconds: u32) -> Result<(), Errno> {
        self.write(sys::set_vring_busyloop_timeout, &State { index: ring, num: microseconds })
    }

    fn backend(&self, ring: u32, tap: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        let fd = tap.map_or(-1, |tap| tap.as_raw_fd());
        self.write(sys::net_set_backend, &FileOf { index: ring, fd })
    }

    fn kind(&self) -> Result<u32, Errno> {
        self.read(sys::vdpa_get_device_id)
    }

    fn status(&self) -> Result<u8, Errno> {
        self.read(sys::vdpa_get_status)
    }

    fn set_status(&self, status: u8) -> Result<(), Errno> {
        self.write(sys::vdpa_set_status, &status)
    }

    fn config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), Errno> {
        if bytes.len() > CONFIG {
            return Err(Errno::E2BIG);
        }
        let head = ConfigHead { offset, len: bytes.len() as u32 };
        let mut config = Config { head, bytes: [0; CONFIG] };
        // SAFETY: the kernel reads the head and writes as many bytes behind it as the head says, which there are.
        unsafe { sys::vdpa_get_config(self.raw(), (&raw mut config).cast()) }?;
        for (to, from) in bytes.iter_mut().zip(config.bytes) {
            *to = from;
        }
        Ok(())
    }

    fn largest_ring(&self) -> Result<u16, Errno> {
        self.read(sys::vdpa_get_vring_num)
    }

    fn rings(&self) -> Result<u32, Errno> {
        self.read(sys::vdpa_get_vqs_count)
    }

    fn addresses(&self) -> Result<(u64, u64), Errno> {
        self.read(sys::vdpa_get_iova_range).map(|Span { first, last }| (first, last))
    }

    fn suspend(&self) -> Result<(), Errno> {
        // SAFETY: no argument.
        unsafe { sys::vdpa_suspend(self.raw()) }.map(drop)
    }

    fn enable(&self, ring: u32) -> Result<(), Errno> {
        self.write(sys::vdpa_set_vring_enable, &State { index: ring, num: 1 })
    }

    fn config_call(&self, event: BorrowedFd<'_>) -> Result<(), Errno> {
        self.write(sys::vdpa_set_config_call, &event.as_raw_fd())
    }

    fn has_gone(&self) -> bool {
        nix::sys::stat::fstat(&self.0).is_ok_and(|stat| stat.st_nlink == 0)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    #[test]
    fn what_the_kernel_reads_is_laid_out_as_it_expects() {
        assert_eq!((size_of::<Message>(), offset_of!(Message, kind)), (72, 33));
        assert_eq!((size_of::<Addresses>(), offset_of!(Addresses, avail)), (40, 24));
        assert_eq!((size_of::<Memory>(), offset_of!(Memory, guest)), (40, 8));
        assert_eq!(offset_of!(Config, bytes), 8);
    }

    #[test]
    fn a_file_that_is_no_device_says_so_with_the_first_call() {
        let file = File::new(std::fs::File::open("/dev/null").unwrap().into());
        assert_eq!(file.features(), Err(Errno::ENOTTY));
        assert_eq!(file.own(), Err(Errno::ENOTTY));
        assert_eq!(file.config(0, &mut [0; 300]), Err(Errno::E2BIG));
        assert!(!file.has_gone());
    }
}
