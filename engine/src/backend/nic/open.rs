//! Making a nic's queue pairs, on the control thread.

use super::options::Features;
use super::published::Published;
use super::rx::NicRx;
use super::selective::SelectiveTx;
use super::tx::NicTx;
use crate::backend::report::Report;
use crate::port::{RxQueue, TxQueue};
use crate::virtq::packed::PackedDevice;
use crate::virtq::split::SplitDevice;
use crate::virtq::{DeviceRing, F_RING_PACKED, Position, RingConfig, RingFault};
use crossbeam::atomic::AtomicCell;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What control learns from a ring that a worker runs.
#[derive(Debug)]
pub struct Shared {
    /// Where the ring stood when it was stopped.
    stopped: AtomicCell<Option<Position>>,
    report: Report,
    /// The address to announce toward the peer, above it how many frames of it wait. Control adds, the worker takes away.
    rarp: AtomicU64,
}

/// One frame that waits; stands above an address.
const ONE: u64 = 1 << 48;
/// Frames that wait at most. A peer that takes none for so long learns no more from further ones.
const MOST: u64 = 64;

impl Shared {
    fn new(wake: &Arc<OwnedFd>) -> Arc<Self> {
        Arc::new(Self { stopped: AtomicCell::new(None), report: Report::new(wake), rarp: AtomicU64::new(0) })
    }

    /// Where the ring stood when its queue came back.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.stopped.load()
    }

    /// Why the ring was stopped for cause.
    #[must_use]
    pub fn fault(&self) -> Option<RingFault> {
        self.report.fault()
    }

    /// Makes the queue send so many more RARP frames of `mac` toward its peer, as if the guest had, when it is served next. At most
    /// 64 wait, all of the address that was named last. For one thread, control's.
    pub fn announce(&self, mac: [u8; 6], frames: u16) {
        let [a, b, c, d, e, f] = mac;
        let address = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        let more = |word: u64| Some(((word / ONE + u64::from(frames)).min(MOST) * ONE) | address);
        // Never refused; it is tried again when a frame goes at this moment.
        let _ = self.rarp.fetch_update(Ordering::Release, Ordering::Relaxed, more);
    }

    /// The address and the number of the frames that wait. Nobody takes any away once the queue has come back.
    #[must_use]
    pub fn unannounced(&self) -> Option<([u8; 6], u16)> {
        let word = self.rarp.load(Ordering::Acquire);
        let [high, low, mac @ ..] = word.to_be_bytes();
        (word >= ONE).then_some((mac, u16::from_be_bytes([high, low])))
    }

    /// Whether something is to be announced.
    #[inline]
    pub(super) fn announces(&self) -> bool {
        self.rarp.load(Ordering::Relaxed) >= ONE
    }

    /// What is to be announced.
    pub(super) fn announcement(&self) -> Option<[u8; 6]> {
        Some(self.unannounced()?.0)
    }

    /// One frame has gone; there was one.
    pub(super) fn announced(&self) {
        self.rarp.fetch_sub(ONE, Ordering::Relaxed);
    }

    pub(super) fn stop(&self, position: Position) {
        self.stopped.store(Some(position));
    }

    pub(super) fn fail(&self, fault: RingFault) {
        self.report.fail(fault);
    }
}

/// The two halves of a queue pair and what control keeps of each.
pub struct Halves {
    /// What the guest transmits.
    pub rx: Box<dyn RxQueue>,
    /// What the guest receives.
    pub tx: Box<dyn TxQueue>,
    /// Control's view of the guest's transmit ring.
    pub rx_shared: Arc<Shared>,
    /// Control's view of the guest's receive ring.
    pub tx_shared: Arc<Shared>,
}

/// A queue pair over the guest's transmit and receive rings, either of which may not run. `wake` is an eventfd that is written to when
/// one of them is stopped for cause. `asked` says what the guest takes, now and later.
///
/// # Errors
/// A configuration that no ring can have.
pub fn pair(
    transmit: Option<&RingConfig>,
    receive: Option<&RingConfig>,
    wake: &Arc<OwnedFd>,
    asked: &Arc<Published>,
) -> Result<Halves, RingFault> {
    let (rx_shared, tx_shared) = (Shared::new(wake), Shared::new(wake));
    let packed = [transmit, receive].into_iter().flatten().any(|c| c.features & F_RING_PACKED != 0);
    let (rx, tx) = if packed {
        halves::<PackedDevice>(transmit, receive, &rx_shared, &tx_shared, asked)?
    } else {
        halves::<SplitDevice>(transmit, receive, &rx_shared, &tx_shared, asked)?
    };
    Ok(Halves { rx, tx, rx_shared, tx_shared })
}

type Boxes = (Box<dyn RxQueue>, Box<dyn TxQueue>);

fn halves<R: DeviceRing>(
    transmit: Option<&RingConfig>,
    receive: Option<&RingConfig>,
    rx_shared: &Arc<Shared>,
    tx_shared: &Arc<Shared>,
    asked: &Arc<Published>,
) -> Result<Boxes, RingFault> {
    let features = |c: &RingConfig| Features::of(c.features);
    let rx = match transmit {
        Some(c) => NicRx::new(Some(R::new(c)?), features(c), c, rx_shared.clone()),
        None => NicRx::<R>::absent(rx_shared.clone()),
    };
    let tx: Box<dyn TxQueue> = match receive {
        Some(c) => {
            let tx = NicTx::new(Some(R::new(c)?), features(c), c, tx_shared.clone());
            Box::new(SelectiveTx::new(tx, c.features, asked.clone()))
        }
        None => Box::new(NicTx::<R>::absent(tx_shared.clone())),
    };
    Ok((Box::new(rx), tx))
}
