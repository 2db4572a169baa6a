//! `query-colo-compare`: comparisons with their counters.

use super::State;
use super::object::property_of;
use engine::colo::Role;
use serde_json::{Value, json};

impl State {
    /// All of them, oldest first.
    pub(super) fn query_colo_compare(&self) -> Value {
        let describe = |object: &crate::model::Plain| {
            let compare = self.colos.compare(object.number)?;
            let counters: Vec<Value> = compare
                .counters()
                .into_iter()
                .map(|(name, number)| json!({"name": name, "number": number}))
                .collect();
            let detached: Vec<&str> =
                Role::ALL.into_iter().filter(|role| compare.is_detached(*role)).map(property_of).collect();
            Some(json!({"id": object.name, "counters": counters, "detached": detached}))
        };
        self.net.plains().filter_map(describe).collect()
    }
}
