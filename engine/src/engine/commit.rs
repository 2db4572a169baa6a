//! Putting a new topology in force: everything is prepared, published at once, and acknowledged by every worker.

use super::switches::Switches;
use super::{Engine, EngineError, Place};
use crate::filter::Filter;
use crate::port::Queue;
use crate::port::backlog::Backlog;
use crate::port::counters::{DropReason, PortCounters};
use crate::port::lanes::Lanes;
use crate::switch::{Extent, Routes, Walk};
use crate::topology::model::{ClientId, ClientKind, FilterId, HUB_BACKLOG, Topology};
use crate::topology::plan;
use crate::worker::clock::ticks;
use crate::worker::inbox::{Attach, Change};
use crate::worker::link::LANE_FRAMES;
use crate::worker::turn::MAX_SLOTS;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long control waits for a worker before it says that it hangs.
const PATIENCE: u64 = 5;

/// Old plans that are kept for sleeping workers before these are woken to let go of them.
const RETIRED: usize = 64;

/// What comes with a topology.
#[derive(Default)]
pub struct Attachments {
    /// Queues that the topology names for the first time, with the worker that `place` gave.
    pub queues: Vec<(usize, Queue)>,
    /// Filters that the topology names for the first time, one instance a worker.
    pub filters: Vec<(FilterId, Vec<Box<dyn Filter>>)>,
}

/// What the topology no longer names. No worker and no kernel request touches it any more; dropping it closes it.
#[derive(Default)]
pub struct Retired {
    /// Queues.
    pub queues: Vec<Queue>,
    /// Filter instances.
    pub filters: Vec<Box<dyn Filter>>,
}

impl Engine {
    /// Puts `topology` in force. When this returns, all workers run it.
    ///
    /// # Errors
    /// [`EngineError::Slots`] before anything is changed; [`EngineError::Hangs`] when a worker does not answer.
    pub fn commit(&mut self, topology: &Topology, attach: Attachments) -> Result<Retired, EngineError> {
        self.check_slots(&attach)?;
        let workers = self.workers.len();
        let mut changes: Vec<Change> = (0..workers).map(|_| Change::default()).collect();
        let removed = self.removed(topology);
        for (worker, slot, ..) in &removed.queues {
            changes[*worker].detach.push(*slot);
        }
        for slot in &removed.filters {
            for change in &mut changes {
                change.remove_filters.push(*slot);
            }
        }
        self.attach(attach, &mut changes);
        self.size_backlogs(topology, &mut changes);
        self.name_clients(topology);

        self.switches.prepare(topology, workers, &mut self.slots, &mut self.lanes);
        let plan = plan::build(topology, &self.slots, workers);
        let dead = Switches::dead(&plan);
        let routes = Routes::new(plan, &self.lanes);
        let extent = self.extent.and(routes.extent());
        if extent != self.extent {
            // Hubs and ports come one by one, scratch for many of them at once.
            let (places, ports) = (extent.places.next_power_of_two(), extent.ports.next_power_of_two());
            self.extent = Extent { places, ports, ..extent };
            for change in &mut changes {
                change.walk = Walk::new(self.extent);
            }
        }
        let retired = self.publish(routes, changes)?;
        self.switches.settle(
            topology,
            &dead,
            self.clock.nanoseconds(ticks()),
            &mut self.slots,
            &mut self.lanes,
        );
        for (worker, slot, queue, counters) in removed.queues {
            self.free_queues[worker].give(slot);
            self.load.remove(worker);
            // Whoever keeps the counters of a queue that is gone keeps its drops; no worker writes them any more.
            if let Some(lanes) = self.lanes.queues.remove(&queue) {
                for reason in DropReason::ALL {
                    counters.count_drop(reason, lanes.dropped(reason));
                }
                // What is still on a link finds nobody: no worker sends any more, and none takes it for delivered.
                let on_links = (0..self.workers.len()).map(|worker| lanes.under_way(worker)).sum();
                counters.count_drop(DropReason::PortGone, on_links);
            }
        }
        for slot in removed.filters {
            self.free_filters.give(slot);
        }
        Ok(retired)
    }

