//! Where a guest's rings lie, and what their device is told of them.

use super::super::frame::Shape;
use super::super::ring::{Format, Memory, Ring};
use super::memory::{BASE, Buffers, USER};
use crate::failure::{Context, Failure, Result};
use engine::mem::guest::GuestMemory;
use engine::virtq::{DriverSeg, Position, RingConfig, packed, split};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use vhost::VringConfigData;
use vmm_sys_util::eventfd::EventFd;

/// A ring, and what its device is told of it.
pub(super) struct Laid<F> {
    pub(super) ring: Ring<F>,
    pub(super) config: RingConfig,
    pub(super) data: VringConfigData,
    pub(super) kick: EventFd,
    pub(super) call: EventFd,
}

/// Lays both rings out in the guest's memory.
pub(super) fn lay<F: Format>(
    shape: &Shape,
    features: u64,
    memory: &Arc<GuestMemory>,
) -> Result<[Laid<F>; 2]> {
    let mut at = BASE;
    let mut one = |writable: bool, buffers: &Buffers| -> Result<Laid<F>> {
        let (mut config, data, end) = layout(at, shape, features, memory)?;
        at = end + buffers.bytes() as u64;
        let (kick, call) = (event()?, event()?);
        config.kick = Some(owned(&kick)?);
        config.call = Some(owned(&call)?);
        let seg =
            |token: usize| DriverSeg { addr: end + (token * buffers.stride) as u64, len: buffers.len as u32 };
        let base = memory
            .at(end, buffers.bytes() as u32, &mut 0)
            .ok_or_else(|| Failure::new("the buffers do not fit into the guest's memory"))?;
        let segs = (0..buffers.count).map(seg).collect();
        let buffers = Memory { segs, base, stride: buffers.stride, _mapping: memory.clone() };
        let ring = Ring::<F>::new(&config, buffers, writable, kick.try_clone().context("dup")?)?;
        Ok(Laid { ring, config, data, kick, call })
    };
    let [receive, transmit] = Buffers::both(shape);
    Ok([one(true, &receive)?, one(false, &transmit)?])
}

/// Another descriptor of an eventfd.
fn owned(event: &EventFd) -> Result<Arc<OwnedFd>> {
    let copy = event.try_clone().context("dup")?;
    // SAFETY: the copy gives its descriptor up.
    #[allow(unsafe_code)]
    Ok(Arc::new(unsafe { OwnedFd::from_raw_fd(copy.into_raw_fd()) }))
}

fn event() -> Result<EventFd> {
    EventFd::new(libc::EFD_NONBLOCK).context("eventfd")
}

/// Bytes of a ring's parts, each from a page on.
pub(super) fn ring_bytes(shape: &Shape) -> u64 {
    let page = |n: u64| n.next_multiple_of(4096);
    parts(shape).into_iter().map(page).sum()
}

/// Bytes of the parts of a ring.
fn parts(shape: &Shape) -> [u64; 3] {
    if shape.packed {
        [packed::desc_bytes(shape.ring), packed::EVENT_BYTES, packed::EVENT_BYTES]
    } else {
        [split::desc_bytes(shape.ring), split::avail_bytes(shape.ring), split::used_bytes(shape.ring)]
    }
}

/// Lays a ring out from `at` on: its configuration, its addresses for the back-end, and where its buffers start.
fn layout(
    at: u64,
    shape: &Shape,
    features: u64,
    memory: &Arc<GuestMemory>,
) -> Result<(RingConfig, VringConfigData, u64)> {
    let [desc, avail, used] = parts(shape);
    let page = |n: u64| n.next_multiple_of(4096);
    let at = page(at);
    let starts = [at, page(at + desc), page(page(at + desc) + avail)];
    let end = page(starts[2] + used);
    let pointer = |guest: u64| -> Result<NonNull<u8>> {
        memory
            .at(guest, 16, &mut 0)
            .ok_or_else(|| Failure::new("the rings do not fit into the guest's memory"))
    };
    let config = RingConfig {
        size: shape.ring,
        features,
        memory: memory.clone(),
        desc: pointer(starts[0])?,
        avail: pointer(starts[1])?,
        used: pointer(starts[2])?,
        used_log: None,
        inflight: None,
        position: Position::START,
        kick: None,
        call: None,
        err: None,
    };
    let data = VringConfigData {
        queue_max_size: shape.ring,
        queue_size: shape.ring,
        flags: 0,
        desc_table_addr: USER - BASE + starts[0],
        used_ring_addr: USER - BASE + starts[2],
        avail_ring_addr: USER - BASE + starts[1],
        log_addr: None,
    };
    Ok((config, data, end))
}
