//! A guest without a machine: it shares memory, drives two rings of a vhost-user nic, and checks every byte.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::backend::nic::NetFeatures;
use engine::mem::guest::{GuestMemory, Region};
use engine::virtq::{DriverRing, DriverSeg, F_RING_PACKED, F_VERSION_1, Position, RingConfig, packed, split};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::uio::{pread, pwrite};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
    VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use crate::wait;

mod control;

/// Entries of each ring.
pub const RING: u16 = 64;
/// Bytes of the guest's memory.
const MEMORY: u64 = 1 << 21;
/// What the front-end calls its memory.
const USER: u64 = 0x7000_0000_0000;
/// Bytes of the virtio-net header.
pub const HEADER: usize = 12;
/// Bytes between buffers.
const BUFFER: u64 = 4096;
/// Rings at most.
const RINGS: u64 = 16;
/// Bytes of a receive buffer that is one of several for a frame.
const PIECE: u32 = 256;

/// What a guest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Packed rings.
    pub packed: bool,
    /// Mergeable receive buffers, each too small for a large frame.
    pub mergeable: bool,
}

/// A guest with one queue pair in use; ring 0 receives, ring 1 transmits. It may have further pairs and a control queue.
pub struct Guest<R> {
    frontend: Frontend,
    memory: OwnedFd,
    channel: UnixStream,
    rings: [Ring<R>; 2],
    /// Transmit rings of further pairs.
    more: Vec<Ring<R>>,
    control: Option<Ring<R>>,
    /// The number of the control queue's ring.
    control_index: usize,
    /// The virtio-net header of the last frame received.
    header: [u8; HEADER],
    free: Vec<u32>,
    /// Receive buffers that are not given back, while the guest keeps them.
    kept: Option<Vec<u32>>,
    mergeable: bool,
    /// None where the VMM keeps no such region.
    inflight: Option<(VhostUserInflight, File)>,
    /// Features accepted.
    wanted: u64,
}

/// A part of a ring's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Descriptor table, or packed ring.
    Descriptors,
    /// Available ring, or the driver's event suppression.
    Available,
    /// Used ring, or the device's.
    Used,
    /// Where buffers start.
    Buffers,
}

struct Ring<R> {
    ring: R,
    /// Addresses of the parts.
    at: [u64; 4],
    first: u64,
    kick: EventFd,
    call: EventFd,
}

impl<R: DriverRing> Ring<R> {
    fn seg(&self, token: u32, len: u32) -> DriverSeg {
        DriverSeg { addr: self.first + u64::from(token) * BUFFER, len }
    }

    /// Whether the device asked for a kick, which it gets.
    fn publish(&mut self) -> bool {
        let asked = self.ring.publish();
        if asked {
            self.kick.write(1).expect("a kick");
        }
        asked
    }

    /// The next buffer that comes back, if one does within `limit`.
    fn used(&mut self, limit: Duration) -> Option<(u32, u32)> {
        let until = Instant::now() + limit;
        loop {
            self.ring.want_calls(true);
            if let Some(used) = self.ring.used().expect("the device keeps the rules") {
                return Some(used);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            // SAFETY: the descriptor is open as long as `call` is, and used for this one wait.
            let call = unsafe { BorrowedFd::borrow_raw(self.call.as_raw_fd()) };
            poll(&mut [PollFd::new(call, PollFlags::POLLIN)], timeout).expect("poll");
            // Empty is fine: the time was up, or a signal came.
            let _ = self.call.read();
        }
    }
}

impl<R: DriverRing> Guest<R> {
    /// Connects to the nic that listens at `path` and starts both rings; the nic runs them when this returns.
    ///
    /// # Errors
    /// What the nic refused, or how it hung up.
    ///
    /// # Panics
    /// When this machine has no memory for it.
    pub fn connect(path: &Path, shape: Shape) -> Result<Self, String> {
        Self::connect_with(path, shape, 0, 1)
    }

