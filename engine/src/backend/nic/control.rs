//! The control queue, the device's side: a slow ring, served on the control thread.

#![allow(unsafe_code)] // writes guest memory

use super::command::{Bytes, Command, HEADER};
use super::rx::notify;
use crate::burst::Seg;
use crate::mem::guest::GuestMemory;
use crate::uring::Bell;
use crate::virtq::packed::PackedDevice;
use crate::virtq::split::SplitDevice;
use crate::virtq::{DeviceRing, F_RING_PACKED, Found, Position, RingConfig, RingFault};
use std::sync::Arc;

/// What a command is answered with: done.
const OK: u8 = 0;
/// What a command is answered with: it cannot be, or makes no sense.
const ERR: u8 = 1;

/// A ring of either format.
#[derive(Debug)]
enum Ring {
    Split(SplitDevice),
    Packed(PackedDevice),
}

/// The control queue of a nic.
#[derive(Debug)]
pub struct ControlQueue {
    ring: Ring,
    found: Found,
    memory: Arc<GuestMemory>,
    call: Option<Bell>,
}

impl ControlQueue {
    /// Goes on where the ring stands, asking for kicks; what is there already brings none, so serve it once.
    ///
    /// # Errors
    /// A configuration that no ring can have.
    pub fn new(config: &RingConfig) -> Result<Self, RingFault> {
        let ring = if config.features & F_RING_PACKED != 0 {
            Ring::Packed(PackedDevice::new(config)?)
        } else {
            Ring::Split(SplitDevice::new(config)?)
        };
        Ok(Self {
            ring,
            found: Found::new(),
            memory: config.memory.clone(),
            call: config.call.as_ref().map(Bell::new),
        })
    }

    /// Lets `execute` do at most `most` commands and answers each, with an error for what is none or was not done. The answers show
    /// with [`ControlQueue::publish`]. False: there are more, for which no kick may come.
    ///
    /// # Errors
    /// What the driver wrote makes no sense, as in QEMU a command without its header or without room for the answer does not: the
    /// ring is to be stopped. Answers before are to be published.
    pub fn serve(&mut self, most: usize, execute: impl FnMut(Command) -> bool) -> Result<bool, RingFault> {
        let Self { ring, found, memory, .. } = self;
        match ring {
            Ring::Split(ring) => serve(ring, found, memory, most, execute),
            Ring::Packed(ring) => serve(ring, found, memory, most, execute),
        }
    }

    /// Shows the driver its answers.
    pub fn publish(&mut self) {
        let told = match &mut self.ring {
            Ring::Split(ring) => ring.publish(),
            Ring::Packed(ring) => ring.publish(),
        };
        if told {
            notify(self.call.as_mut());
        }
    }

    /// Where the ring stands; answers are published before.
    #[must_use]
    pub fn position(&self) -> Position {
        match &self.ring {
            Ring::Split(ring) => ring.position(),
            Ring::Packed(ring) => ring.position(),
        }
    }
}

fn serve<R: DeviceRing>(
    ring: &mut R,
    found: &mut Found,
    memory: &GuestMemory,
    most: usize,
    mut execute: impl FnMut(Command) -> bool,
) -> Result<bool, RingFault> {
    for _ in 0..most {
        if !ring.look_both(found)? {
            ring.want_kicks(true);
            if !ring.look_both(found)? {
                return Ok(true);
            }
        }
        let (read, write) = found.both();
        let bytes = Bytes::new(read);
        let (Some(status), true) = (write.first(), bytes.len() >= HEADER as u64) else {
            return Err(RingFault::Command);
        };
        let done = Command::parse(bytes).is_some_and(&mut execute);
        answer(memory, status, if done { OK } else { ERR });
        if let Some(chain) = found.chains().first() {
            ring.give(chain, 1);
        }
    }
    Ok(false)
}

/// Writes the status: the first byte that the device writes (virtio 1.3, 5.1.6.5).
fn answer(memory: &GuestMemory, status: &Seg, value: u8) {
    // SAFETY: the segment is writable guest memory of at least a byte, looked at as such.
    unsafe { status.ptr().cast_mut().write_volatile(value) };
    if let Some(guest) = memory.guest_of(status.ptr()).filter(|_| memory.logs()) {
        memory.mark(guest, 1);
    }
}

#[cfg(test)]
mod tests;
