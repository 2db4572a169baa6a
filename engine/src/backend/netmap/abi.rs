//! What the kernel module and its users share (net/netmap.h, net/netmap_legacy.h; API 14 and 15).

use std::mem::{offset_of, size_of};

/// Versions of the API, in the order in which they are tried.
pub(super) const APIS: [u16; 2] = [14, 15];

/// Bytes of a port's name, with the final zero.
pub(super) const NAME: usize = 64;
/// Bytes of a port's name in the old request, with the final zero.
pub(super) const OLD_NAME: usize = 16;

/// Ring numbers are below this.
pub(super) const RING_MASK: u16 = 0x0fff;

/// `nr_reqtype`: registers a port.
pub(super) const REQ_REGISTER: u16 = 1;
/// `nr_reqtype`: sets the length of the header in front of frames.
pub(super) const REQ_PORT_HDR_SET: u16 = 6;
/// `nr_reqtype`: tells it.
pub(super) const REQ_PORT_HDR_GET: u16 = 7;

/// `nr_cmd` of the old request: sets the length of the header.
pub(super) const OLD_VNET_HDR: u16 = 5;
/// `nr_cmd` of the old request: tells it.
pub(super) const OLD_VNET_HDR_GET: u16 = 12;

/// `nr_mode`: all rings of the NIC.
pub(super) const REG_ALL_NIC: u32 = 1;
/// `nr_mode`: those of the host's stack.
pub(super) const REG_SW: u32 = 2;
/// `nr_mode`: both.
pub(super) const REG_NIC_SW: u32 = 3;
/// `nr_mode`: one pair of the NIC's.
pub(super) const REG_ONE_NIC: u32 = 4;
/// `nr_mode` of the old request: the master's side of a pipe.
pub(super) const REG_PIPE_MASTER: u32 = 5;
/// `nr_mode` of the old request: the slave's side of a pipe.
pub(super) const REG_PIPE_SLAVE: u32 = 6;
/// `nr_mode`: no port, just its memory.
pub(super) const REG_NULL: u32 = 7;
/// `nr_mode`: one pair of the host's.
pub(super) const REG_ONE_SW: u32 = 8;

/// `nr_flags`: what others send.
pub(super) const MONITOR_TX: u64 = 0x100;
/// `nr_flags`: what others receive.
pub(super) const MONITOR_RX: u64 = 0x200;
/// `nr_flags`: monitors copy nothing.
pub(super) const ZCOPY_MON: u64 = 0x400;
/// `nr_flags`: nobody else may have the rings.
pub(super) const EXCLUSIVE: u64 = 0x800;
/// `nr_flags`: no transmit rings.
pub(super) const RX_RINGS_ONLY: u64 = 0x2000;
/// `nr_flags`: no receive rings.
pub(super) const TX_RINGS_ONLY: u64 = 0x4000;
/// `nr_flags`: frames may begin with a virtio-net header.
pub(super) const ACCEPT_VNET_HDR: u64 = 0x8000;

/// A slot's buffer is another one than before.
pub(super) const NS_BUF_CHANGED: u16 = 0x0001;
/// Tell when this slot was sent.
pub(super) const NS_REPORT: u16 = 0x0002;
/// The frame goes on in the next slot.
pub(super) const NS_MOREFRAG: u16 = 0x0020;

/// Slots of one frame at most.
pub(super) const MAX_FRAGS: usize = 64;

/// A request (`struct nmreq_header`).
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Header {
    pub(super) version: u16,
    pub(super) reqtype: u16,
    pub(super) reserved: u32,
    pub(super) name: [u8; NAME],
    pub(super) options: u64,
    pub(super) body: u64,
}

/// What is to be registered, and what was (`struct nmreq_register`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Register {
    /// Of the `netmap_if`, in the memory.
    pub(super) offset: u64,
    pub(super) memsize: u64,
    pub(super) tx_slots: u32,
    pub(super) rx_slots: u32,
    pub(super) tx_rings: u16,
    pub(super) rx_rings: u16,
    pub(super) host_tx_rings: u16,
    pub(super) host_rx_rings: u16,
    pub(super) mem_id: u16,
    pub(super) ringid: u16,
    pub(super) mode: u32,
    pub(super) extra_bufs: u32,
    pub(super) pad: u32,
    pub(super) flags: u64,
}

