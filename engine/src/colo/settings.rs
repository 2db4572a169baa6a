//! What may be changed while frames are compared.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// What may be changed while frames are compared; defaults are QEMU's.
#[derive(Debug)]
pub struct Settings {
    timeout: AtomicU64,
    cycle: AtomicU32,
    vnet: AtomicBool,
    queue: Arc<AtomicU32>,
}

impl Settings {
    /// Milliseconds that a frame waits for its twin, by default.
    pub const TIMEOUT: u64 = 3000;
    /// Milliseconds between looks for frames that waited too long, by default.
    pub const CYCLE: u32 = 1000;
    /// Frames that a connection holds of each side, by default.
    pub const QUEUE: u32 = 1024;

    /// The defaults, but for `queue`, which all comparisons share, as in QEMU.
    #[must_use]
    pub fn new(queue: Arc<AtomicU32>) -> Self {
        Self {
            timeout: AtomicU64::new(Self::TIMEOUT),
            cycle: AtomicU32::new(Self::CYCLE),
            vnet: AtomicBool::new(false),
            queue,
        }
    }

    /// Sets how many milliseconds a frame waits for its twin.
    pub fn set_timeout(&self, milliseconds: u64) {
        self.timeout.store(milliseconds, Ordering::Relaxed);
    }

    /// Sets how many milliseconds lie between looks for frames that waited too long. In force after the next one.
    pub fn set_cycle(&self, milliseconds: u32) {
        self.cycle.store(milliseconds, Ordering::Relaxed);
    }

    /// Sets whether released frames carry the length of their virtio-net header.
    pub fn set_vnet(&self, carried: bool) {
        self.vnet.store(carried, Ordering::Relaxed);
    }

    pub(super) fn timeout(&self) -> u64 {
        self.timeout.load(Ordering::Relaxed)
    }

    pub(super) fn cycle(&self) -> u32 {
        self.cycle.load(Ordering::Relaxed)
    }

    pub(super) fn vnet(&self) -> bool {
        self.vnet.load(Ordering::Relaxed)
    }

    pub(super) fn queue(&self) -> u32 {
        self.queue.load(Ordering::Relaxed)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new(Arc::new(AtomicU32::new(Self::QUEUE)))
    }
}