    /// As [`Guest::connect`], with further features and that many pairs. With `VIRTIO_NET_F_CTRL_VQ` among the features the control queue
    /// runs, too.
    ///
    /// # Errors
    /// What the nic refused, or how it hung up.
    ///
    /// # Panics
    /// When this machine has no memory for it, or a feature is not offered.
    pub fn connect_with(path: &Path, shape: Shape, features: u64, pairs: usize) -> Result<Self, String> {
        let connected = wait::until(wait::PATIENCE, || Frontend::connect(path, RINGS).ok());
        let frontend = connected.ok_or_else(|| format!("nobody listens at {}", path.display()))?;
        Self::begin(frontend, shape, features, pairs).map_err(|error| error.to_string())
    }

    fn begin(
        mut frontend: Frontend,
        shape: Shape,
        features: u64,
        pairs: usize,
    ) -> Result<Self, vhost::Error> {
        let file = memfd_create("guest", MFdFlags::MFD_CLOEXEC).expect("memfd");
        nix::unistd::ftruncate(&file, MEMORY.cast_signed()).expect("ftruncate");
        let region = Region { guest: 0, user: USER, size: MEMORY, offset: 0 };
        let copy = file.try_clone().expect("dup");
        let memory = Arc::new(GuestMemory::new(&[(region, copy)]).expect("the guest's memory"));

        let mut wanted =
            F_VERSION_1 | NetFeatures::STATUS | features | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        for (on, bit) in [(shape.packed, F_RING_PACKED), (shape.mergeable, NetFeatures::MRG_RXBUF)] {
            wanted |= if on { bit } else { 0 };
        }
        let channel = greet(&mut frontend, wanted, &file)?;
        let inflight = frontend.get_inflight_fd(&VhostUserInflight::new(0, 0, 2, RING))?;
        frontend.set_inflight_fd(&inflight.0, inflight.1.as_raw_fd())?;
        let mut at = 0;
        let mut ring = |index| {
            let ring: Ring<R> = lay(at, shape.packed, wanted, &memory);
            at = ring.first + BUFFER * u64::from(RING);
            run(&frontend, index, &ring, shape.packed).map(|()| ring)
        };
        let mut rings = [ring(0)?, ring(1)?];
        let more = (1..pairs).map(|pair| ring(2 * pair + 1)).collect::<Result<_, _>>()?;
        let control_index = if wanted & NetFeatures::MQ == 0 { 2 } else { 2 * pairs };
        let control = (wanted & NetFeatures::CTRL_VQ != 0).then(|| ring(control_index)).transpose()?;
        let len = if shape.mergeable { PIECE } else { BUFFER as u32 };
        for token in 0..u32::from(RING) {
            let seg = rings[0].seg(token, len);
            assert!(rings[0].ring.add(&[seg], 0, token));
        }
        rings[0].publish();
        let free = (0..u32::from(RING)).collect();
        Ok(Self {
            frontend,
            memory: file,
            channel,
            rings,
            more,
            control,
            control_index,
            header: [0; HEADER],
            free,
            kept: None,
            mergeable: shape.mergeable,
            inflight: Some(inflight),
            wanted,
        })
    }

    /// Connects again, with memory, rings and in-flight region as they are, as a VMM does whose back-end was killed: it does not know
    /// where the rings stand.
    ///
    /// # Errors
    /// What the nic refused, or how it hung up.
    pub fn reconnect(&mut self, path: &Path) -> Result<(), String> {
        let connected = wait::until(wait::PATIENCE, || Frontend::connect(path, 2).ok());
        self.frontend = connected.ok_or_else(|| format!("nobody listens at {}", path.display()))?;
        self.resume().map_err(|error| error.to_string())
    }

    fn resume(&mut self) -> Result<(), vhost::Error> {
        self.channel = greet(&mut self.frontend, self.wanted, &self.memory)?;
        if let Some((region, file)) = &self.inflight {
            self.frontend.set_inflight_fd(region, file.as_raw_fd())?;
        }
        for (index, ring) in self.rings.iter().enumerate() {
            run(&self.frontend, index, ring, self.wanted & F_RING_PACKED != 0)?;
        }
        Ok(())
    }

