//! Queue pairs of a nic on workers: what a session starts and stops.

use super::control::Served;
use super::device::{NicState, stands_by};
use super::info;
use crate::apply::{Binding, Pair};
use crate::model::{Client, ClientId, Kind, Net, QueueRef};
use engine::Attachments;
use engine::backend::nic::{self, Asked, NetFeatures, Shared};
use engine::port::counters::PortCounters;
use engine::uring::Bell;
use engine::vhost::{Device, NetConfig};
use engine::virtq::{Position, RingConfig};
use std::sync::Arc;

/// One queue pair: the rings that a session has started, and where they run.
#[derive(Debug, Default)]
pub(super) struct QueuePair {
    /// What the guest receives, and what it transmits.
    rings: [Option<RingConfig>; 2],
    /// The queue on its worker, while one of the rings runs.
    queue: Option<Running>,
    /// The rings are others than those that run.
    stale: bool,
    /// The pair's counters, for as long as the nic lives.
    counters: Arc<PortCounters>,
}

/// A pair on a worker.
#[derive(Debug)]
struct Running {
    queue: QueueRef,
    /// By ring.
    shared: [Arc<Shared>; 2],
}

impl QueuePair {
    /// Whether a ring runs.
    pub(super) const fn runs(&self) -> bool {
        self.queue.is_some()
    }

    /// Entries of the rings that are started.
    pub(super) fn sizes(&self) -> [Option<u16>; 2] {
        [0, 1].map(|ring: usize| self.rings.get(ring)?.as_ref().map(|config| config.size))
    }

    /// What it counted since the nic was made.
    pub(super) fn counters(&self) -> &PortCounters {
        &self.counters
    }

    /// Tells the VMM that a ring stopped for cause, if it wants to hear of it.
    pub(super) fn err(&self, ring: usize) -> Option<Bell> {
        self.rings.get(ring)?.as_ref()?.err.as_ref().map(Bell::new)
    }

    /// The ring that stopped for cause, and why.
    pub(super) fn fault(&self) -> Option<(usize, String)> {
        let running = self.queue.as_ref()?;
        running.shared.iter().enumerate().find_map(|(ring, shared)| Some((ring, shared.fault()?.to_string())))
    }
}

impl NicState {
    /// Sends a RARP frame of `mac` the way of the guest's own frames. False: the first pair does not run.
    pub(super) fn announce(&self, mac: [u8; 6], binding: &Binding) -> bool {
        let Some(Running { queue, shared: [_, transmit] }) =
            self.pairs.first().and_then(|pair| pair.queue.as_ref())
        else {
            return false;
        };
        transmit.announce(mac, 1);
        binding.plane.wake(queue.worker);
        true
    }
}

/// A nic with what its rings need to run: what a session sees as its device.
pub(super) struct Plug<'a> {
    pub(super) client: ClientId,
    pub(super) nic: &'a mut NicState,
    pub(super) net: &'a mut Net,
    pub(super) binding: &'a mut Binding,
}

