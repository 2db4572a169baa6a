//! `query-net-stats` and its reset. The engine's counters only ever grow: a reset remembers where they stood.

use super::State;
use super::state::empty;
use crate::model::{Client, ClientId};
use engine::Stats;
use engine::port::counters::DropReason;
use engine::{ClientStats, QueueStats, WorkerStats};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::HashMap;

/// Where the counters stood at the last reset.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    workers: Vec<WorkerStats>,
    clients: HashMap<ClientId, Vec<QueueStats>>,
    filter_gone: u64,
}

impl Baseline {
    fn of(stats: Stats, filter_gone: u64) -> Self {
        let clients = stats.clients.into_iter().filter_map(|c| Some((c.client?, c.queues)));
        Self { workers: stats.workers, clients: clients.collect(), filter_gone }
    }

    /// What was counted since the reset.
    fn since(&self, stats: &mut Stats) {
        for (now, then) in stats.workers.iter_mut().zip(&self.workers) {
            for (now, then) in [
                (&mut now.turns, then.turns),
                (&mut now.frames, then.frames),
                (&mut now.busy, then.busy),
                (&mut now.empty, then.empty),
                (&mut now.back_pressured, then.back_pressured),
                (&mut now.housekeeping, then.housekeeping),
            ] {
                *now = now.wrapping_sub(then);
            }
        }
        for ClientStats { client, queues } in &mut stats.clients {
            let Some(then) = client.and_then(|id| self.clients.get(&id)) else { continue };
            for (now, then) in queues.iter_mut().zip(then) {
                now.rx_frames = now.rx_frames.wrapping_sub(then.rx_frames);
                now.rx_bytes = now.rx_bytes.wrapping_sub(then.rx_bytes);
                now.tx_frames = now.tx_frames.wrapping_sub(then.tx_frames);
                now.tx_bytes = now.tx_bytes.wrapping_sub(then.tx_bytes);
                for (reason, n) in &mut now.drops {
                    let before = then.drops.iter().find(|(r, _)| r == reason);
                    *n = n.wrapping_sub(before.map_or(0, |(_, n)| *n));
                }
            }
        }
    }
}

impl State {
    /// The counters since the start or the last reset, as `query-net-stats` tells them. Hub ports are among the
    /// ports: they only drop.
    #[must_use]
    pub fn query_net_stats(&self) -> Value {
        let mut stats = self.stats();
        self.baseline.since(&mut stats);
        let mut ports = Vec::new();
        for (client, queues) in self.ports(&stats) {
            ports.extend(queues.iter().enumerate().map(|(index, q)| port_value(&client.name, index, q)));
        }
        let workers: Vec<Value> = stats.workers.iter().enumerate().map(|(i, w)| worker_value(i, w)).collect();
        let filter_gone = self.filter_gone - self.baseline.filter_gone;
        json!({"tsc-hz": stats.tsc_hz, "workers": workers, "ports": ports, "filter-gone": filter_gone})
    }

    /// Every client with its counters, in creation order. The engine knows only those that frames can reach; the
    /// others have counted nothing.
    pub(super) fn ports<'a>(&'a self, stats: &'a Stats) -> Vec<(&'a Client, Cow<'a, [QueueStats]>)> {
        let known: HashMap<ClientId, &[QueueStats]> =
            stats.clients.iter().filter_map(|c| Some((c.client?, c.queues.as_slice()))).collect();
        let counted = |c: &Client| {
            known.get(&c.id).map_or(Cow::Owned(vec![QueueStats::default()]), |q| Cow::Borrowed(*q))
        };
        self.net.clients().map(|c| (c, counted(c))).collect()
    }

    /// The counters start again from zero.
    pub(super) fn reset_net_stats(&mut self) -> Value {
        self.baseline = Baseline::of(self.stats(), self.filter_gone);
        empty()
    }
}

/// The core of a worker that is not pinned is -1.
fn worker_value(index: usize, worker: &WorkerStats) -> Value {
    json!({
        "worker": index,
        "core": worker.core.map_or(-1, |core| i64::try_from(core).unwrap_or(-1)),
        "turns": worker.turns,
        "frames": worker.frames,
        "ticks": {
            "busy": worker.busy,
            "empty": worker.empty,
            "back-pressured": worker.back_pressured,
            "housekeeping": worker.housekeeping,
        },
    })
}

/// Reasons that did not occur are left out.
fn port_value(name: &str, index: usize, port: &QueueStats) -> Value {
    let occurred = |(reason, n): &(DropReason, u64)| (*n > 0).then(|| (reason.name().to_owned(), json!(n)));
    let drops: Map<String, Value> = port.drops.iter().filter_map(occurred).collect();
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
