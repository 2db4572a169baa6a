//! `object-add`: filters (QEMU `qom/object_interfaces.c`, `net/filter.c`).

mod channels;
mod colo;
mod iothread;
mod removal;
mod request;

pub(super) use channels::Channels;
pub(super) use colo::property_of;
pub(super) use request::MAXLEN;

use super::args::Args;
use super::pending::Pending;
use super::state::empty;
use super::{Outcome, State, matching};
use crate::apply::binding::OPEN_LIMIT;
use crate::apply::jobs::Product;
use crate::apply::{FilterKind, FilterRequest, OpenFilter};
use crate::model::FilterOptions;
use crate::model::qom::property::check_number;
use crate::options::id::well_formed;
use crate::qmp::error::QmpError;
use engine::Attachments;
use serde_json::{Map, Value};
use std::sync::Arc;

/// A filter that is being made.
#[derive(Debug)]
pub(super) struct NewFilter {
    pub name: String,
    pub driver: &'static str,
    pub options: FilterOptions,
    pub own: Map<String, Value>,
}

impl State {
    /// Checks in QEMU's order: identifier, values of properties, id free, place in the chain, the filter's own set-up.
    pub(super) fn object_add(&mut self, args: &Map<String, Value>) -> Outcome {
        if let Some(outcome) = self.plain_add(args) {
            return outcome;
        }
        match self.begin_object(args) {
            Ok((kind, filter)) => self.open_filter(kind, filter),
            Err(error) => Err(error).into(),
        }
    }

    fn begin_object(&mut self, args: &Map<String, Value>) -> Result<(FilterKind, NewFilter), QmpError> {
        let (name, driver) = (args.text("id"), args.text("qom-type"));
        if !well_formed(name) {
            return Err(QmpError::generic("Parameter 'id' expects an identifier"));
        }
        let options = FilterOptions::from_arguments(args)?;
        for number in ["maxlen", "interval"] {
            if let Some(value) = args.uint(number) {
                check_number(driver, number, u32::try_from(value).unwrap_or(u32::MAX))?;
            }
        }
        if driver == "filter-replay" && args.flag("pace").is_some() && args.maybe("file").is_none() {
            return Err(QmpError::generic("'pace' goes with 'file' only"));
        }
        self.check_object_free(name)?;
        self.net.place(&options).map_err(|error| {
            let mut error = QmpError::from(error);
            // The object itself is there before it is complete, on no netdev yet.
            if error.desc == format!("filter '{name}' not found") {
                error.desc = format!("filter '{name}' belongs to a different netdev");
            }
            error
        })?;
        let read = if driver == "filter-match" {
            let own = matching::properties(args)?;
            Some(("filter-match", matching::kind(&own), own))
        } else {
            self.read_mirror(driver, args).or_else(|| request::read(driver, args))
        };
        self.claim_chardevs(name, driver, args)?;
        let (driver, kind, own) = read.ok_or_else(|| not_built(driver))?;
        Ok((kind, NewFilter { name: name.to_owned(), driver, options, own }))
    }

    fn check_object_free(&self, name: &str) -> Result<(), QmpError> {
        if self.net.filter_named(name).is_some()
            || self.net.plain(name).is_some()
            || self.new_objects.contains(name)
        {
            let desc = format!("attempt to add duplicate property '{name}' to object (type 'container')");
            return Err(QmpError::generic(desc));
        }
        Ok(())
    }

    fn open_filter(&mut self, kind: FilterKind, filter: NewFilter) -> Outcome {
        let backends = Arc::clone(&self.binding.backends);
        let plane = &self.binding.plane;
        let FilterOptions { on, queue, .. } = filter.options;
        let (now, workers) = (plane.now(), plane.workers());
        let home = self.home(&filter.options);
        let request = FilterRequest { kind, on, rx: queue.rx(), tx: queue.tx(), now, workers, home };
        let job = move || Product::Filter(backends.open_filter(&request));
        match self.binding.jobs.start(OPEN_LIMIT, job) {
            Ok(ticket) => {
                self.new_objects.insert(filter.name.clone());
                self.pending.insert(ticket, Pending::Filter(filter));
                Outcome::Later(ticket)
            }
            Err(error) => {
                self.forget_chardevs(&filter.name);
                Err(QmpError::generic(format!("filter '{}': no thread to open it on: {error}", filter.name)))
                    .into()
            }
        }
    }

    /// The filter is made: it enters the chain and the engine. Its place is looked for anew, since the netdev
    /// or the filter beside it may have gone meanwhile.
    pub(super) fn filter_opened(&mut self, filter: NewFilter, made: OpenFilter) -> Result<Value, QmpError> {
        let NewFilter { name, driver, options, own } = filter;
        self.new_objects.remove(&name);
        let added =
            self.net.place(&options).map(|place| self.net.insert_filter(&name, driver, place, options, own));
        let id = match added {
            Ok(Some(id)) => id,
            failed => {
                self.forget_chardevs(&name);
                self.binding.discard(Product::Filter(Ok(made)));
                failed?;
                return Err(QmpError::generic("Parameter 'netdev' expects a network backend id"));
            }
        };
        if let Some(handle) = &made.handle {
            // Before it is in force: a frame that it takes away has somewhere to go.
            self.join_chardevs(&name, id, handle);
        }
        let attach = Attachments { filters: vec![(id, made.instances)], ..Attachments::default() };
        if let Err(error) = self.binding.commit(&self.net, attach) {
            self.net.remove_filter(&name);
            self.end_chardevs(&name);
            return Err(error);
        }
        if let Some(handle) = made.handle {
            self.binding.keep_filter(id, handle);
            self.binding.tell_headers(&self.net);
        }
        Ok(empty())
    }
}

fn not_built(driver: &str) -> QmpError {
    QmpError::generic(format!("object type '{driver}' is not compiled into this binary"))
}
