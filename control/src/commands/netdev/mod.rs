//! `netdev_add` and `netdev_del` (QEMU `net/net.c`).

pub(super) mod af_xdp;
mod bridge;
mod dgram;
mod host;
mod hubport;
mod l2tpv3;
mod opening;
mod socket;
mod switchport;
pub(super) mod tap;
mod vde;
mod vhost_vdpa;
mod vxlan;

pub(super) use opening::Opening;
pub(super) use socket::Way;

use super::args::Args;
use super::pending::Pending;
use super::state::empty;
use super::{Outcome, State};
use crate::apply::jobs::Product;
use crate::model::{Change, ClientId, FilterId};
use crate::options::id::well_formed;
use crate::qmp::error::QmpError;
use crate::qmp::events::Event;
use engine::{Attachments, Retired};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The types that there are.
const BUILT: &[&str] = &[
    "af-xdp",
    "bridge",
    "dgram",
    "hubport",
    "l2tpv3",
    "nic",
    "socket",
    "stream",
    "switchport",
    "tap",
    "vde",
    "vhost-user",
    "vhost-vdpa",
    "vxlan",
];

impl State {
    /// Checks in QEMU's order: identifier, backend built, name free, then the backend's own rules.
    pub(super) fn netdev_add(
        &mut self,
        monitor: u64,
        args: Map<String, Value>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let name = args.text("id");
        if !well_formed(name) {
            return Err(QmpError::generic("Parameter 'id' expects an identifier")).into();
        }
        let driver = args.text("type");
        if !BUILT.contains(&driver) {
            let desc = format!("network backend '{driver}' is not compiled into this binary");
            return Err(QmpError::generic(desc)).into();
        }
        if let Err(error) = self.net.check_free(name) {
            return Err(error.into()).into();
        }
        match driver {
            "hubport" => self.add_hubport(args).into(),
            "nic" => self.add_nic(monitor, args, events).into(),
            "switchport" => self.add_switchport(args).into(),
            "vhost-user" => self.add_vhost_user(args, events).into(),
            "af-xdp" => self.add_af_xdp(monitor, args),
            "dgram" => self.add_dgram(monitor, args),
            "socket" => self.add_socket(monitor, args),
            "stream" => self.add_stream(monitor, args).into(),
            "l2tpv3" => self.add_l2tpv3(args),
            "vxlan" => self.add_vxlan(args),
            "bridge" => self.add_bridge(args),
            "vde" => self.add_vde(args),
            "vhost-vdpa" => self.add_vhost_vdpa(monitor, args),
            _ => self.add_tap(monitor, args),
        }
    }

    fn add_tap(&mut self, monitor: u64, args: Map<String, Value>) -> Outcome {
        let checked = tap::check(&args).and_then(|()| tap::options(&args, &mut self.fds, monitor));
        let (options, opening) = match checked {
            Ok(options) => {
                let opening = tap::opening(args, &options);
                (options, opening)
            }
            Err(error) => return Err(error).into(),
        };
        let backends = Arc::clone(&self.binding.backends);
        let down = opening.down.clone();
        self.open(opening, move || {
            Product::Opened(backends.open_tap(options).map(|opened| opened.owing(down)))
        })
    }

    /// A tap by way of its helper.
    fn add_bridge(&mut self, args: Map<String, Value>) -> Outcome {
        let options = bridge::options(&args);
        let opening = bridge::opening(args, &options);
        let backends = Arc::clone(&self.binding.backends);
        self.open(opening, move || Product::Opened(backends.open_tap(options)))
    }

    /// Its workers are chosen first: frame memory belongs to a worker.
    fn add_af_xdp(&mut self, monitor: u64, args: Map<String, Value>) -> Outcome {
        let mut options = match af_xdp::options(&args, &mut self.fds, monitor) {
            Ok(options) => options,
            Err(error) => return Err(error).into(),
        };
        options.busy_poll = self.binding.plane.polls();
        options.workers.iter_mut().for_each(|worker| *worker = self.binding.plane.place());
        let opening = af_xdp::opening(args, &options);
        let backends = Arc::clone(&self.binding.backends);
        self.open(opening, move || Product::Opened(backends.open_af_xdp(options)))
    }

    fn add_l2tpv3(&mut self, args: Map<String, Value>) -> Outcome {
        let options = match l2tpv3::options(&args) {
            Ok(options) => options,
            Err(error) => return Err(error).into(),
        };
        let backends = Arc::clone(&self.binding.backends);
        self.open(l2tpv3::opening(args), move || Product::Opened(backends.open_l2tpv3(options)))
    }

    fn add_vxlan(&mut self, args: Map<String, Value>) -> Outcome {
        let options = match vxlan::options(&args) {
            Ok(options) => options,
            Err(error) => return Err(error).into(),
        };
        let backends = Arc::clone(&self.binding.backends);
        self.open(vxlan::opening(args), move || Product::Opened(backends.open_vxlan(options)))
    }

    /// Removes a netdev with its filters; the reply comes when its files are closed and its script has run.
    pub(super) fn netdev_del(&mut self, args: &Map<String, Value>, events: &mut Vec<Event>) -> Outcome {
        if self.net.netdev(args.text("id")).is_none()
            && let Some(removed) = self.del_nic(args.text("id"))
        {
            return removed.into();
        }
        let removed = match self.net.remove(args.text("id")) {
            Ok(removed) => removed,
            Err(error) => return Err(error.into()).into(),
        };
        self.forget_vhost_user(removed.client.id);
        self.af_xdps.remove(removed.client.id);
        self.streams.remove(removed.client.id);
        self.vdes.remove(removed.client.id);
        self.vdpas.remove(removed.client.id);
        if removed.change == Change::Nothing && removed.filters.is_empty() {
            return Ok(empty()).into();
        }
        let retired = match self.binding.commit(&self.net, Attachments::default()) {
            Ok(retired) => retired,
            Err(error) => return Err(error).into(),
        };
        self.settle_links(events);
        if removed.client.queues().is_empty() && removed.filters.is_empty() {
            return Ok(empty()).into();
        }
        self.tell_lost(&removed.filters);
        let filters: Vec<FilterId> = removed.filters.iter().map(|f| f.id).collect();
        self.close(retired, Some(removed.client.id), &filters)
    }

    /// Closes what a commit retired; the reply waits for it.
    pub(super) fn close(
        &mut self,
        retired: Retired,
        gone: Option<ClientId>,
        filters: &[FilterId],
    ) -> Outcome {
        match self.binding.close(retired, gone, filters) {
            Ok(ticket) => {
                self.pending.insert(ticket, Pending::Close);
                Outcome::Later(ticket)
            }
            Err(error) => {
                tracing::warn!("no thread to close on: {error}");
                Ok(empty()).into()
            }
        }
    }
}
