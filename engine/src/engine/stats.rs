//! Reading the counters of a running engine.

use super::Engine;
use crate::port::counters::DropReason;
use crate::topology::model::ClientId;
use crate::worker::regimes::Regime;
use std::sync::atomic::Ordering;

/// All counters at one moment (each read for itself; nobody is stopped).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// TSC cycles a second.
    pub tsc_hz: u64,
    /// By worker.
    pub workers: Vec<WorkerStats>,
    /// Clients in creation order.
    pub clients: Vec<ClientStats>,
}

/// Counters of one worker; times in TSC cycles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Its core, where it is pinned.
    pub core: Option<usize>,
    /// Turns made.
    pub turns: u64,
    /// Frames read from sources.
    pub frames: u64,
    /// From polls that returned frames to the end of their transmission.
    pub busy: u64,
    /// Nothing to do.
    pub empty: u64,
    /// Frames waited, no destination had room.
    pub back_pressured: u64,
    /// Plan changes and upkeep.
    pub housekeeping: u64,
}

/// Counters of one client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Which client.
    pub client: Option<ClientId>,
    /// By queue; a hub port has one entry, which only drops.
    pub queues: Vec<QueueStats>,
}

/// Counters of one queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// The worker that owns it; `None` for hub ports.
    pub worker: Option<usize>,
    /// Frames read from the outside.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames given to the outside.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames dropped, by reason; only reasons that occurred.
    pub drops: Vec<(DropReason, u64)>,
    /// Why the transport gives nothing any more, as an errno; 0 while it works.
    pub trouble: i32,
    /// Why nothing can be sent, as an errno; 0 while it can.
    pub tx_trouble: i32,
}

impl Engine {
    /// All counters now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let workers = self.workers.iter().map(|w| WorkerStats {
            core: w.core,
            turns: w.counters.turns(),
            frames: w.counters.frames(),
            busy: w.counters.ticks(Regime::Busy),
            empty: w.counters.ticks(Regime::Empty),
            back_pressured: w.counters.ticks(Regime::BackPressured),
            housekeeping: w.counters.ticks(Regime::Housekeeping),
        });
        let clients = self.clients.iter().map(|(id, queues)| ClientStats {
            client: Some(*id),
            queues: if queues.is_empty() {
                vec![QueueStats { drops: self.client_drops(*id), ..QueueStats::default() }]
            } else {
                queues.iter().enumerate().map(|(i, q)| self.queue_stats(*id, i, *q)).collect()
            },
        });
        Stats { tsc_hz: self.clock.hz(), workers: workers.collect(), clients: clients.collect() }
    }

    fn queue_stats(&self, client: ClientId, index: usize, queue: u64) -> QueueStats {
        let Some(place) = self.queues.get(&queue) else { return QueueStats::default() };
        let c = &place.counters;
        // What was dropped before a queue was chosen is shown with the first.
        let mut drops = self.client_drops(client).into_iter().filter(|_| index == 0).collect::<Vec<_>>();
        for reason in DropReason::ALL {
            let lanes = self.lanes.queues.get(&queue).map_or(0, |l| l.dropped(reason));
            let n = c.dropped(reason) + lanes;
            if n == 0 {
                continue;
            }
            match drops.iter_mut().find(|(r, _)| *r == reason) {
                Some((_, sum)) => *sum += n,
                None => drops.push((reason, n)),
            }
        }
        QueueStats {
            worker: Some(place.worker),
            rx_frames: c.rx.frames.get(),
            rx_bytes: c.rx.bytes.get(),
            tx_frames: c.tx.frames.get(),
            tx_bytes: c.tx.bytes.get(),
            drops,
            trouble: c.trouble.load(Ordering::Relaxed),
            tx_trouble: c.tx_trouble.load(Ordering::Relaxed),
        }
    }

    fn client_drops(&self, client: ClientId) -> Vec<(DropReason, u64)> {
        let Some(lanes) = self.lanes.clients.get(&client) else { return Vec::new() };
        DropReason::ALL.into_iter().map(|r| (r, lanes.dropped(r))).filter(|(_, n)| *n != 0).collect()
    }
}
