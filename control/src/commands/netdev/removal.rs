//! `netdev_del`.

use crate::commands::args::Args;
use crate::commands::pending::{Leaving, Pending};
use crate::commands::state::empty;
use crate::commands::{Outcome, State};
use crate::model::{Change, ClientId, FilterId};
use crate::qmp::events::Event;
use engine::{Attachments, Retired};
use serde_json::{Map, Value};

impl State {
    /// Removes a netdev with its filters; the reply comes when its files are closed and its script has run. Filters go first, as in QEMU: what they hold
    /// is on its way before the netdev is gone.
    pub(in crate::commands) fn netdev_del(
        &mut self,
        args: &Map<String, Value>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let name = args.text("id");
        let client = self.net.netdev(name).map(|netdev| netdev.id).or_else(|| self.listening_nic(name));
        match self.let_go(client) {
            Err(error) => Err(error).into(),
            Ok(Some(ticket)) => {
                self.pending.insert(ticket, Pending::Leave(Leaving::Netdev, args.clone()));
                Outcome::Later(ticket)
            }
            Ok(None) => self.netdev_leaves(args, events),
        }
    }

    /// `netdev_del`, when nothing is held any more.
    pub(in crate::commands) fn netdev_leaves(
        &mut self,
        args: &Map<String, Value>,
        events: &mut Vec<Event>,
    ) -> Outcome {
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
        self.passts.remove(removed.client.id);
        self.vdpas.remove(removed.client.id);
        self.vhost_nets.remove(removed.client.id);
        let leaving = self.users.remove(removed.client.id);
        if leaving.is_some() {
            self.forget_guest_forwards(args.text("id"));
        }
        if removed.change == Change::Nothing && removed.filters.is_empty() {
            return Ok(empty()).into();
        }
        let retired = match self.binding.commit(&self.net, Attachments::default()) {
            Ok(retired) => retired,
            Err(error) => return Err(error).into(),
        };
        self.settle_links(events);
        let process = self.binding.has_process(removed.client.id);
        if removed.client.queues().is_empty() && removed.filters.is_empty() && !process {
            return Ok(empty()).into();
        }
        self.count_lost(&removed.filters);
        if let Some(leaving) = leaving {
            self.binding.keep(removed.client.id, leaving);
        }
        let filters: Vec<FilterId> = removed.filters.iter().map(|f| f.id).collect();
        self.close(retired, Some(removed.client.id), &filters)
    }

    /// Closes what a commit retired; the reply waits for it.
    pub(in crate::commands) fn close(
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