    fn check_slots(&self, attach: &Attachments) -> Result<(), EngineError> {
        for worker in 0..self.workers.len() {
            let new = attach.queues.iter().filter(|(w, _)| *w == worker).count();
            if self.free_queues[worker].in_use() + new > MAX_SLOTS {
                return Err(EngineError::Slots(worker));
            }
        }
        if self.free_filters.in_use() + attach.filters.len() > MAX_SLOTS {
            return Err(EngineError::Slots(0));
        }
        Ok(())
    }

    /// Forgets what the topology no longer names.
    fn removed(&mut self, topology: &Topology) -> Removed {
        let mut queues = HashSet::new();
        let mut filters = HashSet::new();
        for client in &topology.clients {
            if let ClientKind::Port { queues: q } = &client.kind {
                queues.extend(q.iter().map(|q| q.id));
            }
            filters.extend(client.filters.iter().map(|f| f.id));
        }
        let mut removed = Removed { queues: Vec::new(), filters: Vec::new() };
        if queues.len() < self.queues.len() || self.queues.keys().any(|q| !queues.contains(q)) {
            self.queues.retain(|id, place| {
                let stays = queues.contains(id);
                if !stays {
                    removed.queues.push((place.worker, place.slot, *id, place.counters.clone()));
                }
                stays
            });
            self.slots.queues.retain(|id, _| queues.contains(id));
        }
        self.slots.filters.retain(|id, slot| {
            let stays = filters.contains(id);
            if !stays {
                removed.filters.push(*slot);
            }
            stays
        });
        removed
    }

    fn attach(&mut self, attach: Attachments, changes: &mut [Change]) {
        let workers = self.workers.len();
        for (worker, queue) in attach.queues {
            let slot = self.free_queues[worker].take();
            let lanes = Arc::new(Lanes::new(workers));
            self.slots.queues.insert(queue.id.0, slot);
            self.lanes.queues.insert(queue.id.0, lanes.clone());
            let counters = queue.counters.clone();
            self.queues.insert(queue.id.0, Place { worker, slot, counters, backlog: HUB_BACKLOG });
            let backlog = Backlog::sized(HUB_BACKLOG, 0, arrivals(workers));
            changes[worker].attach.push(Attach {
                slot,
                queue,
                lanes,
                backlog,
                owed: vec![0; workers].into(),
            });
        }
        for (id, instances) in attach.filters {
            let slot = self.free_filters.take();
            self.slots.filters.insert(id, slot);
            for (change, instance) in changes.iter_mut().zip(instances) {
                change.add_filters.push((slot, instance));
            }
        }
    }

    /// Gives every queue the backlog that the leg of its hub asks for.
    fn size_backlogs(&mut self, topology: &Topology, changes: &mut [Change]) {
        let legs: HashMap<ClientId, u32> = topology
            .clients
            .iter()
            .filter_map(|c| match (&c.kind, c.peer) {
                (ClientKind::HubPort { backlog, .. }, Some(peer)) => Some((peer, *backlog)),
                _ => None,
            })
            .collect();
        let workers = self.workers.len();
        for client in &topology.clients {
            let ClientKind::Port { queues } = &client.kind else { continue };
            let asked = legs.get(&client.id).copied().unwrap_or(HUB_BACKLOG);
            for queue in queues {
                let Some(place) = self.queues.get_mut(&queue.id) else { continue };
                let before = std::mem::replace(&mut place.backlog, asked);
                if before != asked {
                    let backlog = Backlog::sized(asked, before, arrivals(workers));
                    changes[place.worker].backlogs.push((place.slot, backlog));
                }
            }
        }
    }

