//! The in-flight region: memory that outlives a back-end and tells the next one which buffers it had.

use super::Session;
use crate::mem::shared::SharedMap;
use crate::vhost::device::Device;
use crate::vhost::error::ProtocolError;
use crate::vhost::message::Message;
use crate::vhost::reply::Reply;
use crate::virtq::inflight::{PACKED, SPLIT};
use crate::virtq::{F_RING_PACKED, InflightRing};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;
use std::sync::Arc;

/// Each ring's part starts at a multiple of this.
const ALIGN: u64 = 64;
/// Bytes of a description, without and with the padding that C puts behind it.
const SIZES: [usize; 2] = [20, 24];

/// A region: `rings` parts of `entries` entries each, all zero until a back-end writes there.
#[derive(Debug)]
pub struct Inflight {
    /// Its memory, from the first part on.
    map: Arc<SharedMap>,
    /// Rings.
    pub rings: u16,
    /// Entries of each ring.
    pub entries: u16,
}

/// Bytes of one ring's part.
fn part(entries: u16, packed: bool) -> u64 {
    let (head, entry) = if packed { PACKED } else { SPLIT };
    (head + entry * u64::from(entries)).next_multiple_of(ALIGN)
}

impl Inflight {
    /// The part of a ring.
    pub(super) fn ring(&self, at: usize, size: Option<u16>, features: u64) -> Option<InflightRing> {
        let packed = features & F_RING_PACKED != 0;
        let size = size.filter(|size| at < usize::from(self.rings) && *size <= self.entries)?;
        InflightRing::new(&self.map, at as u64 * part(self.entries, packed), size, packed)
    }
}

/// Size, offset, rings, entries.
struct Description(u64, u64, u16, u16);

impl Description {
    fn of(message: &Message) -> Result<Self, ProtocolError> {
        if !SIZES.contains(&message.payload.len()) {
            message.sized(SIZES[1])?;
        }
        let part = |at: usize| message.payload.get(at..).unwrap_or_default();
        let long = |at| part(at).first_chunk().copied().map_or(0, u64::from_ne_bytes);
        let short = |at| part(at).first_chunk().copied().map_or(0, u16::from_ne_bytes);
        Ok(Self(long(0), long(8), short(16), short(18)))
    }

    fn bytes(&self) -> Vec<u8> {
        let Self(size, offset, rings, entries) = self;
        let mut bytes = [size.to_ne_bytes(), offset.to_ne_bytes()].concat();
        bytes.extend([rings.to_ne_bytes(), entries.to_ne_bytes()].concat());
        bytes.resize(SIZES[1], 0);
        bytes
    }
}

impl Session {
    /// Bytes that a region for so many rings needs, if these are rings that there can be.
    fn inflight_size(&self, rings: u16, entries: u16) -> Result<u64, ProtocolError> {
        if rings == 0 || usize::from(rings) > self.rings.len() || entries == 0 || entries > 32768 {
            let text =
                format!("has {rings} rings of {entries} entries, where there are {}", self.rings.len());
            return Err(ProtocolError::Inflight(text));
        }
        Ok(u64::from(rings) * part(entries, self.packed().unwrap_or_default()))
    }

    pub(super) fn get_inflight_fd(&self, message: &Message) -> Result<Reply, ProtocolError> {
        let Description(_, _, rings, entries) = Description::of(message)?;
        let size = self.inflight_size(rings, entries)?;
        let made = memfd_create("netdevd-inflight", MFdFlags::MFD_CLOEXEC)
            .and_then(|fd| ftruncate(&fd, size as i64).map(|()| fd));
        let fd = made.map_err(|errno| ProtocolError::Inflight(format!("cannot be made: {errno}")))?;
        let mut reply = Reply::new(message, &Description(size, 0, rings, entries).bytes());
        reply.fd = Some(fd);
        Ok(reply)
    }

    pub(super) fn set_inflight_fd(
        &mut self,
        message: &mut Message,
        device: &mut dyn Device,
    ) -> Result<(), ProtocolError> {
        let Description(size, offset, rings, entries) = Description::of(message)?;
        let needed = self.inflight_size(rings, entries)?;
        let fd = message.file()?;
        if size < needed {
            let text = format!("has {size} bytes at {offset}, while {needed} are needed");
            return Err(ProtocolError::Inflight(text));
        }
        let map = SharedMap::new(&fd, offset, size);
        let map = map.map_err(|error| ProtocolError::Inflight(error.to_string()))?;
        self.pause_all(device);
        self.inflight = Some(Inflight { map: Arc::new(map), rings, entries });
        Ok(())
    }
}