    /// From now on it is like a VMM that keeps no in-flight region, as QEMU is for nics.
    pub fn forget_inflight(&mut self) {
        self.inflight = None;
    }

    /// Whether the nic has given all transmit buffers back.
    ///
    /// # Panics
    /// When the nic breaks the rules.
    pub fn has_all_back(&mut self) -> bool {
        while let Some((token, _)) = self.rings[1].ring.used().expect("the device keeps the rules") {
            self.free.push(token);
        }
        self.free.len() == usize::from(RING)
    }

    /// Sends a frame: it is in the ring when this returns. False: the ring is full.
    ///
    /// # Panics
    /// For a frame that no buffer holds.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        self.send_with([0; HEADER], frame)
    }

    /// As [`Guest::send`], with a virtio-net header.
    ///
    /// # Panics
    /// For a frame that no buffer holds.
    pub fn send_with(&mut self, header: [u8; HEADER], frame: &[u8]) -> bool {
        self.has_all_back();
        let ring = &mut self.rings[1];
        let Some(token) = self.free.pop() else { return false };
        let bytes = [&header, frame].concat();
        let seg = ring.seg(token, bytes.len() as u32);
        assert_eq!(pwrite(&self.memory, &bytes, seg.addr.cast_signed()), Ok(bytes.len()));
        assert!(ring.ring.add(&[seg], 1, token));
        ring.publish();
        true
    }

