//! A kernel module in this process: ports of one memory, whose other ends a test plays. It insists on the rules of rings.

#![allow(unsafe_code)] // plays the kernel in memory that is shared

use super::abi::{self, Header, Interface, OldRequest, Register, RingHeader, Slot};
use super::driver::{Body, Driver, Way};
use crate::mem::map::Mapping;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use std::collections::{HashMap, VecDeque};
use std::mem::{offset_of, size_of};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard};

/// Bytes of a buffer.
pub(super) const BUFFER: usize = 2048;
/// Where buffers begin; rings and descriptions lie before.
const BUFFERS: usize = 1 << 20;
const MEMORY: usize = 4 << 20;

/// Frames of the kernel's side: flags and bytes of each slot.
pub(super) type Slots = Vec<(u16, Vec<u8>)>;

/// A ring as the kernel sees it.
#[derive(Debug)]
pub(super) struct Kring {
    pub(super) at: usize,
    way: Way,
    slots: u32,
    hwcur: u32,
    hwtail: u32,
    /// Buffers as they were when the kernel looked last.
    known: Vec<u32>,
    pub(super) incoming: VecDeque<(u16, Vec<u8>)>,
    pub(super) sent: VecDeque<(u16, Vec<u8>)>,
    /// What was sent stays the kernel's.
    pub(super) holds: bool,
}

#[derive(Debug)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) offset: usize,
    rings: (u16, u16),
    pub(super) tx: Vec<Kring>,
    pub(super) rx: Vec<Kring>,
    pub(super) header: u32,
    pub(super) syncs: (usize, usize),
}

/// What a test sets, and what happened.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) ports: Vec<Port>,
    next_offset: usize,
    next_buffer: u32,
    /// By descriptor: the port, and its only ring, if it has one.
    bound: HashMap<RawFd, (usize, Option<u16>)>,
    /// Rings of ports that are not vale's, each way.
    pub(super) rings: (u16, u16),
    pub(super) slots: u32,
    pub(super) calls: Vec<String>,
    /// No `NIOCCTRL`.
    pub(super) old_only: bool,
    /// The version that is understood.
    pub(super) version: u16,
    pub(super) no_null: bool,
    pub(super) no_device: bool,
    pub(super) sync_errno: Option<Errno>,
    pub(super) maps: usize,
    /// What `nr_memsize` says.
    pub(super) memsize: Option<u64>,
}

pub(super) struct Fake {
    memory: Mapping,
    state: Mutex<State>,
}

impl Fake {
    pub(super) fn new() -> Arc<Self> {
        let memory = Mapping::shared(MEMORY, false).unwrap();
        let state = State {
            rings: (1, 1),
            slots: 16,
            version: 14,
            next_offset: 4096,
            next_buffer: 2,
            ..State::default()
        };
        Arc::new(Self { memory, state: Mutex::new(state) })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= MEMORY && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: inside of the mapping, as was just asserted.
        unsafe { self.memory.base().as_ptr().add(offset).cast() }
    }

