//! The control queue of a vDPA device (virtio 1.3, 5.1.6.5), from the driver's side. On the control thread.

#![allow(unsafe_code)] // writes the shared region

use crate::backend::driver::Buffers;
use crate::mem::guest::GuestMemory;
use crate::virtq::packed::PackedDriver;
use crate::virtq::split::SplitDriver;
use crate::virtq::{DriverRing, DriverSeg, F_RING_PACKED, RingConfig, RingFault};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A class and a command of it: all frames come in.
pub(super) const PROMISC: [u8; 2] = [0, 0];
/// The addresses whose frames come in.
pub(super) const TABLE: [u8; 2] = [1, 0];
/// The device's hardware address.
pub(super) const MAC_SET: [u8; 2] = [1, 1];
/// The announcement that was asked for is made.
pub(super) const ANNOUNCED: [u8; 2] = [3, 0];
/// Queue pairs in use.
pub(super) const PAIRS: [u8; 2] = [4, 0];
/// Offloads toward us.
pub(super) const OFFLOADS: [u8; 2] = [5, 0];

/// Bytes of a command and its data at most, behind which the device writes.
pub(super) const ANSWER_AT: u32 = 512;
/// Longest wait for an answer while the device is opened.
const ANSWER: Duration = Duration::from_secs(2);
/// Between looks for it.
const LOOK: Duration = Duration::from_micros(50);

/// The ring, of either format.
enum Ring {
    Split(SplitDriver),
    Packed(PackedDriver),
}

impl Ring {
    fn add(&mut self, segs: &[DriverSeg]) -> bool {
        match self {
            Self::Split(ring) => ring.add(segs, 1, 0),
            Self::Packed(ring) => ring.add(segs, 1, 0),
        }
    }

    fn publish(&mut self) -> bool {
        match self {
            Self::Split(ring) => ring.publish(),
            Self::Packed(ring) => ring.publish(),
        }
    }

    fn used(&mut self) -> Result<Option<(u32, u32)>, RingFault> {
        match self {
            Self::Split(ring) => ring.used(),
            Self::Packed(ring) => ring.used(),
        }
    }

    fn want_calls(&mut self) {
        match self {
            Self::Split(ring) => ring.want_calls(true),
            Self::Packed(ring) => ring.want_calls(true),
        }
    }
}

/// The control queue: one command under way at a time.
pub(super) struct Commands {
    ring: Ring,
    buffer: Buffers,
    kick: Option<Arc<OwnedFd>>,
    /// The device calls by it.
    call: Option<Arc<OwnedFd>>,
    busy: bool,
    /// The ring made no sense.
    broken: bool,
    _memory: Arc<GuestMemory>,
}

impl Commands {
    pub(super) fn new(config: &RingConfig, buffer: Buffers) -> Result<Self, RingFault> {
        let ring = if config.features & F_RING_PACKED == 0 {
            Ring::Split(SplitDriver::new(config)?)
        } else {
            Ring::Packed(PackedDriver::new(config)?)
        };
        let (kick, call, memory) = (config.kick.clone(), config.call.clone(), config.memory.clone());
        let mut this = Self { ring, buffer, kick, call, busy: false, broken: false, _memory: memory };
        this.ring.want_calls();
        Ok(this)
    }

    /// Readable when an answer may have come.
    pub(super) fn call(&self) -> Option<BorrowedFd<'_>> {
        self.call.as_ref().map(|call| call.as_fd())
    }

    /// Whether a command can be sent.
    pub(super) const fn idle(&self) -> bool {
        !self.busy && !self.broken
    }

    /// Sends a command and waits for its answer. False: refused, or none came.
    pub(super) fn ask(&mut self, command: [u8; 2], data: &[u8]) -> bool {
        if self.busy || !self.tell(command, data) {
            return false;
        }
        let end = Instant::now() + ANSWER;
        while self.busy && !self.broken && Instant::now() < end {
            std::thread::sleep(LOOK);
            if let Some(accepted) = self.reap() {
                return accepted;
            }
        }
        false
    }

    /// Sends a command, and [`Commands::reap`] has its answer. False: another one is under way, or the ring is broken.
    pub(super) fn tell(&mut self, command: [u8; 2], data: &[u8]) -> bool {
        if !self.idle() || data.len() + 2 > ANSWER_AT as usize {
            return false;
        }
        let [class, number] = command;
        let to = self.buffer.at(0).as_ptr();
        let len = 2 + data.len();
        // SAFETY: the buffer is longer than the answer's place, which is behind the longest command, and no command is under way: it is ours.
        unsafe {
            to.write(class);
            to.add(1).write(number);
            std::ptr::copy_nonoverlapping(data.as_ptr(), to.add(2), data.len());
            to.add(ANSWER_AT as usize).write(u8::MAX);
        }
        let first = self.buffer.seg(0, len as u32);
        let answer = DriverSeg { addr: first.addr + u64::from(ANSWER_AT), len: 1 };
        self.busy = self.ring.add(&[first, answer]);
        if self.busy
            && self.ring.publish()
            && let Some(kick) = &self.kick
        {
            // Ours and non-blocking: a full one has told already.
            let _ = nix::unistd::write(kick, &1u64.to_ne_bytes());
        }
        self.busy
    }

    /// The answer to the command under way, if it came.
    pub(super) fn reap(&mut self) -> Option<bool> {
        if let Some(call) = &self.call {
            let _ = nix::unistd::read(call, &mut [0; 8]);
        }
        match self.ring.used() {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(_) => {
                self.broken = true;
                return None;
            }
        }
        self.busy = false;
        // SAFETY: inside of the buffer; the device has given it back.
        let answer = unsafe { self.buffer.at(0).as_ptr().add(ANSWER_AT as usize).read_volatile() };
        Some(answer == 0)
    }
}
