//! `query-filter`: the filters with their counters.

use super::State;
use super::args::Args;
use crate::model::Filter;
use crate::qmp::error::QmpError;
use serde_json::{Map, Value, json};

impl State {
    /// All filters, or the one of that id.
    pub(super) fn query_filter(&self, args: &Map<String, Value>) -> Result<Value, QmpError> {
        let asked = args.maybe("id");
        let wanted = |filter: &&Filter| asked.is_none_or(|id| id == filter.name);
        let all: Vec<Value> = self.net.filters().filter(wanted).map(|f| self.describe_filter(f)).collect();
        match asked {
            Some(id) if all.is_empty() => Err(QmpError::generic(format!("filter '{id}' not found"))),
            _ => Ok(all.into()),
        }
    }

    fn describe_filter(&self, filter: &Filter) -> Value {
        let counters = self.binding.filter(filter.id).map(|handle| handle.counters()).unwrap_or_default();
        let counters: Vec<Value> =
            counters.into_iter().map(|(name, frames)| json!({"name": name, "frames": frames})).collect();
        // The netdev that it sits on: a later change of the property does not move it.
        let netdev = self.net.client(filter.client).map(|client| client.name.clone());
        json!({
            "id": filter.name,
            "qom-type": filter.driver,
            "netdev": netdev,
            "queue": filter.options.queue.name(),
            "status": if filter.options.on { "on" } else { "off" },
            "counters": counters,
        })
    }
}