    pub(super) fn read<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: inside of the mapping; any bytes are a value of these types.
        unsafe { self.at::<T>(offset).read_volatile() }
    }

    pub(super) fn write<T: Copy>(&self, offset: usize, value: T) {
        // SAFETY: as `read`.
        unsafe { self.at::<T>(offset).write_volatile(value) }
    }

    fn slot_at(kring: &Kring, n: u32) -> usize {
        kring.at + size_of::<RingHeader>() + n as usize * size_of::<Slot>()
    }

    pub(super) fn slot(&self, kring: &Kring, n: u32) -> Slot {
        self.read(Self::slot_at(kring, n))
    }

    fn ring(&self, state: &mut State, way: Way, number: u16) -> Kring {
        let (at, slots) = (state.next_offset, state.slots);
        state.next_offset += size_of::<RingHeader>() + slots as usize * size_of::<Slot>();
        let known: Vec<u32> = (state.next_buffer..).take(slots as usize).collect();
        state.next_buffer += slots;
        let (tail, dir) = if way == Way::Tx { (slots - 1, 1) } else { (0, 0) };
        self.write(
            at,
            RingHeader {
                buf_ofs: (BUFFERS - at) as i64,
                num_slots: slots,
                buf_size: BUFFER as u32,
                ringid: number,
                dir,
                head: 0,
                cur: 0,
                tail,
                flags: 0,
                ts: [0; 2],
                offset_mask: 0,
                buf_align: 0,
                gap: [0; 7],
                sem: [0; 16],
            },
        );
        let kring = Kring {
            at,
            way,
            slots,
            hwcur: 0,
            hwtail: tail,
            known,
            incoming: VecDeque::new(),
            sent: VecDeque::new(),
            holds: false,
        };
        for (n, buffer) in kring.known.iter().enumerate() {
            self.write(Self::slot_at(&kring, n as u32), Slot { buf_idx: *buffer, ..Slot::default() });
        }
        kring
    }

    /// Makes a port with its rings, or finds it.
    fn port(&self, state: &mut State, name: &str) -> usize {
        if let Some(at) = state.ports.iter().position(|port| port.name == name) {
            return at;
        }
        let rings = if name.starts_with("vale") { (1, 1) } else { state.rings };
        let offset = state.next_offset;
        state.next_offset += 4096;
        // A ring of the host's each way, which has no memory.
        let tx: Vec<_> = (0..rings.0).map(|n| self.ring(state, Way::Tx, n)).collect();
        let rx: Vec<_> = (0..rings.1).map(|n| self.ring(state, Way::Rx, n)).collect();
        self.write(
            offset,
            Interface {
                tx_rings: rings.0.into(),
                rx_rings: rings.1.into(),
                host_tx_rings: 1,
                host_rx_rings: 1,
                ..Interface::default()
            },
        );
        let entry = |n: usize| offset + size_of::<Interface>() + 8 * n;
        for (n, ring) in tx.iter().enumerate() {
            self.write(entry(n), ring.at as i64 - offset as i64);
        }
        for (n, ring) in rx.iter().enumerate() {
            self.write(entry(tx.len() + 1 + n), ring.at as i64 - offset as i64);
        }
        let port = Port { name: name.to_owned(), offset, rings, tx, rx, header: 0, syncs: (0, 0) };
        state.ports.push(port);
        state.ports.len() - 1
    }

    fn register(&self, fd: BorrowedFd<'_>, name: &str, body: &mut Register) -> Result<(), Errno> {
        let mut state = self.state();
        let line = format!("register {name} mode {} ring {} mem {}", body.mode, body.ringid, body.mem_id);
        state.calls.push(line);
        body.memsize = state.memsize.unwrap_or(MEMORY as u64);
        if body.mode == abi::REG_NULL {
            return if state.no_null || body.mem_id == 0 { Err(Errno::EINVAL) } else { Ok(()) };
        }
        let at = self.port(&mut state, name);
        let port = &state.ports[at];
        let only = (body.mode == abi::REG_ONE_NIC).then_some(body.ringid);
        (body.offset, body.mem_id) = (port.offset as u64, 1);
        (body.tx_rings, body.rx_rings) = port.rings;
        state.bound.insert(fd.as_raw_fd(), (at, only));
        Ok(())
    }

    fn bytes(&self, buffer: u32, len: usize) -> *mut u8 {
        assert!(buffer >= 2 && len <= BUFFER);
        let at = BUFFERS + buffer as usize * BUFFER;
        assert!(at + BUFFER <= MEMORY);
        self.at(at)
    }

    /// Takes what the user gave back: its slots, with all that was in them.
    fn take(&self, kring: &mut Kring) -> Slots {
        let word = |at| self.read::<u32>(kring.at + at);
        let (head, cur) = (word(offset_of!(RingHeader, head)), word(offset_of!(RingHeader, cur)));
        assert_eq!(word(offset_of!(RingHeader, tail)), kring.hwtail, "the tail is the kernel's");
        let span = |from: u32, to: u32| (to + kring.slots - from) % kring.slots;
        assert!(head < kring.slots && cur < kring.slots);
        let room = span(kring.hwcur, kring.hwtail);
        assert!(span(kring.hwcur, head) <= room, "head {head} outside of the user's slots");
        assert!(span(head, cur) <= span(head, kring.hwtail), "cur {cur} outside of the user's slots");
        let mut taken = Vec::new();
        for n in 0..kring.slots {
            let slot = self.slot(kring, n);
            let known = kring.known.get_mut(n as usize).unwrap();
            let inside = span(kring.hwcur, n) < span(kring.hwcur, head);
            let users = span(kring.hwcur, n) < room;
            if slot.buf_idx != *known {
                assert!(users, "slot {n} is the kernel's");
                assert!(slot.flags & abi::NS_BUF_CHANGED != 0, "a changed buffer is marked");
            }
            if inside {
                *known = slot.buf_idx;
            }
        }
        while kring.hwcur != head {
            let slot = self.slot(kring, kring.hwcur);
            let (len, mut bytes) = (usize::from(slot.len), vec![0; slot.len.into()]);
            // SAFETY: `bytes` asserts that they lie in a buffer.
            unsafe { self.bytes(slot.buf_idx, len).copy_to_nonoverlapping(bytes.as_mut_ptr(), len) };
            self.write(Self::slot_at(kring, kring.hwcur), Slot { flags: 0, ..slot });
            taken.push((slot.flags, bytes));
            kring.hwcur = (kring.hwcur + 1) % kring.slots;
        }
        taken
    }

    fn sync_ring(&self, kring: &mut Kring) {
        let taken = self.take(kring);
        match kring.way {
            Way::Tx => {
                kring.sent.extend(taken);
                if !kring.holds {
                    kring.hwtail = (kring.hwcur + kring.slots - 1) % kring.slots;
                }
            }
            Way::Rx => {
                let last = (kring.hwcur + kring.slots - 1) % kring.slots;
                while kring.hwtail != last {
                    let Some((flags, bytes)) = kring.incoming.pop_front() else { break };
                    let at = Self::slot_at(kring, kring.hwtail);
                    let slot: Slot = self.read(at);
                    // SAFETY: `bytes` asserts that they lie in a buffer.
                    unsafe {
                        self.bytes(slot.buf_idx, bytes.len())
                            .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                    };
                    self.write(at, Slot { len: bytes.len() as u16, flags, ..slot });
                    kring.hwtail = (kring.hwtail + 1) % kring.slots;
                }
            }
        }
        self.write(kring.at + offset_of!(RingHeader, tail), kring.hwtail);
    }

    /// Each buffer stands in one slot of all rings: none was lost, none is in two.
    pub(super) fn census(&self) {
        let state = self.state();
        let rings = state.ports.iter().flat_map(|port| port.tx.iter().chain(&port.rx));
        let mut seen: Vec<u32> =
            rings.flat_map(|ring| (0..ring.slots).map(|n| self.slot(ring, n).buf_idx)).collect();
        seen.sort_unstable();
        assert_eq!(seen, (2..state.next_buffer).collect::<Vec<_>>());
    }

    /// Frames for a ring.
    pub(super) fn send(&self, port: usize, ring: usize, slots: impl IntoIterator<Item = (u16, Vec<u8>)>) {
        self.state().ports[port].rx[ring].incoming.extend(slots);
    }

    /// What came out of a ring.
    pub(super) fn sent(&self, port: usize, ring: usize) -> Slots {
        self.state().ports[port].tx[ring].sent.drain(..).collect()
    }
}