/// The length of a port's header (`struct nmreq_port_hdr`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct PortHeader {
    pub(super) len: u32,
    pub(super) pad: u32,
}

/// The request of older days (`struct nmreq`).
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct OldRequest {
    pub(super) name: [u8; OLD_NAME],
    pub(super) version: u32,
    pub(super) offset: u32,
    pub(super) memsize: u32,
    pub(super) tx_slots: u32,
    pub(super) rx_slots: u32,
    pub(super) tx_rings: u16,
    pub(super) rx_rings: u16,
    pub(super) ringid: u16,
    pub(super) cmd: u16,
    pub(super) arg1: u16,
    pub(super) arg2: u16,
    pub(super) arg3: u32,
    pub(super) flags: u32,
    pub(super) spare: u32,
}

/// A port in its memory, before the offsets of its rings (`struct netmap_if`).
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Interface {
    pub(super) name: [u8; 16],
    pub(super) version: u32,
    pub(super) flags: u32,
    pub(super) tx_rings: u32,
    pub(super) rx_rings: u32,
    pub(super) bufs_head: u32,
    pub(super) host_tx_rings: u32,
    pub(super) host_rx_rings: u32,
    pub(super) spare: [u32; 3],
}

/// A ring, before its slots (`struct netmap_ring`).
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct RingHeader {
    pub(super) buf_ofs: i64,
    pub(super) num_slots: u32,
    pub(super) buf_size: u32,
    pub(super) ringid: u16,
    /// Which way, by the kernel's own numbers: those of net/netmap.h are the other way round.
    pub(super) dir: u16,
    pub(super) head: u32,
    pub(super) cur: u32,
    pub(super) tail: u32,
    pub(super) flags: u32,
    pub(super) ts: [i64; 2],
    pub(super) offset_mask: u64,
    pub(super) buf_align: u64,
    /// Aligned to 128 bytes in the kernel.
    pub(super) gap: [u64; 7],
    pub(super) sem: [u64; 16],
}

/// A slot of a ring (`struct netmap_slot`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Slot {
    pub(super) buf_idx: u32,
    pub(super) len: u16,
    pub(super) flags: u16,
    pub(super) ptr: u64,
}

const _: () = {
    assert!(size_of::<Header>() == 88 && offset_of!(Header, name) == 8);
    assert!(offset_of!(Header, options) == 72 && offset_of!(Header, body) == 80);
    assert!(size_of::<Register>() == 56 && offset_of!(Register, tx_slots) == 16);
    assert!(offset_of!(Register, tx_rings) == 24 && offset_of!(Register, mem_id) == 32);
    assert!(offset_of!(Register, mode) == 36 && offset_of!(Register, flags) == 48);
    assert!(size_of::<PortHeader>() == 8);
    assert!(size_of::<OldRequest>() == 60 && offset_of!(OldRequest, version) == 16);
    assert!(offset_of!(OldRequest, tx_rings) == 36 && offset_of!(OldRequest, ringid) == 40);
    assert!(offset_of!(OldRequest, arg1) == 44 && offset_of!(OldRequest, arg3) == 48);
    assert!(offset_of!(OldRequest, flags) == 52);
    assert!(size_of::<Interface>() == 56 && offset_of!(Interface, tx_rings) == 24);
    assert!(offset_of!(Interface, bufs_head) == 32 && offset_of!(Interface, host_tx_rings) == 36);
    assert!(size_of::<RingHeader>() == 256 && offset_of!(RingHeader, num_slots) == 8);
    assert!(offset_of!(RingHeader, ringid) == 16 && offset_of!(RingHeader, dir) == 18);
    assert!(offset_of!(RingHeader, head) == 20 && offset_of!(RingHeader, cur) == 24);
    assert!(offset_of!(RingHeader, tail) == 28 && offset_of!(RingHeader, flags) == 32);
    assert!(offset_of!(RingHeader, ts) == 40 && offset_of!(RingHeader, offset_mask) == 56);
    assert!(offset_of!(RingHeader, buf_align) == 64 && offset_of!(RingHeader, sem) == 128);
    assert!(size_of::<Slot>() == 16 && offset_of!(Slot, len) == 4);
    assert!(offset_of!(Slot, flags) == 6 && offset_of!(Slot, ptr) == 8);
};
