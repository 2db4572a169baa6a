//! What the tests of several backends have in common.

use crate::burst::{BURST, Burst};
use crate::mem::arena::{Arena, ArenaConfig};
use crate::mem::pool::{Pool, PoolSize};
use crate::port::counters::PortCounters;
use crate::port::{RxQueue, Turn, TxQueue};
use crate::uring::{FdIo, IoMode};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// What a worker has.
pub(super) struct World {
    pub(super) io: FdIo,
    pub(super) pool: Pool,
    pub(super) burst: Burst,
    pub(super) counters: PortCounters,
    /// Nanoseconds since the worker started.
    pub(super) now: u64,
}

impl World {
    pub(super) fn new() -> Self {
        let arena = Arena::new(&ArenaConfig { initial: 1 << 20, step: 1 << 20, hugepages: false }).unwrap();
        let pool = Pool::set_of(1, PoolSize { small: 4, large: 2 }, &arena).unwrap().remove(0);
        let (io, _) = FdIo::new(Some(IoMode::Batched)).unwrap();
        Self { io, pool, burst: Burst::new(), counters: PortCounters::default(), now: 0 }
    }

    /// One turn from one queue to another: frames read, and frames that went.
    pub(super) fn hop(&mut self, from: &mut dyn RxQueue, to: &mut dyn TxQueue) -> (usize, usize) {
        let mut turn = Turn { now: self.now, io: &mut self.io, pool: &mut self.pool };
        if !from.is_empty() {
            from.peek();
        }
        let room = to.room(&mut turn, BURST);
        self.burst.clear();
        from.rx(&mut turn, room.min(BURST), &mut self.burst);
        let all = self.burst.all();
        let gone = if all.is_empty() { 0 } else { to.tx(&mut turn, &self.burst, all) };
        to.flush(&mut turn);
        to.settle(&mut turn, &self.counters);
        from.release(&mut turn, gone);
        fence(Ordering::SeqCst);
        from.notify();
        to.notify();
        (self.burst.len(), gone)
    }
}

/// An eventfd, as control has one to be woken by.
pub(super) fn wake() -> Arc<OwnedFd> {
    Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap().into())
}

/// A frame of that many bytes, told from others by its mark.
pub(super) fn frame(len: usize, mark: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(7).wrapping_add(mark)).collect()
}
