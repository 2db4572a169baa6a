//! The counters for `-metrics`.

use super::State;
use crate::observe::{FilterCounters, Port, openmetrics};

impl State {
    /// All counters since the start, as OpenMetrics text.
    #[must_use]
    pub fn metrics(&self) -> String {
        let stats = self.stats();
        let all = self.ports(&stats);
        let ports: Vec<Port<'_>> = all
            .iter()
            .map(|(client, queues)| Port { name: &client.name, driver: client.driver(), queues })
            .collect();
        let filters: Vec<FilterCounters<'_>> = self
            .net
            .filters()
            .filter_map(|filter| {
                let counters = self.binding.filter(filter.id)?.counters();
                let port = &self.net.client(filter.client)?.name;
                Some(FilterCounters { object: &filter.name, driver: filter.driver, port, counters })
            })
            .collect();
        openmetrics(stats.tsc_hz, &stats.workers, &ports, &filters, self.filter_gone)
    }
}
