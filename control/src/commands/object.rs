//! `object-add` and `object-del`: filters (QEMU `qom/object_interfaces.c`, `net/filter.c`).

use super::args::Args;
use super::pending::Pending;
use super::state::empty;
use super::{Outcome, State};
use crate::apply::Dump;
use crate::apply::binding::OPEN_LIMIT;
use crate::apply::jobs::Product;
use crate::model::FilterOptions;
use crate::model::qom::property::check_number;
use crate::options::id::well_formed;
use crate::qmp::error::QmpError;
use engine::Attachments;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A filter whose file is being opened.
#[derive(Debug)]
pub(super) struct NewFilter {
    pub name: String,
    pub driver: &'static str,
    pub options: FilterOptions,
    pub own: Map<String, Value>,
}

/// Bytes that filter-dump keeps of each frame by default.
const MAXLEN: u32 = 65536;

impl State {
    /// Checks in QEMU's order: identifier, values of properties, id free, place in the chain, the filter's own set-up.
    pub(super) fn object_add(&mut self, args: &Map<String, Value>) -> Outcome {
        match self.begin_object(args) {
            Ok(filter) => self.open_filter(filter),
            Err(error) => Err(error).into(),
        }
    }

    fn begin_object(&self, args: &Map<String, Value>) -> Result<NewFilter, QmpError> {
        let (name, driver) = (args.text("id"), args.text("qom-type"));
        if !well_formed(name) {
            return Err(QmpError::generic("Parameter 'id' expects an identifier"));
        }
        if driver == "colo-compare" {
            self.check_object_free(name)?;
            return Err(not_built(driver));
        }
        let options = FilterOptions::from_arguments(args)?;
        for number in ["maxlen", "interval"] {
            if let Some(value) = args.uint(number) {
                check_number(driver, number, u32::try_from(value).unwrap_or(u32::MAX))?;
            }
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
        if driver == "filter-match" {
            let own = super::matching::properties(args, MAXLEN)?;
            return Ok(NewFilter { name: name.to_owned(), driver: "filter-match", options, own });
        }
        if driver != "filter-dump" {
            self.check_chardevs(driver, args)?;
            return Err(not_built(driver));
        }
        let maxlen = args.uint("maxlen").and_then(|n| u32::try_from(n).ok()).unwrap_or(MAXLEN);
        let mut own = Map::new();
        own.insert("maxlen".into(), json!(maxlen));
        own.insert("file".into(), json!(args.text("file")));
        if let Some(filter) = args.maybe("filter") {
            own.insert("filter".into(), json!(filter));
        }
        Ok(NewFilter { name: name.to_owned(), driver: "filter-dump", options, own })
    }

    fn check_object_free(&self, name: &str) -> Result<(), QmpError> {
        if self.net.filter_named(name).is_some() || self.new_objects.contains(name) {
            let desc = format!("attempt to add duplicate property '{name}' to object (type 'container')");
            return Err(QmpError::generic(desc));
        }
        Ok(())
    }

    /// The chardevs that mirror and redirector name (QEMU `net/filter-mirror.c`).
    fn check_chardevs(&self, driver: &str, args: &Map<String, Value>) -> Result<(), QmpError> {
        let check = |prefix: &str, id: Option<&str>| match id {
            Some(id) if !self.chardevs.list().iter().any(|c| c.label == id) => {
                let mut error = QmpError::device_not_found(id);
                error.desc.insert_str(0, prefix);
                Err(error)
            }
            _ => Ok(()),
        };
        let (indev, outdev) = (args.maybe("indev"), args.maybe("outdev"));
        match driver {
            "filter-mirror" => check("", outdev),
            "filter-redirector" => {
                if indev.is_none() && outdev.is_none() {
                    let desc = "filter redirector needs 'indev' or 'outdev' at least one property set";
                    return Err(QmpError::generic(desc));
                }
                if indev == outdev {
                    let desc = "'indev' and 'outdev' could not be same for filter redirector";
                    return Err(QmpError::generic(desc));
                }
                check("IN ", indev)?;
                check("OUT ", outdev)
            }
            _ => Ok(()),
        }
    }

    fn open_filter(&mut self, filter: NewFilter) -> Outcome {
        let backends = Arc::clone(&self.binding.backends);
        let plane = &self.binding.plane;
        let request = super::matching::Request::of(&filter.own, plane.now(), plane.workers());
        let job = move || Product::Dump(request.open(&*backends));
        match self.binding.jobs.start(OPEN_LIMIT, job) {
            Ok(ticket) => {
                self.new_objects.insert(filter.name.clone());
                self.pending.insert(ticket, Pending::Filter(filter));
                Outcome::Later(ticket)
            }
            Err(error) => {
                Err(QmpError::generic(format!("filter '{}': no thread to open it on: {error}", filter.name)))
                    .into()
            }
        }
    }

    /// The file is open: the filter enters the chain and the engine. Its place is looked for anew, since the netdev
    /// or the filter beside it may have gone meanwhile.
    pub(super) fn filter_opened(&mut self, filter: NewFilter, dump: Dump) -> Result<Value, QmpError> {
        let NewFilter { name, driver, options, own } = filter;
        self.new_objects.remove(&name);
        let added =
            self.net.place(&options).map(|place| self.net.insert_filter(&name, driver, place, options, own));
        let id = match added {
            Ok(Some(id)) => id,
            failed => {
                self.binding.discard(Product::Dump(Ok(dump)));
                failed?;
                return Err(QmpError::generic("Parameter 'netdev' expects a network backend id"));
            }
        };
        let attach = Attachments { filters: vec![(id, dump.instances)], ..Attachments::default() };
        if let Err(error) = self.binding.commit(&self.net, attach) {
            self.net.remove_filter(&name);
            return Err(error);
        }
        if let Some(file) = dump.file {
            self.binding.keep_dump(id, file);
        }
        if let Some(held) = dump.held {
            self.binding.keep_match(id, held);
        }
        Ok(empty())
    }

    /// The reply comes when the filter's file is complete.
    pub(super) fn object_del(&mut self, args: &Map<String, Value>) -> Outcome {
        let name = args.text("id");
        let Some(filter) = self.net.remove_filter(name) else {
            return Err(QmpError::generic(format!("object '{name}' not found"))).into();
        };
        match self.binding.commit(&self.net, Attachments::default()) {
            Ok(retired) => self.close(retired, None, &[filter.id]),
            Err(error) => Err(error).into(),
        }
    }
}

fn not_built(driver: &str) -> QmpError {
    QmpError::generic(format!("object type '{driver}' is not compiled into this binary"))
}
