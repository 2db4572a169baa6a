//! `netdev_add` and `netdev_del` (QEMU `net/net.c`).

pub(super) mod af_xdp;
mod bridge;
mod dgram;
mod guestfwd;
mod host;
mod hubport;
mod l2tpv3;
mod netmap;
mod opening;
mod passt;
mod removal;
mod socket;
mod switchport;
pub(super) mod tap;
mod user;
mod vde;
mod vhost_vdpa;
mod vxlan;

pub(super) use opening::Opening;
pub(super) use passt::NewPasst;
pub(super) use socket::Way;

use super::args::Args;
use super::{Outcome, State};
use crate::apply::jobs::Product;
use crate::options::id::well_formed;
use crate::qmp::error::QmpError;
use crate::qmp::events::Event;
use serde_json::{Map, Value};
use std::sync::Arc;

/// The types that there are.
const BUILT: &[&str] = &[
    "af-xdp",
    "bridge",
    "dgram",
    "hubport",
    "l2tpv3",
    "netmap",
    "nic",
    "passt",
    "socket",
    "stream",
    "switchport",
    "tap",
    "user",
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
            "netmap" => self.add_netmap(args),
            "bridge" => self.add_bridge(args),
            "user" => self.add_user(args),
            "vde" => self.add_vde(args),
            "passt" => self.add_passt(args),
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
}
