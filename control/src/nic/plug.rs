//! Queue pairs of a nic on workers: what a session starts and stops.

use super::control::Served;
use super::info;
use super::nics::{NicState, stands_by};
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

/// A nic with what its rings need to run: what a session sees as its device.
pub(super) struct Plug<'a> {
    pub(super) client: ClientId,
    pub(super) nic: &'a mut NicState,
    pub(super) net: &'a mut Net,
    pub(super) binding: &'a mut Binding,
}

impl Plug<'_> {
    /// Takes a pair off its worker; its rings note where they stand.
    fn unplug(&mut self, pair: usize) {
        let Some(running) = self.nic.pairs.get_mut(pair).and_then(|p| p.queue.take()) else { return };
        self.set_queues();
        match self.binding.commit(self.net, Attachments::default()) {
            Ok(retired) => drop(retired),
            Err(error) => tracing::error!("{error}"),
        }
        let Some(pair) = self.nic.pairs.get_mut(pair) else { return };
        for (config, shared) in pair.rings.iter_mut().zip(&running.shared) {
            if let (Some(config), Some(position)) = (config, shared.position()) {
                config.position = position;
            }
        }
    }

    /// Puts a pair that is in use and has at least one ring onto a worker.
    fn plug(&mut self, pair: usize) -> Result<(), String> {
        if pair >= self.nic.pairs_in_use() && pair < self.nic.pairs.len() {
            return Ok(());
        }
        let Some(place) = self.nic.pairs.get_mut(pair) else {
            return Err(format!("there is no pair {pair}"));
        };
        let [receive, transmit] = &place.rings;
        if receive.is_none() && transmit.is_none() {
            return Ok(());
        }
        let wake = self.nic.wake.clone();
        let halves = nic::pair(transmit.as_ref(), receive.as_ref(), &wake, &self.nic.control.published)
            .map_err(|e| e.to_string())?;
        let (rx, tx) = (halves.rx, halves.tx);
        let counters = place.counters.clone();
        let (queue, attach) = self.binding.place_one(Pair { rx, tx, fd: -1 }, counters);
        place.queue = Some(Running { queue, shared: [halves.tx_shared, halves.rx_shared] });
        self.set_queues();
        self.binding.commit(self.net, attach).map(drop).map_err(|e| e.desc)
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

    /// Runs the pairs that the driver uses, and no others.
    fn use_pairs(&mut self) {
        let used = self.nic.pairs_in_use();
        (used..self.nic.pairs.len()).for_each(|pair| self.unplug(pair));
        for pair in 0..used {
            if self.nic.pairs.get(pair).is_some_and(|p| !p.runs())
                && let Err(error) = self.plug(pair)
            {
                tracing::error!("nic: {error}");
            }
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
        for pair in 0..self.nic.pairs.len() {
            self.unplug(pair);
            if let Some(pair) = self.nic.pairs.get_mut(pair) {
                pair.rings = [None, None];
            }
        }
        self.nic.control.stop();
        self.nic.control.reset(self.nic.properties.mac);
        self.show_address();
    }
}

impl Device for Plug<'_> {
    fn features(&self) -> u64 {
        self.nic.properties.features
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
        NetConfig { mac: filter.mac, status: config.status | u16::from(*announce) << 1, ..config }
    }

    fn set_features(&mut self, accepted: u64) {
        self.nic.accepted = Some(accepted);
        self.nic.standby = stands_by(accepted);
        self.nic.control.agree(accepted, self.nic.properties.mac);
        self.show_address();
    }

    fn start(&mut self, ring: usize, config: RingConfig) -> Result<(), String> {
        if self.nic.control_ring() == Some(ring) {
            self.nic.control.start(config, self.nic.properties.mac)?;
            self.show_address();
            self.use_pairs();
            self.call_again();
            return Ok(());
        }
        let pair = ring / 2;
        self.unplug(pair);
        if let Some(place) = self.nic.pairs.get_mut(pair)
            && let Some(slot) = place.rings.get_mut(ring % 2)
        {
            *slot = Some(config);
        }
        self.plug(pair)
    }

    fn stop(&mut self, ring: usize) -> Option<Position> {
        if self.nic.control_ring() == Some(ring) {
            return self.nic.control.stop();
        }
        let pair = ring / 2;
        self.unplug(pair);
        let config = self.nic.pairs.get_mut(pair)?.rings.get_mut(ring % 2)?.take();
        if let Err(error) = self.plug(pair) {
            tracing::error!("nic: {error}");
        }
        config.map(|config| config.position)
    }

    fn set_mtu(&mut self, mtu: u16) {
        self.nic.properties.mtu = mtu;
    }

    fn set_mac(&mut self, mac: [u8; 6]) {
        self.nic.control.asked.filter.mac = mac;
        self.nic.control.publish();
        self.show_address();
    }

    // The engine has no way to send a frame of our own toward a peer, so neighbours learn from the guest's next frame.
    fn send_rarp(&mut self, _mac: [u8; 6]) {}

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