    /// The next frame, if one comes within `limit`.
    ///
    /// # Panics
    /// When the nic breaks the rules.
    pub fn receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut pieces = 1;
        while pieces > 0 {
            let (token, len) = self.rings[0].used(if bytes.is_empty() { limit } else { wait::PATIENCE })?;
            let ring = &mut self.rings[0];
            let mut part = vec![0; len as usize];
            let seg = ring.seg(token, if self.mergeable { PIECE } else { BUFFER as u32 });
            assert!(len <= seg.len, "{len} bytes in a buffer of {}", seg.len);
            assert_eq!(pread(&self.memory, &mut part, seg.addr.cast_signed()), Ok(part.len()));
            if bytes.is_empty() {
                pieces = u16::from_le_bytes([part[10], part[11]]);
                assert!(pieces == 1 || self.mergeable, "{pieces} buffers");
            }
            bytes.append(&mut part);
            pieces -= 1;
            if let Some(kept) = &mut self.kept {
                kept.push(token);
                continue;
            }
            assert!(ring.ring.add(&[seg], 0, token));
            ring.publish();
        }
        let frame = bytes.split_off(HEADER);
        self.header.copy_from_slice(&bytes);
        Some(frame)
    }

    /// From now on received buffers are not given back.
    pub fn keep(&mut self) {
        self.kept.get_or_insert_default();
    }

    /// Gives back what was kept; whether the nic had asked for a kick.
    ///
    /// # Panics
    /// When there is no room for what came from there.
    pub fn give_back(&mut self) -> bool {
        let len = if self.mergeable { PIECE } else { BUFFER as u32 };
        let ring = &mut self.rings[0];
        for token in self.kept.take().unwrap_or_default() {
            let seg = ring.seg(token, len);
            assert!(ring.ring.add(&[seg], 0, token));
        }
        ring.publish()
    }

    /// Writes bytes into a part of a ring, whatever the rules are.
    ///
    /// # Panics
    /// Beyond the memory.
    pub fn poke(&mut self, ring: usize, part: Part, offset: u64, bytes: &[u8]) {
        let at = self.rings[ring].at[part as usize] + offset;
        assert_eq!(pwrite(&self.memory, bytes, at.cast_signed()), Ok(bytes.len()));
    }

    /// Kicks a ring.
    ///
    /// # Panics
    /// When the kick is full.
    pub fn kick(&mut self, ring: usize) {
        self.rings[ring].kick.write(1).expect("a kick");
    }

    /// The guest address of a part of a ring.
    #[must_use]
    pub fn address(&self, ring: usize, part: Part) -> u64 {
        self.rings[ring].at[part as usize]
    }

    /// The guest's memory ends here.
    #[must_use]
    pub const fn end() -> u64 {
        MEMORY
    }

    /// Takes the memory away, under the nic and itself: nothing but its end is to be asked of it then.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn shorten(&mut self) {
        nix::unistd::ftruncate(&self.memory, 0).expect("ftruncate");
    }

    /// Asks for a call whenever the nic has used a buffer.
    pub fn ask_for_calls(&mut self) {
        self.rings.iter_mut().for_each(|ring| ring.ring.want_calls(true));
    }

    /// The call of a ring: its eventfd, which the nic has, too.
    #[must_use]
    pub const fn call(&self, ring: usize) -> &EventFd {
        &self.rings[ring].call
    }

    /// Sends a message of any number and payload that asks for an answer; what the answer says, 0 being yes. None: the nic hung up.
    pub fn say(&mut self, request: u32, payload: &[u8]) -> Option<u64> {
        self.say_with(request, payload, &[])
    }

    /// As [`Guest::say`], with files.
    pub fn say_with(&mut self, request: u32, payload: &[u8], files: &[RawFd]) -> Option<u64> {
        send(self.frontend.as_raw_fd(), &message(request, 9, payload), files).ok()?;
        let socket = borrow(&self.frontend);
        let mut answer = [0; 20];
        let mut got = 0;
        while got < answer.len() {
            got += nix::unistd::read(socket, &mut answer[got..]).ok().filter(|n| *n > 0)?;
        }
        Some(u64::from_ne_bytes(*answer.last_chunk()?))
    }

    /// Writes an available index that is further than the ring is long (split rings), and kicks.
    pub fn jump(&mut self) {
        let ring = &self.rings[1];
        assert_eq!(pwrite(&self.memory, &0x7000u16.to_le_bytes(), (ring.at[1] + 2).cast_signed()), Ok(2));
        ring.kick.write(1).expect("a kick");
    }

    /// Whether the configuration space says that the link is up.
    ///
    /// # Panics
    /// When the nic does not answer.
    pub fn link_up(&mut self) -> bool {
        let (_, space) =
            self.frontend.get_config(0, 8, VhostUserConfigFlags::empty(), &[0; 8]).expect("GET_CONFIG");
        space[6] & 1 == 1
    }

    /// The MTU in the configuration space.
    ///
    /// # Panics
    /// When the nic does not answer.
    pub fn mtu(&mut self) -> u16 {
        let (_, space) =
            self.frontend.get_config(0, 12, VhostUserConfigFlags::empty(), &[0; 12]).expect("GET_CONFIG");
        u16::from_le_bytes([space[10], space[11]])
    }

    /// Waits until it is told that the configuration space changed.
    ///
    /// # Panics
    /// When nothing comes, or something else.
    pub fn config_change(&mut self) {
        self.channel.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
        let mut header = [0; 12];
        self.channel.read_exact(&mut header).expect("a message on the channel");
        assert_eq!(header[..4], 2u32.to_ne_bytes(), "VHOST_USER_BACKEND_CONFIG_CHANGE_MSG");
    }

    /// Buffers under way, for messages.
    #[must_use]
    pub fn books(&self) -> String {
        let [receive, transmit] = &self.rings;
        format!(
            "room {} of the receive ring, {} of the transmit ring",
            receive.ring.room(),
            transmit.ring.room()
        )
    }

    /// Whether the nic answers, or has closed the connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.frontend.get_features().is_ok()
    }
}

/// A vhost-user message: flags 1 is a request, 9 one that asks for an answer.
#[must_use]
pub fn message(request: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let head = [request, flags, payload.len() as u32].map(u32::to_ne_bytes).concat();
    [&head, payload].concat()
}