    /// Keeps lanes for exactly the clients of the topology.
    fn name_clients(&mut self, topology: &Topology) {
        let workers = self.workers.len();
        let same = self.clients.len() == topology.clients.len()
            && self.clients.iter().zip(&topology.clients).all(|((id, _), c)| *id == c.id);
        if !same {
            let now: HashSet<ClientId> = topology.clients.iter().map(|c| c.id).collect();
            self.lanes.clients.retain(|id, _| now.contains(id));
            for id in now {
                self.lanes.clients.entry(id).or_insert_with(|| Arc::new(Lanes::new(workers)));
            }
        }
        self.clients = topology
            .clients
            .iter()
            .map(|c| match &c.kind {
                ClientKind::Port { queues } => (c.id, queues.iter().map(|q| q.id).collect()),
                ClientKind::HubPort { .. } | ClientKind::SwitchPort { .. } => (c.id, Vec::new()),
            })
            .collect();
    }

    /// Publishes, wakes whom it concerns, and waits for every worker's word.
    fn publish(&mut self, routes: Routes, changes: Vec<Change>) -> Result<Retired, EngineError> {
        let generation = self.publisher.next_generation();
        let mut returns = vec![false; self.workers.len()];
        let mut mail = vec![false; self.workers.len()];
        let until = Instant::now() + Duration::from_secs(PATIENCE);
        for (index, mut change) in changes.into_iter().enumerate() {
            // A new queue too: until its worker has started it, a socket of it may drop what comes.
            returns[index] =
                !change.detach.is_empty() || !change.attach.is_empty() || !change.remove_filters.is_empty();
            mail[index] = returns[index]
                || !change.attach.is_empty()
                || !change.backlogs.is_empty()
                || !change.add_filters.is_empty()
                || change.walk.extent() != Extent::default();
            if !mail[index] {
                continue;
            }
            change.generation = generation;
            change.stopped.reserve(change.detach.len());
            change.removed.reserve(change.remove_filters.len());
            self.post(index, Box::new(change), until)?;
        }
        self.publisher.publish(routes);
        let mut retired = Retired::default();
        for index in 0..self.workers.len() {
            if mail[index] {
                self.workers[index].waker.wake();
            }
            self.await_word(index, generation, returns[index], until, &mut retired)?;
        }
        // Sleepers are not woken for a plan that does not concern them; once in a while they are, so that the plans which
        // they still hold can go.
        if self.publisher.retire() > RETIRED {
            self.workers.iter().for_each(|w| w.waker.wake());
        }
        Ok(retired)
    }

    /// Puts a change into a worker's inbox, waiting for room.
    fn post(&mut self, index: usize, change: Box<Change>, until: Instant) -> Result<(), EngineError> {
        let mut change = change;
        loop {
            match self.workers[index].mail.inbox.push(change) {
                Ok(()) => return Ok(()),
                Err(back) => change = back,
            }
            self.workers[index].waker.wake();
            while self.workers[index].mail.outbox.pop().is_some() {}
            if Instant::now() > until {
                return Err(EngineError::Hangs(index, PATIENCE));
            }
            std::thread::yield_now();
        }
    }

    fn await_word(
        &self,
        index: usize,
        generation: u64,
        returns: bool,
        until: Instant,
        retired: &mut Retired,
    ) -> Result<(), EngineError> {
        let worker = &self.workers[index];
        let mut came = !returns;
        let mut spins = 0u32;
        loop {
            while let Some(mut change) = worker.mail.outbox.pop() {
                came |= change.generation == generation;
                retired.queues.extend(change.stopped.drain(..).map(|a| a.queue));
                retired.filters.append(&mut change.removed);
            }
            if came && (self.publisher.acknowledged(index, generation) || self.publisher.asleep(index)) {
                return Ok(());
            }
            spins += 1;
            match spins {
                0..200 => std::hint::spin_loop(),
                // The worker may need this very core.
                200..5000 => std::thread::yield_now(),
                _ => {
                    if Instant::now() > until {
                        return Err(EngineError::Hangs(index, PATIENCE));
                    }
                    std::thread::park_timeout(Duration::from_micros(50));
                }
            }
        }
    }
}

/// Frames of other workers that can wait for a queue.
const fn arrivals(workers: usize) -> usize {
    LANE_FRAMES as usize * workers.saturating_sub(1)
}

/// Slots that become free: of queues (worker, slot, name), of filters.
struct Removed {
    queues: Vec<(usize, u32, u64, Arc<PortCounters>)>,
    filters: Vec<u32>,
}