impl Driver for Fake {
    fn open(&self, path: &str) -> Result<OwnedFd, Errno> {
        let mut state = self.state();
        state.calls.push(format!("open {path}"));
        if state.no_device {
            return Err(Errno::ENOENT);
        }
        Ok(EventFd::from_flags(EfdFlags::EFD_NONBLOCK)?.into())
    }

    fn control(&self, fd: BorrowedFd<'_>, header: &mut Header, body: &mut Body<'_>) -> Result<(), Errno> {
        let (version, old_only) = {
            let state = self.state();
            (state.version, state.old_only)
        };
        if old_only {
            return Err(Errno::ENOTTY);
        }
        if header.version != version || header.reserved != 0 || header.options != 0 {
            return Err(Errno::EINVAL);
        }
        let name: Vec<u8> = header.name.iter().copied().take_while(|b| *b != 0).collect();
        let name = String::from_utf8(name).unwrap();
        match (header.reqtype, body) {
            (abi::REQ_REGISTER, Body::Register(body)) => self.register(fd, &name, body),
            (kind, Body::PortHeader(body)) => {
                let mut state = self.state();
                let port = state.ports.iter_mut().find(|port| port.name == name).ok_or(Errno::ENXIO)?;
                match kind {
                    abi::REQ_PORT_HDR_GET => body.len = port.header,
                    abi::REQ_PORT_HDR_SET => port.header = body.len,
                    _ => return Err(Errno::EINVAL),
                }
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn old(&self, fd: BorrowedFd<'_>, request: &mut OldRequest) -> Result<(), Errno> {
        let name: Vec<u8> = request.name.iter().copied().take_while(|b| *b != 0).collect();
        let name = String::from_utf8(name).unwrap();
        if request.version != 14 {
            return Err(Errno::EINVAL);
        }
        if request.cmd != 0 {
            let mut state = self.state();
            let port = state.ports.iter_mut().find(|port| port.name == name).ok_or(Errno::ENXIO)?;
            match request.cmd {
                abi::OLD_VNET_HDR => port.header = request.arg1.into(),
                abi::OLD_VNET_HDR_GET => request.arg1 = port.header as u16,
                _ => return Err(Errno::EINVAL),
            }
            return Ok(());
        }
        let mut body = Register {
            mode: request.flags & 0xf,
            ringid: request.ringid,
            mem_id: request.arg2,
            ..Register::default()
        };
        self.register(fd, &name, &mut body)?;
        (request.offset, request.memsize) = (body.offset as u32, body.memsize as u32);
        (request.tx_rings, request.rx_rings, request.arg2) = (body.tx_rings, body.rx_rings, body.mem_id);
        Ok(())
    }

    fn map(&self, _fd: BorrowedFd<'_>, bytes: NonZeroUsize) -> Result<NonNull<u8>, Errno> {
        self.state().maps += 1;
        if bytes.get() > MEMORY {
            return Err(Errno::EINVAL);
        }
        let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let fd = self.memory.fd().ok_or(Errno::EBADF)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        unsafe { mmap(None, bytes, both, MapFlags::MAP_SHARED, fd, 0) }.map(NonNull::cast)
    }

    fn sync(&self, fd: BorrowedFd<'_>, way: Way) -> Result<(), Errno> {
        let mut state = self.state();
        if let Some(errno) = state.sync_errno {
            return Err(errno);
        }
        let (at, only) = *state.bound.get(&fd.as_raw_fd()).ok_or(Errno::ENXIO)?;
        let port = &mut state.ports[at];
        let (rings, count) = match way {
            Way::Tx => (&mut port.tx, &mut port.syncs.0),
            Way::Rx => (&mut port.rx, &mut port.syncs.1),
        };
        *count += 1;
        for (n, kring) in rings.iter_mut().enumerate() {
            if only.is_none_or(|only| usize::from(only) == n) {
                self.sync_ring(kring);
            }
        }
        Ok(())
    }
}
