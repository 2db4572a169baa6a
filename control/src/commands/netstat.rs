//! `query-net-stats` and its reset. The engine's counters only ever grow: a reset remembers where they stood.

use super::State;
use super::state::empty;
use crate::apply::plane::{PortStats, Stats, WorkerStats};
use engine::port::counters::DropReason;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Where the counters stood at the last reset.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    workers: HashMap<usize, WorkerStats>,
    ports: HashMap<u64, PortStats>,
}

impl Baseline {
    fn of(stats: Stats) -> Self {
        Self {
            workers: stats.workers.into_iter().map(|w| (w.worker, w)).collect(),
            ports: stats.ports.into_iter().map(|p| (p.queue, p)).collect(),
        }
    }

    /// What was counted since the reset.
    fn since(&self, mut stats: Stats) -> Stats {
        for now in &mut stats.workers {
            let Some(then) = self.workers.get(&now.worker) else { continue };
            now.turns = now.turns.wrapping_sub(then.turns);
            now.frames = now.frames.wrapping_sub(then.frames);
            for (now, then) in now.ticks.iter_mut().zip(then.ticks) {
                *now = now.wrapping_sub(then);
            }
        }
        for now in &mut stats.ports {
            let Some(then) = self.ports.get(&now.queue) else { continue };
            now.rx_frames = now.rx_frames.wrapping_sub(then.rx_frames);
            now.rx_bytes = now.rx_bytes.wrapping_sub(then.rx_bytes);
            now.tx_frames = now.tx_frames.wrapping_sub(then.tx_frames);
            now.tx_bytes = now.tx_bytes.wrapping_sub(then.tx_bytes);
            for (now, then) in now.drops.iter_mut().zip(&then.drops) {
                *now = now.wrapping_sub(*then);
            }
        }
        stats
    }
}

impl State {
    /// The counters since the start or the last reset; the only place where they are put into words.
    #[must_use]
    pub fn query_net_stats(&self) -> Value {
        let stats = self.baseline.since(self.binding.plane.stats());
        let by_queue: HashMap<u64, &PortStats> = stats.ports.iter().map(|p| (p.queue, p)).collect();
        let mut ports = Vec::new();
        for client in self.net.clients() {
            for (index, queue) in client.queues().iter().enumerate() {
                if let Some(port) = by_queue.get(&queue.id) {
                    ports.push(port_value(&client.name, index, port));
                }
            }
        }
        let workers: Vec<Value> = stats.workers.iter().map(worker_value).collect();
        json!({"tsc-hz": stats.tsc_hz, "workers": workers, "ports": ports})
    }

    /// The counters start again from zero.
    pub(super) fn reset_net_stats(&mut self) -> Value {
        self.baseline = Baseline::of(self.binding.plane.stats());
        empty()
    }
}

fn worker_value(worker: &WorkerStats) -> Value {
    let [busy, empty, back_pressured, housekeeping] = worker.ticks;
    json!({
        "worker": worker.worker,
        "core": worker.core,
        "turns": worker.turns,
        "frames": worker.frames,
        "ticks": {
            "busy": busy,
            "empty": empty,
            "back-pressured": back_pressured,
            "housekeeping": housekeeping,
        },
    })
}

/// Reasons that did not occur are left out.
fn port_value(name: &str, index: usize, port: &PortStats) -> Value {
    let drops = DropReason::ALL.iter().zip(&port.drops).filter(|(_, n)| **n > 0);
    let drops: Map<String, Value> = drops.map(|(reason, n)| (reason.name().to_owned(), json!(n))).collect();
    json!({
        "name": name,
        "queue": index,
        "rx-frames": port.rx_frames,
        "rx-bytes": port.rx_bytes,
        "tx-frames": port.tx_frames,
        "tx-bytes": port.tx_bytes,
        "drops": drops,
    })
}