impl Plug<'_> {
    /// Takes pairs off their workers, all by one commit; their rings note where they stand.
    fn unplug(&mut self, pairs: impl IntoIterator<Item = usize>) {
        let mut gone = Vec::new();
        for at in pairs {
            if let Some(running) = self.nic.pairs.get_mut(at).and_then(|pair| pair.queue.take()) {
                gone.push((at, running));
            }
        }
        if gone.is_empty() {
            return;
        }
        self.set_queues();
        match self.binding.commit(self.net, Attachments::default()) {
            Ok(retired) => drop(retired),
            Err(error) => tracing::error!("{error}"),
        }
        for (at, running) in gone {
            let Some(pair) = self.nic.pairs.get_mut(at) else { continue };
            for (config, shared) in pair.rings.iter_mut().zip(&running.shared) {
                if let (Some(config), Some(position)) = (config, shared.position()) {
                    config.position = position;
                }
            }
            pair.stale = true;
            let [_, transmit] = &running.shared;
            if let Some(unsent) = transmit.unannounced() {
                // What had no time to go goes when the pair runs again.
                self.nic.rarp = Some(unsent);
            }
        }
    }

    /// Puts all pairs whose rings have changed onto workers: two commits at most, however many they are.
    ///
    /// # Errors
    /// The first ring that does not run, and why.
    pub(super) fn settle(&mut self) -> Result<(), (usize, String)> {
        let stale = |(at, pair): (usize, &QueuePair)| pair.stale.then_some(at);
        let stale: Vec<usize> = self.nic.pairs.iter().enumerate().filter_map(stale).collect();
        let Some(&first) = stale.first() else { return Ok(()) };
        // One of its rings runs already, and says where it stands only when it has stopped.
        self.unplug(stale.iter().copied());
        let mut attach = Attachments::default();
        let mut result = Ok(());
        for &at in &stale {
            match self.plug(at) {
                Ok(more) => attach.queues.extend(more.queues),
                Err(why) => result = result.and(Err((2 * at, why))),
            }
        }
        if attach.queues.is_empty() {
            return result;
        }
        self.set_queues();
        if let Err(error) = self.binding.commit(self.net, attach) {
            for at in stale {
                if let Some(pair) = self.nic.pairs.get_mut(at) {
                    pair.queue = None;
                }
            }
            self.set_queues();
            return Err((2 * first, error.desc));
        }
        result
    }

    /// Makes the queue of a pair that is in use and has at least one ring, for the next commit.
    fn plug(&mut self, at: usize) -> Result<Attachments, String> {
        let used = at < self.nic.pairs_in_use();
        let Some(place) = self.nic.pairs.get_mut(at) else { return Ok(Attachments::default()) };
        place.stale = false;
        if !used {
            return Ok(Attachments::default());
        }
        let [receive, transmit] = &place.rings;
        if receive.is_none() && transmit.is_none() {
            return Ok(Attachments::default());
        }
        let wake = self.nic.wake.clone();
        let halves = nic::pair(transmit.as_ref(), receive.as_ref(), &wake, &self.nic.control.published)
            .map_err(|e| e.to_string())?;
        let (rx, tx) = (halves.rx, halves.tx);
        let counters = place.counters.clone();
        if at == 0
            && let Some((mac, frames)) = self.nic.rarp.take()
        {
            halves.rx_shared.announce(mac, frames);
        }
        let (queue, attach) = self.binding.place_one(Pair { rx, tx, fd: -1, worker: None }, counters);
        place.queue = Some(Running { queue, shared: [halves.tx_shared, halves.rx_shared] });
        Ok(attach)
    }

    /// Tells the model which pairs run.
    fn set_queues(&mut self) {
        let queues: Vec<QueueRef> =
            self.nic.pairs.iter().filter_map(|p| Some(p.queue.as_ref()?.queue)).collect();
        if let Some(Client { kind: Kind::Nic(dev), .. }) = self.net.client_mut(self.client) {
            dev.connected = !queues.is_empty();
            dev.queues = queues;
        }
    }

    /// Leaves the pairs that the driver uses to the next [`Plug::settle`], and takes all others off their workers.
    fn use_pairs(&mut self) {
        let used = self.nic.pairs_in_use();
        self.unplug(used..self.nic.pairs.len());
        for pair in self.nic.pairs.iter_mut().take(used) {
            pair.stale |= !pair.runs();
        }
    }

    /// Shows the address that the nic has now.
    fn show_address(&mut self) {
        if let Some(Client { kind: Kind::Nic(dev), .. }) = self.net.client_mut(self.client) {
            dev.info = vec![info(self.nic.control.asked.filter.mac)];
        }
    }

    /// Does what waits in the control queue; a driver sees its answer when what it asked for is in force on all workers, but for the
    /// filter and the offloads: those hold from each worker's next burst on.
    pub(super) fn control(&mut self) -> Served {
        let served = self.nic.control.serve(self.nic.properties.pairs);
        if served.address {
            self.show_address();
        }
        if served.pairs {
            self.use_pairs();
            if let Err((ring, why)) = self.settle() {
                tracing::error!("nic: ring {ring}: {why}");
            }
        }
        self.nic.control.answer(&served);
        self.call_again();
        served
    }

    /// If commands wait for which no kick will come, their turn comes when everything else had its own.
    fn call_again(&self) {
        if self.nic.control.more {
            // An eventfd that is full is readable as it is.
            let _ = nix::unistd::write(&self.nic.wake, &1u64.to_ne_bytes());
        }
    }

    /// Forgets what the driver asked for.
    fn forget(&mut self) {
        self.nic.control.forget(self.nic.properties.mac);
        self.nic.stopped = None;
        self.show_address();
    }

    /// Stops everything: the VMM has gone, or the nic goes.
    pub(super) fn clear(&mut self) {
        self.unplug(0..self.nic.pairs.len());
        for pair in &mut self.nic.pairs {
            (pair.rings, pair.stale) = ([None, None], false);
        }
        self.nic.control.stop();
        self.nic.control.reset(self.nic.properties.mac);
        self.show_address();
    }
}

