//! Queues without a kernel: rings whose other end is driven by a test.

use super::held::Held;
use super::rx::AfXdpRx;
use super::tx::AfXdpTx;
use super::{RING, Transport};
use crate::backend::signal::Signal;
use crate::mem::chunks::{Seat, SharedUmem};
use crate::port::{RxQueue, TxQueue};
use af_xdp::socket::Rings;
use af_xdp::testing::{Kernel, TestArea, rings};
use af_xdp::{Error, Umem, UmemConfig};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

/// Chunks of a test's UMEM: for two queues.
pub const CHUNKS: usize = 4 * RING as usize;

/// A socket without a kernel: it answers what the test says, and counts.
#[derive(Debug, Default)]
pub(super) struct Fake {
    pub(super) errno: AtomicI32,
    pub(super) sends: AtomicU32,
    pub(super) abandoned: AtomicBool,
}

impl Fake {
    fn answer(&self) -> Result<(), i32> {
        match self.errno.load(Ordering::Relaxed) {
            0 => Ok(()),
            errno => Err(errno),
        }
    }
}

impl Transport for Fake {
    fn send(&self) -> Result<(), i32> {
        self.sends.fetch_add(1, Ordering::Relaxed);
        self.answer()
    }

    fn receive(&self) -> Result<(), i32> {
        self.answer()
    }

    fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

/// A UMEM of [`CHUNKS`] chunks.
///
/// # Errors
/// No memory.
pub fn umem() -> Result<Arc<SharedUmem>, Error> {
    let area = TestArea::new(CHUNKS * 4096)?;
    Ok(SharedUmem::new(Umem::new(Box::new(area), UmemConfig::default())?))
}

/// Both halves of a queue, and what stands behind it.
#[cfg_attr(not(test), allow(dead_code))] // the unit tests' handles
pub(super) struct Parts {
    pub(super) rx: AfXdpRx<Fake>,
    pub(super) tx: AfXdpTx<Fake>,
    pub(super) kernel: Kernel,
    pub(super) fake: Arc<Fake>,
    pub(super) limit: Arc<AtomicU32>,
    pub(super) held: Arc<Held>,
    pub(super) seat: Seat,
}

/// A queue of `shared`, which is looked at by timer where its worker sleeps.
pub(super) fn parts(shared: &Arc<SharedUmem>) -> Result<Parts, Error> {
    let (Rings { fill, rx, tx, completion }, mut kernel) = rings(shared.umem(), RING)?;
    kernel.want_wakeups(false, true);
    let (fake, seat, limit) = (Arc::new(Fake::default()), shared.join(), Arc::new(AtomicU32::new(10_000)));
    let held = Held::new(seat.member());
    let rx = AfXdpRx::new((fill, rx), fake.clone(), shared.clone(), held.clone(), false, Signal::default());
    let tx = AfXdpTx::new((tx, completion), fake.clone(), shared.clone(), held.clone(), true, limit.clone());
    Ok(Parts { rx, tx, kernel, fake, limit, held, seat })
}

/// A queue as a worker takes it, and the end that plays the kernel.
pub struct TestQueue {
    /// Receiving half.
    pub rx: Box<dyn RxQueue>,
    /// Transmitting half.
    pub tx: Box<dyn TxQueue>,
    /// The other end.
    pub kernel: Kernel,
}

/// A queue of `shared`. Its chunks are never given up.
///
/// # Errors
/// No memory.
pub fn queue(shared: &Arc<SharedUmem>) -> Result<TestQueue, Error> {
    let Parts { rx, tx, kernel, seat, .. } = parts(shared)?;
    std::mem::forget(seat);
    Ok(TestQueue { rx: Box::new(rx), tx: Box::new(tx), kernel })
}