/// Sends bytes and files on a socket.
///
/// # Errors
/// The kernel's.
pub fn send(socket: RawFd, bytes: &[u8], files: &[RawFd]) -> nix::Result<usize> {
    let rights = [ControlMessage::ScmRights(files)];
    let control = if files.is_empty() { &[][..] } else { &rights };
    sendmsg::<()>(socket, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)
}

/// The descriptor of something that the caller keeps open meanwhile.
pub fn borrow(of: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the result lives no longer than what has the descriptor open.
    unsafe { BorrowedFd::borrow_raw(of.as_raw_fd()) }
}

/// All that is said before the rings; the channel for what the nic asks.
fn greet(frontend: &mut Frontend, wanted: u64, memory: &OwnedFd) -> Result<UnixStream, vhost::Error> {
    let offered = frontend.get_features()?;
    assert_eq!(wanted & !offered, 0, "not offered");
    type Protocol = VhostUserProtocolFeatures;
    let protocol = Protocol::MQ
        | Protocol::REPLY_ACK
        | Protocol::CONFIG
        | Protocol::BACKEND_REQ
        | Protocol::RARP
        | Protocol::MTU
        | Protocol::INFLIGHT_SHMFD;
    assert!(frontend.get_protocol_features()?.contains(protocol));
    frontend.set_protocol_features(protocol)?;
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    frontend.set_owner()?;
    frontend.set_features(wanted)?;
    let (channel, theirs) = UnixStream::pair().expect("a socket pair");
    frontend.set_backend_request_fd(&theirs)?;
    frontend.set_mem_table(&[VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: MEMORY,
        userspace_addr: USER,
        mmap_offset: 0,
        mmap_handle: memory.as_raw_fd(),
    }])?;
    Ok(channel)
}

/// Lays a ring out from `at` on.
fn lay<R: DriverRing>(at: u64, packed: bool, features: u64, memory: &Arc<GuestMemory>) -> Ring<R> {
    let [desc, avail, used, first] = layout(packed, at);
    let pointer =
        |guest: u64| -> NonNull<u8> { memory.at(guest, 16, &mut 0).expect("the ring lies in memory") };
    let config = RingConfig {
        size: RING,
        features,
        memory: memory.clone(),
        desc: pointer(desc),
        avail: pointer(avail),
        used: pointer(used),
        used_log: None,
        inflight: None,
        position: Position::START,
        kick: None,
        call: None,
        err: None,
    };
    let ring = R::new(&config).expect("a ring");
    let event = || EventFd::new(nix::libc::EFD_NONBLOCK | nix::libc::EFD_CLOEXEC).expect("an eventfd");
    Ring { ring, at: [desc, avail, used, first], first, kick: event(), call: event() }
}

/// Hands a ring to the nic. It knows no base but that of the beginning.
fn run<R>(frontend: &Frontend, index: usize, ring: &Ring<R>, packed: bool) -> Result<(), vhost::Error> {
    let [desc, avail, used, _] = ring.at;
    frontend.set_vring_num(index, RING)?;
    frontend.set_vring_addr(
        index,
        &VringConfigData {
            queue_max_size: RING,
            queue_size: RING,
            flags: 0,
            desc_table_addr: USER + desc,
            used_ring_addr: USER + used,
            avail_ring_addr: USER + avail,
            log_addr: None,
        },
    )?;
    frontend.set_vring_base(index, if packed { 0x8000 } else { 0 })?;
    frontend.set_vring_call(index, &ring.call)?;
    frontend.set_vring_kick(index, &ring.kick)?;
    let mut frontend = frontend.clone();
    frontend.set_vring_enable(index, true)
}

/// Where the parts of a ring lie.
fn layout(packed: bool, at: u64) -> [u64; 4] {
    let (desc, avail, used) = if packed {
        (packed::desc_bytes(RING), packed::EVENT_BYTES, packed::EVENT_BYTES)
    } else {
        (split::desc_bytes(RING), split::avail_bytes(RING), split::used_bytes(RING))
    };
    let page = |n: u64| n.next_multiple_of(4096);
    let second = page(at + desc);
    let third = page(second + avail);
    [at, second, third, page(third + used)]
}
