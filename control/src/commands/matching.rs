//! Filters with a pcap filter expression: `filter-match`, and `filter=` of `filter-dump`. Neither is in QEMU.

use super::args::Args;
use super::object::MAXLEN;
use super::pending::Pending;
use super::state::empty;
use super::{Outcome, State};
use crate::apply::FilterKind;
use crate::apply::binding::OPEN_LIMIT;
use crate::apply::jobs::Product;
use crate::model::FilterId;
use crate::model::qom::{ChardevNode, Node, Tree};
use crate::qmp::error::QmpError;
use engine::filter::bpf::Program;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The own properties of a `filter-match`, from arguments that the schema has checked.
pub(super) fn properties(args: &Map<String, Value>) -> Result<Map<String, Value>, QmpError> {
    let (action, file) = (args.text("action"), args.maybe("file"));
    let refused = match (action, file, args.uint("maxlen")) {
        ("dump", None, _) => Some("Parameter 'file' is missing"),
        ("drop" | "pass", Some(_), _) => Some("'file' goes with action=dump only"),
        ("drop" | "pass", _, Some(_)) => Some("'maxlen' goes with action=dump only"),
        _ => None,
    };
    if let Some(desc) = refused {
        return Err(QmpError::generic(desc));
    }
    let mut own = Map::new();
    own.insert("match".into(), json!(args.text("match")));
    own.insert("action".into(), json!(action));
    let maxlen = args.uint("maxlen").and_then(|n| u32::try_from(n).ok()).unwrap_or(MAXLEN);
    own.insert("file".into(), json!(file.unwrap_or_default()));
    own.insert("maxlen".into(), json!(maxlen));
    own.insert("seen".into(), json!(0));
    own.insert("matched".into(), json!(0));
    Ok(own)
}

/// What is asked of the engine, by the own properties of a `filter-match`.
pub(super) fn kind(own: &Map<String, Value>) -> FilterKind {
    let text = |name: &str| own.maybe(name).unwrap_or_default().to_owned();
    match own.maybe("action") {
        Some("dump") => {
            let maxlen = own.uint("maxlen").and_then(|n| u32::try_from(n).ok()).unwrap_or(MAXLEN);
            FilterKind::Dump { file: text("file"), maxlen, filter: text("match") }
        }
        action => FilterKind::Match { expression: text("match"), pass: action == Some("pass") },
    }
}

/// An expression on its way into force.
pub(super) struct NewExpression {
    id: FilterId,
    filter: String,
    property: &'static str,
    text: String,
}

impl NewExpression {
    /// The filter's name.
    pub(super) fn filter(&self) -> &str {
        &self.filter
    }
}

impl State {
    /// The filter at a path, if there is one.
    fn filter_at(&self, path: &str) -> Option<(FilterId, String, &'static str)> {
        let chardevs: Vec<ChardevNode> = self.chardev_nodes();
        match (Tree { net: &self.net, chardevs: &chardevs }).resolve(path) {
            Ok(Node::Filter(filter)) => Some((filter.id, filter.name.clone(), filter.driver)),
            _ => None,
        }
    }

    /// `qom-set` of an expression: it is compiled off the control thread, and the reply comes when it is in force. Nothing for other
    /// properties and for what is no text.
    pub(super) fn qom_set_expression(&mut self, args: &Map<String, Value>) -> Option<Outcome> {
        let text = args.get("value").and_then(Value::as_str)?.to_owned();
        let (id, filter, driver) = self.filter_at(args.text("path"))?;
        let property = match (driver, args.text("property")) {
            ("filter-match", "match") => "match",
            ("filter-dump", "filter") => "filter",
            _ => return None,
        };
        let backends = Arc::clone(&self.binding.backends);
        let expression = text.clone();
        let job = move || Product::Program(backends.compile(&expression));
        Some(match self.binding.jobs.start(OPEN_LIMIT, job) {
            Ok(ticket) => {
                let new = NewExpression { id, filter, property, text };
                self.pending.insert(ticket, Pending::Expression(new));
                Outcome::Later(ticket)
            }
            Err(error) => {
                let desc = format!("filter '{filter}': no thread to compile its expression on: {error}");
                Err(QmpError::generic(desc)).into()
            }
        })
    }

    /// The expression is compiled: from the next burst on, workers match by it.
    pub(super) fn expression_compiled(
        &mut self,
        new: &NewExpression,
        result: Result<Program, QmpError>,
    ) -> Result<Value, QmpError> {
        let program = result?;
        let NewExpression { id, filter, property, text } = new;
        // It may have gone meanwhile, and another one have its name.
        let Some(there) = self.net.filter_mut(filter).filter(|there| there.id == *id) else {
            return Err(QmpError::device_not_found(filter));
        };
        there.own.insert((*property).into(), json!(text));
        if let Some(handle) = self.binding.filter(*id) {
            handle.select(if *property == "filter" && text.is_empty() { None } else { Some(program) });
        }
        Ok(empty())
    }

    /// Writes what filters counted into those of their properties that show it, before properties are read.
    pub(super) fn count_matches(&mut self) {
        let counting: Vec<_> = self
            .net
            .filters()
            .filter(|f| f.driver == "filter-match")
            .map(|f| (f.id, f.name.clone()))
            .collect();
        for (id, name) in counting {
            let Some(counters) = self.binding.filter(id).map(|handle| handle.counters()) else { continue };
            let Some(filter) = self.net.filter_mut(&name) else { continue };
            for (counter, frames) in counters {
                if let Some(shown) = filter.own.get_mut(counter) {
                    *shown = json!(frames);
                }
            }
        }
    }
}
