//! `object-del`: a filter goes when it holds nothing any more.

use crate::apply::Ticket;
use crate::commands::args::Args;
use crate::commands::pending::Pending;
use crate::commands::state::empty;
use crate::commands::{Outcome, State};
use crate::model::{ClientId, Filter};
use crate::qmp::error::QmpError;
use engine::Attachments;
use serde_json::{Map, Value};

impl State {
    /// The reply comes when the filter has let go of what it held, and its file is complete.
    pub(in crate::commands) fn object_del(&mut self, args: &Map<String, Value>) -> Outcome {
        let name = args.text("id");
        if let Some(outcome) = self.plain_del(name) {
            return outcome;
        }
        let Some(filter) = self.net.filter_named(name) else {
            return Err(QmpError::generic(format!("object '{name}' not found"))).into();
        };
        let (id, handle) = (filter.id, self.binding.filter(filter.id).cloned());
        if let (Some(handle), true) = (handle, filter.holds()) {
            // It stays where it is until all is on its way, or what comes now would overtake that.
            handle.set(false, true, true);
            // In force on all workers: from now on it keeps only what comes behind what it holds.
            if let Err(error) = self.binding.commit(&self.net, Attachments::default()) {
                return Err(error).into();
            }
            self.binding.wake_all();
            if handle.held() != 0
                && let Ok(ticket) = self.binding.drain(vec![handle])
            {
                self.pending.insert(ticket, Pending::Drain(name.to_owned()));
                return Outcome::Later(ticket);
            }
        }
        let removed = self.net.remove_filter(name);
        match self.binding.commit(&self.net, Attachments::default()) {
            Ok(retired) => {
                self.count_lost(removed.as_slice());
                self.close(retired, None, &[id])
            }
            Err(error) => Err(error).into(),
        }
    }

    /// Lets the filters of a client that goes hand on what they hold; a ticket where that takes some time.
    pub(in crate::commands) fn let_go(
        &mut self,
        client: Option<ClientId>,
    ) -> Result<Option<Ticket>, QmpError> {
        let filters = client.and_then(|id| self.net.client(id)).map(|client| client.filters.as_slice());
        let holding =
            filters.unwrap_or_default().iter().filter(|id| self.net.filter(**id).is_some_and(Filter::holds));
        let handles: Vec<_> = holding.filter_map(|id| self.binding.filter(*id).cloned()).collect();
        if handles.is_empty() {
            return Ok(None);
        }
        handles.iter().for_each(|handle| handle.set(false, true, true));
        // In force on all workers, as with one that goes alone.
        self.binding.commit(&self.net, Attachments::default())?;
        self.binding.wake_all();
        if handles.iter().all(|handle| handle.held() == 0) {
            return Ok(None);
        }
        Ok(self.binding.drain(handles).ok())
    }

    /// No worker has these filters any more: counts the frames that go with them, which no counter of an object can tell when it is gone.
    pub(in crate::commands) fn count_lost(&mut self, filters: &[Filter]) {
        for filter in filters {
            let held = self.binding.filter(filter.id).map_or(0, |handle| handle.held());
            if held != 0 {
                tracing::warn!("filter '{}': {held} frames that it held are lost", filter.name);
            }
            self.filter_gone += held;
        }
    }

    /// The filter holds nothing any more, or has had its time.
    pub(in crate::commands) fn filter_drained(&mut self, name: &str) -> Result<Value, QmpError> {
        let Some(filter) = self.net.remove_filter(name) else {
            return Err(QmpError::generic(format!("object '{name}' not found")));
        };
        let retired = self.binding.commit(&self.net, Attachments::default())?;
        self.count_lost(std::slice::from_ref(&filter));
        self.end_chardevs(name);
        // It has no file to complete.
        let _ = self.binding.close(retired, None, &[filter.id]);
        Ok(empty())
    }
}
