//! One ring as the front-end has described it so far.

use super::base;
use super::error::ProtocolError;
use super::marks::{USED, marks};
use crate::mem::guest::GuestMemory;
use crate::virtq::{F_EVENT_IDX, F_RING_PACKED, InflightRing, Position, RingConfig};
use std::fmt;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use vhost::vhost_user::message::VhostUserVringAddr;

/// Entries of a ring at most.
const LONGEST: u32 = 32768;

/// A part of a ring that has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingPart {
    /// Descriptor table, or packed descriptor ring.
    Descriptors,
    /// Available ring, or the driver's event suppression.
    Available,
    /// Used ring, or the device's event suppression.
    Used,
}

impl fmt::Display for RingPart {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Descriptors => "the descriptor table",
            Self::Available => "the available ring",
            Self::Used => "the used ring",
        })
    }
}

/// Where a ring lies in the VMM.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) desc: u64,
    pub(super) avail: u64,
    pub(super) used: u64,
    /// Guest address of the used ring, when its writes are to be logged.
    pub(super) log: Option<u64>,
}

impl Addresses {
    pub(super) const fn of(message: VhostUserVringAddr) -> Self {
        let VhostUserVringAddr { descriptor: desc, available: avail, used, .. } = message;
        let log = if message.flags & 1 == 0 { None } else { Some(message.log) };
        Self { desc, avail, used, log }
    }
}

/// What is known of a ring.
#[derive(Debug, Default)]
pub(super) struct Ring {
    pub(super) size: Option<u16>,
    pub(super) addresses: Option<Addresses>,
    /// What SET_VRING_BASE said last.
    pub(super) base: Option<u32>,
    /// Where it stopped, unless SET_VRING_BASE came after.
    pub(super) position: Option<Position>,
    pub(super) kick: Option<Arc<OwnedFd>>,
    pub(super) call: Option<Arc<OwnedFd>>,
    pub(super) err: Option<Arc<OwnedFd>>,
    /// SET_VRING_KICK came.
    pub(super) started: bool,
    pub(super) enabled: bool,
    /// The device runs it.
    pub(super) running: bool,
    /// The device has run it in this session.
    pub(super) ran: bool,
    /// Nobody knows where it stands. It is not looked at again before something of it changes.
    pub(super) lost: bool,
}

/// Whether a size suits a format.
fn possible(size: u32, packed: bool) -> bool {
    let fits = (1..=LONGEST).contains(&size);
    fits && (packed || (size.is_power_of_two() && size > 1))
}

impl Ring {
    /// Notes its size. Before features are agreed on `packed` is not known, and what either format allows passes.
    pub(super) fn resize(
        &mut self,
        ring: usize,
        size: u32,
        packed: Option<bool>,
    ) -> Result<(), ProtocolError> {
        if !possible(size, packed.unwrap_or(true)) {
            return Err(ProtocolError::RingSize { ring, size });
        }
        self.size = u16::try_from(size).ok();
        Ok(())
    }

    /// What its device needs, if all of it is there and right. `ring` is its number.
    pub(super) fn config(
        &self,
        ring: usize,
        features: u64,
        memory: &Arc<GuestMemory>,
        inflight: Option<&InflightRing>,
    ) -> Result<Option<RingConfig>, ProtocolError> {
        let (Some(size), Some(addresses)) = (self.size, self.addresses) else { return Ok(None) };
        let packed = features & F_RING_PACKED != 0;
        if !possible(size.into(), packed) {
            return Err(ProtocolError::RingSize { ring, size: size.into() });
        }
        let [desc, avail, used] = place(ring, size, features, &addresses, memory)?;
        let position = match self.position {
            Some(position) => position,
            None if packed => {
                // What a back-end that was killed wrote says more than a front-end that could not ask it; the ring itself says most.
                let left = self.left(size, addresses.desc, memory, inflight);
                let told = left.unwrap_or_else(|| self.base.map_or(Position::START, base::packed));
                match marks(memory, addresses.desc, size, features) {
                    Some(marks) if told.used < size && marks.contradict(told) => {
                        marks.stands().ok_or(ProtocolError::InUse { ring })?
                    }
                    _ => told,
                }
            }
            // All before the used index was given back, whatever the front-end remembers: so a ring whose back-end was
            // killed goes on, too.
            None => base::split(memory.u16_at_user(addresses.used + 2).unwrap_or_default().into()),
        };
        if packed && (position.avail >= size || position.used >= size) {
            let base = base::encode(position, true);
            return Err(ProtocolError::Base { ring, base, size });
        }
        Ok(Some(RingConfig {
            size,
            features,
            memory: memory.clone(),
            desc,
            avail,
            used,
            used_log: addresses.log.filter(|_| memory.logs()),
            inflight: inflight.cloned(),
            position,
            kick: self.kick.clone(),
            call: self.call.clone(),
            err: self.err.clone(),
        }))
    }

    /// Where the back-end before us left a packed ring.
    fn left(
        &self,
        size: u16,
        desc: u64,
        memory: &GuestMemory,
        inflight: Option<&InflightRing>,
    ) -> Option<Position> {
        let inflight = inflight.filter(|_| !self.ran)?;
        inflight.resume(size, |slot, wrap| {
            // The flag is the device's counter where it used the descriptor, also when the driver has made it available again since.
            let flags = desc.checked_add(16 * u64::from(slot) + 14).and_then(|at| memory.u16_at_user(at));
            slot < size && flags.is_some_and(|flags| (flags & USED != 0) == wrap)
        })
    }

    /// What GET_VRING_BASE answers.
    pub(super) fn base_now(&self, packed: bool) -> u32 {
        let start = if packed { base::encode(Position::START, true) } else { 0 };
        self.position.map_or_else(|| self.base.unwrap_or(start), |position| base::encode(position, packed))
    }
}

/// Where the three parts lie. Their sizes are those of virtio 1.3, 2.7 and 2.8.
fn place(
    ring: usize,
    size: u16,
    features: u64,
    addresses: &Addresses,
    memory: &GuestMemory,
) -> Result<[NonNull<u8>; 3], ProtocolError> {
    let entries = u64::from(size);
    let event = if features & F_EVENT_IDX != 0 { 2 } else { 0 };
    let parts = if features & F_RING_PACKED != 0 {
        [(16 * entries, 16), (4, 4), (4, 4)]
    } else {
        [(16 * entries, 16), (4 + 2 * entries + event, 2), (4 + 8 * entries + event, 4)]
    };
    let at = |part: RingPart, address: u64, (len, align): (u64, u64)| {
        if !address.is_multiple_of(align) {
            return Err(ProtocolError::Misaligned { ring, part, address });
        }
        // Misaligned in the VMM is misaligned here only if a region is not mapped as the VMM maps it.
        let found = memory.at_user(address, len).filter(|at| (at.as_ptr() as u64).is_multiple_of(align));
        found.ok_or(ProtocolError::Outside { ring, part, address, len })
    };
    let [desc, avail, used] = parts;
    Ok([
        at(RingPart::Descriptors, addresses.desc, desc)?,
        at(RingPart::Available, addresses.avail, avail)?,
        at(RingPart::Used, addresses.used, used)?,
    ])
}