impl Device for Plug<'_> {
    fn features(&self) -> u64 {
        self.nic.offered(self.client, self.net)
    }

    fn queues(&self) -> u16 {
        self.nic.properties.pairs
    }

    fn rings(&self) -> usize {
        let control = self.nic.properties.features & NetFeatures::CTRL_VQ != 0;
        2 * usize::from(self.nic.properties.pairs) + usize::from(control)
    }

    fn config(&self) -> NetConfig {
        let up = self.net.client(self.client).is_some_and(|client| client.link_up);
        let Asked { filter, announce, .. } = &self.nic.control.asked;
        let config = self.nic.properties.config(up);
        let status = config.status | u16::from(*announce) << 1;
        NetConfig { mac: filter.mac, status, mtu: self.nic.mtu.unwrap_or(config.mtu), ..config }
    }

    fn set_features(&mut self, accepted: u64) {
        self.nic.accepted = Some(accepted);
        self.nic.kept |= accepted & NetFeatures::OFFLOADS;
        self.nic.standby = stands_by(accepted);
        self.nic.control.agree(accepted, self.nic.properties.mac);
        self.show_address();
    }

    /// It runs after the next [`Plug::settle`].
    fn start(&mut self, ring: usize, config: RingConfig) -> Result<(), String> {
        if self.nic.control_ring() == Some(ring) {
            self.nic.control.start(config, self.nic.properties.mac)?;
            self.show_address();
            self.use_pairs();
            self.call_again();
            return Ok(());
        }
        let none = || format!("there is no ring {ring}");
        let pair = self.nic.pairs.get_mut(ring / 2).ok_or_else(none)?;
        *pair.rings.get_mut(ring % 2).ok_or_else(none)? = Some(config);
        pair.stale = true;
        Ok(())
    }

    fn stop_all(&mut self) {
        self.unplug(0..self.nic.pairs.len());
    }

    fn stop(&mut self, ring: usize) -> Option<Position> {
        if self.nic.control_ring() == Some(ring) {
            return self.nic.control.stop();
        }
        self.unplug([ring / 2]);
        let config = self.nic.pairs.get_mut(ring / 2)?.rings.get_mut(ring % 2)?.take();
        config.map(|config| config.position)
    }

    fn set_mtu(&mut self, mtu: u16) {
        self.nic.mtu = Some(mtu);
    }

    fn set_mac(&mut self, mac: [u8; 6]) {
        self.nic.control.asked.filter.mac = mac;
        self.nic.control.publish();
        self.show_address();
    }

    /// Sent by the worker of the first pair: it passes filters and is counted as the guest's own.
    fn send_rarp(&mut self, mac: [u8; 6]) {
        if !self.nic.announce(mac, self.binding) {
            self.nic.rarp = Some((mac, 1));
        }
    }

    fn set_status(&mut self, status: u8) {
        if status == 0 {
            self.forget();
        }
    }

    fn reset(&mut self) {
        self.clear();
        self.nic.accepted = None;
        self.nic.stopped = None;
    }
}

#[cfg(test)]
mod tests;
